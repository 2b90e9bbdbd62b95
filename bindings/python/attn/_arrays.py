"""Views of arrays: address, dtype, shape, strides and device; and numpy's arrays (also of the
dtypes of ml_dtypes), which are read directly. Others: _frameworks.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

from . import _dlpack, _ffi
from ._errors import UnsupportedError, invalid

Device = tuple[int, int]
"""A device as DLPack numbers it: (type, index)."""
HOST: Device = (_dlpack.CPU, 0)

Spec = tuple[str, int, tuple[int, ...], tuple[int, ...]]
"""name, attn_dtype, shape, strides in elements"""

DTYPES: dict[str, int] = {
    member.name.removeprefix("ATTN_DTYPE_").lower(): member.value
    for member in _ffi.attn_dtype
    if member.value
}
"""Name of a dtype, such as "bf16" or "fp8_e4m3fn" -> attn_dtype."""

NUMPY_NAMES = {
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
_NUMPY_OF = {code: name for name, code in NUMPY_NAMES.items() if name != "bool"}
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
        code = DTYPES.get(dtype) or NUMPY_NAMES.get(dtype)
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
        if name not in NUMPY_NAMES or not dtype.isnative:
            raise invalid(
                field, f"{field} has the dtype {dtype}; known are {', '.join(NUMPY_NAMES)}"
            )
        code = _codes[dtype] = NUMPY_NAMES[name]
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

    __slots__ = ("address", "dtype", "shape", "strides", "device", "owner", "read_only", "stream")

    def __init__(
        self,
        address: int,
        dtype: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        owner: Any,
        device: Device = HOST,
        read_only: bool = False,
    ) -> None:
        self.address = address
        self.dtype = dtype  # attn_dtype
        self.shape = shape
        self.strides = strides  # in elements
        self.owner = owner  # keeps the memory alive
        self.device = device
        self.read_only = read_only
        # The stream that its maker works on, if the array itself says so.
        self.stream: int | None = None


def element_strides(strides: tuple[int, ...], size: int, field: str) -> tuple[int, ...]:
    """Strides in elements from strides in bytes."""
    if size != 1:
        if any(stride % size for stride in strides):
            raise invalid(field, f"{field} has strides that are no multiple of its element's size")
        strides = tuple(stride // size for stride in strides)
    return strides


def pack_mask(mask: Any, numpy: Any) -> Any:
    """A bool mask [.., keys], True = visible, as bits [.., ceil(keys / 8)], bit j % 8 of byte j / 8
    for key j."""
    return numpy.packbits(mask, axis=-1, bitorder="little")
