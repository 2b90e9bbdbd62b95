"""The libraries that we are measured against. Each is optional here; a bar whose peer is missing
fails, and says so."""

from __future__ import annotations

import ctypes
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.bench.measure import QUICK, Contender, compare


def aligned(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """An uninitialised array on a 64-byte boundary."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + size].view(dtype).reshape(shape)


# --- sgemm -----------------------------------------------------------------------------------

SGEMM_SIZE = 2048
SGEMM_FLOPS = 2 * SGEMM_SIZE**3


class Sgemm:
    """Builds of OpenBLAS: calls of sgemm, and how to set their threads. The fastest counts.

    Each chooses its kernels and blocks itself: OPENBLAS_... in the environment, which some systems
    set to hold it to older ones, has no effect here.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        n = SGEMM_SIZE
        self.a, self.b, self.c = (aligned((n, n)) for _ in range(3))
        self.a[:] = rng.standard_normal((n, n), np.float32)
        self.b[:] = rng.standard_normal((n, n), np.float32)
        self.builds: dict[str, tuple[Callable[[], object], Callable[[int], object]]] = {}
        self.versions: dict[str, str] = {}
        self._copies = tempfile.TemporaryDirectory()
        found = {"openblas_numpy": (self._of_numpy(), "scipy_{}64_"),
                 "openblas_system": (self._of_system(), "{}")}
        for name, (path, symbol) in found.items():
            if path is not None:
                self._add(name, path, symbol)

    @staticmethod
    def _of_numpy() -> pathlib.Path | None:
        """The library inside numpy's wheel; a distribution's numpy has none."""
        folder = pathlib.Path(np.__file__).parent.parent / "numpy.libs"
        return next(iter(folder.glob("libscipy_openblas64_*.so")), None)

    @staticmethod
    def _of_system() -> pathlib.Path | None:
        for line in pathlib.Path("/etc/ld.so.conf.d").glob("*.conf"):
            for folder in line.read_text().split():
                path = pathlib.Path(folder) / "libopenblas.so.0"
                if path.exists():
                    return path
        return None

    def _add(self, name: str, path: pathlib.Path, symbol: str) -> None:
        """Loads a copy of the library, so that it is an instance of its own, which chooses its
        kernels when it is loaded."""
        copy = pathlib.Path(self._copies.name) / f"{name}.so"
        shutil.copy(path.resolve(), copy)
        settings = {key: os.environ.pop(key) for key in list(os.environ)
                    if key.startswith("OPENBLAS_")}
        try:
            library = ctypes.CDLL(str(copy))
        except OSError:
            return
        finally:
            os.environ.update(settings)

        sgemm = getattr(library, symbol.format("cblas_sgemm"))
        size = ctypes.c_int64 if "64" in symbol else ctypes.c_int
        enum, pointer, real = ctypes.c_int, ctypes.c_void_p, ctypes.c_float
        sgemm.argtypes = [enum] * 3 + [size] * 3 + [real, pointer, size, pointer, size, real,
                                                    pointer, size]
        sgemm.restype = None
        n, row_major, no_transpose = SGEMM_SIZE, 101, 111
        arguments = (row_major, no_transpose, no_transpose, n, n, n, 1.0, self.a.ctypes.data, n,
                     self.b.ctypes.data, n, 0.0, self.c.ctypes.data, n)
        config = getattr(library, symbol.format("openblas_get_config"))
        config.restype = ctypes.c_char_p
        core_name = getattr(library, symbol.format("openblas_get_corename"))
        core_name.restype = ctypes.c_char_p
        version = re.search(r"OpenBLAS ([0-9.]+)", config().decode())
        self.versions[name] = (f"{version.group(1) if version else 'unknown'} "
                               f"({core_name().decode()})")
        self.builds[name] = (lambda: sgemm(*arguments),
                             getattr(library, symbol.format("openblas_set_num_threads")))

    def use_threads(self, threads: int) -> None:
        for _, set_threads in self.builds.values():
            set_threads(threads)


# --- onnxruntime -----------------------------------------------------------------------------


def import_onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        return None
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime


def onnx_attention(inputs: dict[str, np.ndarray], q_heads: int, kv_heads: int, head_dim: int,
                   causal: bool, grouped: bool, threads: int) -> tuple[Callable[[], object], Any]:
    """A call of onnxruntime's attention on q, k, v of [B, S, heads * head_dim] with all tensors
    bound beforehand, so that nothing is copied in or out; and the bound output."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    q, k = inputs["query"], inputs["key"]
    batch, seqlen_k = k.shape[:2]
    scale = 1.0 / float(np.sqrt(head_dim))

    def declare(name: str, array: np.ndarray) -> Any:
        kind = TensorProto.INT32 if array.dtype == np.int32 else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, list(array.shape))

    arrays = dict(inputs)
    outputs = {"output": np.empty(q.shape, np.float32)}
    if grouped:  # always causal; hands k and v on as the cache of the next step
        cache = (batch, kv_heads, seqlen_k, head_dim)
        arrays["seqlens_k"] = np.full((batch,), seqlen_k - 1, np.int32)
        arrays["total_sequence_length"] = np.array(seqlen_k, np.int32)
        outputs["present_key"] = np.empty(cache, np.float32)
        outputs["present_value"] = np.empty(cache, np.float32)
        node = helper.make_node(
            "GroupQueryAttention",
            ["query", "key", "value", "", "", "seqlens_k", "total_sequence_length"],
            list(outputs), domain="com.microsoft", num_heads=q_heads, kv_num_heads=kv_heads,
            do_rotary=0, scale=scale)
    else:
        node = helper.make_node("MultiHeadAttention", ["query", "key", "value"], ["output"],
                                domain="com.microsoft", num_heads=q_heads, scale=scale,
                                unidirectional=int(causal))
    graph = helper.make_graph([node], "attention", [declare(n, a) for n, a in arrays.items()],
                              [declare(n, a) for n, a in outputs.items()])
    model = helper.make_model(graph, ir_version=10, opset_imports=[
        helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    bound = {}
    for name, array in outputs.items():
        bound[name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        binding.bind_ortvalue_output(name, bound[name])
    return (lambda: session.run_with_iobinding(binding)), bound["output"]


def onnx_call_us() -> float:
    """What one call of onnxruntime costs from here with almost nothing to compute: an upper bound
    of what the route through Python adds to its times on small shapes."""
    import onnxruntime
    from onnx import TensorProto, helper

    declared = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "least", declared[:1],
                              declared[1:])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    value = np.ones(1, np.float32)
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(value))
    binding.bind_ortvalue_output("y", onnxruntime.OrtValue.ortvalue_from_numpy(value))
    times = compare([Contender("least", lambda: session.run_with_iobinding(binding))], QUICK)
    return times.us["least"]


# --- PyTorch ---------------------------------------------------------------------------------


def import_torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def torch_attention(torch: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray,
                    causal: bool) -> Callable[[], Any]:
    """A call of PyTorch's SDPA on q, k, v of [B, S, heads, head_dim]; gives [B, heads, S, D]."""
    views = [torch.from_numpy(x).transpose(1, 2) for x in (q, k, v)]
    extra = {"enable_gqa": True} if q.shape[2] != k.shape[2] else {}

    def call() -> Any:
        with torch.no_grad():
            return torch.nn.functional.scaled_dot_product_attention(*views, is_causal=causal,
                                                                    **extra)

    return call


# --- the machine -----------------------------------------------------------------------------


class Memory:
    """Reading memory as fast as a plain C loop does: see memory.c."""

    def __init__(self, build: pathlib.Path) -> None:
        path = build / "tests/bench/libbench_memory.so"
        if not path.exists():
            raise SystemExit(f"no {path}: build with -Dtests=true")
        self._read = ctypes.CDLL(str(path)).attn_bench_read
        self._read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int]
        self._read.restype = ctypes.c_uint64

    def read(self, array: np.ndarray, threads: int, streams: int) -> Callable[[], object]:
        size = array.nbytes // 64 * 64
        return lambda: self._read(array.ctypes.data, size, threads, streams)


def cpu_name() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
