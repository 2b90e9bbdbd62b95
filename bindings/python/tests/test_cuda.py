"""On a CUDA GPU, with the frameworks that are installed: PyTorch, CuPy and JAX arrays in, results
on the same device, on their stream, without a copy.

Needs a GPU and PyTorch. pytest says which is missing; run as a program it needs no pytest.
"""

import contextlib
import importlib
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import attn


def missing():
    """Why these tests cannot run here; "" if they can."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return "PyTorch is not installed"
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA GPU"
    try:
        attn.Context("cuda")
    except attn.BackendUnavailableError as error:
        return str(error)
    return ""


WHY_NOT = missing()
try:
    import pytest
except ImportError:
    if __name__ != "__main__":
        raise
else:
    if WHY_NOT and __name__ != "__main__":
        pytest.skip(WHY_NOT, allow_module_level=True)

if not WHY_NOT:
    import torch

# Of the largest element: fp32 results are those of fp32 products; 16-bit ones are rounded once.
TOLERANCE = {"float32": 2.0**-17, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@contextlib.contextmanager
def raises(kind, words):
    """As pytest.raises, where that may be missing."""
    try:
        yield
    except kind as error:
        assert words in str(error), f"{error} does not say {words!r}"
    else:
        raise AssertionError(f"no {kind.__name__}")


def random(*shape, dtype=None, scale=1.0):
    return (torch.randn(*shape, device="cuda") * scale).to(dtype or torch.float16)


def qkv(b=2, sq=77, sk=130, hq=8, hkv=2, d=64, dv=None, dtype=None):
    return (random(b, sq, hq, d, dtype=dtype), random(b, sk, hkv, d, dtype=dtype),
            random(b, sk, hkv, dv or d, dtype=dtype))


def formula(q, k, v, causal=False, window=None, bias=None, sink=None):
    """One sequence in fp64: (out, lse)."""
    q, k, v = q.double(), k.double(), v.double()
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = torch.einsum("ihd,jhd->hij", q, k) * q.shape[-1] ** -0.5
    if bias is not None:
        s = s + bias.double()
    p = torch.arange(q.shape[0], device=q.device)[:, None] + k.shape[0] - q.shape[0]
    j = torch.arange(k.shape[0], device=q.device)[None]
    if causal:
        s = s.masked_fill(j > p, -torch.inf)
    if window is not None:
        s = s.masked_fill((j < p - window[0]) | (j > p + window[1]), -torch.inf)
    lse = s.logsumexp(-1)
    total = lse if sink is None else torch.logaddexp(lse, sink.double()[:, None])
    weights = (s - total[..., None]).exp().nan_to_num()
    return torch.einsum("hij,jhd->ihd", weights, v), lse


def close(actual, expected, tolerance=None):
    assert actual.is_cuda and actual.shape == expected.shape, (actual.shape, expected.shape)
    tolerance = tolerance or TOLERANCE[str(actual.dtype).partition(".")[2]]
    actual, expected = actual.double(), expected.double()
    finite = expected.isfinite()
    assert bool((actual[~finite] == expected[~finite]).all()), "infinities differ"
    size = max(float(expected[finite].abs().max()), 1.0) if bool(finite.any()) else 1.0
    worst = float((actual[finite] - expected[finite]).abs().max()) if bool(finite.any()) else 0.0
    assert worst <= tolerance * size, f"off by {worst}, allowed {tolerance * size}"


def check(q, k, v, **options):
    out, lse = attn.sdpa(q, k, v, return_lse=True, **options)
    assert type(out) is torch.Tensor and out.dtype == q.dtype and out.device == q.device
    causal, window = options.get("is_causal", False), options.get("window")
    bias, sink = options.get("bias"), options.get("sink")
    for b in range(q.shape[0]):
        o, l = formula(q[b], k[b], v[b], causal, window, None if bias is None else bias[b], sink)
        close(out[b], o)
        close(lse[b], l, TOLERANCE["float32"])


def each_dtype():
    return (torch.float32, torch.float16, torch.bfloat16)


def test_dense():
    for dtype in each_dtype():
        for options in ({}, {"is_causal": True}, {"window": (20, 3)}):
            check(*qkv(dtype=dtype), **options)
        check(*qkv(sq=1, sk=1000, dtype=dtype), is_causal=True)
        check(*qkv(d=40, dv=72, dtype=dtype), is_causal=True)
        check(*qkv(sq=3, sk=2, dtype=dtype), is_causal=True)  # a query without a key


def test_bias_and_sink():
    q, k, v = qkv()
    check(q, k, v, bias=random(2, 8, 77, 130), sink=random(8, dtype=torch.float32))


def test_masks_of_bools_are_packed_on_the_device():
    q, k, v = qkv()
    mask = torch.rand(77, 130, device="cuda") < 0.7
    bias = torch.zeros(2, 8, 77, 130, device="cuda").masked_fill(~mask, -torch.inf)
    close(attn.sdpa(q, k, v, mask=mask), attn.sdpa(q, k, v, bias=bias))


def test_strides():
    for layout in ("bshd", "bhsd"):
        q, k, v = (x.transpose(1, 2).contiguous() for x in qkv())
        q, k, v = q[..., ::1], k.flip(2), v.expand(2, -1, -1, -1)
        if layout == "bshd":
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = attn.sdpa(q, k, v, layout=layout)
        if layout == "bhsd":
            q, k, v, out = (x.transpose(1, 2) for x in (q, k, v, out))
        for b in range(2):
            close(out[b], formula(q[b], k[b], v[b])[0])


def test_no_copy():
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in qkv(4, 512, 512))
    attn.sdpa(q, k, v, is_causal=True)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = attn.sdpa(q, k, v, is_causal=True)
    call = list(attn.default_context((2, 0)).calls.values())[-1]
    results = out.numel() * out.element_size() + call.plan.workspace_bytes
    peak = torch.cuda.max_memory_allocated() - before
    assert peak <= results + 2 * 512, f"{peak} bytes beyond {results}: something was copied"


def test_ragged():
    for dtype in each_dtype():
        lengths_q, lengths_k = [5, 0, 130, 1], [9, 4, 130, 0]
        cu_q, cu_k = (torch.tensor([0, *x], device="cuda").cumsum(0).to(torch.int32)
                      for x in (lengths_q, lengths_k))
        q, k, v = (random(n, h, 64, dtype=dtype) for n, h in ((136, 8), (143, 2), (143, 2)))
        out, lse = attn.sdpa(q, k, v, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, max_seqlen_q=130,
                             max_seqlen_k=130, is_causal=True, return_lse=True)
        for b in range(4):
            rows, keys = (slice(int(cu[b]), int(cu[b + 1])) for cu in (cu_q, cu_k))
            o, l = formula(q[rows], k[keys], v[keys], True)
            close(out[rows], o)
            close(lse[:, rows], l, TOLERANCE["float32"])
    with raises(attn.InvalidArgumentError, "max_seqlen_q must be given"):
        attn.sdpa(q, k, v, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k)


def test_paged():
    for dtype in each_dtype():
        pool = random(2, 64, 16, 2, 64, dtype=dtype)
        table = torch.randperm(64, device="cuda").to(torch.int32).view(4, 16)
        used = torch.tensor([1, 256, 17, 100], device="cuda")  # int64: converted there
        q = random(4, 3, 8, 64, dtype=dtype)
        out = attn.sdpa(q, pool[0], pool[1], block_table=table, seqused_k=used, is_causal=True)
        indices = torch.cat([table[b, : -(-int(used[b]) // 16)] for b in range(4)])
        indptr = torch.tensor([0, 1, 17, 19, 26], dtype=torch.int32, device="cuda")
        last = torch.tensor([1, 16, 1, 4], dtype=torch.int32, device="cuda")
        csr = attn.sdpa(q, pool[0], pool[1], kv_page_indptr=indptr, kv_page_indices=indices,
                        kv_last_page_len=last, max_seqlen_k=256, is_causal=True)
        for b in range(4):
            k, v = (x[table[b].long()].reshape(256, 2, 64)[: int(used[b])] for x in pool)
            expected, _ = formula(q[b], k, v, True)
            close(out[b], expected)
            close(csr[b], expected)


def test_merge():
    q, k, v = qkv(1, 50, 128)
    parts = [attn.sdpa(q, k[:, s], v[:, s], return_lse=True)
             for s in (slice(0, 60), slice(60, 128))]
    out, lse = attn.merge(torch.stack([o[0] for o, _ in parts], 1),
                          torch.stack([l[0].T for _, l in parts], 1).contiguous())
    expected = formula(q[0], k[0], v[0])
    close(out, expected[0], 2 * TOLERANCE["float16"])
    close(lse.T, expected[1], 2 * TOLERANCE["float32"])


def test_dropout_with_the_state_on_the_device():
    q, k, v = qkv()
    state = torch.tensor([1234, 5], device="cuda")
    a, b = (attn.sdpa(q, k, v, dropout_p=0.3, rng_state=state) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, attn.sdpa(q, k, v))
    on_cpu = attn.sdpa(q.cpu(), k.cpu(), v.cpu(), dropout_p=0.3, rng_state=(1234, 5))
    close(a, on_cpu.cuda())


def test_tf32_is_a_permission():
    q, k, v = qkv(dtype=torch.float32)
    out = attn.sdpa(q, k, v, allow_tf32=True)
    for b in range(2):
        close(out[b], formula(q[b], k[b], v[b])[0], 2.0**-9)


def test_current_stream():
    q, k, v = qkv()
    expected = attn.sdpa(q, k, v, is_causal=True)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # some 50 ms
        q2 = q * 1
        out = attn.sdpa(q2, k, v, is_causal=True)
        done = torch.cuda.Event()
        done.record()
        assert not done.query(), "the call waited for the stream"
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    stream.synchronize()
    assert torch.equal(out, expected)


DESC = {"num_q_heads": 8, "num_kv_heads": 2, "head_dim_qk": 64, "max_batch": 4, "max_seqlen_q": 256,
        "max_seqlen_k": 256, "softmax_scale": 0.125, "q_dtype": "bf16", "flags": ["causal"]}


def test_plans_and_streams():
    plan = attn.Plan.sdpa(context=attn.Context("cuda", device=0), **DESC)
    q, k, v = qkv(dtype=torch.bfloat16)
    expected = torch.empty_like(q)
    plan.execute(q=q, k=k, v=v, out=expected)
    for b in range(2):
        close(expected[b], formula(q[b], k[b], v[b], True)[0])
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    memory = torch.empty(max(plan.workspace_bytes, 1), dtype=torch.uint8, device="cuda")
    for given in (stream, stream.cuda_stream):
        for workspace in (None, memory):
            with torch.cuda.stream(stream):
                torch.cuda._sleep(20_000_000)
                q2, out = q * 1, torch.full_like(q, torch.nan)
                ready = torch.cuda.Event()
                ready.record()
            plan.execute(q=q2, k=k, v=v, out=out, stream=given, workspace=workspace)
            assert not ready.query(), "execute waited"
            stream.synchronize()
            assert torch.equal(out, expected)


def test_graph_of_a_plan():
    desc = {**DESC, "kv_layout": "paged_table", "page_size": 16, "max_seqlen_q": 1,
            "max_seqlen_k": 1024, "flags": ["causal", "seqused_k"]}
    plan = attn.Plan.sdpa(context=attn.default_context((2, 0)), **desc)
    plan.prepare()
    assert plan.info.capturable
    pool = random(2, 256, 16, 2, 64, dtype=torch.bfloat16)
    table = torch.randperm(256, device="cuda").to(torch.int32).view(4, 64)
    used = torch.ones(4, dtype=torch.int32, device="cuda")
    q = random(4, 1, 8, 64, dtype=torch.bfloat16)
    out = torch.empty_like(q)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan.execute(q=q, k=pool[0], v=pool[1], out=out, block_table=table, seqused_k=used)
    for lengths in ([1, 17, 400, 1024], [1024, 3, 0, 16], [5, 5, 5, 5]):
        used.copy_(torch.tensor(lengths))
        q.normal_()
        out.fill_(torch.nan)
        graph.replay()
        for b, n in enumerate(lengths):
            k, v = (x[table[b].long()].reshape(1024, 2, 64)[:n] for x in pool)
            close(out[b], formula(q[b], k, v, True)[0])


def test_graph_of_sdpa():
    q, k, v = qkv()
    attn.sdpa(q, k, v, is_causal=True)  # prepared before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attn.sdpa(q, k, v, is_causal=True)
    q.normal_()
    graph.replay()
    for b in range(2):
        close(out[b], formula(q[b], k[b], v[b], True)[0])


def test_mixed_devices():
    q, k, v = qkv()
    with raises(attn.InvalidArgumentError, "k is on the CPU, but q is on cuda:0"):
        attn.sdpa(q, k.cpu(), v)
    with raises(attn.InvalidArgumentError, "seqused_k is on the CPU"):
        attn.sdpa(q, k, v, seqused_k=[5, 5])
    with raises(attn.InvalidArgumentError, "context is for the CPU"):
        attn.sdpa(q, k, v, context=attn.Context("cpu"))


def test_gradients_are_not_lost():
    q, k, v = qkv()
    q.requires_grad_()
    with raises(attn.InvalidArgumentError, "detach"):
        attn.sdpa(q, k, v)
    with torch.no_grad():
        attn.sdpa(q, k, v)


def test_each_device():
    for index in range(torch.cuda.device_count()):
        q, k, v = (x.to(f"cuda:{index}") for x in qkv())
        out = attn.sdpa(q, k, v)
        assert out.device.index == index and torch.cuda.current_device() == 0
        close(out[0], formula(q[0], k[0], v[0])[0])


LIBATTN_FIRST = """
import attn, ctypes
context = attn.Context("cuda")
plan = attn.Plan.sdpa(context=context, q_dtype="fp16", num_q_heads=2, head_dim_qk=64, max_batch=1,
                      max_seqlen_q=64, max_seqlen_k=64, softmax_scale=0.125)
plan.prepare()
import torch
q = torch.randn(1, 64, 2, 64, device="cuda").half()
out = attn.sdpa(q, q, q)
p = torch.einsum("bihd,bjhd->bhij", q.float(), q.float()).mul(0.125).softmax(-1)
expected = torch.einsum("bhij,bjhd->bihd", p, q.float())
assert (out.float() - expected).abs().max() < 4e-3
del plan, context
torch.ones(3, device="cuda").sum().item()  # the primary context is torch's still
print("fine")
"""


def test_libattn_before_torch():
    result = subprocess.run([sys.executable, "-c", LIBATTN_FIRST], capture_output=True, text=True,
                            env=os.environ, check=False)
    assert result.stdout.strip() == "fine", result.stderr


def test_cost():
    """Beyond the C call: at most 15 microseconds, in the fastest tenth of calls, since whatever else
    runs on the machine adds to the others (up to twice the time, the C call's too)."""
    for extra in (0, 4096):  # keys, so that one problem has a workspace
        q, k, v = qkv(1, 1, 128 + extra, dtype=torch.bfloat16)
        out = attn.sdpa(q, k, v)
        call = list(attn.default_context((2, 0)).calls.values())[-1]
        size = call.plan.workspace_bytes
        memory = torch.empty(max(size, 1), dtype=torch.uint8, device="cuda")
        addresses = [q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr()]
        state = call._free[-1]
        arguments = state.arguments
        whole, inner = [], []
        clock = time.perf_counter_ns
        for _ in range(50):
            for _ in range(40):  # less than the driver's queue holds
                start = clock()
                attn.sdpa(q, k, v)
                whole.append(clock() - start)
                for cell, address in zip(state.cells, addresses):
                    cell.value = address
                start = clock()
                status = call._function(*arguments[:2], memory.data_ptr(), size, 0, arguments[5])
                inner.append(clock() - start)
                assert status == 0
            torch.cuda.synchronize()
        whole_us, inner_us = (statistics.quantiles(x, n=10)[0] / 1e3 for x in (whole, inner))
        print(f"attn.sdpa on torch, workspace {size} bytes: {whole_us:.1f} us, "
              f"of it {inner_us:.1f} us in C; medians {statistics.median(whole) / 1e3:.1f} and "
              f"{statistics.median(inner) / 1e3:.1f}")
        assert whole_us - inner_us <= 15, (whole_us, inner_us)


def optional(name):
    """The framework, or None with a word about it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if "pytest" in sys.modules:
            sys.modules["pytest"].skip(f"{name} is not installed")
        print(f"NOT RUN: {name} is not installed")
        return None


def test_cupy():
    cupy = optional("cupy")
    if cupy is None:
        return
    q, k, v = qkv()
    # With lse too, because another kernel may serve that, whose out has other bits.
    expected, _ = attn.sdpa(q, k, v, is_causal=True, return_lse=True)
    torch.cuda.synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        arrays = [cupy.from_dlpack(x) * 1 for x in (q, k, v)]
        out, lse = attn.sdpa(*arrays, is_causal=True, return_lse=True)
        assert type(out) is cupy.ndarray and type(lse) is cupy.ndarray
        stream.synchronize()
    assert torch.equal(torch.from_dlpack(out), expected)


def test_jax():
    jax = optional("jax")
    if jax is None:
        return
    if jax.default_backend() != "gpu":
        sys.modules["pytest"].skip("jax has no GPU") if "pytest" in sys.modules else print(
            "NOT RUN: jax has no GPU")
        return
    q, k, v = qkv()
    expected = attn.sdpa(q, k, v, is_causal=True)
    torch.cuda.synchronize()
    out = attn.sdpa(*(jax.dlpack.from_dlpack(x) for x in (q, k, v)), is_causal=True)
    assert isinstance(out, jax.Array)
    assert torch.equal(torch.from_dlpack(out + 0), expected)


def main():
    if WHY_NOT:
        print(f"NOT RUN: {WHY_NOT}")
        return 1
    passed, failed = 0, []
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            try:
                test()
                passed += 1
            except Exception as error:  # each test is told, all are run
                failed.append(name)
                print(f"FAILED {name}: {type(error).__name__}: {error}")
    print(f"{passed} passed, {len(failed)} failed")
    return bool(failed)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(__doc__ + "\nUsage: PYTHONPATH=<build>/bindings/python python test_cuda.py")
        sys.exit(sys.argv[1] not in ("-h", "--help"))
    sys.exit(main())
