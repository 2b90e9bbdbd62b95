"""Arrays on a GPU, without one: the addresses, strides, streams and workspaces that reach the C
call, and what frameworks are asked to make. Device memory is host memory here, and a recorder
stands in for what plans execute. test_cuda.py runs on a real GPU."""

import ctypes
import sys
import types

import attn
import numpy as np
import pytest
import stand_ins
from attn import _context, _frameworks, _plan
from stand_ins import CUDA0, CUDA1, OnlyDLPack, OnlyInterface


class Launches(list):
    """What reached the C calls: name -> (data, shape, strides) of each tensor, and the rest."""

    workspace = 0  # bytes that plans ask for

    def record(self, family):
        def call(plan, args, address, size, stream, error):
            struct = args._obj
            tensors = {}
            if family == "sdpa_backward":
                parts = (struct, struct.forward.contents)
            else:
                parts = (struct,)
            for part in parts:
                for name, type_ in part._fields_:
                    value = getattr(part, name)
                    if type_ is attn.lowlevel.attn_tensor:
                        if value.rank:
                            tensors[name] = (value.data, tuple(value.shape[:value.rank]),
                                             tuple(value.stride[:value.rank]))
                    elif name != "forward" and isinstance(value, _plan._POINTER_TYPE) and value:
                        tensors[name] = ctypes.cast(value, ctypes.c_void_p).value
            self.append(types.SimpleNamespace(tensors=tensors, workspace=(address, size),
                                              stream=stream))
            return 0
        return call


@pytest.fixture
def launches(monkeypatch):
    """Contexts of cuda:0 and cuda:1 that are the CPU's, and a recorder for what plans execute."""
    launches = Launches()
    setup, query = _plan.Plan._setup, _plan.Plan._query

    def recorded(self, desc, context):
        setup(self, desc, context)
        if context.device != (1, 0):
            self.function = launches.record(self.family)

    def asks(self):
        query(self)
        self.workspace_bytes, self.workspace_alignment = launches.workspace, 256

    monkeypatch.setattr(_plan.Plan, "_setup", recorded)
    monkeypatch.setattr(_plan.Plan, "_query", asks)
    for device in (CUDA0, CUDA1):
        context = attn.Context("cpu", num_threads=1)
        context.device = context.handle.device = device
        monkeypatch.setitem(_context._defaults, device, context)
    return launches


@pytest.fixture
def torch(monkeypatch):
    module = stand_ins.make_torch()
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


@pytest.fixture
def cupy(monkeypatch):
    module = stand_ins.make_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def qkv(dtype=np.float16):
    """Strided: heads before tokens in memory, and a step between rows."""
    return [np.zeros((2, h, 5, 16), dtype)[..., :8].transpose(0, 2, 1, 3) for h in (4, 2, 2)]


def place(array):
    return (array.ctypes.data, array.shape, tuple(s // array.itemsize for s in array.strides))


def test_torch_tensors_run_where_they_are(launches, torch):
    launches.workspace = 1000
    arrays = qkv()
    q, k, v = map(torch.on, arrays)
    out, lse = attn.sdpa(q, k, v, is_causal=True, return_lse=True)
    launch = launches[-1]
    for name, array in zip("qkv", arrays):
        assert launch.tensors[name] == place(array)
    assert type(out) is torch.Tensor and out.device == q.device and out.dtype is torch.float16
    assert lse.dtype is torch.float32 and lse.shape == (2, 4, 5)
    assert launch.tensors["out"] == place(out.array) and launch.tensors["lse"] == place(lse.array)
    assert launch.stream == 7
    assert torch.asked == [("empty", (2, 5, 4, 8), "float16", "cuda:0", 7),
                           ("empty", (2, 4, 5), "float32", "cuda:0", 7),
                           ("empty", (1000,), "uint8", "cuda:0", 7)]
    assert launch.workspace[0] and launch.workspace[1] == 1000
    # Prepared: the second call asks for memory anew and follows the current stream.
    torch.current = 12
    again = attn.sdpa(q, k, v, is_causal=True, out=out, lse=lse)
    assert again[0] is out and again[1] is lse and launches[-1].stream == 12
    assert torch.asked[3:] == [("empty", (1000,), "uint8", "cuda:0", 12)]
    assert len(_context._defaults[CUDA0].calls) == 2
    grads = attn.sdpa_backward(out, q, k, v, out, lse, is_causal=True)
    assert launches[-1].tensors["dk"] == place(grads.dk.array) and grads.dk.device == q.device
    assert launches[-1].tensors["dout"] == place(out.array) and launches[-1].stream == 12


def test_second_device_and_default_stream(launches, torch):
    torch.current = 0
    q, k, v = (torch.on(x, 1) for x in qkv())
    out = attn.sdpa(q, k, v)
    assert out.device.index == 1 and launches[-1].stream == 0
    assert len(_context._defaults[CUDA1].calls) == 1 and not _context._defaults[CUDA0].calls


def test_index_arrays_of_torch(launches, torch):
    q, k, v = (torch.on(x[0]) for x in qkv())
    offsets = torch.on(np.array([0, 2, 5], np.int32))
    attn.sdpa(q, k, v, cu_seqlens_q=offsets, cu_seqlens_k=offsets, max_seqlen_q=4, max_seqlen_k=4)
    assert launches[-1].tensors["cu_seqlens_q"] == offsets.data_ptr()
    # int64 is converted on the device.
    table, used = np.zeros((2, 3), np.int32), np.array([4, 1])
    pool = torch.on(np.zeros((9, 4, 2, 8), np.float16))
    attn.sdpa(torch.on(qkv()[0]), pool, pool, block_table=torch.on(table), seqused_k=torch.on(used))
    assert launches[-1].tensors["block_table"] == place(table)
    assert launches[-1].tensors["seqused_k"] != used.ctypes.data
    with pytest.raises(attn.InvalidArgumentError, match="max_seqlen_q must be given.*cuda:0"):
        attn.sdpa(q, k, v, cu_seqlens_q=offsets, cu_seqlens_k=offsets)


def test_rng_state_lies_on_the_device(launches, torch):
    q, k, v = map(torch.on, qkv())
    state = torch.on(np.array([3, 4]))
    attn.sdpa(q, k, v, dropout_p=0.5, rng_state=state)
    assert launches[-1].tensors["rng_state"] == state.data_ptr()
    for wrong in ((3, 4), torch.on(np.array([3, 4, 5])), torch.on(np.array([3, 4], np.int32))):
        with pytest.raises(attn.InvalidArgumentError) as caught:
            attn.sdpa(q, k, v, dropout_p=0.5, rng_state=wrong)
        assert caught.value.field == "rng_state"


@pytest.mark.parametrize(("options", "field"), [
    ({"k": "cpu"}, "k"), ({"v": "other"}, "v"), ({"v": "numpy"}, "v"), ({"out": "numpy"}, "out"),
    ({"bias": "cpu"}, "bias"), ({"sink": "other"}, "sink"), ({"seqused_k": [5, 5]}, "seqused_k"),
    ({"seqused_k": np.array([5, 5])}, "seqused_k"), ({"k": "dlpack"}, "k"),
])
def test_mixed_devices_are_refused(launches, torch, options, field):
    arrays = dict(zip("qkv", qkv()), bias=np.zeros((1, 4, 5, 5), np.float16),
                  sink=np.zeros(4, np.float32), out=np.empty((2, 5, 4, 8), np.float16))
    places = {"cpu": torch.on_cpu, "other": lambda x: torch.on(x, 1), "numpy": lambda x: x,
              "dlpack": lambda x: OnlyDLPack(np.ascontiguousarray(x), CUDA1)}
    given = {name: torch.on(arrays[name]) for name in "qkv"}
    for name, how in options.items():
        given[name] = places[how](arrays[name]) if isinstance(how, str) else how
    with pytest.raises(attn.InvalidArgumentError, match="must be on one device") as caught:
        attn.sdpa(**given)
    assert caught.value.field == field
    assert "cuda:0" in str(caught.value) and not launches


def test_the_context_must_be_for_the_device(launches, torch):
    q, k, v = map(torch.on, qkv())
    with pytest.raises(attn.InvalidArgumentError, match="the CPU, but q is on cuda:0") as caught:
        attn.sdpa(q, k, v, context=attn.Context("cpu"))
    assert caught.value.field == "context"
    with pytest.raises(attn.InvalidArgumentError, match="cuda:1, but q is on the CPU"):
        attn.sdpa(*qkv(np.float32), context=_context._defaults[CUDA1])
    own = attn.Context("cpu")
    own.device = own.handle.device = CUDA0
    attn.sdpa(q, k, v, context=own)
    assert len(own.calls) == 1


def test_tensors_that_cannot_be_read(launches, torch):
    q, k, v = map(torch.on, qkv())
    k.requires_grad = True
    with pytest.raises(attn.InvalidArgumentError, match="k requires a gradient.*detach"):
        attn.sdpa(q, k, v)
    torch.is_grad_enabled = lambda: False
    attn.sdpa(q, k, v)
    q.device = torch.device("meta", None)
    with pytest.raises(attn.InvalidArgumentError, match="q is on meta"):
        attn.sdpa(q, k, v)

    def no_storage():
        raise RuntimeError("no storage")

    v.data_ptr = no_storage
    with pytest.raises(attn.InvalidArgumentError, match="v has no memory.*no storage"):
        attn.sdpa(torch.on(qkv()[0]), k, v)
    with pytest.raises(attn.InvalidArgumentError, match="float64"):
        torch.float64 = stand_ins.DType("float64")
        attn.sdpa(torch.on(qkv(np.float64)[0]), k, k)


def test_cupy_arrays_run_where_they_are(launches, cupy):
    launches.workspace = 4096
    arrays = qkv()
    out, lse = attn.sdpa(*map(cupy.ndarray, arrays), return_lse=True,
                         seqused_k=cupy.ndarray(np.array([5, 3])))
    launch = launches[-1]
    for name, array in zip("qkv", arrays):
        assert launch.tensors[name] == place(array)
    assert type(out) is type(lse) is cupy.ndarray and launch.stream == 9
    assert launch.tensors["out"] == place(out.array)
    assert cupy.asked[-1] == ("empty", 4096, "uint8", 9) and launch.workspace[1] == 4096
    rows = cupy.ndarray(np.zeros((6, 3, 4, 8), np.float16))
    merged, merged_lse = attn.merge(rows, cupy.ndarray(np.zeros((6, 3, 4), np.float32)))
    assert launches[-1].tensors["out"] == place(merged.array) and merged.shape == (6, 4, 8)
    assert launches[-1].tensors["out_lse"] == place(merged_lse.array) and launches[-1].stream == 9
    with pytest.raises(attn.InvalidArgumentError, match="other is on the CPU, but partial"):
        attn.merge(rows, cupy.ndarray(np.zeros((6, 3, 4), np.float32)),
                   other=np.zeros((6, 4, 8), np.float16))


@pytest.mark.parametrize("kind", [OnlyDLPack, OnlyInterface])
def test_plain_interfaces(launches, kind):
    arrays = [np.ascontiguousarray(x) for x in qkv()]
    arrays[1] = arrays[1][:, ::-1]
    out = np.zeros((2, 5, 4, 8), np.float16)
    given = kind(out)
    assert attn.sdpa(*map(kind, arrays), out=given) is given
    for name, array in zip(("q", "k", "v", "out"), (*arrays, out)):
        assert launches[-1].tensors[name] == place(array)
    with pytest.raises(attn.UnsupportedError, match="out= "):
        attn.sdpa(*map(kind, arrays))
    launches.workspace = 64
    with pytest.raises(attn.UnsupportedError, match="64 bytes on cuda:0.*attn.Plan"):
        attn.sdpa(*map(kind, arrays), out=given, scale=0.5)


def test_streams_of_plain_interfaces(launches):
    out = OnlyInterface(np.zeros((2, 5, 4, 8), np.float16), 21)
    q, k, v = (OnlyInterface(x, 21) for x in qkv())
    attn.sdpa(q, k, v, out=out)
    assert launches[-1].stream == 21  # that on which the array's maker works
    other = OnlyInterface(qkv()[1], 22)
    with pytest.raises(attn.InvalidArgumentError, match="stream 22.*stream 21 as q does") as caught:
        attn.sdpa(q, other, v, out=out)
    assert caught.value.field == "k"
    tensor = OnlyDLPack(np.ascontiguousarray(qkv()[0]))
    attn.sdpa(tensor, k=OnlyInterface(qkv()[1]), v=OnlyInterface(qkv()[2]),
              out=OnlyInterface(np.zeros((2, 5, 4, 8), np.float16)))
    assert tensor.streams == [1] and launches[-1].stream == 0  # the default stream


DESC = {"q_dtype": "fp16", "num_q_heads": 4, "num_kv_heads": 2, "head_dim_qk": 8, "max_batch": 2,
        "max_seqlen_q": 5, "max_seqlen_k": 5, "softmax_scale": 0.25}


def tensors(on):
    return dict(zip("qkv", map(on, qkv())), out=on(np.zeros((2, 5, 4, 8), np.float16)))


@pytest.mark.parametrize("stream", [
    33, types.SimpleNamespace(cuda_stream=33), types.SimpleNamespace(ptr=33),
    types.SimpleNamespace(__cuda_stream__=lambda: (0, 33)),
    types.SimpleNamespace(__cuda_stream__=(0, 33)),
])
def test_plans_take_any_stream(launches, torch, stream):
    launches.workspace = 500
    plan = attn.Plan.sdpa(context=_context._defaults[CUDA0], **DESC)
    given = tensors(torch.on)
    plan.execute(stream=stream, **given)
    assert launches[-1].stream == 33
    # The workspace is in the allocator's order of that stream.
    assert torch.asked == [("empty", (500,), "uint8", "cuda:0", 33)] and torch.current == 7
    plan.execute(**given)
    assert launches[-1].stream == 7 and torch.asked[-1][-1] == 7
    for name in given:
        assert launches[-1].tensors[name] == place(given[name].array)
    with pytest.raises(attn.InvalidArgumentError, match="stream is a str"):
        plan.execute(stream="main", **given)


def test_plans_take_workspaces_of_the_device(launches, torch):
    launches.workspace = 500
    plan = attn.Plan.sdpa(context=_context._defaults[CUDA0], **DESC)
    given = tensors(torch.on)
    memory = np.zeros(512, np.uint8)
    plan.execute(workspace=torch.on(memory), **given)
    assert launches[-1].workspace == (memory.ctypes.data, 512) and not torch.asked
    assert launches[-1].stream == 7
    for wrong, words in ((torch.on_cpu(memory), "on the CPU"), (torch.on(memory, 1), "on cuda:1"),
                         (attn.Workspace(512, 64), "on the CPU"),
                         (torch.on(memory.view(np.int32)), "uint8"),
                         (torch.on(memory[::2]), "contiguous")):
        with pytest.raises(attn.InvalidArgumentError, match=words):
            plan.execute(workspace=wrong, **given)
    with pytest.raises(attn.InvalidArgumentError, match="500 bytes"):
        plan.workspace()
    with pytest.raises(attn.InvalidArgumentError, match="v is on the CPU, but the plan") as caught:
        plan.execute(**{**given, "v": qkv()[2]})
    assert caught.value.field == "args.v"
    host = attn.Plan.sdpa(context=attn.Context("cpu"), **DESC)
    with pytest.raises(attn.InvalidArgumentError, match="q is on cuda:0, but the plan is for"):
        host.execute(**given)


def test_dlpack_gets_the_plans_stream(launches):
    plan = attn.Plan.sdpa(context=_context._defaults[CUDA0], **DESC)
    given = tensors(lambda x: OnlyDLPack(np.ascontiguousarray(x)))
    plan.execute(stream=44, **given)
    assert launches[-1].stream == 44 and all(t.streams == [44] for t in given.values())


def test_a_prepared_call_is_found_by_a_glance(launches, torch):
    context = _context._defaults[CUDA0]
    q, k, v = map(torch.on, qkv())
    for _ in range(2):  # the first shows what makes such arrays
        first = attn.sdpa(q, k, v, is_causal=True)
    assert len(context.glanced) == 1
    again = [torch.on(x) for x in qkv()]
    second = attn.sdpa(*again, is_causal=True)
    assert len(context.glanced) == 1 and second.shape == first.shape
    assert [launches[-1].tensors[name][0] for name in ("q", "k", "v", "out")] == [
        x.data_ptr() for x in (*again, second)]
    assert attn.sdpa(q, k, v, out=first, is_causal=True) is first
    # What a glance cannot tell, or must not overlook.
    attn.sdpa(q, k, v, is_causal=True, sink=torch.on(np.zeros(4, np.float32)))
    assert len(context.glanced) == 2
    with pytest.raises(attn.InvalidArgumentError, match="k is on cuda:1, but q is on cuda:0"):
        attn.sdpa(q, torch.on(k.array, 1), v, is_causal=True)
    with pytest.raises(attn.InvalidArgumentError, match="k is on the CPU, but q is on cuda:0"):
        attn.sdpa(q, torch.on_cpu(k.array), v, is_causal=True)
    again[1].requires_grad = True
    with pytest.raises(attn.InvalidArgumentError, match="k requires a gradient"):
        attn.sdpa(*again, is_causal=True)
    with pytest.raises(TypeError, match="unknown option"):
        attn.sdpa(q, k, v, is_causal=True, nonsense=1)


def test_alignment_beyond_the_allocators(launches, torch, monkeypatch):
    launches.workspace = 500
    plan = attn.Plan.sdpa(context=_context._defaults[CUDA0], **DESC)
    plan.workspace_alignment = 4096
    plan.execute(**tensors(torch.on))
    assert launches[-1].workspace[0] % 4096 == 0 and launches[-1].workspace[1] == 500
    assert torch.asked[-1][1] == (500 + 4096,)


def test_names_of_devices():
    assert _frameworks.device_name((1, 0)) == "the CPU"
    assert _frameworks.device_name((10, 2)) == "rocm:2"
    assert _frameworks.device_of(3, 0) == (1, 0)  # pinned memory is the host's
    assert _frameworks.device_of(13, 1) == CUDA1  # managed memory


def test_an_empty_list_of_pages_has_an_address(launches):
    """Allocators give an empty array none, which to the library is no array."""
    q, k, v = (OnlyInterface(x, 21) for x in qkv())
    pool = [OnlyInterface(np.zeros((3, 4, 2, 8), np.float16), 21) for _ in range(2)]
    numbers = [OnlyInterface(np.zeros(n, np.int32), 21) for n in (3, 2, 0)]
    interface = numbers[2].__cuda_array_interface__
    numbers[2].__cuda_array_interface__ = {**interface, "data": (0, False)}
    attn.sdpa(q, *pool, kv_page_indptr=numbers[0], kv_last_page_len=numbers[1],
              kv_page_indices=numbers[2], max_seqlen_k=12,
              out=OnlyInterface(np.zeros((2, 5, 4, 8), np.float16), 21))
    assert launches[-1].tensors["kv_page_indices"]
