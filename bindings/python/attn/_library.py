"""Finds, loads and checks the shared library."""

from __future__ import annotations

import ctypes
import os
import pathlib
import sys

from . import _ffi

if sys.platform == "darwin":
    _NAMES = (f"libattn.{_ffi.ATTN_ABI_MAJOR}.dylib", "libattn.dylib")
elif sys.platform == "win32":
    _NAMES = (f"attn-{_ffi.ATTN_ABI_MAJOR}.dll", "attn.dll")
else:
    _NAMES = (f"libattn.so.{_ffi.ATTN_ABI_MAJOR}", "libattn.so")


def find() -> str:
    """The path of the library: $ATTN_LIBRARY if it is set, else the one in the package's folder."""
    override = os.environ.get("ATTN_LIBRARY")
    if override:
        return override
    folder = pathlib.Path(__file__).resolve().parent
    for name in _NAMES:
        if (folder / name).exists():
            return str(folder / name)
    raise ImportError(
        f"attn: the shared library is not in {folder} (looked for {', '.join(_NAMES)}); "
        "set ATTN_LIBRARY to the path of libattn"
    )


def load(path: str) -> ctypes.CDLL:
    """Loads the library at `path`. Asks for its ABI version before anything else.

    Raises ImportError if it cannot be loaded or does not serve the ABI that this package was
    generated from.
    """
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"attn: cannot load {path}: {error}") from error
    try:
        version_function = library.attn_abi_version
    except AttributeError:
        raise ImportError(f"attn: {path} is not libattn: it has no attn_abi_version") from None
    version_function.restype = ctypes.c_uint32
    version_function.argtypes = ()
    version = int(version_function())
    major, minor = version >> 16, version & 0xFFFF
    if major != _ffi.ATTN_ABI_MAJOR or minor < _ffi.ATTN_ABI_MINOR:
        raise ImportError(
            f"attn: {path} has ABI {major}.{minor}; this package needs {_ffi.ATTN_ABI_MAJOR}."
            f"{_ffi.ATTN_ABI_MINOR} or a later {_ffi.ATTN_ABI_MAJOR}.x"
        )
    _ffi.bind(library)
    return library


path = find()
library = load(path)
