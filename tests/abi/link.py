#!/usr/bin/env python3
"""Gate: the library loads anywhere: it needs only the C library, and its ELF headers are sober.

Checks the needed libraries (libc and libm; the dynamic loader, libdl and libpthread are parts of
libc), the SONAME, that there is no search path, no C++ symbol among the exports, no executable
stack, no text relocation, and no undefined symbol that the C library does not define.
"""

import argparse
import pathlib
import re
import sys

import gate

ALLOWED = re.compile(r"lib(c|m|dl|pthread)\.so\.\d+|ld-linux[-\w]*\.so\.\d+")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=pathlib.Path, help="the built libattn.so")
    parser.add_argument("--sanitized", action="store_true",
                        help="the library is instrumented and needs its sanitizers' run time")
    args = parser.parse_args()

    dynamic = gate.must(["readelf", "--wide", "--dynamic", args.library])
    segments = gate.must(["readelf", "--wide", "--program-headers", args.library])
    symbols = gate.must(["readelf", "--wide", "--dyn-syms", args.library])
    major = re.search(r"define ATTN_ABI_MAJOR (\d+)",
                      (gate.INCLUDE / "attn" / "version.h").read_text())[1]
    problems = []

    def entries(tag: str) -> list[str]:
        return re.findall(rf"\({tag}\)[^\[]*\[([^\]]*)\]", dynamic)

    needed = entries("NEEDED")
    for library in needed:
        sanitizer = args.sanitized and re.match(r"lib(asan|ubsan|tsan|clang_rt)", library)
        if not ALLOWED.fullmatch(library) and not sanitizer:
            problems.append(f"it needs {library}; allowed are libc and libm only (link the C++ run "
                            "time statically)")
    soname = entries("SONAME")
    if soname != [f"libattn.so.{major}"]:
        problems.append(f"its SONAME is {soname or 'missing'}; it must be libattn.so.{major}, after "
                        "ATTN_ABI_MAJOR")
    for tag in ("RPATH", "RUNPATH"):
        for path in entries(tag):
            problems.append(f"it has the {tag} {path}; it must have none")
    if "(TEXTREL)" in dynamic:
        problems.append("it has text relocations; compile everything with -fPIC")
    stack = re.search(r"GNU_STACK\s+(?:0x\w+\s+){5}(\w+)", segments)
    if stack is None or "E" in stack[1]:
        problems.append("its stack is executable; assembler files need a .note.GNU-stack section")
    for name, _ in gate.dynamic_symbols(args.library):
        if name.startswith("_Z"):
            problems.append(f"it exports the C++ symbol {name}")
    undefined = re.findall(r"\bGLOBAL\s+\w+\s+UND\s+(_Z\w+|__cxa_(?!finalize|thread_atexit_impl|atexit)\w+)",
                           symbols)
    if undefined and not args.sanitized:
        problems += [f"it expects the C++ run time to define {name}" for name in undefined]
    return gate.finish("link", 7 + len(needed), problems)


if __name__ == "__main__":
    sys.exit(main())
