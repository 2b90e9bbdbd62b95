"""Contexts and plans."""

import gc
import threading

import attn
import ml_dtypes
import numpy as np
import pytest
import reference
from conftest import assert_close

DESC = {
    "q_dtype": "fp32", "num_q_heads": 4, "num_kv_heads": 2, "head_dim_qk": 16, "max_batch": 4,
    "max_seqlen_q": 8, "max_seqlen_k": 64, "softmax_scale": 0.25, "flags": ["causal"],
}


def tensors(rng, b=2, sq=8, sk=20):
    q, k, v = (rng.standard_normal((b, s, h, 16)).astype(np.float32)
               for s, h in ((sq, 4), (sk, 2), (sk, 2)))
    return {"q": q, "k": k, "v": v, "out": np.empty_like(q)}


def test_one_plan_many_shapes(rng):
    plan = attn.Plan.sdpa(**DESC)
    assert plan.info.implementation == plan.implementations[0]
    assert plan.implementations[-1] == "cpu/sdpa/forward/reference"
    assert not plan.info.asynchronous
    for b, sq, sk in ((2, 8, 20), (4, 1, 64), (1, 3, 7), (2, 8, 20)):
        t = tensors(rng, b, sq, sk)
        plan.execute(**t)
        assert_close(t["out"], reference.batch(t["q"], t["k"], t["v"], is_causal=True)[0])
    with pytest.raises(attn.InvalidArgumentError, match="max_batch") as caught:
        plan.execute(**tensors(rng, b=5))
    assert caught.value.field == "args.q.shape[0]"


def test_workspace_of_the_callers(rng):
    plan = attn.Plan.sdpa(**DESC)
    workspace = plan.workspace()
    assert workspace.nbytes == plan.info.workspace_bytes
    t = tensors(rng)
    for _ in range(3):
        plan.execute(workspace=workspace, **t)
    assert_close(t["out"], reference.batch(t["q"], t["k"], t["v"], is_causal=True)[0])
    if plan.info.workspace_bytes:
        with pytest.raises(attn.WorkspaceError):
            plan.execute(workspace=attn.Workspace(0, 64), **t)


def test_paged_decode_in_bf16(rng):
    plan = attn.Plan.sdpa(
        q_dtype="bf16", num_q_heads=4, num_kv_heads=1, head_dim_qk=32, kv_layout="paged_table",
        page_size=4, flags=["causal", "seqused_k"], max_batch=3, max_seqlen_q=1, max_seqlen_k=40,
        softmax_scale=32**-0.5,
    )
    bf16 = ml_dtypes.bfloat16
    pool = rng.standard_normal((2, 30, 4, 1, 32)).astype(bf16)
    table = rng.permutation(30).reshape(3, 10).astype(np.int32)
    for lengths in ([1, 17, 40], [2, 18, 39]):
        q = rng.standard_normal((3, 1, 4, 32)).astype(bf16)
        out = np.empty_like(q)
        plan.execute(q=q, k=pool[0], v=pool[1], out=out, seqused_k=lengths, block_table=table)
        for b, n in enumerate(lengths):
            k, v = (pool[i][table[b]].reshape(40, 1, 32)[:n] for i in (0, 1))
            assert_close(out[b], reference.attention(q[b], k, v)[0], bf16)


def test_backward_and_merge_plans(rng):
    t = tensors(rng)
    out, lse = attn.sdpa(t["q"], t["k"], t["v"], return_lse=True, is_causal=True)
    plan = attn.Plan.sdpa(pass_="backward", grads=["q", "v"], **DESC)
    dq, dv = np.empty_like(t["q"]), np.empty_like(t["v"])
    plan.execute(q=t["q"], k=t["k"], v=t["v"], out=out, lse=lse, dout=out, dq=dq, dv=dv)
    grads = attn.sdpa_backward(out, t["q"], t["k"], t["v"], out, lse, is_causal=True)
    assert_close(dq, grads.dq)
    assert_close(dv, grads.dv)
    merge = attn.Plan.merge(dtype="fp32", num_heads=4, head_dim=16, max_rows=100, max_parts=4,
                            flags=["return_lse"])
    parts = rng.standard_normal((10, 2, 4, 16)).astype(np.float32)
    lses = rng.standard_normal((10, 2, 4)).astype(np.float32)
    merged, merged_lse = np.empty((10, 4, 16), np.float32), np.empty((10, 4), np.float32)
    merge.execute(partial=parts, partial_lse=lses, out=merged, out_lse=merged_lse)
    expected = attn.merge(parts, lses)
    assert_close(merged, expected[0])
    assert_close(merged_lse, expected[1])


def test_choose_export_and_tune(rng):
    chosen = attn.Plan.sdpa(implementation="cpu/sdpa/forward/reference", **DESC)
    assert chosen.info.implementation == "cpu/sdpa/forward/reference"
    line = chosen.export()
    assert "cpu/sdpa/forward/reference" in line
    assert attn.Plan.sdpa(tuning=line, **DESC).info.implementation == chosen.info.implementation
    t = tensors(rng)
    tuned = attn.Plan.sdpa(**DESC).tune(**t)
    assert tuned.info.implementation in tuned.implementations
    assert_close(t["out"], reference.batch(t["q"], t["k"], t["v"], is_causal=True)[0])
    tuned.prepare()
    with pytest.raises(attn.InvalidArgumentError):
        attn.Plan.sdpa(implementation="cpu/sdpa/forward/none", **DESC)


def test_supported():
    assert attn.supported(DESC) == (True, "")
    ok, why = attn.supported({**DESC, "num_kv_heads": 3})
    assert not ok and "num_kv_heads" in why
    ok, why = attn.supported({"dtype": "fp32", "num_heads": 1, "head_dim": 5000}, family="merge")
    assert not ok and "head_dim" in why


def test_context_and_devices():
    info = attn.device_info("cpu")
    assert attn.device_count("cpu") == 1 and info.backend == "cpu" and info.num_units >= 1
    context = attn.Context("cpu", num_threads=1)
    assert context.info.num_units == 1 and "num_threads=1" in repr(context)
    assert attn.default_context() is attn.default_context()
    assert attn.library_version() == attn.__version__
    assert "version: " + attn.library_version() in attn.build_info()


def test_log():
    lines = []
    context = attn.Context("cpu", log=lambda *line: lines.append(line), log_level="debug")
    attn.Plan.sdpa(context=context, **DESC)
    assert any("cpu/sdpa/forward" in message for _, message in lines)
    assert {level for level, _ in lines} <= {"error", "warning", "info", "debug"}


def test_plans_outlive_their_context(rng):
    plan = attn.Plan.sdpa(context=attn.Context("cpu", num_threads=2), **DESC)
    gc.collect()
    t = tensors(rng)
    plan.execute(**t)
    assert_close(t["out"], reference.batch(t["q"], t["k"], t["v"], is_causal=True)[0])


def test_threads_share_calls_and_plans(rng):
    """Eight threads on one plan, one context and the same shapes."""
    plan = attn.Plan.sdpa(**DESC)
    problems = [tensors(rng) for _ in range(8)]
    expected = [reference.batch(t["q"], t["k"], t["v"], is_causal=True)[0] for t in problems]
    failures = []
    barrier = threading.Barrier(8)

    def work(t, right):
        try:
            barrier.wait()
            for _ in range(200):
                t["out"][:] = np.nan
                plan.execute(**t)
                assert_close(t["out"], right)
                assert_close(attn.sdpa(t["q"], t["k"], t["v"], is_causal=True), right)
        except BaseException as error:  # reported by the test, not by the thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=x) for x in zip(problems, expected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_the_cache_is_bounded(rng):
    context = attn.Context("cpu", num_threads=1)
    for n in range(1, 700):
        x = np.ones((1, n, 1, 2), np.float32)
        attn.sdpa(x, x, x, context=context)
    assert len(context.calls) == 512
