"""Contexts: one device of one backend."""

from __future__ import annotations

import ctypes
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from . import _dlpack, _ffi, _library
from ._arrays import HOST, Device
from ._errors import invalid, raise_error

_lib: Any = _library.library

BACKENDS = {m.name.removeprefix("ATTN_BACKEND_").lower(): m.value for m in _ffi.attn_backend}
LOG_LEVELS = {m.name.removeprefix("ATTN_LOG_").lower(): m.value for m in _ffi.attn_log_level}


def choose(names: dict[str, int], value: str | int, field: str) -> int:
    """The number of an enum's value from its name or number. Numbers are for the library to
    judge."""
    if isinstance(value, str):
        if value not in names:
            raise invalid(field, f"{field} is {value!r}; it must be one of {', '.join(names)}")
        return names[value]
    return int(value)


@dataclasses.dataclass(frozen=True)
class DeviceInfo:
    """A device: attn_device_info."""

    backend: str
    """"cpu", "cuda" or "hip"."""
    device_index: int
    num_units: int
    """CPU: threads in use or usable; GPU: multiprocessors."""
    memory_bytes: int
    """Memory of the device in all; 0 if unknown."""
    name: str
    architecture: str
    """CPU: the SIMD target in use; GPU: such as "sm_90"."""


def _info(record: Any) -> DeviceInfo:
    backends = {number: name for name, number in BACKENDS.items()}
    return DeviceInfo(
        backends.get(record.backend, str(record.backend)), record.device_index, record.num_units,
        record.memory_bytes, record.name.decode(), record.architecture.decode(),
    )


def device_count(backend: str = "auto") -> int:
    """How many devices `backend` ("auto", "cpu", "cuda", "hip") has.

    Raises BackendUnavailableError, with the reason, if the backend is not built in or has no
    driver.
    """
    count, error = ctypes.c_int32(), _ffi.attn_error()
    status = _lib.attn_device_count(choose(BACKENDS, backend, "backend"), count, error)
    if status:
        raise_error(status, error)
    return count.value


def device_info(backend: str = "auto", device: int = 0) -> DeviceInfo:
    """Describes a device without creating a context."""
    record, error = _ffi.attn_device_info(), _ffi.attn_error()
    status = _lib.attn_device_query(
        choose(BACKENDS, backend, "backend"), device, record, error
    )
    if status:
        raise_error(status, error)
    return _info(record)


class ContextHandle:
    """Owns an attn_context. Plans hold it too, so that it outlives them."""

    def __init__(self, desc: Any, callback: Any) -> None:
        self.pointer = ctypes.POINTER(_ffi.attn_context)()
        self._callback = callback
        error = _ffi.attn_error()
        status = _lib.attn_context_create(desc, self.pointer, error)
        if status:
            raise_error(status, error)
        info = self.info()
        # As DLPack numbers devices.
        types = {_ffi.ATTN_BACKEND_CUDA: _dlpack.CUDA, _ffi.ATTN_BACKEND_HIP: _dlpack.ROCM}
        type_ = types.get(info.backend)
        self.device = HOST if type_ is None else (type_, int(info.device_index))

    def info(self) -> Any:
        """attn_device_info."""
        record, error = _ffi.attn_device_info(), _ffi.attn_error()
        status = _lib.attn_context_query(self.pointer, record, error)
        if status:
            raise_error(status, error)
        return record

    def __del__(self, _destroy: Any = _lib.attn_context_destroy) -> None:
        if self.pointer:
            _destroy(self.pointer)


class Context:
    """A device of a backend. Immutable; any number of threads may use it at once.

    Args:
        backend: "auto" (the first of CUDA, HIP, CPU that has a device), "cpu", "cuda", "hip".
        device: 0 .. device_count(backend) - 1.
        num_threads: CPU: threads that one call may use, the caller's included; 0 = all that the
            process may run on.
        log: called as log(level, message), from any thread that makes contexts or plans;
            level is one of "error", "warning", "info", "debug". Exceptions in it are reported
            by sys.unraisablehook and otherwise ignored.
        log_level: the most detailed level delivered.

    Raises InvalidArgumentError, VersionError, BackendUnavailableError, OutOfMemoryError.
    """

    def __init__(
        self,
        backend: str = "auto",
        device: int = 0,
        *,
        num_threads: int = 0,
        log: Callable[[str, str], object] | None = None,
        log_level: str = "info",
    ) -> None:
        desc = _ffi.attn_context_desc(
            backend=choose(BACKENDS, backend, "backend"),
            device_index=device,
            num_threads=num_threads,
        )
        callback = None
        if log is not None:
            names = {number: name for name, number in LOG_LEVELS.items()}

            def deliver(_: Any, level: int, message: bytes) -> None:
                log(names.get(level, str(level)), message.decode("utf-8", "replace"))

            callback = _ffi.attn_log_callback(deliver)
            desc.log_callback = callback
            desc.log_level = choose(LOG_LEVELS, log_level, "log_level")
        self.handle = ContextHandle(desc, callback)
        self.device = self.handle.device
        # Prepared calls of attn.sdpa, attn.sdpa_backward and attn.merge, by what they depend on.
        self.calls: dict[Any, Any] = {}
        self.glanced: dict[Any, Any] = {}  # the same by what a glance at the arguments tells
        self.lock = threading.Lock()

    @property
    def info(self) -> DeviceInfo:
        """The device, with the thread count that the context resolved to."""
        return _info(self.handle.info())

    def __repr__(self) -> str:
        info = self.info
        threads = f", num_threads={info.num_units}" if self.device == HOST else ""
        return f"attn.Context({info.backend!r}, {info.device_index}{threads})"

    _CACHE_SIZE = 512

    def remember(self, key: Any, call: Any, glanced: bool = False) -> None:
        """Keeps a prepared call; drops the oldest if there are too many."""
        calls = self.glanced if glanced else self.calls
        with self.lock:
            while len(calls) >= self._CACHE_SIZE:
                del calls[next(iter(calls))]
            calls[key] = call


_defaults: dict[Device, Context] = {}
_defaults_lock = threading.Lock()
_BACKEND_OF_DEVICE = {
    _dlpack.CPU: "cpu", _dlpack.CUDA_HOST: "cpu", _dlpack.ROCM_HOST: "cpu",
    _dlpack.CUDA: "cuda", _dlpack.ROCM: "hip",
}


def default_context(device: Device = HOST) -> Context:
    """The context that calls without `context` use: one for each device, made at the first use.

    Args:
        device: (device type, device id) as in DLPack; (1, 0) is the CPU, (2, i) a CUDA device.
    """
    context = _defaults.get(device)
    if context is None:
        backend = _BACKEND_OF_DEVICE.get(device[0])
        if backend is None:
            raise invalid("device", f"arrays on DLPack device type {device[0]} are not supported")
        index = 0 if backend == "cpu" else device[1]
        with _defaults_lock:
            context = _defaults.get(device)
            if context is None:
                context = _defaults[device] = Context(backend, index)
    return context
