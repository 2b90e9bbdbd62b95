"""Gathers what has to travel to a machine with a GPU, where nothing can be built.

The folder holds the stripped library and programs, the Python package with its generated part, the
examples for CUDA of the languages that are installed here, and nothing else: sources, tests and
tools come with the checkout. Programs carry the C++ run-time library inside, so that any system with
as new a C library runs them.
"""

import os
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
    ("examples/c/example-c-sdpa_cuda", "examples/c"),
    ("examples/cpp/example-cpp-sdpa_cuda", "examples/cpp"),
]
# Kernels of the tests' own.
TEST_KERNELS = "tests/gpu/*.fatbin"
# What to build of it; the library comes with them.
TARGETS = [*(source for source, _ in FILES[1:]), "gpu-test-kernels"]


def pack_bindings(build, examples):
    """The examples that cargo and go build."""
    target = ROOT / "bindings/rust/target"
    commands = {
        "rust": (ROOT / "bindings/rust", ["cargo", "build", "--locked", "--quiet", "-p",
                                          "attn-example", "--bin", "attn-example-cuda"],
                 {"ATTN_LIB_DIR": str(build), "LD_LIBRARY_PATH": str(build)}),
        "go": (ROOT / "examples/go", ["go", "build", "-buildvcs=false", "-tags",
                                      "attn_nopkgconfig", "-o", str(examples / "go"), "./cuda"],
               {"CGO_CFLAGS": f"-I{ROOT / 'include'}", "CGO_LDFLAGS": f"-L{build}"}),
    }
    for language, (folder, command, env) in commands.items():
        if shutil.which(command[0]) is None:
            say(f"  without the {language} example: {command[0]} is not installed")
            continue
        subprocess.run(command, cwd=folder, env={**os.environ, **env}, check=True)
    if shutil.which("cargo"):
        subprocess.run(["strip", "-o", examples / "rust", target / "debug/attn-example-cuda"],
                       check=True)


def pack(build, output=DEFAULT):
    """Fills `output` from the build folder `build` and says how large it is."""
    build, output = pathlib.Path(build), pathlib.Path(output)
    if output.exists():
        shutil.rmtree(output)
    for source, target in FILES:
        path = output / target
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["strip", "-o", path, (build / source).resolve()], check=True)
    kernels = output / "kernels"
    kernels.mkdir()
    for path in sorted(build.glob(TEST_KERNELS)):
        shutil.copyfile(path, kernels / path.name)
    pack_bindings(build.resolve(), (output / "examples").resolve())
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
