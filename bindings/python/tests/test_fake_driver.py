"""The package and the real library on a fake CUDA driver: what reaches the launches.

The driver's name is looked up once a process, so each test is a process of its own, which this
file is too: `test_fake_driver.py NAME RECORDER`. Kernels do not run; test_cuda.py has what they
compute.
"""

import ctypes
import os
import pathlib
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import attn
import numpy as np
import pytest

BUILD = pathlib.Path(attn.lowlevel.LIBRARY_PATH).resolve().parent
FAKE = BUILD / "tests/cuda"
RECORDER = BUILD / "tests/bindings/libattn-recorder.so"


def case_torch(recorder):
    torch, q, k, v = tensors()
    assert recorder.open(2)
    assert attn.device_count("cuda") == 2 and attn.device_info("cuda", 1).device_index == 1
    out, lse = attn.sdpa(q, k, v, is_causal=True, return_lse=True)
    launch = recorder.sdpa()
    assert launch.stream == 7 and launch.device == 0
    for tensor in (q, k, v, out, lse):
        launch.holds(tensor.data_ptr())
    for tensor in (q, k):  # each stands in the kernel's parameters with its strides
        for stride in set(tensor.stride()) - {1}:
            launch.holds(stride)
    torch.current = 11
    attn.sdpa(q, k, v, is_causal=True, out=out, lse=lse)
    assert recorder.sdpa().stream == 11
    recorder.sdpa().holds(q.data_ptr(), out.data_ptr())
    # On the other device.
    _, q, k, v = tensors(torch, 1)
    out = attn.sdpa(q, k, v)
    launch = recorder.sdpa()
    assert launch.device == 1 and out.device.index == 1
    launch.holds(q.data_ptr(), out.data_ptr())


def case_arrays(recorder):
    torch, q, k, v = tensors()
    assert recorder.open(1)
    flat = [torch.on(np.ascontiguousarray(x.array.reshape(-1, *x.shape[2:]))) for x in (q, k, v)]
    offsets = torch.on(np.array([0, 50, 128], np.int32))
    attn.sdpa(*flat, cu_seqlens_q=offsets, cu_seqlens_k=offsets, max_seqlen_q=128, max_seqlen_k=128)
    recorder.sdpa().holds(offsets.data_ptr(), *(x.data_ptr() for x in flat))
    pool = torch.on(np.zeros((9, 16, 2, 64), np.float16))
    table, used = torch.on(np.zeros((2, 4), np.int32)), torch.on(np.array([64, 3], np.int32))
    attn.sdpa(q, pool, pool, block_table=table, seqused_k=used)
    recorder.sdpa().holds(pool.data_ptr(), table.data_ptr(), used.data_ptr())


def case_plan(recorder):
    torch, q, k, v = tensors()
    assert recorder.open(1)
    plan = attn.Plan.sdpa(
        context=attn.Context("cuda", device=0), q_dtype="fp16", num_q_heads=4, num_kv_heads=2,
        head_dim_qk=64, max_batch=2, max_seqlen_q=64, max_seqlen_k=64, softmax_scale=0.125)
    plan.prepare()
    assert plan.info.asynchronous and plan.info.capturable
    out = torch.on(np.zeros((2, 64, 4, 64), np.float16))
    memory = torch.on(np.zeros(plan.workspace_bytes + 256, np.uint8))
    for stream in (None, 33, 1, 2):
        plan.execute(q=q, k=k, v=v, out=out, stream=stream)
        assert recorder.sdpa().stream == (7 if stream is None else stream)
        recorder.sdpa().holds(out.data_ptr())
    before = len(torch.asked)
    aligned = torch.on(memory.array[-memory.data_ptr() % 256:][:plan.workspace_bytes])
    plan.execute(q=q, k=k, v=v, out=out, workspace=aligned)
    assert len(torch.asked) == before
    if plan.workspace_bytes:
        recorder.sdpa().holds(aligned.data_ptr())


def case_merge(recorder):
    torch = tensors()[0]
    assert recorder.open(1)
    parts = torch.on(np.zeros((6, 3, 4, 64), np.float16))
    lses = torch.on(np.zeros((6, 3, 4), np.float32))
    merged, lse = attn.merge(parts, lses)
    launch = recorder.last()
    assert "merge" in launch.entry and launch.stream == 7
    launch.holds(*(x.data_ptr() for x in (parts, lses, merged, lse)))


def case_interface(recorder):
    from stand_ins import OnlyDLPack, OnlyInterface

    assert recorder.open(1)
    arrays = [np.zeros((2, 64, 4, 64), np.float16) for _ in range(4)]
    for kind in (OnlyDLPack, lambda x: OnlyInterface(x, 55)):
        q, k, v, out = map(kind, arrays)
        attn.sdpa(q, k, v, out=out)
        launch = recorder.sdpa()
        launch.holds(*(x.ctypes.data for x in arrays))
        assert launch.stream == (0 if kind is OnlyDLPack else 55)


def tensors(torch=None, index=0):
    import stand_ins

    if torch is None:
        torch = sys.modules["torch"] = stand_ins.make_torch()
    # Heads before tokens in memory, with room between rows of k.
    q, k, v = (torch.on(np.zeros((2, h, 64, d), np.float16)[..., :64].transpose(0, 2, 1, 3), index)
               for h, d in ((4, 64), (2, 80), (2, 64)))
    return torch, q, k, v


class Launch:
    def __init__(self, entry, stream, device, params):
        self.entry, self.stream, self.device, self.params = entry, stream, device, params

    def holds(self, *numbers):
        """Each number is one of the words of the kernel's parameters."""
        words = [struct.unpack_from(f"<{len(self.params) // 4 - 1}I", self.params, 0)]
        words += [struct.unpack_from(f"<{len(self.params) // 8}Q", self.params, 0)]
        for number in numbers:
            assert any(number in group for group in words), (
                f"{number:#x} is not in the parameters of {self.entry}")


class Recorder:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.open = self.library.recorder_open

    def launches(self):
        found = []
        for i in range(self.library.recorder_count()):
            entry, params = ctypes.create_string_buffer(256), ctypes.create_string_buffer(1536)
            stream, device = ctypes.c_uint64(), ctypes.c_int()
            self.library.recorder_launch(i, entry, len(entry), ctypes.byref(stream),
                                         ctypes.byref(device), params, len(params))
            found.append(Launch(entry.value.decode(), stream.value, device.value, params.raw))
        return found

    def last(self):
        return self.launches()[-1]

    def sdpa(self):
        """The last launch of a forward kernel: a merge of pieces may follow it."""
        return [launch for launch in self.launches() if "forward" in launch.entry
                or "reference" in launch.entry][-1]


CASES = {name.removeprefix("case_"): function for name, function in list(globals().items())
         if name.startswith("case_")}


@pytest.mark.parametrize("name", CASES)
def test_on_the_fake_driver(name):
    if not (FAKE / "libcuda.so.1").exists() or not RECORDER.exists():
        pytest.skip(f"{BUILD} has no fake CUDA driver: built without CUDA or without tests")
    others = os.environ.get("LD_LIBRARY_PATH")
    result = subprocess.run(
        [sys.executable, __file__, name, str(RECORDER)], text=True, capture_output=True,
        check=False,
        env={**os.environ, "LD_LIBRARY_PATH": f"{FAKE}:{others}" if others else str(FAKE),
             "ATTN_LIBRARY": attn.lowlevel.LIBRARY_PATH,
             "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)})
    assert result.returncode == 0, result.stdout + result.stderr


if __name__ == "__main__":
    the_recorder = Recorder(sys.argv[2])
    CASES[sys.argv[1]](the_recorder)
    assert the_recorder.library.recorder_violations() == 0
