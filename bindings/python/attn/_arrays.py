"""Arrays of any maker as views: address, dtype, shape and strides. No framework is imported.

numpy arrays (also of the dtypes of ml_dtypes) are read directly; everything else through
`__dlpack__` or `__cuda_array_interface__`.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from . import _dlpack, _ffi
from ._errors import InvalidArgumentError, UnsupportedError, invalid

DTYPES: dict[str, int] = {
    member.name.removeprefix("ATTN_DTYPE_").lower(): member.value
    for member in _ffi.attn_dtype
    if member.value
}
"""Name of a dtype, such as "bf16" or "fp8_e4m3fn" -> attn_dtype."""

_NUMPY_NAMES = {
    "float32": _ffi.ATTN_DTYPE_FP32,
    "float16": _ffi.ATTN_DTYPE_FP16,
    "bfloat16": _ffi.ATTN_DTYPE_BF16,
    "float8_e4m3fn": _ffi.ATTN_DTYPE_FP8_E4M3FN,
    "float8_e5m2": _ffi.ATTN_DTYPE_FP8_E5M2,
    "float8_e4m3fnuz": _ffi.ATTN_DTYPE_FP8_E4M3FNUZ,
    "float8_e8m0fnu": _ffi.ATTN_DTYPE_FP8_E8M0,
    "int8": _ffi.ATTN_DTYPE_INT8,
    "uint8": _ffi.ATTN_DTYPE_UINT8,
    "bool": _ffi.ATTN_DTYPE_UINT8,
    "int32": _ffi.ATTN_DTYPE_INT32,
    "int64": _ffi.ATTN_DTYPE_INT64,
}
_NUMPY_OF = {code: name for name, code in _NUMPY_NAMES.items() if name != "bool"}
_PACKED = ("int4", "uint4", "float4_e2m1fn")

_codes: dict[Any, int] = {}  # numpy dtype -> attn_dtype
_numpy_dtypes: dict[int, Any] = {}  # attn_dtype -> numpy dtype

_c_char = ctypes.c_char
_addressof = ctypes.addressof
_struct_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)

_ARRAY_DATA = 24 + 2 * ctypes.sizeof(ctypes.c_void_p)


def dtype_code(dtype: str | int, field: str) -> int:
    """The attn_dtype that a name or number of a dtype stands for."""
    if isinstance(dtype, str):
        code = DTYPES.get(dtype) or _NUMPY_NAMES.get(dtype)
        if code is None:
            raise invalid(field, f"{field} is {dtype!r}; known dtypes: {', '.join(DTYPES)}")
        return code
    return int(dtype)


def dtype_name(code: int) -> str:
    """The name of an attn_dtype: "bf16"."""
    for name, value in DTYPES.items():
        if value == code:
            return name
    return f"dtype {code}"


def numpy_code(dtype: Any, field: str) -> int:
    """The attn_dtype of a numpy dtype."""
    code = _codes.get(dtype)
    if code is None:
        name = dtype.name
        if name in _PACKED:
            raise invalid(
                field,
                f"{field} has the dtype {name}, which numpy stores one a byte; pack two a byte "
                f"into uint8 and pass k_dtype or v_dtype",
            )
        if name not in _NUMPY_NAMES or not dtype.isnative:
            raise invalid(
                field, f"{field} has the dtype {dtype}; known are {', '.join(_NUMPY_NAMES)}"
            )
        code = _codes[dtype] = _NUMPY_NAMES[name]
        if name != "bool":
            _numpy_dtypes.setdefault(code, dtype)
    return code


def numpy_dtype(code: int, numpy: Any) -> Any:
    """The numpy dtype of an attn_dtype. Those that numpy lacks come from ml_dtypes."""
    dtype = _numpy_dtypes.get(code)
    if dtype is None:
        name = _NUMPY_OF.get(code)
        if name is None:
            raise UnsupportedError(
                f"numpy has no dtype for {dtype_name(code)}", status=_ffi.ATTN_ERROR_UNSUPPORTED
            )
        try:
            dtype = numpy.dtype(name)
        except TypeError:
            dtype = numpy.dtype(getattr(importlib.import_module("ml_dtypes"), name))
        _numpy_dtypes[code] = dtype
    return dtype


def address_of(array: Any) -> int:
    """The address of the first element of a numpy array."""
    try:
        return _addressof(_c_char.from_buffer(array))
    except (TypeError, ValueError, BufferError):
        # Not writable, not contiguous, empty, or of a dtype that the buffer protocol lacks. The
        # capsule of __array_struct__ owns a PyArrayInterface: four ints and a char, the pointers
        # to shape and strides, and then the address.
        capsule = array.__array_struct__
        record = _struct_pointer(capsule, None)
        return ctypes.c_void_p.from_address(record + _ARRAY_DATA).value or 0


class View:
    """A tensor that is not a numpy array."""

    __slots__ = ("address", "dtype", "shape", "strides", "device", "owner", "read_only")

    def __init__(
        self,
        address: int,
        dtype: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        owner: Any,
        device: tuple[int, int] = (_dlpack.CPU, 0),
        read_only: bool = False,
    ) -> None:
        self.address = address
        self.dtype = dtype  # attn_dtype
        self.shape = shape
        self.strides = strides  # in elements
        self.owner = owner  # keeps the memory alive
        self.device = device
        self.read_only = read_only


def current_stream(value: Any, device: tuple[int, int]) -> int | None:
    """The stream on which the framework of `value` works now, as DLPack numbers it; None on the
    CPU. It is also the stream that the attention is launched on."""
    if device[0] not in (_dlpack.CUDA, _dlpack.ROCM):
        return None
    module = sys.modules.get(type(value).__module__.partition(".")[0])
    pointer = 0
    cuda: Any = getattr(module, "cuda", None)
    if hasattr(cuda, "current_stream"):  # torch
        pointer = int(cuda.current_stream(device[1]).cuda_stream)
    elif hasattr(cuda, "get_current_stream"):  # cupy
        pointer = int(cuda.get_current_stream().ptr)
    # The default stream: 1 is its number for CUDA, 0 for ROCm.
    return pointer or (1 if device[0] == _dlpack.CUDA else 0)


def view_of(value: Any, field: str) -> View:
    """A view of any array that is not a numpy.ndarray."""
    if isinstance(value, View):
        return value
    if hasattr(value, "__dlpack__"):
        device = tuple(int(x) for x in value.__dlpack_device__())
        stream = current_stream(value, (device[0], device[1]))
        kwargs: dict[str, Any] = {} if stream is None else {"stream": stream}
        try:
            try:
                capsule = value.__dlpack__(max_version=(1, 0), **kwargs)
            except TypeError:  # made before DLPack 1.0
                capsule = value.__dlpack__(**kwargs)
            imported = _dlpack.Imported(capsule)
        except (BufferError, RuntimeError, ValueError, TypeError) as error:
            raise invalid(field, f"{field} cannot be taken through DLPack: {error}") from error
        if imported.dtype is None:
            raise invalid(field, f"{field} has a dtype that libattn lacks: {imported.described}")
        return View(imported.address, imported.dtype, imported.shape, imported.strides,
                    (imported, value), imported.device, imported.read_only)
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is not None:
        return _cuda_view(value, interface, field)
    raise invalid(
        field,
        f"{field} is a {type(value).__name__}; it must be a numpy array or have __dlpack__ or "
        "__cuda_array_interface__",
    )


_TYPESTRINGS = {
    "f4": _ffi.ATTN_DTYPE_FP32,
    "f2": _ffi.ATTN_DTYPE_FP16,
    "i1": _ffi.ATTN_DTYPE_INT8,
    "u1": _ffi.ATTN_DTYPE_UINT8,
    "b1": _ffi.ATTN_DTYPE_UINT8,
    "i4": _ffi.ATTN_DTYPE_INT32,
    "i8": _ffi.ATTN_DTYPE_INT64,
}


def _cuda_view(value: Any, interface: dict[str, Any], field: str) -> View:
    """A view by https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html. The caller
    orders its work: the interface's stream must be the one that the attention runs on."""
    typestr = interface["typestr"]
    dtype = _TYPESTRINGS.get(typestr[1:]) if typestr[0] in "<|=" else None
    if dtype is None or interface.get("mask") is not None:
        raise invalid(field, f"{field} has the type {typestr}, which libattn lacks")
    shape = tuple(int(n) for n in interface["shape"])
    size = int(typestr[2:])
    strides = interface.get("strides")
    if strides is None:
        elements = _dlpack.contiguous(shape)
    else:
        elements = element_strides(tuple(strides), size, field)
    address, read_only = interface["data"]
    return View(address or 0, dtype, shape, elements, (interface, value), (_dlpack.CUDA, 0),
                bool(read_only))


def element_strides(strides: tuple[int, ...], size: int, field: str) -> tuple[int, ...]:
    """Strides in elements from strides in bytes."""
    if size != 1:
        if any(stride % size for stride in strides):
            raise invalid(field, f"{field} has strides that are no multiple of its element's size")
        strides = tuple(stride // size for stride in strides)
    return strides


def integers(value: Any, field: str, numpy: Any) -> Any:
    """A contiguous int32 array from what a caller may give for lengths and offsets: a sequence of
    ints, a numpy array of any integer dtype, or any int32 array with __dlpack__."""
    if numpy is not None and isinstance(value, numpy.ndarray):
        if value.dtype.kind not in "iu":
            raise invalid(field, f"{field} has the dtype {value.dtype}; it must hold integers")
        if value.ndim != 1:
            raise invalid(field, f"{field} has {value.ndim} dimensions; it must have one")
        if value.dtype.name != "int32" and value.size:
            low, high = int(value.min()), int(value.max())
            if low < -(2**31) or high >= 2**31:
                raise invalid(field, f"{field} holds {low} .. {high}, which int32 does not")
        return numpy.ascontiguousarray(value, numpy.int32)
    if isinstance(value, Sequence):
        try:
            numbers = [int(n) for n in value]
            if any(not -(2**31) <= n < 2**31 for n in numbers):
                raise invalid(field, f"{field} holds a number that int32 does not")
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidArgumentError):
                raise
            raise invalid(field, f"{field} must be a sequence of ints: {error}") from error
        memory = (ctypes.c_int32 * len(numbers))(*numbers)
        return View(_addressof(memory), _ffi.ATTN_DTYPE_INT32, (len(numbers),), (1,), memory)
    view = view_of(value, field)
    if view.dtype != _ffi.ATTN_DTYPE_INT32 or len(view.shape) != 1 or (
        view.shape[0] > 1 and view.strides[0] != 1
    ):
        raise invalid(field, f"{field} must be a contiguous int32 array of one dimension")
    return view


def read_integers(array: Any) -> list[int]:
    """The numbers of what `integers` gave. Host memory only."""
    if isinstance(array, View):
        return list((ctypes.c_int32 * array.shape[0]).from_address(array.address))
    numbers: list[int] = array.tolist()
    return numbers


def pack_mask(mask: Any, numpy: Any) -> Any:
    """A bool mask [.., keys], True = visible, as bits [.., ceil(keys / 8)], bit j % 8 of byte j / 8
    for key j."""
    return numpy.packbits(mask, axis=-1, bitorder="little")


def importer_of(value: Any) -> Callable[[Any], Any] | None:
    """`from_dlpack` of the framework that made `value`, if it has one."""
    modules: list[Any] = []
    namespace = getattr(value, "__array_namespace__", None)
    if namespace is not None:
        modules.append(namespace())
    root = sys.modules.get(type(value).__module__.partition(".")[0])
    modules.append(root)
    modules.append(getattr(getattr(root, "utils", None), "dlpack", None))
    for module in modules:
        function = getattr(module, "from_dlpack", None)
        if function is not None:
            return function  # type: ignore[no-any-return]
    return None


class Output:
    """A new array of the kind that the caller gave, and where its memory is."""

    __slots__ = ("view", "_importer")

    def __init__(self, like: Any, device: tuple[int, int], shape: tuple[int, ...],
                 dtype: int) -> None:
        if device[0] != _dlpack.CPU:
            raise UnsupportedError(
                "attn: results on a device need out= (and lse=) to be given",
                status=_ffi.ATTN_ERROR_UNSUPPORTED, field="out",
            )
        memory = _dlpack.Allocation(shape, dtype)
        self.view = View(memory.address, dtype, shape, memory.strides, memory)
        self._importer = importer_of(like)

    def finish(self) -> Any:
        """The array: the framework's own, or an object with __dlpack__ if it has no importer."""
        memory = self.view.owner
        if self._importer is None:
            return memory
        try:
            return self._importer(memory)
        finally:
            memory.reclaim()
