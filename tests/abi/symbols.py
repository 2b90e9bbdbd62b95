#!/usr/bin/env python3
"""Gate: the library exports exactly what the version script, the headers and the stored list say.

The four must agree, name by name, and each symbol must carry the version node that the stored list
gives it. The stored list (tests/abi/symbols.txt) only ever grows.
"""

import argparse
import pathlib
import re
import sys

import gate

STORED = gate.HERE / "symbols.txt"


def read_map(path: pathlib.Path) -> dict[str, str]:
    """name -> node of a version script; ends the gate if it has a wildcard among its exports."""
    text = re.sub(r"#.*", "", path.read_text())
    symbols: dict[str, str] = {}
    for node, body in re.findall(r"(\w[\w.]*)\s*\{(.*?)\}", text, flags=re.S):
        exported = body.split("local:")[0].split("global:")[-1]
        for name in (n.strip() for n in exported.split(";")):
            if not name:
                continue
            if not re.fullmatch(r"\w+", name):
                sys.exit(f"symbols: {path} exports the pattern '{name}' in {node}; every function "
                         "must be listed by name")
            symbols[name] = node
    return symbols


def read_stored(path: pathlib.Path) -> dict[str, str]:
    rows = (line.split() for line in path.read_text().splitlines() if line.strip())
    return {name: node for name, node in rows}


def differences(have: set[str], want: set[str], have_name: str, want_name: str) -> list[str]:
    return ([f"{n} is in {have_name} but not in {want_name}" for n in sorted(have - want)] +
            [f"{n} is in {want_name} but not in {have_name}" for n in sorted(want - have)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=pathlib.Path, help="the built libattn.so")
    parser.add_argument("--map", type=pathlib.Path, default=gate.MAP)
    parser.add_argument("--headers", type=pathlib.Path, default=gate.INCLUDE / "attn")
    parser.add_argument("--stored", type=pathlib.Path, default=STORED)
    parser.add_argument("--update", action="store_true",
                        help="write the stored list from the version script and the library")
    parser.add_argument("--breaking", action="store_true",
                        help="with --update: also drop names (a new ABI major only)")
    args = parser.parse_args()

    mapped = read_map(args.map)
    exported = dict(gate.dynamic_symbols(args.library))
    headers = {f["name"] for f in gate.header_model(args.headers)["functions"]}
    if args.update:
        if args.stored.exists() and not args.breaking:
            lost = sorted(set(read_stored(args.stored)) - set(mapped))
            if lost:
                sys.exit(f"symbols: refusing to drop {', '.join(lost)} from {args.stored.name}: an "
                         "exported function stays for ever within an ABI major")
        rows = [f"{name} {node}\n" for name, node in sorted(mapped.items())]
        args.stored.write_text("".join(rows))
    stored = read_stored(args.stored)

    problems = differences(set(exported), set(mapped), "the library's exports", args.map.name)
    problems += differences(set(mapped), headers, args.map.name, "the headers' functions")
    problems += differences(set(mapped), set(stored), args.map.name, args.stored.name)
    for name in sorted(set(exported) & set(stored)):
        if exported[name] != stored[name]:
            problems.append(f"{name} carries the version {exported[name] or '(none)'}; "
                            f"{args.stored.name} says {stored[name]}")
    return gate.finish("symbols", len(set(exported) | set(mapped) | headers | set(stored)), problems,
                       "after a deliberate addition, regenerate with: " +
                       gate.command_line("symbols.py", str(args.library), "--update"))


if __name__ == "__main__":
    sys.exit(main())
