#!/usr/bin/env python3
"""Gate: what `meson install` installs is enough to build and run a client elsewhere.

Installs into an empty prefix, then builds examples/c/sdpa.c and examples/cpp/sdpa.cpp there, once
with pkg-config and once with a CMake project that says find_package(attn), after the prefix was
moved; runs both. CMake and pkg-config that are absent are named; with --require they are a failure.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import sys
import tempfile

import gate

# What a client may count on finding below the prefix (libdir differs between systems).
EXPECTED = ["include/attn/attn.h", "include/attn/attn.hpp", "{lib}/libattn.so",
            "{lib}/pkgconfig/attn.pc", "{lib}/cmake/attn/attn-config.cmake",
            "{lib}/cmake/attn/attn-config-version.cmake"]

CMAKE = """cmake_minimum_required(VERSION 3.13)
project(client C CXX)
find_package(attn {version} REQUIRED)
find_library(MATH m)
add_executable(client-c "{root}/examples/c/sdpa.c")
target_link_libraries(client-c PRIVATE attn::attn $<$<BOOL:${{MATH}}>:${{MATH}}>)
add_executable(client-cpp "{root}/examples/cpp/sdpa.cpp")
target_compile_features(client-cpp PRIVATE cxx_std_11)
target_link_libraries(client-cpp PRIVATE attn::attn)
"""

EXAMPLES = {"c": (gate.ROOT / "examples/c/sdpa.c", ["cc", "-std=c99"]),
            "cpp": (gate.ROOT / "examples/cpp/sdpa.cpp", ["c++", "-std=c++11"])}


def run_client(program: pathlib.Path, lib: pathlib.Path) -> str:
    """Empty, or what went wrong."""
    result = gate.run([program], env={**os.environ, "LD_LIBRARY_PATH": str(lib)})
    return "" if result.returncode == 0 else f"it gave {result.returncode}:\n{result.stdout}"


def with_pkg_config(prefix: pathlib.Path, lib: pathlib.Path, folder: pathlib.Path) -> list[str]:
    problems = []
    environment = {**os.environ, "PKG_CONFIG_PATH": str(lib / "pkgconfig")}

    def ask(*what: str) -> list[str]:
        # The prefix has moved since the installation; pkg-config follows if told where it is.
        return gate.must(["pkg-config", f"--define-variable=prefix={prefix}", *what, "attn"],
                         env=environment).split()

    flags = ask("--cflags", "--libs")
    for flag in flags + ask("--static", "--libs"):
        if flag.startswith("-l") and flag not in ("-lattn", "-lm", "-lpthread", "-ldl"):
            problems.append(f"pkg-config asks clients to link {flag}; they need libattn alone")
    for name, (source, compiler) in EXAMPLES.items():
        program = folder / f"pkg-config-{name}"
        gate.must([*compiler, source, *flags, "-lm", "-o", program])
        wrong = run_client(program, lib)
        problems += [f"{name} with pkg-config: {wrong}"] if wrong else []
    return problems


def with_cmake(prefix: pathlib.Path, lib: pathlib.Path, folder: pathlib.Path,
               version: str) -> list[str]:
    problems = []
    source = folder / "cmake"
    source.mkdir()

    def configure(build: str, wanted: str):
        (source / "CMakeLists.txt").write_text(CMAKE.format(version=wanted, root=gate.ROOT))
        return gate.run(["cmake", "-S", source, "-B", folder / build,
                         f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release"])

    result = configure("build", version)
    if result.returncode:
        return [f"CMake does not find the package:\n{result.stdout}"]
    gate.must(["cmake", "--build", folder / "build"])
    for name in EXAMPLES:
        wrong = run_client(folder / "build" / f"client-{name}", lib)
        problems += [f"{name} with CMake: {wrong}"] if wrong else []
    # A version that is not there yet must not be found.
    if configure("newer", "99.0").returncode == 0:
        problems.append(f"find_package(attn 99.0) is content with {version}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=pathlib.Path, help="a configured and compiled build folder")
    beside = pathlib.Path(sys.executable).parent / "meson"
    parser.add_argument("--meson", default=beside if beside.exists() else "meson",
                        help="the meson command (default: the one of this Python environment)")
    parser.add_argument("--require", nargs="*", default=["pkg-config"],
                        help="tools whose absence is a failure")
    args = parser.parse_args()

    problems: list[str] = []
    checked = len(EXPECTED) + 3
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # Installed at one place and moved to another: nothing may remember the first.
        gate.must([args.meson, "install", "-C", args.build, "--no-rebuild", "--quiet",
                   "--tags", "devel,runtime", "--destdir", folder / "stage"])
        headers = list((folder / "stage").rglob("include/attn/attn.h"))
        if len(headers) != 1:
            return gate.finish("installed", checked, ["attn.h was not installed"])
        prefix = folder / "moved"
        shutil.move(str(headers[0].parent.parent.parent), prefix)
        lib = next(prefix.rglob("libattn.so.[0-9]")).parent
        for entry in EXPECTED:
            path = prefix / entry.format(lib=lib.relative_to(prefix))
            if not path.exists():
                problems.append(f"{path.relative_to(prefix)} was not installed")
        installed = sorted(p.name for p in (prefix / "include/attn").iterdir() if p.is_file())
        ours = sorted(p.name for p in (gate.INCLUDE / "attn").iterdir() if p.is_file())
        if installed != ours:
            problems.append(f"the installed headers are {installed}, not {ours}")
        stray = [p for p in prefix.rglob("*") if p.suffix in (".a", ".cpp", ".map")]
        problems += [f"{p.relative_to(prefix)} is installed, but is no part of the package"
                     for p in stray]
        version = gate.header_model()["abi"]["version"]
        for tool, check in (("pkg-config", lambda: with_pkg_config(prefix, lib, folder)),
                            ("cmake", lambda: with_cmake(prefix, lib, folder, version))):
            if problems:
                break
            if shutil.which(tool) is None:
                print(f"installed: {tool} is not installed: NOT TESTED WITH IT")
                problems += [f"{tool} is required"] if tool in args.require else []
                continue
            found = check()
            checked += 3
            problems += found
            if not found:
                print(f"installed: C and C++ clients found with {tool} build and run")
    return gate.finish("installed", checked, problems)


if __name__ == "__main__":
    sys.exit(main())
