"""meson-python, with the wheel's tag put right.

meson-python takes whatever lies in platlib for an extension module of one Python version. The
package holds a plain shared library that ctypes loads, so its wheels fit every Python 3:
py3-none-<platform>.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

from mesonpy import *  # noqa: F403
from mesonpy import build_wheel as _build_wheel


def build_wheel(wheel_directory: str, config_settings: Any = None,
                metadata_directory: str | None = None) -> str:
    name = _build_wheel(wheel_directory, config_settings, metadata_directory)
    path = pathlib.Path(wheel_directory, name)
    tagged = subprocess.run(
        [sys.executable, "-m", "wheel", "tags", "--remove", "--python-tag", "py3", "--abi-tag",
         "none", str(path)],
        check=True, stdout=subprocess.PIPE, text=True,
    )
    return tagged.stdout.split()[-1]
