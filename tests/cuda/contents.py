#!/usr/bin/env python3
"""What is in the CUDA kernels: checks every variant's code object, and prints a table of registers,
spills, shared memory and sizes.

Each fatbin must hold the code that its folder promises (kernels/cuda/sm80: sm_80, sm_90a and PTX for
newer chips), a report without spills where the table is a performance table, and must lie in the
library as it is. The library, stripped, is at most 40 MB. Loops of wgmma kernels are looked at in
machine code, where there is a disassembler.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

PROMISED = {
    "sm80": {("elf", "sm_80"), ("elf", "sm_90a"), ("ptx", "sm_80")},
    "sm90a": {("elf", "sm_90a")},
}
MOST_BYTES = 40e6
MAGIC = 0xBA55ED50
ARCH_SPECIFIC = 1 << 20  # in a code object's flags: the "a" of sm_90a
passed = failed = 0


def check(good: bool, text: str) -> None:
    global passed, failed
    passed, failed = passed + good, failed + (not good)
    if not good:
        print(f"FAILED: {text}")


def code_in(data: bytes) -> set[tuple[str, str]]:
    """What a fatbin holds, by its headers."""
    magic, _, header, size = struct.unpack_from("<IHHQ", data)
    if magic != MAGIC:
        return set()
    found, place = set(), header
    while place < header + size:
        kind, _, own_header, own_size = struct.unpack_from("<HHIQ", data, place)
        arch, = struct.unpack_from("<I", data, place + 28)
        flags, = struct.unpack_from("<Q", data, place + 40)
        suffix = "a" if kind == 2 and flags & ARCH_SPECIFIC else ""
        found.add(({1: "ptx", 2: "elf"}.get(kind, str(kind)), f"sm_{arch}{suffix}"))
        place += own_header + own_size
    return found


def code_by_cuobjdump(tool: str, path: pathlib.Path) -> set[tuple[str, str]]:
    output = subprocess.run([tool, path], capture_output=True, text=True, check=True).stdout
    return {(kind, arch) for kind, arch in re.findall(
        r"^Fatbin (elf|ptx) code:\n=+\narch = (\w+)", output, re.MULTILINE)}


def find_tool(build: pathlib.Path, name: str) -> str | None:
    nvcc = json.loads((build / "kernels/cuda/toolchain.json").read_text())["nvcc"]
    beside = pathlib.Path(nvcc).with_name(name)
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(name)


def disassemble(cuobjdump: str, nvdisasm: str, path: pathlib.Path) -> list[str]:
    output = subprocess.run([cuobjdump, "-sass", path], capture_output=True, text=True, check=True,
                            env={**os.environ, "NVDISASM_PATH": nvdisasm}).stdout
    return re.findall(r"/\*[0-9a-f]{4,5}\*/\s+(.*?)\s*;", output)


def loop_faults(code: list[str]) -> list[str]:
    """What costs time in the loops of a wgmma kernel, from a warpgroup's turn at the tensor cores to
    its wait for scores: operands' addresses that are in registers of threads, and threads that may
    have gone separate ways (HACKING.md, "The Hopper kernels")."""
    waits = [i for i, text in enumerate(code) if re.search(r"WARPGROUP\.DEPBAR\.LE gsb0, 0x1$", text)]
    faults = [] if waits else ["no loop"]
    for wait in waits:
        turn = max((i for i in range(wait) if "BAR.SYNC" in code[i]), default=0)
        body = code[turn:wait]
        if sum("HGMMA" in text for text in body) < 8:
            faults.append("no products before a wait for scores")
        faults += [text for text in body if re.search(r"\b(R2UR|WARPSYNC|BRA\.DIV|BSSY)\b", text)]
    return faults


def stripped_size(library: pathlib.Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "stripped.so"
        subprocess.run(["strip", "-o", output, library], check=True)
        return output.stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, help="the build folder")
    build = parser.parse_args().build
    folder = build / "kernels/cuda"
    entries = json.loads((folder / "entries.json").read_text())
    library = (build / "libattn.so").read_bytes()
    cuobjdump, nvdisasm = find_tool(build, "cuobjdump"), find_tool(build, "nvdisasm")
    print(f"{len(entries)} variants; code objects are read " +
          (f"by {cuobjdump} too" if cuobjdump else "by their headers (there is no cuobjdump)"))
    print("loops of wgmma kernels are " +
          (f"looked at by {nvdisasm}" if cuobjdump and nvdisasm else "not looked at: that takes "
           "cuobjdump and nvdisasm"))
    width = max(map(len, entries))
    print(f"{'':{width}}  {'arch':8} {'registers':>9} {'spilled':>8} {'smem':>6} {'KiB':>6}")
    for entry in entries:
        data = (folder / f"{entry}.fatbin").read_bytes()
        report = json.loads((folder / f"{entry}.json").read_text())
        functions = report["functions"]
        for f in functions:
            print(f"{f['function']:{width}}  {f['arch']:8} {f['registers']:9} "
                  f"{f['spill_stores'] + f['spill_loads']:8} {f['smem']:6} {len(data) / 1024:6.0f}")
        promised = PROMISED[pathlib.Path(report["table"]).parts[2]]
        check(code_in(data) == promised, f"{entry} holds {sorted(code_in(data))}, not "
              f"{sorted(promised)}")
        if cuobjdump:
            listed = code_by_cuobjdump(cuobjdump, folder / f"{entry}.fatbin")
            check(listed == promised, f"{entry}: cuobjdump lists {sorted(listed)}")
        if cuobjdump and nvdisasm and promised == PROMISED["sm90a"]:
            faults = loop_faults(disassemble(cuobjdump, nvdisasm, folder / f"{entry}.fatbin"))
            check(not faults, f"{entry}: in the loop: {'; '.join(faults[:4])}")
        archs = {(f["function"], f["arch"]) for f in functions}
        check(archs == {(entry, arch) for kind, arch in promised if kind == "elf"},
              f"{entry}: ptxas reported {sorted(archs)}")
        check(not report["performance"] or not report["complaints"],
              f"{entry}: {report['complaints']}")
        check(data in library, f"{entry}: the library does not hold its fatbin")
    size = stripped_size(build / "libattn.so")
    print(f"the library, stripped: {size / 1e6:.1f} MB of {MOST_BYTES / 1e6:.0f}")
    check(size <= MOST_BYTES, f"the stripped library has {size} bytes")
    check(len(entries) > 0, "there is no kernel")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
