"""GPU frameworks without a GPU: modules with the names and attributes that the package reads, whose
device memory is host memory."""

import contextlib
import types

import numpy as np
from attn import _dlpack

CUDA0, CUDA1 = (2, 0), (2, 1)


class DType:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"torch.{self.name}"


class Recorder(list):
    """What frameworks were asked for, in order."""


def make_torch(stream=7, index=0):
    """A module like torch, with one CUDA device `index` whose current stream is `stream`."""
    torch = types.ModuleType("torch")
    torch.asked = Recorder()
    torch.current = stream
    for name in ("float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"):
        setattr(torch, name, DType(name))

    class Device:
        def __init__(self, type_, index):
            self.type, self.index = type_, index

        def __eq__(self, other):
            return (self.type, self.index) == (other.type, other.index)

        def __hash__(self):
            return hash((self.type, self.index))

        def __repr__(self):
            return f"{self.type}:{self.index}"

    class Tensor:
        requires_grad = False

        def __init__(self, array, device):
            self.array, self.device = array, device

        dtype = property(lambda self: getattr(torch, self.array.dtype.name))
        shape = property(lambda self: self.array.shape)

        def data_ptr(self):
            return self.array.ctypes.data

        def stride(self):
            return tuple(s // self.array.itemsize for s in self.array.strides)

        def is_neg(self):
            return False

        def to(self, dtype):
            return Tensor(self.array.astype(dtype.name), self.device)

    def empty_strided(shape, strides, *, dtype, device):
        torch.asked.append(("empty", shape, dtype.name, repr(device), torch.current))
        made = Tensor(np.zeros(shape, dtype.name), device)
        assert made.stride() == strides
        return made

    torch.empty_strided = empty_strided
    torch.empty_like = lambda like: empty_strided(like.shape, like.stride(), dtype=like.dtype,
                                                  device=like.device)
    Tensor.__module__ = "torch"
    torch.Tensor = Tensor
    torch.device = Device
    torch.on = lambda array, number=index: Tensor(array, Device("cuda", number))
    torch.on_cpu = lambda array: Tensor(array, Device("cpu", None))
    torch.is_grad_enabled = lambda: True

    @contextlib.contextmanager
    def use(stream):
        before, torch.current = torch.current, stream.cuda_stream
        yield
        torch.current = before

    torch.cuda = types.SimpleNamespace(
        stream=use,
        ExternalStream=lambda handle, device: types.SimpleNamespace(cuda_stream=handle),
        current_stream=lambda device: types.SimpleNamespace(cuda_stream=torch.current),
    )
    torch._C = types.SimpleNamespace(_cuda_getCurrentRawStream=lambda device: torch.current)
    return torch


def make_cupy(stream=9):
    """A module like cupy."""
    cupy = types.ModuleType("cupy")
    cupy.asked = Recorder()
    cupy.current = stream

    class Array:
        def __init__(self, array, index=0):
            self.array = array
            self.device = types.SimpleNamespace(id=index)

        dtype = property(lambda self: self.array.dtype)
        shape = property(lambda self: self.array.shape)
        strides = property(lambda self: self.array.strides)
        data = property(lambda self: types.SimpleNamespace(ptr=self.array.ctypes.data))

        def astype(self, dtype, copy):
            return Array(self.array.astype(dtype, copy=copy), self.device.id)

    Array.__module__ = "cupy"
    cupy.ndarray = Array

    def empty(shape, dtype):
        cupy.asked.append(("empty", shape, np.dtype(dtype).name, cupy.current))
        return Array(np.zeros(shape, dtype))

    cupy.empty = empty

    @contextlib.contextmanager
    def use(handle):
        before, cupy.current = cupy.current, handle
        yield
        cupy.current = before

    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(is_hip=False),
        Device=lambda index: contextlib.nullcontext(),
        ExternalStream=use,
        get_current_stream=lambda: types.SimpleNamespace(ptr=cupy.current),
    )
    return cupy


class OnlyDLPack:
    """An array on a device that has nothing but DLPack."""

    def __init__(self, array, device=CUDA0):
        self.array, self.device = array, device
        self.streams = []

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, max_version=None):
        self.streams.append(stream)
        capsule = self.array.__dlpack__()
        managed = _dlpack._Managed.from_address(_dlpack._capsule_pointer(capsule, b"dltensor"))
        managed.tensor.device_type, managed.tensor.device_id = self.device
        return capsule


class OnlyInterface:
    """An array on a device that has nothing but __cuda_array_interface__."""

    def __init__(self, array, stream=None):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "version": 3,
            "strides": array.strides, "data": (array.ctypes.data, False), "stream": stream,
        }
