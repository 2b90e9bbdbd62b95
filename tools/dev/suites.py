"""The suites of `./dev test`: one row each."""

import dataclasses
import os
import shutil
import sys
from typing import Callable

from tools.dev.run import ROOT, Count, suite

RELEASE = ROOT / "build/release"
MESON = [sys.executable, "-m", "mesonbuild.mesonmain"]


@dataclasses.dataclass
class Suite:
    name: str
    about: str
    run: Callable  # run(build) -> Count
    needs: tuple = ()


def library_env(build_directory=RELEASE):
    """Where bindings find the library of a build."""
    return {
        "ATTN_LIBRARY": build_directory / "libattn.so",
        "ATTN_LIB_DIR": build_directory,
        "LD_LIBRARY_PATH": build_directory,
    }


def python_env(build_directory=RELEASE):
    path = f"{build_directory / 'bindings/python'}:{ROOT}"
    return {**os.environ, "PYTHONPATH": path,
            **{key: str(value) for key, value in library_env(build_directory).items()}}


def meson_suite(*names):
    def go(build):
        path = build()
        chosen = [part for name in names for part in ("--suite", name)]
        return suite(" ".join(names), [*MESON, "test", "-C", path, "--no-rebuild",
                                       "--print-errorlogs", *chosen], "meson")
    return go


def ops(build):
    path = build()
    return suite("attn-check", [path / "tests/ops/attn-check", "--backend", "cpu"], "plain")


def sanitized(name, options, env):
    def go(build):
        path = build(f"build/{name}", "-Dbuildtype=debugoptimized", f"-Db_sanitize={options}",
                     "-Db_lundef=false", targets=["tests/ops/attn-check"])
        return suite(name, [path / "tests/ops/attn-check", "--backend", "cpu", "--quick"], "plain",
                     env=env)
    return go


SUITES = []
