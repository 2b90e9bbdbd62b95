#!/usr/bin/env python3
"""Gate: nothing that a client may rely on in the public headers has changed since the baseline.

Compares the model of the headers (tools/header_model.py) with tests/abi/model.json. Breaks are
refused: a function, struct member, enum or macro value that was removed, changed or moved.
Additions at the end are allowed once ATTN_ABI_MINOR is higher than the baseline's.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import sys
from typing import Any

import gate

STORED = gate.HERE / "model.json"

# These move with every release, by design.
MOVING = {"ATTN_VERSION_MAJOR", "ATTN_VERSION_MINOR", "ATTN_VERSION_PATCH", "ATTN_ABI_MINOR",
          "ATTN_ABI_VERSION"}


def reduce(model: dict[str, Any]) -> dict[str, Any]:
    """What of a header model is a promise: no comments, no order of declarations."""
    structs = {}
    for s in model["structs"]:
        structs[s["name"]] = {
            "opaque": s["opaque"], "size": s["size"], "align": s["align"],
            "fields": [[f["name"], f["type"], f["array"], f["offset"], f["size"]]
                       for f in s["fields"]],
        }
    return {
        "abi": [model["abi"]["abi_major"], model["abi"]["abi_minor"]],
        "constants": {c["name"]: [c["value"], c["type"]] for c in model["constants"]},
        "enums": {e["name"]: {v["name"]: v["value"] for v in e["values"]} for e in model["enums"]},
        "structs": structs,
        "functions": {f["name"]: [f["returns"], *(p["type"] for p in f["params"])]
                      for f in model["functions"]},
        "typedefs": {t["name"]: [t["type"], t["returns"],
                                 [p["type"] for p in t["params"] or []]]
                     for t in model["typedefs"]},
        "initializers": {i["name"]: True for i in model["initializers"]},
    }


def write(path: pathlib.Path, reduced: dict[str, Any]) -> None:
    """One line a promise, so that a change of the baseline reads well in a review."""
    lines = [f'"abi": {json.dumps(reduced["abi"])}']
    for key in ("constants", "enums", "structs", "functions", "typedefs", "initializers"):
        rows = []
        for name, value in reduced[key].items():
            if key == "structs" and value["fields"]:
                head = {k: v for k, v in value.items() if k != "fields"}
                fields = ",\n   ".join(json.dumps(f) for f in value["fields"])
                text = f'{json.dumps(head)[:-1]}, "fields": [\n   {fields}]}}'
            else:
                text = json.dumps(value)
            rows.append(f'  {json.dumps(name)}: {text}')
        lines.append(f'"{key}": {{\n' + ",\n".join(rows) + "}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


class Comparison:
    def __init__(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        self.breaks: list[str] = []
        self.additions: list[str] = []
        self.checked = 0
        if old["abi"][0] != new["abi"][0]:
            self.breaks.append(f"ATTN_ABI_MAJOR went from {old['abi'][0]} to {new['abi'][0]}: "
                               "every client would have to be rebuilt")
        self.plain("function", old["functions"], new["functions"])
        self.plain("typedef", old["typedefs"], new["typedefs"])
        self.plain("macro", old["initializers"], new["initializers"])
        self.plain("macro", {k: v for k, v in old["constants"].items() if k not in MOVING},
                   {k: v for k, v in new["constants"].items() if k not in MOVING})
        self.enums(old["enums"], new["enums"])
        self.structs(old["structs"], new["structs"])

    def plain(self, kind: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        for name, was in old.items():
            self.checked += 1
            if name not in new:
                self.breaks.append(f"{kind} {name} was removed")
            elif new[name] != was:
                self.breaks.append(f"{kind} {name} changed from {was} to {new[name]}")
        self.additions += [f"{kind} {name}" for name in new if name not in old]

    def enums(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        for name, was in old.items():
            if name not in new:
                self.breaks.append(f"enum {name} was removed")
                continue
            for value, number in was.items():
                self.checked += 1
                if value not in new[name]:
                    self.breaks.append(f"enum value {value} was removed from {name}")
                elif new[name][value] != number:
                    self.breaks.append(f"enum value {value} was renumbered from {number} to "
                                       f"{new[name][value]}")
            for value, number in new[name].items():
                if value in was:
                    continue
                if number <= max(was.values()):
                    self.breaks.append(f"enum value {value} = {number} of {name} is not at the "
                                       f"end: it must be above {max(was.values())}")
                self.additions.append(f"enum value {value}")
        self.additions += [f"enum {name}" for name in new if name not in old]

    def structs(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        for name, was in old.items():
            self.checked += 1
            if name not in new:
                self.breaks.append(f"struct {name} was removed")
            elif was["opaque"] != new[name]["opaque"]:
                self.breaks.append(f"struct {name} changed between opaque and public")
            elif not was["opaque"]:
                self.members(name, was, new[name])
        self.additions += [f"struct {name}" for name in new if name not in old]

    def members(self, name: str, was: dict[str, Any], now: dict[str, Any]) -> None:
        if now["align"] != was["align"]:
            self.breaks.append(f"struct {name}: alignment went from {was['align']} to "
                               f"{now['align']}")
        present = {f[0]: f for f in now["fields"]}
        places = {f[3]: f for f in now["fields"]}
        taken = set()
        for field, type_, array, offset, size in was["fields"]:
            self.checked += 1
            found = present.get(field)
            if found is None and field.startswith("reserved"):
                # A reserved member may get a meaning, and with it a name, in its place.
                found = places.get(offset)
                if found is not None:
                    self.additions.append(f"member {name}.{found[0]} in place of {field}")
                    found = [field, *found[1:]]
            if found is None:
                self.breaks.append(f"member {name}.{field} was removed")
                continue
            taken.add(found[3])
            if found[3] != offset:
                self.breaks.append(f"member {name}.{field} moved from byte {offset} to {found[3]}")
            elif found[1:] != [type_, array, offset, size]:
                self.breaks.append(f"member {name}.{field} changed from {type_}"
                                   f"{array and [array] or ''} to {found[1]}"
                                   f"{found[2] and [found[2]] or ''}")
        appended = [f for f in now["fields"] if f[3] not in taken]
        for field in appended:
            self.additions.append(f"member {name}.{field[0]}")
            if field[3] < was["size"]:
                self.breaks.append(f"member {name}.{field[0]} was inserted at byte {field[3]}: new "
                                   f"members go to the end, byte {was['size']}")
        if now["size"] != was["size"]:
            if was["fields"][0][0] != "struct_size":
                self.breaks.append(f"struct {name} went from {was['size']} to {now['size']} bytes: "
                                   "it has no struct_size and may never change")
            elif now["size"] < was["size"]:
                self.breaks.append(f"struct {name} shrank from {was['size']} to {now['size']} "
                                   "bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--headers", type=pathlib.Path, default=gate.INCLUDE / "attn")
    parser.add_argument("--stored", type=pathlib.Path, default=STORED)
    parser.add_argument("--frozen", type=pathlib.Path, default=gate.HERE / "frozen",
                        help="the folder with one copy of the headers for each ABI version")
    parser.add_argument("--update", action="store_true",
                        help="store the headers as the baseline and as a frozen copy")
    parser.add_argument("--breaking", action="store_true",
                        help="with --update: even if clients break (before a first release, or "
                             "for a new ABI major)")
    args = parser.parse_args()

    new = reduce(gate.header_model(args.headers))
    if args.update and (args.breaking or not args.stored.exists()):
        old = new
    else:
        old = json.loads(args.stored.read_text())
    comparison = Comparison(old, new)
    regenerate = "python3 tests/abi/model.py --update"
    problems = [f"BREAK: {b}" for b in comparison.breaks]
    if comparison.additions and not comparison.breaks and new["abi"][1] <= old["abi"][1]:
        problems += [f"ADDITION without a new minor: {a}" for a in comparison.additions]
        problems.append(f"raise ATTN_ABI_MINOR to {old['abi'][1] + 1} in include/attn/version.h, "
                        f"then regenerate the baseline with: {regenerate}")
    if new["abi"][1] < old["abi"][1]:
        problems.append(f"ATTN_ABI_MINOR fell from {old['abi'][1]} to {new['abi'][1]}")

    if args.update and not problems:
        write(args.stored, new)
        freeze(args.headers, args.frozen / f"{new['abi'][0]}.{new['abi'][1]}")
        old = new
    # Whatever was ever released must still be served, not only the last of it.
    for folder in sorted(args.frozen.glob(f"{new['abi'][0]}.*")):
        past = Comparison(reduce(gate.header_model(folder / "attn")), new)
        comparison.checked += past.checked
        problems += [f"BREAK since {folder.name}: {b}" for b in past.breaks
                     if f"BREAK: {b}" not in problems]
        if not (folder / "client.c").exists():
            print(f"model: {folder}/client.c is missing: add a program that uses what this minor "
                  "added, and its row in tests/abi/meson.build")
    # The frozen headers that old clients are built with must be the baseline's.
    frozen = args.frozen / f"{old['abi'][0]}.{old['abi'][1]}" / "attn"
    if not frozen.is_dir():
        problems.append(f"{frozen} is missing: regenerate with: {regenerate}")
    elif reduce(gate.header_model(frozen)) != old:
        problems.append(f"the headers in {frozen} are not the baseline's: they must never be edited")

    if comparison.additions and not problems:
        print(f"model: {len(comparison.additions)} additions since ABI "
              f"{old['abi'][0]}.{old['abi'][1]}: " + "; ".join(comparison.additions))
    hint = ("a break needs another way: append, or add a function with a new name"
            if comparison.breaks else "")
    return gate.finish("model", comparison.checked, problems, hint)


def freeze(headers: pathlib.Path, folder: pathlib.Path) -> None:
    target = folder / "attn"
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for header in sorted(headers.glob("*.h")):
        shutil.copyfile(header, target / header.name)


if __name__ == "__main__":
    sys.exit(main())
