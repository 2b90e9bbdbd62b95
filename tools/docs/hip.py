"""Static figures of the HIP kernels, from the code objects of a build: what can be said of code that has
not yet run on AMD hardware.

Registers, LDS and the waves that a SIMD has room for are the compiler's; instructions are counted in
what `llvm-objdump` prints. The loop over tiles is the outermost one that has matrix instructions: all
instructions that can be reached from one another, wherever they lie, counted once each, rare paths
included.
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

from tools.capi import ROOT

sys.path.insert(0, str(ROOT / "tools/build"))
import hip_kernels  # noqa: E402

# What of the instructions' names makes a kind, in this order.
KINDS = (("matrix", r"v_(mfma|wmma)"), ("LDS", r"ds_"), ("memory", r"(global|flat|buffer|s_load|s_buffer)_?"),
         ("vector", r"v_"), ("scalar", r"s_"))
# The rows: a variant of the matrix kernel by head dim, bf16; then the reference kernels.
ENTRIES = (*((f"attn_sdpa_forward_any_{kind}_bf16_{n}", f"forward, matrix, {kind}, head dim {n}")
             for kind in ("plain", "general") for n in (64, 128, 256)),
           *((f"attn_sdpa_backward_matrix_any_{step}_bf16_{n}",
              f"backward, matrix, {what}, head dim {n}")
             for step, what in (("dq", "dq"), ("keys", "dk and dv")) for n in (64, 128, 256)),
           ("attn_sdpa_reference_any_any", "forward, reference"),
           ("attn_sdpa_backward_any_any", "backward, reference"))


def lines_of(data: bytes) -> list[tuple[int, str, int | None]]:
    """Address, name and, of a branch, target of each instruction."""
    text = subprocess.run(["llvm-objdump-22", "-d", "-"], input=data, capture_output=True,
                          check=True).stdout.decode()
    found = []
    for line in text.splitlines():
        match = re.match(r"\t(.*?)\s*// ([0-9A-F]+):", line)
        if not match:
            continue
        address = int(match[2], 16)
        # A branch counts in words from the next instruction.
        branch = re.match(r"s_c?branch\S* (\d+)$", match[1])
        distance = int(branch[1]) if branch else 0
        target = None
        if branch:
            target = address + 4 + 4 * (distance - 0x10000 if distance >= 0x8000 else distance)
        for part in match[1].split("::"):
            found.append((address, part.split()[0], target))
            target = None
    return found


def kind_of(name: str) -> str:
    return next((kind for kind, pattern in KINDS if re.match(pattern, name)), "scalar")


def loop_over_tiles(code: list[tuple[int, str, int | None]]) -> list[str]:
    """The names in the largest set of instructions that reach one another and has matrix instructions
    (Tarjan's strongly connected components); empty if there is none."""
    at = {address: n for n, (address, _, _) in reversed(list(enumerate(code)))}

    def follows(n: int) -> list[int]:
        _, name, target = code[n]
        ways = [] if name in ("s_branch", "s_endpgm") or n + 1 == len(code) else [n + 1]
        return ways + ([at[target]] if target in at else [])

    best: list[str] = []
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    path: list[int] = []
    on_path: set[int] = set()
    for first in range(len(code)):
        work = [(first, iter(follows(first)))] if first not in number else []
        while work:
            n, ways = work[-1]
            if n not in number:
                number[n] = low[n] = len(number)
                path.append(n)
                on_path.add(n)
            for way in ways:
                if way not in number:
                    work.append((way, iter(follows(way))))
                    break
                if way in on_path:
                    low[n] = min(low[n], number[way])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[n])
                if low[n] == number[n]:
                    part = path[path.index(n):]
                    del path[len(path) - len(part):]
                    on_path.difference_update(part)
                    names = [code[k][1] for k in part]
                    if len(names) > max(1, len(best)) and any(kind_of(x) == "matrix" for x in names):
                        best = names
    return best


def toolchain(build: pathlib.Path) -> str | None:
    """The compiler that built the kernels; None if there are none, or nothing to read them with."""
    path = build / "kernels/hip/toolchain.json"
    if not path.exists() or shutil.which("llvm-objdump-22") is None:
        return None
    return hip_kernels.version_of(json.loads(path.read_text())["clang"])


def cannot_compare(build: pathlib.Path, text: str) -> str:
    """Why a build's figures are not those of `text`; empty if they ought to be."""
    version, found = toolchain(build), re.search(r"Compiled by clang (\S+)\.", text)
    if version is None:
        return "this build has no HIP kernels, or there is no llvm-objdump-22"
    if found and found[1] != version:
        return f"they are clang {found[1]}'s, and this build's is {version}"
    return ""


def figures(build: pathlib.Path) -> list[dict[str, Any]]:
    folder = build / "kernels/hip"
    rows = []
    for entry, label in ENTRIES:
        report = json.loads((folder / f"{entry}.hip.json").read_text())["architectures"]
        objects = hip_kernels.unpack((folder / f"{entry}.hipimage").read_bytes())
        for architecture, data in objects.items():
            names = loop_over_tiles(lines_of(data)) if "reference" not in label else []
            loop = [kind_of(name) for name in names]
            rows.append({"label": label, "architecture": architecture, **report[architecture],
                         "loop": {kind: loop.count(kind) for kind, _ in KINDS} if loop else None})
    return rows


def markdown(build: pathlib.Path) -> str:
    kinds = [kind for kind, _ in KINDS]
    lines = [f"Compiled by clang {toolchain(build)}. No kernel spills a vector register.", "",
             "| Kernel | | registers | LDS, bytes | private, bytes | waves a SIMD | code, KiB | "
             f"loop over tiles: {', '.join(kinds)} | matrix |",
             "|---|---|---|---|---|---|---|---|---|"]
    rows = figures(build)
    for row in rows:
        loop = row["loop"]
        density = f"{100 * loop['matrix'] / sum(loop.values()):.1f} %" if loop else ""
        mix = ", ".join(str(loop[kind]) for kind in kinds) if loop else ""
        registers = f"{row['vgprs']} + {row['agprs']}" if row.get("agprs") else row["vgprs"]
        lines.append(f"| {row['label']} | {row['architecture']} | {registers} | {row['lds'] or ''} | "
                     f"{row['scratch'] or ''} | {row['occupancy']} | {row['bytes'] / 1024:.0f} | "
                     f"{mix} | {density} |")
    # One kernel's loop on each architecture, side by side.
    names = list(dict.fromkeys(row["architecture"] for row in rows))
    lines += ["", f"| Instructions of the loop, share of matrix | {' | '.join(names)} |",
              "|---|" + "---|" * len(names)]
    for label in dict.fromkeys(row["label"] for row in rows if row["loop"]):
        cells = [f"{sum(row['loop'].values())}, "
                 f"{100 * row['loop']['matrix'] / sum(row['loop'].values()):.1f} %"
                 for row in rows if row["label"] == label]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)
