#!/usr/bin/env python3
"""Compiles the public headers in every language standard, alone and together, warnings as errors.

Each header alone, twice in one file, and the umbrella, as C99 to C23 and as C++11 to C++23, with
gcc and with clang; every _INIT macro in use; C++ also with -fno-exceptions -fno-rtti. attn.hpp
compiles as C++11 to C++23, with and without exceptions.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

COMMON = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wpadded", "-Wconversion",
          "-Wsign-conversion", "-Wfloat-conversion", "-Wshadow", "-Wundef", "-Wcast-qual",
          "-Wcast-align", "-Wmissing-field-initializers", "-Wmissing-braces", "-fsyntax-only"]
C_ONLY = ["-Wstrict-prototypes", "-Wmissing-prototypes", "-Wc++-compat"]
CXX_ONLY = ["-Wold-style-cast", "-Wzero-as-null-pointer-constant", "-Wnon-virtual-dtor",
            "-Woverloaded-virtual"]
GCC_ONLY = ["-Wlogical-op"]
# All that clang has, but for: speaking of older standards, and of variables that tests declare.
CLANG_ONLY = ["-Wno-unknown-warning-option", "-Weverything", "-Wno-c++98-compat",
              "-Wno-c++98-compat-pedantic", "-Wno-missing-variable-declarations",
              "-Wno-pre-c2x-compat", "-Wno-unsafe-buffer-usage",
              "-Wno-declaration-after-statement", "-Wno-switch-default"]
C_STANDARDS = ["c99", "c11", "c17", "c2x"]
CXX_STANDARDS = ["c++11", "c++14", "c++17", "c++20", "c++2b"]


def compiler(*names: str) -> str | None:
    return next((found for n in names if (found := shutil.which(n))), None)


def inits(header: pathlib.Path) -> list[str]:
    return re.findall(r"#define (ATTN_(\w+)_INIT)\b", header.read_text())


def sources(include: pathlib.Path) -> dict[str, str]:
    """Name -> text of every file to compile, for both languages."""
    files = {}
    headers = sorted((include / "attn").glob("*.h"))
    uses = []
    for header in headers:
        line = f"#include <attn/{header.name}>\n"
        declared = [f"{macro_type(kind)} use_{kind} = {macro};\n" for macro, kind in inits(header)]
        uses += declared
        files[header.name] = line + line + "".join(declared) + "extern int an_empty_file_is_no_c;\n"
    files["together"] = "".join(f"#include <attn/{h.name}>\n" for h in reversed(headers)) + "".join(
        uses)
    return files


def macro_type(kind: str) -> str:
    return "attn_" + kind.lower()


# In C++: what a program does with the headers, and without exceptions.
CXX_USE = """#include <attn/attn.h>
static_assert(ATTN_ABI_VERSION == ((ATTN_ABI_MAJOR << 16) | ATTN_ABI_MINOR), "");
int32_t use(attn_sdpa_desc &desc, attn_error *error);
int32_t use(attn_sdpa_desc &desc, attn_error *error) {
  desc.flags |= ATTN_SDPA_CAUSAL | ATTN_SDPA_RETURN_LSE;
  desc.grads = ATTN_SDPA_GRAD_Q | ATTN_SDPA_GRAD_LSE_IN;
  desc.q_dtype = ATTN_DTYPE_BF16;
  attn_tensor tensor = ATTN_TENSOR_INIT;
  const int64_t shape[2] = {1, 2};
  return attn_tensor_contiguous(&tensor, nullptr, ATTN_DTYPE_FP32, 2, shape, error);
}
"""


def compilations(include: pathlib.Path, folder: pathlib.Path, missing: list[str]):
    """(what, command) of the whole matrix."""
    for name, text in sources(include).items():
        (folder / f"{name}.c").write_text(text)
        (folder / f"{name}.cpp").write_text(text)
    (folder / "use.cpp").write_text(CXX_USE)
    (folder / "raii.cpp").write_text("#include <attn/attn.hpp>\n#include <attn/attn.hpp>\n")
    where = [f"-I{include}"]
    tools = {
        "gcc": (compiler("gcc"), compiler("g++"), GCC_ONLY),
        "clang": (compiler("clang", "clang-14", "clang-15", "clang-16", "clang-18", "clang-19"),
                  compiler("clang++", "clang++-14", "clang++-15", "clang++-16", "clang++-18",
                           "clang++-19"), CLANG_ONLY),
    }
    has_raii = (include / "attn" / "attn.hpp").exists()
    for family, (cc, cxx, flags) in tools.items():
        if cc is None or cxx is None:
            missing.append(family)
            continue
        for standard in C_STANDARDS:
            for name in sources(include):
                yield (f"{name} as {standard} with {family}",
                       [cc, f"-std={standard}", *flags, *COMMON, *C_ONLY, *where,
                        folder / f"{name}.c"])
        for standard in CXX_STANDARDS:
            for name in [*sources(include), "use"]:
                yield (f"{name} as {standard} with {family}",
                       [cxx, f"-std={standard}", *flags, *COMMON, *CXX_ONLY, "-fno-exceptions",
                        "-fno-rtti", *where, folder / f"{name}.cpp"])
            # The C++ layer is no ABI, so its padding is its own; and a header-only class has no
            # file of its own for its vtable.
            for words, extra in (("", []), (", no exceptions", ["-fno-exceptions", "-fno-rtti"])):
                if has_raii:
                    yield (f"attn.hpp as {standard} with {family}{words}",
                           [cxx, f"-std={standard}", *flags, *COMMON, *CXX_ONLY, "-Wno-padded",
                            "-Wno-weak-vtables" if family == "clang" else "-Wno-padded",
                            *extra, *where, folder / "raii.cpp"])


def compile_one(job) -> tuple[str, str]:
    what, command = job
    result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, check=False,
                            env={**os.environ, "CCACHE_DISABLE": "1"})
    return what, result.stdout if result.returncode else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--include", type=pathlib.Path, default=ROOT / "include",
                        help="the folder that holds attn/ (default: this tree's)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--require", nargs="*", default=["gcc", "clang"],
                        help="compilers whose absence is a failure (default: both)")
    parser.add_argument("--first", action="store_true", help="stop at the first failure")
    args = parser.parse_args()
    missing: list[str] = []
    failed = 0
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(
            args.jobs) as pool:
        jobs = list(compilations(args.include.resolve(), pathlib.Path(folder), missing))
        words_of = []
        for what, words in pool.map(compile_one, jobs):
            words_of.append(words)
            if words:
                failed += 1
                if failed <= 20:
                    print(f"headers: {what}:\n{words}")
                if args.first:
                    pool.shutdown(cancel_futures=True)
                    break
    for family in missing:
        print(f"headers: {family} is not installed: NOTHING WAS COMPILED WITH IT")
        failed += family in args.require
    print(f"headers: {len(jobs) - sum(map(bool, words_of))} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
