"""The few calls of the CUDA driver that array interfaces leave to their consumer."""

from __future__ import annotations

import ctypes
from typing import Any

from . import _ffi
from ._errors import DeviceError

_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL

_driver: Any = None


def _load() -> Any:
    """The driver, or None."""
    global _driver
    if _driver is None:
        try:
            _driver = ctypes.CDLL("libcuda.so.1")
            if _driver.cuInit(0):
                _driver = False
        except (OSError, AttributeError):
            _driver = False
    return _driver or None


def device_of(address: int) -> int:
    """The number of the device that memory belongs to; 0 if the driver does not say."""
    driver = _load()
    index = ctypes.c_int()
    try:
        if driver is not None and driver.cuPointerGetAttribute(
            ctypes.byref(index), _ORDINAL, ctypes.c_uint64(address)
        ) == 0:
            return index.value
    except AttributeError:
        pass
    return 0


def synchronize(index: int, stream: int) -> None:
    """Waits until a stream of a device has done its work."""
    driver = _load()
    if driver is None:
        raise DeviceError("attn: libcuda.so.1 cannot be loaded", status=_ffi.ATTN_ERROR_DEVICE)
    device, context, previous = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()

    def check(code: int, what: str) -> None:
        if code:
            raise DeviceError(f"attn: {what} failed with CUDA error {code}",
                              status=_ffi.ATTN_ERROR_DEVICE, backend_code=code)

    check(driver.cuDeviceGet(ctypes.byref(device), index), "cuDeviceGet")
    check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
          "cuDevicePrimaryCtxRetain")
    try:
        check(driver.cuCtxPushCurrent_v2(context), "cuCtxPushCurrent")
        try:
            check(driver.cuStreamSynchronize(ctypes.c_void_p(stream)), "cuStreamSynchronize")
        finally:
            driver.cuCtxPopCurrent_v2(ctypes.byref(previous))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
