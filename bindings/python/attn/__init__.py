"""Attention kernels behind a stable C ABI: the Python binding of libattn.

    import attn, numpy as np
    q = np.random.randn(2, 128, 8, 64).astype(np.float32)   # [batch, tokens, heads, head_dim]
    out, lse = attn.sdpa(q, q, q, is_causal=True, return_lse=True)

attn.sdpa, attn.sdpa_backward and attn.merge work on arrays of numpy or of any framework that
speaks DLPack; attn.Plan and attn.Context give the control that the C API gives; attn.lowlevel is
the C API itself. No framework is imported.
"""

import importlib.util as _importlib_util

if _importlib_util.find_spec("attn._ffi") is None:
    raise ImportError(
        "attn: this is the package's source folder, which lacks what the build generates; "
        "`pip install .` in the repository's root, or build with meson and put "
        "<build>/bindings/python on PYTHONPATH (and leave the folder bindings/python)"
    )

from . import lowlevel as lowlevel
from ._arrays import DTYPES
from ._context import Context, DeviceInfo, default_context, device_count, device_info
from ._errors import (
    AttnError,
    BackendUnavailableError,
    DeviceError,
    InternalError,
    InvalidArgumentError,
    OutOfMemoryError,
    UnsupportedError,
    VersionError,
    WorkspaceError,
)
from ._ffi import VERSION as __version__
from ._library import library as _lib
from ._merge import merge
from ._plan import Plan, PlanInfo, Workspace, supported
from ._sdpa import Gradients, SdpaOptions, sdpa, sdpa_backward

__all__ = [
    "DTYPES",
    "AttnError",
    "BackendUnavailableError",
    "Context",
    "DeviceError",
    "DeviceInfo",
    "Gradients",
    "InternalError",
    "InvalidArgumentError",
    "OutOfMemoryError",
    "Plan",
    "PlanInfo",
    "SdpaOptions",
    "UnsupportedError",
    "VersionError",
    "Workspace",
    "WorkspaceError",
    "__version__",
    "build_info",
    "default_context",
    "device_count",
    "device_info",
    "library_version",
    "lowlevel",
    "merge",
    "sdpa",
    "sdpa_backward",
    "supported",
]


def library_version() -> str:
    """The version of the loaded library, such as "0.1.0"."""
    text: bytes = _lib.attn_version_string()
    return text.decode()


def build_info() -> str:
    """What the loaded library holds, one "key: value" a line, for people and bug reports."""
    text: bytes = _lib.attn_build_info()
    return text.decode()
