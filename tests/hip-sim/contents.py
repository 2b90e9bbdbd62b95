#!/usr/bin/env python3
"""What is embedded for HIP: code for every architecture, unpacked to what was compiled, within the
bounds that the kernels promise. Prints registers, private memory and occupancy."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools/build"))
import hip_kernels  # noqa: E402

# Waves of a SIMD that a kernel's registers must leave room for.
OCCUPANCY = {"reference": 2, "backward_matrix": 2, "backward": 2, "forward_any_plain": 3, "merge": 3,
             "forward": 2, "block_map": 8}
LDS = {"gfx950": 160 * 1024}


def main() -> int:
    build = pathlib.Path(sys.argv[1])
    folder = build / "kernels/hip"
    wanted = json.loads((folder / "toolchain.json").read_text())["architectures"]
    library = (build / "libattn.so").read_bytes()
    passed, failures = 0, []

    def expect(good: bool, what: str) -> None:
        nonlocal passed
        passed += bool(good)
        if not good:
            failures.append(what)
    images = sorted(folder.glob("*.hipimage"))
    expect(len(images) > 0, "there are images")
    for path in images:
        image = path.read_bytes()
        report = json.loads((folder / f"{path.stem}.hip.json").read_text())
        objects = hip_kernels.unpack(image)
        expect(list(objects) == wanted, f"{path.stem} has code for {list(objects)}, not {wanted}")
        expect(image in library, f"{path.stem} is in the library")
        expect(hip_kernels.pack(objects) == image, f"{path.stem}: packed again it is the same")
        for architecture, data in objects.items():
            usage = report["architectures"][architecture]
            where = f"{path.stem} on {architecture}"
            print(f"{where}: {usage['vgprs']} VGPRs, {usage.get('agprs', 0)} AGPRs, {usage['sgprs']} SGPRs, "
                  f"{usage['scratch']} bytes of private memory, {usage['occupancy']} waves a SIMD")
            expect(len(data) == usage["bytes"], f"{where}: {len(data)} bytes")
            expect(usage["vgpr_spills"] == 0, f"{where}: registers are spilled")
            expect(usage["lds"] <= LDS.get(architecture, 64 * 1024), f"{where}: {usage['lds']} of LDS")
            least = next(n for key, n in OCCUPANCY.items() if key in path.stem)
            expect(usage["occupancy"] >= least,
                   f"{where}: room for {usage['occupancy']} waves a SIMD, not {least}")
            notes = subprocess.run(["llvm-readelf-22", "--notes", "-"], input=data,
                                   capture_output=True, check=True).stdout.decode()
            expect(f"amdgcn-amd-amdhsa--{architecture}" in notes, f"{where}: its target")
            wave = 64 if architecture.startswith("gfx9") else 32
            expect(f".wavefront_size: {wave}" in notes, f"{where}: waves of {wave}")
    for failure in failures:
        print("FAILED", failure)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
