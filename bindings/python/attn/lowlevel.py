"""The C API, one to one: its functions, structs (ctypes.Structure), enums and constants by their
C names, as the headers of this version declare them.

A struct that begins with `struct_size` has it set by its constructor, as ATTN_..._INIT does:

    desc = lowlevel.attn_sdpa_desc(q_dtype=lowlevel.ATTN_DTYPE_FP32, num_q_heads=8, ...)
    plan = ctypes.POINTER(lowlevel.attn_plan)()
    error = lowlevel.attn_error()
    status = lowlevel.attn_sdpa_plan_create(context, desc, None, plan, error)

Functions return the status as an int; nothing is raised. `field` and `message` of an attn_error
are bytes. ctypes drops the GIL during every call. What a pointer points to must be kept alive by
the caller.
"""

from __future__ import annotations

from . import _library as _library  # binds the functions first
from ._ffi import *  # noqa: F403
from ._ffi import FUNCTIONS

__all__ = [name for name in dir() if name.lower().startswith("attn_")]

LIBRARY_PATH: str = _library.path
"""Where the loaded library lies."""


def signature(name: str) -> tuple[str, ...]:
    """The names of the arguments of the function `name`, in order."""
    return FUNCTIONS[name][2]
