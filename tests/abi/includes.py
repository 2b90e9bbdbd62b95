#!/usr/bin/env python3
"""Gate: each part of the source tree includes only what its layer may know.

  include/attn         stddef.h, stdint.h and its neighbours
  src/core             the public headers
  src/ops              core
  src/api              ops, core
  src/backend          ops, core, kernels
  kernels              its own backend's kernels, kernels/common, core, and of ops the problem as
                       plain data (src/ops/*/problem.hpp)

ops, core and api include no driver header; a specific thing may use a general one, never the
reverse.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
from typing import Optional

import gate

SOURCES = {".h", ".hpp", ".c", ".cc", ".cpp", ".cu", ".cuh", ".hip"}
DRIVERS = re.compile(r"cuda|nvrtc|cublas|cudnn|nccl|hip/|hip_|rocm|amd_|hsa/|level_zero|CL/")
C_HEADERS = {"stddef.h", "stdint.h"}
LIBRARIES = re.compile(r"hwy/")  # third-party headers that are customarily included with quotes
GENERATED = {"attn_build.h"}  # written into the build folder
TABLE = "_table.inc"  # so are these


def layer(path: pathlib.PurePosixPath) -> str:
    """The part of the tree that a file belongs to, as the rules name it."""
    parts = path.parts
    if parts[:2] == ("include", "attn"):
        return "include"
    if parts[0] == "src" and len(parts) > 2:
        return f"src/{parts[1]}"
    return parts[0]


def may_include(source: pathlib.PurePosixPath, target: pathlib.PurePosixPath) -> bool:
    here, there = layer(source), layer(target)
    if here == "include":
        return there == "include"
    if there == "include":
        return True
    if here == "kernels":
        if there == "src/ops":
            return target.name == "problem.hpp"
        if there == "src/core":
            return True
        # A kernel sees its backend's folder and kernels/common: never another backend's.
        return there == "kernels" and target.parts[1] in ("common", source.parts[1])
    allowed = {
        "src/core": {"src/core"},
        "src/ops": {"src/ops", "src/core"},
        "src/api": {"src/api", "src/ops", "src/core"},
        "src/backend": {"src/backend", "src/ops", "src/core", "kernels"},
    }
    return there in allowed.get(here, set())


def resolve(root: pathlib.Path, source: pathlib.Path, name: str) -> Optional[pathlib.PurePosixPath]:
    """Where an include leads within the tree; None if it leads out of it."""
    if name.endswith(TABLE):  # generated from a table of kernels, which stands for it
        name = name.removesuffix(TABLE) + ".toml"
    for folder in (source.parent, root / "src", root / "include", root):
        candidate = (folder / name).resolve()
        if candidate.is_file() and candidate.is_relative_to(root):
            return pathlib.PurePosixPath(candidate.relative_to(root).as_posix())
    return None


def check(root: pathlib.Path) -> tuple[int, list[str]]:
    root = root.resolve()
    files = [p for top in ("include/attn", "src", "kernels") for p in sorted((root / top).rglob("*"))
             if p.suffix in SOURCES]
    problems = []
    checked = 0
    for path in files:
        source = pathlib.PurePosixPath(path.relative_to(root).as_posix())
        here = layer(source)
        text = path.read_text()
        for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', text, re.M):
            checked += 1
            style, name = match[1], match[2]
            where = f"{source}:{text.count(chr(10), 0, match.start()) + 1}"
            target = resolve(root, path, name) if style == '"' or "/" in name else None
            if target is not None:
                if not may_include(source, target):
                    problems.append(f"{where}: {here} may not include {target}")
            elif here == "include" and source.suffix == ".h" and name not in C_HEADERS:
                problems.append(f"{where}: public headers include only {', '.join(sorted(C_HEADERS))}"
                                f" and each other, not {name}")
            elif here in ("src/core", "src/ops", "src/api") and DRIVERS.match(name):
                problems.append(f"{where}: {here} may not include the driver header {name}")
            elif style == '"' and name not in GENERATED and not LIBRARIES.match(name):
                problems.append(f"{where}: {name} is not in the tree")
    return checked, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=pathlib.Path, default=gate.ROOT,
                        help="the top of the source tree (default: this one)")
    args = parser.parse_args()
    checked, problems = check(args.root)
    if checked == 0:
        problems.append(f"no include found below {args.root}: is it the top of the source tree?")
    return gate.finish("includes", checked, problems)


if __name__ == "__main__":
    sys.exit(main())
