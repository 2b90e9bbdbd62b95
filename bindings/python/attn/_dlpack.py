"""DLPack in both directions, by ctypes, without any framework.

https://dmlc.github.io/dlpack/latest/
"""

from __future__ import annotations

import ctypes
from typing import Any

from . import _ffi

CPU, CUDA, CUDA_HOST, ROCM, ROCM_HOST, CUDA_MANAGED = 1, 2, 3, 10, 11, 13

_NAME = b"dltensor"
_NAME_VERSIONED = b"dltensor_versioned"
_NAME_USED = b"used_dltensor"
_READ_ONLY = 1

# (type code, bits) -> attn_dtype
_TO_ATTN = {
    (2, 32): _ffi.ATTN_DTYPE_FP32,
    (2, 16): _ffi.ATTN_DTYPE_FP16,
    (4, 16): _ffi.ATTN_DTYPE_BF16,
    (10, 8): _ffi.ATTN_DTYPE_FP8_E4M3FN,
    (12, 8): _ffi.ATTN_DTYPE_FP8_E5M2,
    (11, 8): _ffi.ATTN_DTYPE_FP8_E4M3FNUZ,
    (14, 8): _ffi.ATTN_DTYPE_FP8_E8M0,
    (0, 8): _ffi.ATTN_DTYPE_INT8,
    (1, 8): _ffi.ATTN_DTYPE_UINT8,
    (6, 8): _ffi.ATTN_DTYPE_UINT8,
    (0, 32): _ffi.ATTN_DTYPE_INT32,
    (0, 64): _ffi.ATTN_DTYPE_INT64,
}
_FROM_ATTN = {attn: dl for dl, attn in reversed(_TO_ATTN.items())}


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [
        ("tensor", _Tensor),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    ]


class _ManagedVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_capsule_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_capsule_is_valid.restype = ctypes.c_int
_capsule_is_valid.argtypes = (ctypes.py_object, ctypes.c_char_p)
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_capsule_set_name = ctypes.pythonapi.PyCapsule_SetName
_capsule_set_name.restype = ctypes.c_int
_capsule_set_name.argtypes = (ctypes.py_object, ctypes.c_char_p)
_capsule_new = ctypes.pythonapi.PyCapsule_New
_capsule_new.restype = ctypes.py_object
_capsule_new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Imported:
    """What a capsule says about its tensor. Lives as long as the capsule is held."""

    __slots__ = ("capsule", "address", "dtype", "described", "shape", "strides", "read_only",
                 "device")

    def __init__(self, capsule: Any) -> None:
        # The capsule is kept and never marked as used, so that its own destructor gives the
        # tensor back.
        self.capsule = capsule
        self.read_only = False
        if _capsule_is_valid(capsule, _NAME_VERSIONED):
            versioned = _ManagedVersioned.from_address(_capsule_pointer(capsule, _NAME_VERSIONED))
            if versioned.major != 1:
                raise BufferError(f"DLPack version {versioned.major} is not supported")
            self.read_only = bool(versioned.flags & _READ_ONLY)
            tensor = versioned.tensor
        elif _capsule_is_valid(capsule, _NAME):
            tensor = _Managed.from_address(_capsule_pointer(capsule, _NAME)).tensor
        else:
            raise BufferError("__dlpack__ gave no unused DLPack capsule")
        self.described = f"DLPack type code {tensor.code}, {tensor.bits} bits"
        self.dtype = _TO_ATTN.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
        rank = tensor.ndim
        self.shape = tuple(tensor.shape[i] for i in range(rank))
        if tensor.strides:
            self.strides = tuple(tensor.strides[i] for i in range(rank))
        else:
            self.strides = contiguous(self.shape)
        self.address = (tensor.data or 0) + tensor.byte_offset
        self.device = (tensor.device_type, tensor.device_id)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides, in elements."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * max(shape[i + 1], 1)
    return tuple(strides)


class Allocation:
    """Host memory of the package's own, to be handed over once by DLPack.

    The memory, its DLPack record, shape and strides are one block of malloc, and the record's
    deleter is `free` itself: whoever takes it can give it back from any thread and at any time,
    the end of the interpreter included.
    """

    _libc: Any = None
    _ALIGNMENT = 64

    def __init__(self, shape: tuple[int, ...], dtype: int) -> None:
        libc = Allocation._libc
        if libc is None:
            libc = ctypes.CDLL(None)
            libc.malloc.restype = ctypes.c_void_p
            libc.malloc.argtypes = (ctypes.c_size_t,)
            libc.free.restype = None
            libc.free.argtypes = (ctypes.c_void_p,)
            Allocation._libc = libc
        code, bits = _FROM_ATTN[dtype]
        size = bits // 8
        for extent in shape:
            size *= extent
        rank = len(shape)
        head = max(ctypes.sizeof(_Managed), ctypes.sizeof(_ManagedVersioned)) + 2 * 8 * rank
        self._block: int | None = libc.malloc(head + size + self._ALIGNMENT)
        if not self._block:
            raise MemoryError(f"attn: cannot allocate {size} bytes")
        numbers = self._block + head - 2 * 8 * rank
        strides = contiguous(shape)
        (ctypes.c_int64 * (2 * rank)).from_address(numbers)[:] = [*shape, *strides]
        self.address = -(-(self._block + head) // self._ALIGNMENT) * self._ALIGNMENT
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        self._tensor = _Tensor(
            self.address, CPU, 0, rank, code, bits, 1,
            ctypes.cast(numbers, ctypes.POINTER(ctypes.c_int64)),
            ctypes.cast(numbers + 8 * rank, ctypes.POINTER(ctypes.c_int64)), 0,
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CPU, 0)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule that owns the memory. May be called once."""
        if self._block is None:
            raise BufferError("attn: the memory was handed over already")
        if copy or (dl_device is not None and tuple(dl_device) != (CPU, 0)):
            raise BufferError("attn: copies and other devices are not supported")
        free = ctypes.cast(self._libc.free, ctypes.c_void_p).value
        if max_version is not None and max_version[0] >= 1:
            record: Any = _ManagedVersioned.from_address(self._block)
            record.major, record.minor, record.flags = 1, 0, 0
            name = _NAME_VERSIONED
        else:
            record = _Managed.from_address(self._block)
            name = _NAME
        record.tensor = self._tensor
        record.manager = None
        record.deleter = free
        capsule = _capsule_new(self._block, name, None)
        self._exported = (capsule, name)
        self._block = None
        return capsule

    _exported: tuple[Any, bytes] | None = None

    def reclaim(self) -> None:
        """Frees the memory if a consumer was handed the capsule but did not take it."""
        if self._exported is not None:
            capsule, name = self._exported
            self._exported = None
            if _capsule_is_valid(capsule, name):
                self._block = _capsule_pointer(capsule, name)
                _capsule_set_name(capsule, _NAME_USED)
                self._release()

    def _release(self) -> None:
        if self._block is not None:
            self._libc.free(self._block)
            self._block = None

    def __del__(self) -> None:
        self.reclaim()
        self._release()
