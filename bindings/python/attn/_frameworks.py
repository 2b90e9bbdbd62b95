"""Makers of arrays: how each one's arrays are read, made, and ordered on streams.

None is imported. A maker is known by its arrays, and its module is found in sys.modules. PyTorch
and CuPy are read by their own attributes, which is fastest; everything else through `__dlpack__` or
`__cuda_array_interface__`.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import _arrays, _dlpack, _driver, _ffi
from ._arrays import HOST, Device, Spec, View
from ._errors import InvalidArgumentError, UnsupportedError, invalid


def device_name(device: Device) -> str:
    """Such as "the CPU" or "cuda:0"."""
    if device == HOST:
        return "the CPU"
    names = {_dlpack.CUDA: "cuda", _dlpack.ROCM: "rocm"}
    return f"{names.get(device[0], f'device type {device[0]}')}:{device[1]}"


def same_device(field: str, device: Device, wanted: Device, of: str) -> None:
    """Refuses an array on another device than the first of its call."""
    if device != wanted:
        raise invalid(field, f"{field} is on {device_name(device)}, but {of} is on "
                             f"{device_name(wanted)}; all arrays of a call must be on one device")


def device_of(type_: int, index: int) -> Device:
    """DLPack's device as ours: memory that the host may use is the host's."""
    if type_ in (_dlpack.CPU, _dlpack.CUDA_HOST, _dlpack.ROCM_HOST):
        return HOST
    return (_dlpack.CUDA if type_ == _dlpack.CUDA_MANAGED else int(type_), int(index))


class Maker:
    """Any array library, through DLPack and the CUDA array interface."""

    unfinished = True  # whether what `new` gives is yet to be finished

    def glance(self, arrays: Iterable[tuple[str, Any]], like: Any,
               key: list[Any]) -> tuple[Device, list[int]] | None:
        """The usual call, where all arrays (or None) are of the type of `like`, faster than by
        views: where `like` lies, and the addresses. What else a prepared call depends on goes into
        `key`. None: they are to be viewed."""
        return None

    def __init__(self, module: Any) -> None:
        self.module = module

    def view(self, value: Any, field: str, stream: int | None) -> View:
        """A view of an array. `stream` is where it will be used; None: the maker's current one."""
        if hasattr(value, "__dlpack__"):
            return self._dlpack_view(value, field, stream)
        interface = getattr(value, "__cuda_array_interface__", None)
        if interface is not None:
            return _cuda_view(value, interface, field)
        raise invalid(
            field,
            f"{field} is a {type(value).__name__}; it must be a numpy array or have __dlpack__ or "
            "__cuda_array_interface__",
        )

    def _dlpack_view(self, value: Any, field: str, stream: int | None) -> View:
        device = device_of(*value.__dlpack_device__())
        kwargs: dict[str, Any] = {}
        if device[0] in (_dlpack.CUDA, _dlpack.ROCM):
            if stream is None:
                stream = self.stream(device)
            # The default stream: 1 is its number for CUDA, 0 for ROCm.
            kwargs["stream"] = stream or (1 if device[0] == _dlpack.CUDA else 0)
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
                    (imported, value), device_of(*imported.device), imported.read_only)

    def stream(self, device: Device) -> int:
        """The stream on which the maker works now, as the driver's handle."""
        cuda: Any = getattr(self.module, "cuda", None)
        if hasattr(cuda, "current_stream"):
            return int(cuda.current_stream(device[1]).cuda_stream)
        if hasattr(cuda, "get_current_stream"):
            return int(cuda.get_current_stream().ptr)
        return 0

    def int32(self, value: Any) -> Any:
        """An array of integers as int32, if the maker can."""
        return value

    def pack_mask(self, mask: Any, name: str) -> Any:
        """A bool mask as bits: on the CPU, by numpy."""
        try:
            import numpy
        except ImportError:
            raise invalid(
                name, f"packing a bool {name} needs numpy; or give packed bits (uint8)"
            ) from None
        if view_of(mask, name).device != HOST:
            raise invalid(
                name, f"a bool {name} on a device must be packed by the caller (uint8 bits)"
            )
        return _arrays.pack_mask(numpy.from_dlpack(mask), numpy)

    def scalar(self, value: float, shape: tuple[int, ...], like: Any) -> Any:
        """An fp32 array of one element, where `like` lies."""
        memory = ctypes.c_float(value)
        return View(ctypes.addressof(memory), _ffi.ATTN_DTYPE_FP32, shape, (1,) * len(shape),
                    memory)

    def dtype(self, code: int) -> Any:
        """The maker's name for an attn_dtype."""
        return code

    def recipe(self, code: int, shape: tuple[int, ...], like: Spec) -> Any:
        """What `new` takes for contiguous arrays of an attn_dtype and a shape, beside one of `like`
        (name, attn_dtype, shape, strides)."""
        return self.dtype(code)

    def new(self, like: Any, device: Device, shape: tuple[int, ...],
            recipe: Any) -> tuple[Any, int]:
        """A new array beside `like` and its address; `finish` turns it into what callers get."""
        if device != HOST:
            raise UnsupportedError(
                "attn: results on a device need out= (and lse=) to be given: "
                f"{type(like).__module__} does not say how its arrays are made",
                status=_ffi.ATTN_ERROR_UNSUPPORTED, field="out",
            )
        memory = _dlpack.Allocation(shape, recipe)
        return (memory, _importer_of(like)), memory.address

    def finish(self, made: Any) -> Any:
        memory, importer = made
        if importer is None:
            return memory
        try:
            return importer(memory)
        finally:
            memory.reclaim()

    def scratch(self, like: Any, device: Device, size: int, stream: int | None) -> tuple[Any, int]:
        """(owner, address) of memory on a device, to be used on `stream`; None: the current one."""
        raise UnsupportedError(
            f"attn: this call needs a workspace of {size} bytes on {device_name(device)}, and "
            f"{type(like).__module__} does not say how its arrays are made: use attn.Plan and give "
            "workspace=", status=_ffi.ATTN_ERROR_UNSUPPORTED, field="workspace",
        )

    def launched(self, device: Device, stream: int) -> None:
        """Called when new arrays are being written on `stream`."""


class Torch(Maker):
    """PyTorch: its tensors, its allocator and its current stream."""

    unfinished = False

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self._codes: dict[Any, int] = {}  # torch.dtype -> attn_dtype
        self._dtypes: dict[int, Any] = {}
        for name, code in _arrays.NUMPY_NAMES.items():
            dtype = getattr(module, name, None)
            if dtype is not None:
                self._codes[dtype] = code
                if name != "bool":
                    self._dtypes[code] = dtype
        self._devices: dict[Any, Device] = {}
        self._empty_like, self._empty_strided = module.empty_like, module.empty_strided
        # The handle without the objects around it.
        self._raw_stream = getattr(getattr(module, "_C", None), "_cuda_getCurrentRawStream", None)

    def view(self, value: Any, field: str, stream: int | None) -> View:
        try:
            view = View(value.data_ptr(), self._codes[value.dtype], value.shape, value.stride(),
                        value, self._devices[value.device])
            if value.requires_grad and self.module.is_grad_enabled():
                raise invalid(field, f"{field} requires a gradient, which is not recorded here: "
                                     "detach() it, or call under torch.no_grad()")
            if value.is_neg():
                raise invalid(field, f"{field} is a lazy negation; resolve_neg() it")
            return view
        except KeyError:
            pass
        except RuntimeError as error:  # sparse, fake, without storage
            raise invalid(field, f"{field} has no memory to be read: {error}") from error
        if value.dtype not in self._codes:
            raise invalid(field, f"{field} has the dtype {value.dtype}, which libattn lacks; it "
                                 f"has {', '.join(_arrays.NUMPY_NAMES)}")
        self._devices[value.device] = self._device(value.device, field)
        return self.view(value, field, stream)

    def glance(self, arrays: Iterable[tuple[str, Any]], like: Any,
               key: list[Any]) -> tuple[Device, list[int]] | None:
        device = self._devices.get(like.device)
        if device is None:
            return None
        kind = type(like)
        addresses = []
        try:
            for name, value in arrays:
                if type(value) is kind:
                    key += (value.shape, value.stride(), value.dtype, value.device)
                    if value.requires_grad or value.is_neg():
                        self.view(value, name, None)  # may refuse it
                    addresses.append(value.data_ptr())
                elif value is None:
                    key.append(None)
                else:
                    return None
        except RuntimeError:  # view says what is wrong
            return None
        return device, addresses

    def _device(self, device: Any, field: str) -> Device:
        if device.type == "cpu":
            return HOST
        if device.type != "cuda":
            raise invalid(field, f"{field} is on {device}; libattn takes tensors on cpu and cuda")
        rocm = getattr(getattr(self.module, "version", None), "hip", None)
        return (_dlpack.ROCM if rocm else _dlpack.CUDA, device.index)

    def stream(self, device: Device) -> int:
        if self._raw_stream is not None:
            return int(self._raw_stream(device[1]))
        return int(self.module.cuda.current_stream(device[1]).cuda_stream)

    def int32(self, value: Any) -> Any:
        torch = self.module
        if value.dtype in (torch.int64, torch.int16, torch.int8, torch.uint8):
            return value.to(torch.int32)
        return value

    def pack_mask(self, mask: Any, name: str) -> Any:
        torch = self.module
        bits = torch.nn.functional.pad(mask.to(torch.uint8), (0, -mask.shape[-1] % 8))
        places = torch.arange(8, dtype=torch.uint8, device=mask.device)
        places = torch.bitwise_left_shift(torch.ones_like(places), places)
        return (bits.unflatten(-1, (-1, 8)) * places).sum(-1, dtype=torch.uint8)

    def scalar(self, value: float, shape: tuple[int, ...], like: Any) -> Any:
        return self.module.full(shape, value, dtype=self.module.float32, device=like.device)

    def dtype(self, code: int) -> Any:
        dtype = self._dtypes.get(code)
        if dtype is None:
            raise UnsupportedError(f"torch has no dtype for {_arrays.dtype_name(code)}",
                                   status=_ffi.ATTN_ERROR_UNSUPPORTED)
        return dtype

    def recipe(self, code: int, shape: tuple[int, ...], like: Spec) -> Any:
        strides = _dlpack.contiguous(shape)
        same = (code, shape, strides) == (like[1], tuple(like[2]), tuple(like[3]))
        return None if same else (strides, self.dtype(code))

    def new(self, like: Any, device: Device, shape: tuple[int, ...],
            recipe: Any) -> tuple[Any, int]:
        # The quickest of PyTorch's ways, the others take up to three times as long.
        if recipe is None:
            made = self._empty_like(like)
        else:
            made = self._empty_strided(shape, recipe[0], dtype=recipe[1], device=like.device)
        return made, made.data_ptr()

    def scratch(self, like: Any, device: Device, size: int, stream: int | None) -> tuple[Any, int]:
        torch = self.module
        # The allocator hands memory out again in the order of the stream that is current now.
        if stream is None or stream == self.stream(device):
            return self.new(like, device, (size,), ((1,), torch.uint8))
        with torch.cuda.stream(torch.cuda.ExternalStream(stream, like.device)):
            return self.new(like, device, (size,), ((1,), torch.uint8))


class CuPy(Maker):
    """CuPy: its arrays, its memory pool and its current stream."""

    unfinished = False

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        rocm = bool(getattr(module.cuda.runtime, "is_hip", False))
        self._type = _dlpack.ROCM if rocm else _dlpack.CUDA

    def view(self, value: Any, field: str, stream: int | None) -> View:
        dtype = value.dtype
        return View(value.data.ptr, _arrays.numpy_code(dtype, field), value.shape,
                    _arrays.element_strides(value.strides, dtype.itemsize, field), value,
                    (self._type, value.device.id))

    def stream(self, device: Device) -> int:
        with self.module.cuda.Device(device[1]):
            return int(self.module.cuda.get_current_stream().ptr)

    def int32(self, value: Any) -> Any:
        return value.astype("int32", copy=False) if value.dtype.kind in "iu" else value

    def pack_mask(self, mask: Any, name: str) -> Any:
        cupy = self.module
        short = -mask.shape[-1] % 8
        bits = cupy.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, short)])
        # CuPy packs what is flat.
        packed = cupy.packbits(bits.ravel(), bitorder="little")
        return packed.reshape(*bits.shape[:-1], bits.shape[-1] // 8)

    def scalar(self, value: float, shape: tuple[int, ...], like: Any) -> Any:
        with like.device:
            return self.module.full(shape, value, dtype="float32")

    def dtype(self, code: int) -> Any:
        return _arrays.numpy_dtype(code, sys.modules["numpy"])

    def new(self, like: Any, device: Device, shape: tuple[int, ...],
            recipe: Any) -> tuple[Any, int]:
        with self.module.cuda.Device(device[1]):
            made = self.module.empty(shape, recipe)
        return made, made.data.ptr

    def scratch(self, like: Any, device: Device, size: int, stream: int | None) -> tuple[Any, int]:
        cupy = self.module
        with cupy.cuda.Device(device[1]):
            if stream is None or stream == cupy.cuda.get_current_stream().ptr:
                made = cupy.empty(size, "uint8")
            else:
                # The pool hands memory out again in the order of the stream that is current now.
                with cupy.cuda.ExternalStream(stream):
                    made = cupy.empty(size, "uint8")
        return made, made.data.ptr


class Jax(Maker):
    """JAX: on a GPU it has no current stream, so calls run on the default one, and new arrays are
    complete when the call returns."""

    def stream(self, device: Device) -> int:
        return 0

    def _beside(self, like: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, int]:
        made = self.module.numpy.zeros(shape, dtype, device=next(iter(like.devices())))
        made.block_until_ready()
        return made, made.unsafe_buffer_pointer()

    def new(self, like: Any, device: Device, shape: tuple[int, ...],
            recipe: Any) -> tuple[Any, int]:
        if device == HOST:
            return super().new(like, device, shape, recipe)
        return self._beside(like, shape, _arrays.numpy_dtype(recipe, sys.modules["numpy"]))

    def finish(self, made: Any) -> Any:
        return super().finish(made) if isinstance(made, tuple) else made

    def scratch(self, like: Any, device: Device, size: int, stream: int | None) -> tuple[Any, int]:
        return self._beside(like, (size,), "uint8")

    def launched(self, device: Device, stream: int) -> None:
        _driver.synchronize(device[1], stream)


class _Own(Maker):
    """Views: what they were made of is forgotten."""

    def view(self, value: Any, field: str, stream: int | None) -> View:
        view: View = value
        return view


_own = _Own(None)
_makers: dict[type, Maker] = {View: _own}
_modules: dict[tuple[type, int], Maker] = {}


def maker_of(value: Any) -> Maker:
    """Who made an array that is not numpy's."""
    return _makers.get(type(value)) or _find_maker(type(value))


def known_maker(kind: type) -> Maker | None:
    """Who makes arrays of a type, if one was seen before."""
    return _makers.get(kind)


def _find_maker(kind: type) -> Maker:
    root = kind.__module__.partition(".")[0]
    module: Any = sys.modules.get(root)
    of: type = Maker
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "Tensor") and issubclass(kind, torch.Tensor):
        module, of = torch, Torch
    elif root == "cupy" and hasattr(module, "ndarray"):
        of = CuPy
    elif root in ("jax", "jaxlib") and "jax" in sys.modules:
        module, of = sys.modules["jax"], Jax
    # One for each module, so that prepared calls are found again whatever the subclass.
    maker = _modules.get((of, id(module)))
    if maker is None:
        maker = _modules[of, id(module)] = of(module)
    _makers[kind] = maker
    return maker


def view_of(value: Any, field: str, stream: int | None = None) -> View:
    """A view of any array that is not a numpy.ndarray."""
    return (_makers.get(type(value)) or _find_maker(type(value))).view(value, field, stream)


def stream_of(maker: Maker, device: Device, values: Iterable[tuple[str, Any]]) -> int:
    """The stream that a call runs on: the current one of the maker of its first array, or where an
    array says by __cuda_array_interface__ that work on it is under way. Two such are refused: the
    caller has to order them."""
    handle = maker.stream(device)
    said = ""
    for name, value in values:
        own = value.stream
        if own is None:
            continue
        if not said and type(maker) is Maker:
            handle, said = own, name
        # 1 is the default stream too.
        elif own != handle and not (own in (0, 1) and handle in (0, 1)):
            raise invalid(name, f"{name} is in use on stream {own}, but the call runs on stream "
                                f"{handle}{f' as {said} does' if said else ''}: order them, and "
                                "use attn.Plan with stream=")
    return handle


def stream_handle(stream: Any) -> int:
    """The driver's handle of a stream: an int, torch.cuda.Stream, cupy.cuda.Stream, or an object
    with `__cuda_stream__`."""
    if isinstance(stream, int):
        return stream
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        return int((protocol() if callable(protocol) else protocol)[1])
    for name in ("cuda_stream", "ptr"):
        handle = getattr(stream, name, None)
        if isinstance(handle, int):
            return handle
    raise invalid("stream", f"stream is a {type(stream).__name__}; it must be an int, or a stream "
                            "of torch, cupy or with __cuda_stream__")


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
    """A view by https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html."""
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
        elements = _arrays.element_strides(tuple(strides), size, field)
    address, read_only = interface["data"]
    view = View(address or 0, dtype, shape, elements, (interface, value),
                (_dlpack.CUDA, _driver.device_of(address or 0)), bool(read_only))
    stream = interface.get("stream")
    view.stream = None if stream is None else int(stream)
    return view


# An address for empty arrays, where the library tells an empty one from none. It is never read.
_NOTHING = ctypes.c_int32()


def integers(value: Any, field: str, numpy: Any, stream: int | None = None) -> Any:
    """A contiguous int32 array from what a caller may give for lengths and offsets: a sequence of
    ints, a numpy array of any integer dtype, or an array of another maker: of torch and cupy of any
    integer dtype, else of int32."""
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
        return View(ctypes.addressof(memory), _ffi.ATTN_DTYPE_INT32, (len(numbers),), (1,), memory)
    maker = maker_of(value)
    view = maker.view(maker.int32(value), field, stream)
    if view.dtype != _ffi.ATTN_DTYPE_INT32 or len(view.shape) != 1 or (
        view.shape[0] > 1 and view.strides[0] != 1
    ):
        raise invalid(field, f"{field} must be a contiguous int32 array of one dimension")
    if view.address == 0 and view.shape == (0,):  # as allocators of devices give
        view.address = ctypes.addressof(_NOTHING)
    return view


def read_integers(array: Any) -> list[int]:
    """The numbers of what `integers` gave. Host memory only."""
    if isinstance(array, View):
        return list((ctypes.c_int32 * array.shape[0]).from_address(array.address))
    numbers: list[int] = array.tolist()
    return numbers


def _importer_of(value: Any) -> Callable[[Any], Any] | None:
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
