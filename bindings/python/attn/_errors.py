"""Failures as exceptions."""

from __future__ import annotations

from typing import Any, NoReturn

from . import _ffi
from ._ffi import attn_status


class AttnError(Exception):
    """A call of libattn failed.

    Attributes:
        status: the attn_status as an int.
        field: the field at fault as a caller writes it, such as "args.k.shape[2]"; "" if no
            single field is.
        message: one sentence: field, value, rule, and what to do.
        backend_code: the driver's own error code, or 0.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = attn_status.ATTN_ERROR_INTERNAL,
        field: str = "",
        backend_code: int = 0,
    ) -> None:
        super().__init__(message)
        self.status = int(status)
        self.field = field
        self.message = message
        self.backend_code = backend_code

    @property
    def status_name(self) -> str:
        """The name of the status, such as "ATTN_ERROR_VERSION"."""
        try:
            return attn_status(self.status).name
        except ValueError:
            return "ATTN_ERROR_UNKNOWN"

    def __reduce__(self) -> Any:
        return (_rebuild, (type(self), self.message, self.status, self.field, self.backend_code))


class InvalidArgumentError(AttnError, ValueError):
    """A field or an argument breaks a documented rule."""


class UnsupportedError(AttnError, NotImplementedError):
    """The request is well formed, but no implementation of the backend serves it."""


class VersionError(AttnError):
    """Package and library disagree about the ABI."""


class OutOfMemoryError(AttnError, MemoryError):
    """Host memory ran out."""


class WorkspaceError(AttnError):
    """The workspace is missing, too small or misaligned."""


class BackendUnavailableError(AttnError, RuntimeError):
    """The backend is not in this build, or its driver or device is absent."""


class DeviceError(AttnError, RuntimeError):
    """A driver call failed; see backend_code."""


class InternalError(AttnError):
    """A defect in libattn: please report it with the message."""


_CLASSES: dict[int, type[AttnError]] = {
    attn_status.ATTN_ERROR_INVALID_ARGUMENT: InvalidArgumentError,
    attn_status.ATTN_ERROR_UNSUPPORTED: UnsupportedError,
    attn_status.ATTN_ERROR_VERSION: VersionError,
    attn_status.ATTN_ERROR_OUT_OF_MEMORY: OutOfMemoryError,
    attn_status.ATTN_ERROR_WORKSPACE: WorkspaceError,
    attn_status.ATTN_ERROR_BACKEND_UNAVAILABLE: BackendUnavailableError,
    attn_status.ATTN_ERROR_DEVICE: DeviceError,
    attn_status.ATTN_ERROR_INTERNAL: InternalError,
}


def _rebuild(
    cls: type[AttnError], message: str, status: int, field: str, backend_code: int
) -> AttnError:
    return cls(message, status=status, field=field, backend_code=backend_code)


def raise_error(status: int, error: Any) -> NoReturn:
    """Raises the exception for a status that is not ATTN_OK and its attn_error record."""
    raise _CLASSES.get(status, AttnError)(
        error.message.decode("utf-8", "replace") or f"status {status}",
        status=status,
        field=error.field.decode("utf-8", "replace"),
        backend_code=error.backend_code,
    )


def invalid(field: str, message: str) -> InvalidArgumentError:
    """An error that the package itself found, in the form of the library's."""
    return InvalidArgumentError(
        message, status=_ffi.ATTN_ERROR_INVALID_ARGUMENT, field=field
    )
