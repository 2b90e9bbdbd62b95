#!/usr/bin/env python3
"""Gate: the compiled library still has the types and functions of the stored baseline.

The other gates read the headers; this one reads what the compiler made of them, from the library's
debug information, with libabigail's abidw and abidiff. Only what the public headers declare is
compared, so that the inside may change freely and gcc and clang builds pass alike.
"""

import argparse
import os
import pathlib
import re
import shutil
import sys
import tempfile

import gate

STORED = gate.HERE / "libattn.abi.xml"
DUMP = ["--drop-private-types", "--exported-interfaces-only", "--no-corpus-path",
        "--no-comp-dir-path", "--no-show-locs", "--no-elf-needed", "--no-architecture",
        "--no-parameter-names", "--type-id-style", "hash"]


def dump(library: pathlib.Path, headers: pathlib.Path, out: pathlib.Path) -> str:
    gate.must(["abidw", *DUMP, "--headers-dir", headers, "--out-file", out, library])
    text = re.sub(r"<abi-instr [^>]*>", short_path, out.read_text())
    out.write_text(text)
    return text


def short_path(element: re.Match) -> str:
    """Names a translation unit by its path below src/, so that the baseline names no machine."""
    def shorten(match: re.Match) -> str:
        path = match[1]
        return "path='{}'".format("src/" + path.rpartition("/src/")[2] if "/src/" in path
                                  else os.path.basename(path))

    return re.sub(r"path='([^']*)'", shorten, element[0])


def unseen(model: dict, text: str) -> list[str]:
    """What the headers declare and the dump lacks: debug information is missing or partial."""
    problems = []
    for f in model["functions"]:
        if not re.search(rf"<function-decl name='{f['name']}'[^>]*elf-symbol-id=", text):
            problems.append(f"the library's debug information lacks the function {f['name']}")
    for s in model["structs"]:
        size = rf"size-in-bits='{s['size'] * 8}'" if s["size"] else ""
        names = rf"<class-decl name='{s['name']}'[^>]*{size}"
        typedef = rf"<typedef-decl name='{s['name']}'"
        if not re.search(names, text) and not (s["opaque"] or re.search(typedef, text)):
            problems.append(f"the library's debug information lacks struct {s['name']} "
                            f"with {s['size']} bytes")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=pathlib.Path, help="the built libattn.so, with -g")
    parser.add_argument("--headers", type=pathlib.Path, default=gate.INCLUDE / "attn")
    parser.add_argument("--stored", type=pathlib.Path, default=STORED)
    parser.add_argument("--update", action="store_true", help="store the library as the baseline")
    args = parser.parse_args()
    for tool in ("abidw", "abidiff"):
        if not shutil.which(tool):
            sys.exit(f"dwarf: {tool} is not installed (Debian and Ubuntu: abigail-tools)")
    if ".debug_info" not in gate.must(["readelf", "--wide", "--section-headers", args.library]):
        sys.exit(f"dwarf: {args.library} has no debug information, so nothing can be compared; "
                 "configure with: meson configure -Ddebug=true")

    model = gate.header_model(args.headers)
    with tempfile.TemporaryDirectory() as folder:
        current = pathlib.Path(folder) / "current.xml"
        problems = unseen(model, dump(args.library, args.headers, current))
        if args.update and not problems:
            shutil.copyfile(current, args.stored)
        result = gate.run(["abidiff", "--no-architecture", "--no-default-suppression", args.stored,
                           current])
    if result.returncode & 3:
        sys.exit(f"dwarf: abidiff failed ({result.returncode}):\n{result.stdout}")
    if result.returncode:
        removed = "removes or changes what old binaries need" if result.returncode & 8 else ""
        problems.append(f"the library differs from {args.stored.name} {removed}\n{result.stdout}")
    return gate.finish(
        "dwarf", len(model["functions"]) + len(model["structs"]), problems,
        "if the model gate accepts the change as an addition, regenerate with: " +
        gate.command_line("dwarf.py", str(args.library), "--update"))


if __name__ == "__main__":
    sys.exit(main())
