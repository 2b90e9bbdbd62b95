#!/usr/bin/env python3
"""Gate: today's programs run on a library of tomorrow, in which every struct has grown.

Builds libattn from a copy of this tree whose headers are one ABI minor ahead, with one more member
in every struct that has a struct_size (unoptimised, one SIMD target: it takes seconds), and runs
clients that were compiled with the headers as they are. It finds code that mistakes the size of a
struct here for the size that a client has.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import sys
import tempfile

import gate
import new_client

PARTS = ["include", "src", "kernels", "tools", "meson.build", "meson_options.txt"]


def copy_tree(target: pathlib.Path) -> None:
    for part in PARTS:
        source = gate.ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target / part)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", nargs="+", type=pathlib.Path, help="compiled programs")
    parser.add_argument("--meson", help="the meson command (default: this Python's, else PATH's)")
    parser.add_argument("--forget-old-sizes", action="store_true",
                        help="demonstrate that this gate can fail: plant the defect that the library "
                             "takes only structs as long as its own, and expect it to be seen")
    args = parser.parse_args()
    beside = pathlib.Path(sys.executable).parent / "meson"
    meson = args.meson or (beside if beside.exists() else "meson")

    sized = [s["name"] for s in gate.header_model()["structs"]
             if s["fields"] and s["fields"][0]["name"] == "struct_size"]
    problems = []
    with tempfile.TemporaryDirectory() as name:
        tree, build = pathlib.Path(name) / "tree", pathlib.Path(name) / "build"
        tree.mkdir()
        copy_tree(tree)
        for header in (tree / "include/attn").glob("*.h"):
            header.unlink()
        grown = new_client.age(gate.INCLUDE / "attn", tree / "aged", sized)
        if grown != len(sized):
            sys.exit(f"grown: {grown} structs grew, but {len(sized)} have a struct_size")
        for header in (tree / "aged").iterdir():
            shutil.move(str(header), tree / "include/attn" / header.name)
        if args.forget_old_sizes:
            path = tree / "src/core/struct_copy.hpp"
            text, n = re.subn(r"(kFirstSize<(attn_\w+)>) = \d+;", r"\1 = sizeof(\2);",
                              path.read_text())
            if n == 0:
                sys.exit(f"grown: found no sizes to forget in {path.relative_to(tree)}")
            path.write_text(text)
        gate.must([meson, "setup", build, tree, "-Dtests=false", "-Dcuda=disabled", "-Dwerror=false",
                   "-Dwarning_level=0", "-Dbuildtype=plain", "-Ddebug=false", "-Doptimization=0",
                   "-Dcpp_args=-DHWY_COMPILE_ONLY_STATIC", f"-Dpython={sys.executable}"])
        ninja = beside.with_name("ninja")
        gate.must([ninja if ninja.exists() else "ninja", "-C", build])
        library = next(build.glob("libattn.so.[0-9]"))
        for client in args.clients:
            result = gate.run([client], env={**os.environ, "LD_PRELOAD": str(library)})
            words = (f"died of signal {-result.returncode}" if result.returncode < 0
                     else f"gave {result.returncode}")
            if result.returncode:
                problems.append(f"{client.name} {words} on the grown library:\n{result.stdout}")
    if args.forget_old_sizes:
        seen = [p for p in problems if "struct_size" in p]
        print(*problems, sep="\n")
        return gate.finish("grown", len(args.clients), [] if len(seen) == len(args.clients) else
                           ["the planted defect was not seen: the clients should be refused for "
                            "their struct_size"])
    return gate.finish("grown", len(args.clients), problems,
                       "kFirstSize in src/core/struct_copy.hpp holds the size that each struct had "
                       "when it came")


if __name__ == "__main__":
    sys.exit(main())
