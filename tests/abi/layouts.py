#!/usr/bin/env python3
"""Gate: every language lays the public structs out alike.

C (gcc and clang), C++, Rust (the committed bindings of attn-sys), Go (cgo) and Python (the ctypes
binding) each report the size, the alignment and every member's offset and size of every public
struct, from their own compiler or run time; all must equal the header model. A language whose
toolchain is absent is named, and with --require it is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
from typing import Callable

import gate

# {"struct": [size, align], "struct.member": [offset, size]}
Layout = dict[str, list[int]]
Structs = list[dict]


class Missing(Exception):
    """The toolchain of a language is not installed."""


def tool(*names: str) -> str:
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise Missing(f"{names[0]} is not installed")


def read(text: str) -> Layout:
    """Lines of `name a b`, as each probe prints them."""
    rows = (line.split() for line in text.splitlines() if line.strip())
    return {name: [int(a), int(b)] for name, a, b in rows}


def of_model(structs: Structs) -> Layout:
    layout: Layout = {}
    for s in structs:
        layout[s["name"]] = [s["size"], s["align"]]
        for f in s["fields"]:
            layout[f"{s['name']}.{f['name']}"] = [f["offset"], f["size"]]
    return layout


def probe_c(structs: Structs, folder: pathlib.Path, include: pathlib.Path, compiler: str,
            language: str) -> Layout:
    alignof = "alignof" if language == "c++" else "_Alignof"
    lines = ["#include <attn/attn.h>", "#include <stdio.h>", "int main(void) {"]
    for s in structs:
        t = s["name"]
        lines.append(f'printf("{t} %zu %zu\\n", sizeof({t}), (size_t){alignof}({t}));')
        for f in s["fields"]:
            n = f["name"]
            lines.append(f'printf("{t}.{n} %zu %zu\\n", offsetof({t}, {n}), '
                         f"sizeof((({t} *)0)->{n}));")
    lines += ["return 0;", "}", ""]
    source = folder / ("layout.cpp" if language == "c++" else "layout.c")
    source.write_text("\n".join(lines))
    program = folder / "layout"
    gate.must([compiler, f"-I{include}", source, "-o", program])
    return read(gate.must([program]))


def probe_rust(structs: Structs, folder: pathlib.Path, include: pathlib.Path) -> Layout:
    types = gate.ROOT / "bindings/rust/attn-sys/src/bindings/types.rs"
    if not types.exists():
        raise Missing(f"{types} does not exist")
    lines = ["#![allow(dead_code, non_camel_case_types)]",
             "use std::mem::{align_of, size_of, MaybeUninit};",
             # As std::mem::offset_of, which Rust has since 1.77 only.
             "macro_rules! offset { ($t:ty, $f:ident) => {{",
             "  let place = MaybeUninit::<$t>::uninit();",
             "  let base = place.as_ptr();",
             "  (unsafe { std::ptr::addr_of!((*base).$f) } as usize) - base as usize",
             "}} }",
             # The size of a member, from a pointer to it that is never read.
             "fn size<S, T>(_: fn(&S) -> &T) -> usize { size_of::<T>() }",
             "mod t {", f"include!({json.dumps(str(types))});", "}",
             "fn main() {"]
    for s in structs:
        t = s["name"]
        lines.append(f'println!("{t} {{}} {{}}", size_of::<t::{t}>(), align_of::<t::{t}>());')
        for f in s["fields"]:
            n = f["name"]
            lines.append(f'println!("{t}.{n} {{}} {{}}", offset!(t::{t}, {n}), '
                         f"size(|s: &t::{t}| &s.{n}));")
    lines += ["}", ""]
    source = folder / "layout.rs"
    source.write_text("\n".join(lines))
    program = folder / "layout-rust"
    gate.must([tool("rustc"), "--edition=2021", "-o", program, source])
    return read(gate.must([program]))


def probe_go(structs: Structs, folder: pathlib.Path, include: pathlib.Path) -> Layout:
    words = {"type", "func", "range", "map", "var", "select", "chan", "go", "defer", "package"}
    lines = ["package main", "", "// #include <attn/attn.h>", 'import "C"', "",
             'import (', '\t"fmt"', '\t"unsafe"', ")", "", "func main() {"]
    for s in structs:
        t = s["name"]
        lines += ["\t{", f"\t\tvar s C.{t}",
                  f'\t\tfmt.Println("{t}", unsafe.Sizeof(s), unsafe.Alignof(s))']
        for f in s["fields"]:
            n = f["name"]
            m = f"s._{n}" if n in words else f"s.{n}"
            lines.append(f'\t\tfmt.Println("{t}.{n}", unsafe.Offsetof({m}), unsafe.Sizeof({m}))')
        lines.append("\t}")
    lines += ["}", ""]
    (folder / "main.go").write_text("\n".join(lines))
    (folder / "go.mod").write_text("module layout\n\ngo 1.19\n")
    environment = {**os.environ, "CGO_CFLAGS": f"-I{include}", "CGO_ENABLED": "1",
                   "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    go = tool("go", "/usr/local/go/bin/go")
    gate.must([go, "build", "-o", "layout-go", "."], cwd=folder, env=environment)
    return read(gate.must([folder / "layout-go"]))


def probe_python(structs: Structs, folder: pathlib.Path, include: pathlib.Path) -> Layout:
    """Asks the generated ctypes classes; they need no library and no other module."""
    generator = gate.ROOT / "tools/generate_ctypes.py"
    if not generator.exists():
        raise Missing(f"{generator} does not exist")
    module = folder / "bound.py"
    gate.must([sys.executable, generator, "--output", module, include / "attn"])
    program = """
import ctypes, importlib.util, sys
spec = importlib.util.spec_from_file_location("bound", sys.argv[1])
bound = importlib.util.module_from_spec(spec)
sys.modules["bound"] = bound
spec.loader.exec_module(bound)
for name in sys.argv[2:]:
    struct = getattr(bound, name)
    print(name, ctypes.sizeof(struct), ctypes.alignment(struct))
    for field, *_ in struct._fields_:
        place = getattr(struct, field)
        print(f"{name}.{field}", place.offset, place.size)
"""
    return read(gate.must([sys.executable, "-c", program, module, *[s["name"] for s in structs]]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--include", type=pathlib.Path, default=gate.INCLUDE,
                        help="the folder that holds attn/ for C, C++ and Go")
    parser.add_argument("--only", nargs="+", help="probe these languages only")
    parser.add_argument("--require", nargs="+", default=["gcc"],
                        help="languages whose absence is a failure")
    args = parser.parse_args()
    structs = [s for s in gate.header_model()["structs"] if not s["opaque"]]
    want = of_model(structs)

    def c_of(language: str, *compilers: str) -> Callable[..., Layout]:
        return lambda *a: probe_c(*a, tool(*compilers), language)

    probes: dict[str, Callable[..., Layout]] = {
        "gcc": c_of("c", "gcc"),
        "clang": c_of("c", "clang", "clang-14", "clang-15", "clang-16", "clang-18"),
        "g++": c_of("c++", "g++"),
        "rust": probe_rust,
        "go": probe_go,
        "python": probe_python,
    }
    problems: list[str] = []
    checked = 0
    for language, probe in probes.items():
        if args.only and language not in args.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                have = probe(structs, pathlib.Path(folder), args.include.resolve())
            except Missing as why:
                print(f"layouts: {language}: NOT COMPARED, {why}")
                if language in args.require:
                    problems.append(f"{language} is required: {why}")
                continue
        checked += len(want)
        print(f"layouts: {language}: {len(have)} sizes and offsets")
        for name in [*want, *(n for n in have if n not in want)]:
            if have.get(name) != want.get(name):
                kind = "offset, size" if "." in name else "size, alignment"
                problems.append(f"{language} sees {name} at {have.get(name, 'nothing')}, the headers "
                                f"say {want.get(name, 'nothing')} ({kind})")
    return gate.finish("layouts", checked, problems)


if __name__ == "__main__":
    sys.exit(main())
