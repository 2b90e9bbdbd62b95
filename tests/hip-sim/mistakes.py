#!/usr/bin/env python3
"""Mistakes in the kernels on matrix instructions that attn-check on the interpreter must catch.

The kernel is compiled anew with one line of its sources changed, and takes the place of the right one;
compiled with none changed, it must pass.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools/build"))
import cuda_kernels  # noqa: E402
import hip_kernels  # noqa: E402

# A kernel's table, its variant, the case and the implementation that are run.
KERNELS = {
    "forward": ("kernels/hip/any/sdpa/forward.toml", "plain", "dims/bf16-{dim}-full",
                "hip/sdpa/forward/matrix"),
    "listed": ("kernels/hip/any/sdpa/forward.toml", "general", "option/blocks-bf16",
               "hip/sdpa/forward/matrix"),
    "dq": ("kernels/hip/any/sdpa/backward_matrix.toml", "dq", "dims/bf16-{dim}-backward",
           "hip/sdpa/backward/matrix"),
    "keys": ("kernels/hip/any/sdpa/backward_matrix.toml", "keys", "dims/bf16-{dim}-backward",
             "hip/sdpa/backward/matrix"),
}
TILE, STAGED = "kernels/hip/common/tile.hpp", "kernels/hip/common/staged.hpp"
FORWARD = "kernels/hip/any/sdpa/forward.hip"
BACKWARD = "kernels/hip/any/sdpa/backward_matrix.hip"
EVERY = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201")
TWO = ("gfx942", "gfx1100")
RACE = "a race in shared memory"
# What: kernel, file, text, what stands there instead, the largest head dim of the variant, where, what
# is said.
MISTAKES = {
    "none": ("forward", TILE, "", "", 128, EVERY, None),
    "a wrong layout of results": (
        "forward", TILE, "kElements == 16 ? 2 * r + group_of(lane) : kResults * group_of(lane) + r",
        "kElements == 16 ? kResults * group_of(lane) + r : 2 * r + group_of(lane)", 64, EVERY, ""),
    "a wrong layout of operands": (
        "forward", TILE, "return kElements == 16 ? 0 : kElements * group_of(lane);",
        "return kElements == 16 ? 0 : kElements * (group_of(lane) ^ 1);", 64, ("gfx942", "gfx1201"),
        ""),
    "two values swapped": (
        "forward", STAGED, "low[0] | static_cast<uint32_t>(low[kStagedPitch]) << 16",
        "low[kStagedPitch] | static_cast<uint32_t>(low[0]) << 16", 64, TWO, ""),
    "a barrier removed": ("forward", FORWARD, "    gpu::sync_block();\n", "", 128, TWO, RACE),
    "one buffer for both tiles": ("forward", FORWARD, "shared.products[parity]",
                                  "shared.products[0]", 128, TWO, RACE),
    "one wave's products left out": ("forward", FORWARD, "for (int wave = 0; wave < kWaves; wave++)",
                                     "for (int wave = 1; wave < kWaves; wave++)", 128, TWO, ""),
    "none in lists of blocks": ("listed", FORWARD, "", "", 128, TWO, None),
    "a list not looked at": ("listed", FORWARD, "listed.contains(j) && ",
                              "(listed.contains(j) || true) && ", 128, TWO, ""),
    "buffers that take turns by tile": ("listed", FORWARD, "parity ^= 1;", "parity = n & 1;", 128, TWO,
                                        RACE),
    "none in dq": ("dq", BACKWARD, "", "", 128, TWO, None),
    "none in dk and dv": ("keys", BACKWARD, "", "", 128, TWO, None),
    "sums that are read too late": (
        "keys", BACKWARD, "    gpu::sync_block();  // the last tile's have been read\n", "", 128, TWO,
        RACE),
    "the mean gradient left out": ("dq", BACKWARD, "(dp[r] - (row.d - row.dlse))", "dp[r]", 64, TWO, ""),
    "keys and values exchanged": (
        "dq", BACKWARD, "rows_of(y, c, w.lane)", "rows_of(x, c, w.lane)", 64, TWO, ""),
    "another query's sums": (
        "keys", BACKWARD, "other + row_of(r, w.lane)", "other + (row_of(r, w.lane) ^ 1)", 64, TWO, ""),
    "the scale left out": ("keys", BACKWARD, "d.softmax_scale / kLift / lift", "1 / kLift / lift", 64,
                           TWO, ""),
}


def changed_sources(folder: pathlib.Path, file: str, text: str, instead: str) -> pathlib.Path:
    shutil.copytree(ROOT / "kernels", folder / "kernels")
    for name in ("include", "src"):
        (folder / name).symlink_to(ROOT / name)
    source = (folder / file).read_text()
    if text and source.count(text) != 1:
        sys.exit(f"{file} has {text!r} {source.count(text)} times, not once: renew this test")
    (folder / file).write_text(source.replace(text, instead) if text else source)
    return folder


def main() -> int:
    program, runtime, build = map(pathlib.Path, sys.argv[1:])
    toolchain = json.loads((build / "kernels/hip/toolchain.json").read_text())
    passed = failed = 0
    for what, (kernel, file, text, instead, dim, architectures, says) in MISTAKES.items():
        toml, kind, case, implementation = KERNELS[kernel]
        with tempfile.TemporaryDirectory() as temporary:
            root = changed_sources(pathlib.Path(temporary), file, text, instead)
            table = cuda_kernels.read_table(root / toml, hip_kernels.FOLDERS)
            variant = next(v for v in table.variants if v.entry.endswith(f"{kind}_bf16_{dim}"))
            for architecture in architectures:
                data, _, _ = hip_kernels.Compiler(toolchain, "mistakes", root, table, variant,
                                                  architecture).compile()
                code = root / f"{variant.entry}.{architecture}"
                code.write_bytes(data)
                done = subprocess.run(
                    [program, "--backend", "hip", "--brief", "--seed", "1", "--filter",
                     "=sdpa/" + case.format(dim=dim), "--implementation", implementation],
                    capture_output=True, text=True, check=False, errors="replace",
                    env={**os.environ, "LD_LIBRARY_PATH": str(runtime),
                         "HIP_SIM_ARCH": architecture, "HIP_SIM_ORDER": "random",
                         "HIP_SIM_INSTEAD": f"{variant.entry}={code}"})
                said = done.stdout + done.stderr
                good = "1 passed, 0 failed" in said if says is None else (
                    done.returncode == 1 and "FAILED" in said and says in said)
                passed, failed = passed + good, failed + (not good)
                if not good:
                    print(f"FAILED {what} on {architecture}: status {done.returncode}\n{said}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
