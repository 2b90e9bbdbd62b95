"""Gathers what has to travel to a machine with a GPU, where nothing can be built.

The folder holds the stripped library and programs, the Python package with its generated part, and
nothing else: sources, tests and tools come with the checkout. Programs carry the C++ run-time library
inside, so that any system with as new a C library runs them.
"""

import pathlib
import shutil
import subprocess

from tools.dev.run import ROOT, say

DEFAULT = ROOT / "build/gpu"
LIMIT_MIB = 40

# In a build folder, and where it goes.
FILES = [
    ("libattn.so.1", "lib/libattn.so.1"),
    ("tests/ops/attn-check", "bin/attn-check"),
    ("tests/bench/bench-gpu-overhead", "bin/bench-gpu-overhead"),
]
# What to build of it; the library comes with them.
TARGETS = ["tests/ops/attn-check", "tests/bench/bench-gpu-overhead"]


def pack(build, output=DEFAULT):
    """Fills `output` from the build folder `build` and says how large it is."""
    build, output = pathlib.Path(build), pathlib.Path(output)
    if output.exists():
        shutil.rmtree(output)
    for source, target in FILES:
        path = output / target
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["strip", "-o", path, (build / source).resolve()], check=True)
    package = output / "python/attn"
    package.mkdir(parents=True)
    for path in sorted((build / "bindings/python/attn").iterdir()):
        if path.suffix == ".py" or path.name == "py.typed":
            shutil.copyfile(path, package / path.name)
    # What programs are linked with, and the package looks for beside itself.
    (output / "lib/libattn.so").symlink_to("libattn.so.1")
    (output / "commit.txt").write_text(subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True,
        check=True).stdout)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()
               and not path.is_symlink()) / 2**20
    for path in sorted(output.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size > 2**18:
            say(f"  {path.stat().st_size / 2**20:6.1f} MiB {path.relative_to(output)}")
    say(f"packed {output}: {size:.1f} MiB of at most {LIMIT_MIB}")
    return 0 if size <= LIMIT_MIB else 1
