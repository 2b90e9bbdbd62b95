"""Compiles HIP kernels for the build: tables of variants to embedded images.

Tables are those of CUDA's kernels (cuda_kernels.py): a variant is compiled by itself, once for each
architecture, with the same macros, and comes to the launcher through the same generated header. An
image holds all architectures' code objects:

    uint32 number of entries
    for each: char architecture[16], uint32 offset, uint32 bytes stored, uint32 bytes unpacked
    the code objects, each deflated (RFC 1951)

src/backend/hip/image.cpp reads it. clang compiles for AMD's processors with no header and no library
of ROCm; what little of a C library the kernels call is in kernels/hip/include. ATTN_HIP_CLANG names
the clang++ to use. Only the standard library is needed.
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
import time
import zlib
from typing import Any, Optional

import cuda_kernels as common

NEEDED = 22  # the clang that the kernels are written for
FOLDERS = ("any", "gfx9", "gfx11", "gfx12")  # of kernels/hip
FLAGS = [
    "-x", "hip", "--cuda-device-only", "--no-gpu-bundle-output", "-nogpuinc", "-nogpulib",
    "-nostdlibinc", "-std=c++20", "-O3", "-Wall", "-Wextra", "-Werror",
    "-Wno-cuda-compat",             # #pragma unroll with parentheses, as both compilers take it
    "-fuse-cuid=none",              # the same sources give the same bytes
    "-mcode-object-version=5",      # which ROCm 6.0 and newer load
    "-Rpass-analysis=kernel-resource-usage",
]
# What only a family of processors is told: waves share a compute unit's caches, not two units'.
EXTRA = {"gfx11": ["-mcumode"], "gfx12": ["-mcumode"]}


def fail(text: str) -> None:
    sys.exit(f"hip_kernels: {text}")


def version_of(clang: str) -> Optional[str]:
    try:
        output = subprocess.run([clang, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"clang version (\d+\.\d+\.\d+)", output.stdout)
    return found[1] if found else None


def find_clang(last: str) -> tuple[Optional[str], str]:
    """ATTN_HIP_CLANG, the last one found, clang++-22 and newer on PATH, or clang++ itself: the first
    that is new enough, with its version; or none, with the reason."""
    asked_for = os.environ.get("ATTN_HIP_CLANG")
    names = [f"clang++-{n}" for n in range(NEEDED, NEEDED + 5)] + ["clang++"]
    candidates = [asked_for] if asked_for else [last, *map(shutil.which, names)]
    reason = f"clang {NEEDED} was not found"
    for candidate in candidates:
        version = version_of(candidate) if candidate else None
        if version is None:
            continue
        if int(version.split(".")[0]) < NEEDED:
            reason = f"clang {version} was found, which is too old ({NEEDED} is needed)"
            continue
        linker = subprocess.run([candidate, "--print-prog-name=ld.lld"], capture_output=True,
                                text=True, check=False).stdout.strip()
        if not os.path.isabs(linker):
            reason = f"clang {version} was found, but no lld of its version"
            continue
        return candidate, version
    return None, reason


def task_find(arguments: argparse.Namespace) -> None:
    """Prints clang's path and version, or fails with the reason."""
    clang, version = find_clang(common.remembered(arguments.build).get("clang", ""))
    if clang is None:
        sys.exit(version)
    print(clang, version, sep="\n")


def task_configure(arguments: argparse.Namespace) -> None:
    """Writes the tables' headers; prints `table entry` for each variant."""
    root, build = arguments.root, arguments.build
    cache = (os.environ.get("ATTN_CUDA_CACHE") or common.remembered(build).get("cache") or
             build / "hip-cache")
    common.write_if_changed(build / "toolchain.json", json.dumps({
        "clang": arguments.clang, "architectures": arguments.architectures.split(","),
        "cache": str(pathlib.Path(cache).absolute())}))
    for name in arguments.tables:
        table = common.read_table(root / name, FOLDERS)
        lines = ["ATTN_VARIANT({})".format(", ".join(
            [v.entry, *common.image_symbols(v.entry), *v.defines.values()]))
            for v in table.variants]
        head = f"// Generated from {name}: entry, image, " + ", ".join(table.variants[0].defines)
        relative = pathlib.Path(name).relative_to("kernels/hip")
        common.write_if_changed(build / relative.with_name(f"{table.path.stem}_table.inc"),
                                "\n".join([head, *lines, ""]))
        for variant in table.variants:
            print(name, variant.entry)


# What -Rpass-analysis=kernel-resource-usage calls what we keep.
USAGE = {"VGPRs": "vgprs", "AGPRs": "agprs", "TotalSGPRs": "sgprs", "VGPRs Spill": "vgpr_spills",
         "SGPRs Spill": "sgpr_spills", "ScratchSize [bytes/lane]": "scratch",
         "LDS Size [bytes/block]": "lds", "Occupancy [waves/SIMD]": "occupancy"}


def parse_usage(said: str, entry: str) -> dict[str, int]:
    found: dict[str, int] = {}
    inside = False
    for line in said.splitlines():
        match = re.search(r"remark: .*?([A-Z][\w ]*(?: \[[^\]]+\])?): (\S+) \[-Rpass", line)
        if not match:
            continue
        if match[1] == "Function Name":
            inside = match[2] == entry
        elif inside and match[1] in USAGE and match[2].isdigit():
            found[USAGE[match[1]]] = int(match[2])
    return found


class Compiler:
    def __init__(self, toolchain: dict[str, Any], version: str, root: pathlib.Path,
                 table: common.Table, variant: common.Variant, architecture: str):
        family = architecture[:-2] if architecture.startswith("gfx1") else "gfx9"
        folders = [root / "kernels/hip/include", root, root / "include", root / "src"]
        self.root, self.table, self.variant = root, table, variant
        self.cache = pathlib.Path(toolchain["cache"])
        self.files = common.closure(table.source, folders)
        self.flags = [*FLAGS, *EXTRA.get(family, []), f"--offload-arch={architecture}",
                      *table.flags, *common.defines_of(variant)]
        self.command = [toolchain["clang"], *self.flags,
                        *(part for folder in folders for part in ("-I", folder))]
        self.version = version

    def key(self) -> str:
        names = [os.path.relpath(path, self.root) for path in self.files]
        return common.digest("hip 1", self.version, *self.flags, *names,
                             *(path.read_bytes() for path in self.files))

    def compile(self) -> tuple[bytes, str, bool]:
        """The code object, what clang said, and whether it had to run."""
        key = self.key()
        stored, log = self.cache / f"{key}.co", self.cache / f"{key}.log"
        if stored.exists() and log.exists():
            for path in (stored, log):
                os.utime(path)
            return stored.read_bytes(), log.read_text(), False
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder) / "out.co"
            status, said = common.run([*self.command, "-o", output, self.table.source])
            if status != 0:
                fail(f"{self.variant.entry} does not compile:\n{said}")
            data = output.read_bytes()
        common.store(log, said.encode())
        common.store(stored, data)
        return data, said, True


def pack(objects: dict[str, bytes]) -> bytes:
    """The image of code objects by architecture."""
    packed = {}
    for name, data in objects.items():
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed[name] = deflate.compress(data) + deflate.flush()
    offset = 4 + 28 * len(packed)
    head, body = struct.pack("<I", len(packed)), b""
    for name, data in packed.items():
        head += struct.pack("<16sIII", name.encode(), offset + len(body), len(data),
                            len(objects[name]))
        body += data
    return head + body


def unpack(image: bytes) -> dict[str, bytes]:
    """The other way; for tests."""
    objects = {}
    for n in range(struct.unpack_from("<I", image)[0]):
        name, offset, stored, size = struct.unpack_from("<16sIII", image, 4 + 28 * n)
        data = zlib.decompress(image[offset:offset + stored], -15)
        assert len(data) == size
        objects[name.rstrip(b"\0").decode()] = data
    return objects


def task_compile(arguments: argparse.Namespace) -> None:
    """One variant: its image, and a report beside it."""
    start = time.monotonic()
    toolchain = json.loads(arguments.toolchain.read_text())
    table = common.read_table(arguments.root / arguments.table, FOLDERS)
    variant = next((v for v in table.variants if v.entry == arguments.entry), None)
    if variant is None:
        fail(f"{table.path} has no {arguments.entry}: configure again")
    objects, report, files, compiled = {}, {}, set(), False
    for architecture in toolchain["architectures"]:
        compiler = Compiler(toolchain, arguments.version, arguments.root, table, variant,
                            architecture)
        data, said, ran = compiler.compile()
        compiled |= ran
        usage = parse_usage(said, variant.entry)
        if table.performance and (usage.get("vgpr_spills") or usage.get("scratch")):
            fail(f"{variant.entry} ({arguments.table} has performance = true): {architecture}: "
                 f"{usage.get('vgpr_spills')} spilled registers, {usage.get('scratch')} bytes of "
                 "private memory: make the tile smaller or use more threads")
        objects[architecture] = data
        report[architecture] = {**usage, "bytes": len(data)}
        files |= set(compiler.files)
    image = pack(objects)
    arguments.output.write_bytes(image)
    arguments.report.write_text(json.dumps({
        "entry": variant.entry, "table": arguments.table, "performance": table.performance,
        "bytes": len(image), "architectures": report}, indent=1))
    depends = " ".join(str(path).replace(" ", "\\ ") for path in sorted(files))
    arguments.depfile.write_text(f"{arguments.output}: {depends}\n")
    if compiled:
        print(f"HIP kernel {variant.entry}: {len(image) / 1024:.0f} KiB for "
              f"{', '.join(objects)}, {time.monotonic() - start:.0f} s")


def task_embed(arguments: argparse.Namespace) -> None:
    """One assembler file that holds all images as read-only data."""
    common.embed(arguments.images, ".rodata.attn_hip", arguments.output, arguments.toolchain)


def main() -> None:
    common.run_tasks(__doc__, task_find, task_configure, "clang", task_compile, task_embed,
                     "architectures", example="kernels/hip/any/merge/merge.toml")


if __name__ == "__main__":
    main()
