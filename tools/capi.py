"""The C interface for the project's own Python tools: the headers' declarations, bound to a built
library. Tools and benchmarks use this rather than the Python package, so that nothing but ctypes
stands between them and what they look at.

Needs: the PyPI package libclang.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import sys
import types
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))  # its programs import one another by name

try:
    import generate_ctypes  # noqa: E402
    import header_model  # noqa: E402
except ImportError as error:
    raise SystemExit(f"cannot read the headers: {error}. Install the PyPI package libclang for "
                     f"{sys.executable}") from error


class AttnError(RuntimeError):
    """A call that did not return ATTN_OK."""

    def __init__(self, status: str, field: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.field, self.message = status, field, message


def find_library(given: str | None = None, build: pathlib.Path | None = None) -> pathlib.Path:
    """`given`, else $ATTN_LIBRARY, else libattn.so in `build`, $ATTN_LIB_DIR or ./build."""
    if given or os.environ.get("ATTN_LIBRARY"):
        candidates = [pathlib.Path(given or os.environ["ATTN_LIBRARY"])]
    else:
        folders = [build, os.environ.get("ATTN_LIB_DIR"), ROOT / "build"]
        candidates = [pathlib.Path(f) / "libattn.so" for f in folders if f]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    looked = ", ".join(str(path) for path in candidates)
    raise SystemExit(f"no libattn.so (looked for: {looked}); build it first, or set ATTN_LIBRARY")


class Library:
    """libattn.so with checked calls; `self.c` holds the headers' names."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        model = header_model.build(ROOT / "include" / "attn")
        self.c: Any = types.ModuleType("attn_c")
        sys.modules["attn_c"] = self.c
        exec(generate_ctypes.Generator(model).generate(), self.c.__dict__)
        self.c.bind(ctypes.CDLL(str(path)))

    def call(self, name: str, *args: Any) -> None:
        """Calls function `name` with an error record; raises AttnError on a failure."""
        error = self.c.attn_error()
        status = getattr(self.c, name)(*args, ctypes.byref(error))
        if status != 0:
            raise AttnError(self.c.attn_status_name(status).decode(), error.field.decode(),
                            error.message.decode())

    def build_info(self) -> dict[str, str]:
        lines = self.c.attn_build_info().decode().splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    def context(self, num_threads: int = 0, backend: str = "CPU") -> Any:
        desc = self.c.attn_context_desc(backend=getattr(self.c, f"ATTN_BACKEND_{backend}"),
                                        num_threads=num_threads)
        context = ctypes.POINTER(self.c.attn_context)()
        self.call("attn_context_create", ctypes.byref(desc), ctypes.byref(context))
        return context

    def device(self, context: Any) -> Any:
        info = self.c.attn_device_info()
        self.call("attn_context_query", context, ctypes.byref(info))
        return info

    def plan(self, context: Any, desc: Any, implementation: str | None = None) -> Any:
        options = self.c.attn_plan_options()
        if implementation:
            options.implementation = implementation.encode()
        plan = ctypes.POINTER(self.c.attn_plan)()
        family = "merge" if isinstance(desc, self.c.attn_merge_desc) else "sdpa"
        self.call(f"attn_{family}_plan_create", context, ctypes.byref(desc),
                  ctypes.byref(options), ctypes.byref(plan))
        return plan

    def plan_info(self, plan: Any) -> Any:
        info = self.c.attn_plan_info()
        self.call("attn_plan_query", plan, ctypes.byref(info))
        return info

    def implementations(self, plan: Any) -> list[str]:
        """All that could serve the plan's problem, best first."""
        names = []
        for index in range(self.plan_info(plan).num_implementations):
            name = ctypes.c_char_p()
            self.call("attn_plan_implementation", plan, index, ctypes.byref(name))
            names.append((name.value or b"").decode())
        return names

    def tensor(self, data: int, dtype: int, shape: tuple[int, ...],
               stride: tuple[int, ...] | None = None) -> Any:
        """A view of memory at address `data`; contiguous without `stride` (in elements)."""
        if stride is None:
            steps, step = [], 1
            for extent in reversed(shape):
                steps.append(step)
                step *= max(extent, 1)
            stride = tuple(reversed(steps))
        view = self.c.attn_tensor(data=data, dtype=dtype, rank=len(shape))
        for i, (extent, step) in enumerate(zip(shape, stride)):
            view.shape[i], view.stride[i] = extent, step
        return view
