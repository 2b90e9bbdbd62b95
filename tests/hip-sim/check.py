#!/usr/bin/env python3
"""attn-check on all architectures, each through the interpreter, as many at once as there are cores.

Each architecture runs every case that is small enough for an interpreter to be done with all of them in
minutes, ten on two cores; ATTN_HIP_FULL=1 adds the larger ones.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import random
import re
import subprocess
import sys
import time

MOST_WORK, MOST_WORK_IN_FULL = 4e6, 2e7  # multiplications of a case; see attn-check --help
ARCHITECTURES = ["gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201"]


def check(program: pathlib.Path, runtime: pathlib.Path, architecture: str,
          options: list[str]) -> tuple[str, int, int, str]:
    start = time.monotonic()
    done = subprocess.run(
        [program, "--backend", "hip", "--brief", *options], capture_output=True, text=True,
        check=False, errors="replace",
        env={**os.environ, "LD_LIBRARY_PATH": str(runtime), "HIP_SIM_ARCH": architecture})
    total = re.search(r"^(\d+) passed, (\d+) failed", done.stdout, re.MULTILINE)
    passed, failed = (int(total[1]), int(total[2])) if total else (0, 1)
    if done.returncode != 0 and failed == 0:
        failed = 1
    text = done.stdout + done.stderr if failed else "\n".join(
        line for line in done.stdout.splitlines() if line.startswith("  "))
    return architecture, passed, failed, f"{text.rstrip()}\n({time.monotonic() - start:.0f} s)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path, help="attn-check")
    parser.add_argument("runtime", type=pathlib.Path, help="the folder of the interpreter")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    worst = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = []
        for architecture in ARCHITECTURES:
            work = MOST_WORK_IN_FULL if os.environ.get("ATTN_HIP_FULL") else MOST_WORK
            options = ["--seed", str(arguments.seed), "--work", str(work),
                       "--timeout", "900"]  # seconds of one case
            tasks.append(pool.submit(check, arguments.program, arguments.runtime, architecture,
                                     options))
        for task in concurrent.futures.as_completed(tasks):
            architecture, passed, failed, text = task.result()
            print(text)
            print(f"{architecture}: {passed} passed, {failed} failed", flush=True)
            worst = max(worst, failed)
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
