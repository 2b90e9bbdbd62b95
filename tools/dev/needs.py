"""The Debian and Ubuntu packages that tasks need, and why. "a|b": the first that there is.

The Python packages are in tools/dev/requirements/, one file a purpose.
"""

import pathlib
import sysconfig

BUILD = ["gcc", "g++", "pkg-config", "libhwy-dev"]
TESTS = [
    "git",                 # lists the sources
    "nlohmann-json3-dev",  # attn-check --json
    "libcli11-dev",        # attn-check's command line
    "doctest-dev",         # unit tests
]
ABI = [
    "abigail-tools",  # abidiff
    "binutils",       # readelf, nm
    "cmake",          # the installed CMake package is tested
    "make",
]
CLANG = ["clang-14|clang", "libclang-rt-14-dev|libclang-rt-dev"]  # header matrix, libFuzzer
FORMAT = ["clang-format-14|clang-format"]
RUST = ["rustc-web|rustc", "cargo-web|cargo"]  # -web: Debian 12's recent ones
GO = ["golang-go"]
# HIP's kernels are compiled by clang; llvm is for the interpreter that tests run them on. "?": left
# out where the release has no such package.
HIP = ["clang-22?", "lld-22?", "llvm-22?"]
NVCC_MACHINES = ("x86_64", "aarch64")  # for which PyPI has requirements/cuda.txt


def nvcc():
    """The nvcc of requirements/cuda.txt."""
    return pathlib.Path(sysconfig.get_path("purelib")) / "nvidia/cu13/bin/nvcc"
