"""Benchmarks of the CPU backend against its bars. Every bar is a ratio of two rates that were
measured in this run, side by side, on the same cores, on random data: medians over rounds in which
all contenders take turns. Each bar is measured with one thread and with all.

Suites:
  overhead  host cost of execute and of plan creation, from C
  prefill   fp32 prefill, as a share of OpenBLAS sgemm's rate (2048^3; the fastest build found)
  half      fp16 and bf16 prefill, as a share of our fp32 rate
  decode    bf16 decode, dense and paged, as a share of the measured read bandwidth
  backward  fp32 backward, as a share of sgemm's rate
  grid      fp32 against onnxruntime's attention on many shapes
  seqlens   fp32 prefill over sequence lengths, for the plot (no bar)

Writes one JSON file (schema: see HACKING.md) and prints a table. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from tests.bench import measure, peers, suites
from tests.bench.measure import progress
from tools import capi

RESULTS = pathlib.Path(__file__).resolve().parent / "results"


def commit() -> str:
    """The commit that is measured; "+" after it if the sources of the library differ from it."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=capi.ROOT, capture_output=True,
                              text=True).stdout.strip()
    changed = git("status", "--porcelain", "--", "src", "kernels", "include", "meson.build")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def peer_versions(session: suites.Session) -> dict[str, str]:
    versions = dict(session.sgemm.versions)
    for name, module in (("onnxruntime", session.onnxruntime), ("torch", session.torch)):
        if module is not None:
            versions[name] = module.__version__
    return versions


# Over the whole grid: the id, the bar of its geometric mean, whose time is compared with ours.
GRID_TOTALS = [("grid/geomean", 1.3, "onnxruntime"), ("grid/torch", None, "torch")]


def totals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over several rows: the grid's geometric means, once the whole grid is measured."""
    out = []
    for threads in sorted({row["threads"] for row in rows}):
        measured = [row for row in rows if row["suite"] == "grid" and row["threads"] == threads]
        for name, bar, peer in GRID_TOTALS:
            ratios = [row["peers_us"][peer] / row["us"] for row in measured
                      if peer in row["peers_us"]]
            if len(ratios) != len(suites.GRID):
                continue
            mean = suites.geomean(ratios)
            total = {"id": f"{name}/t{threads}", "suite": "grid", "threads": threads,
                     "rows": len(ratios), "ratio": mean, "smallest": min(ratios),
                     "ratio_of": f"{peer}'s time over ours"}
            out.append(total if bar is None else {**total, "bar": bar, "ok": mean >= bar})
    return out


def shortened(value: Any) -> Any:
    """Floats to five significant digits: more would be noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: shortened(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [shortened(entry) for entry in value]
    return value


def write(path: pathlib.Path, record: dict[str, Any]) -> None:
    """One row a line, so that differences between two runs can be read."""
    head = {key: value for key, value in record.items() if key not in ("rows", "totals")}
    lines = json.dumps(head, indent=1).removesuffix("\n}")
    for name in ("totals", "rows"):
        entries = ",\n  ".join(json.dumps(entry) for entry in record[name])
        lines += f',\n "{name}": [\n  {entries}\n ]'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines + "\n}\n")


def line_of(row: dict[str, Any]) -> str:
    rate = (f"{row['tflops'] * 1e3:8.1f} GFLOP/s" if "tflops" in row else
            f"{row['tbs'] * 1e3:8.1f} GB/s   " if "tbs" in row else " " * 16)
    us = f"{row['us']:12.2f} us" if "us" in row else " " * 15
    bar = f"bar {row['bar']:4.2f}  {'ok' if row['ok'] else 'MISSED'}" if "bar" in row else ""
    again = f"  (twice: {', '.join(f'{r:.3f}' for r in row['ratios'])})" \
        if len(row.get("ratios", [])) > 1 else ""
    if row.get("disturbed"):
        again += f"  ({row['disturbed']} turns disturbed by other processes)"
    return f"{row['id']:44} {us} {rate} {row['ratio']:7.3f}x  {bar}{again}"


def summary(record: dict[str, Any]) -> bool:
    judged = [row for row in [*record["rows"], *record["totals"]] if "bar" in row]
    missed = [row for row in judged if not row["ok"]]
    print(f"\n{'row':44} {'median':>15} {'rate':>16} {'ratio':>8}")
    for row in [*record["rows"], *record["totals"]]:
        print(line_of(row))
    print(f"\n{len(judged) - len(missed)} of {len(judged)} bars reached on {record['device']}, "
          f"commit {record['commit']}")
    for row in missed:
        why = "" if row.get("plausible", True) else f"; its result is wrong by {row['error']}"
        print(f"  missed: {row['id']}: {row['ratio']:.3f} of {row['ratio_of']}, "
              f"bar {row['bar']}{why}")
        for name, words in row.get("peers_err", {}).items():
            print(f"    {name}: {words}")
    if record["onnxruntime_call_us"]:
        print(f"an empty call of onnxruntime takes {record['onnxruntime_call_us']:.1f} us on this "
              "route; nothing is deducted for it")
    return not missed


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench cpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true",
                        help="fewer and shorter rounds: to try things, not to report")
    parser.add_argument("--filter", default="", metavar="TEXT",
                        help="only rows whose id holds TEXT, e.g. prefill/fp32 or d128/causal")
    parser.add_argument("--suite", action="append", choices=suites.SUITES, metavar="NAME",
                        help="only this suite; may be given several times")
    parser.add_argument("--threads", metavar="N[,N]",
                        help="numbers of threads (default: 1 and all that the process may use)")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE",
                        help="the JSON file (default: tests/bench/results/cpu-<date>-<cpu>.json; "
                        "with --quick, --filter or --threads: none)")
    parser.add_argument("--update", type=pathlib.Path, metavar="FILE",
                        help="start from the rows of FILE if it exists, replace those that are "
                        "measured now, and write it back")
    parser.add_argument("--redo", action="store_true",
                        help="with --update: only rows that FILE lacks, that missed their bar, or "
                        "that other processes disturbed")
    parser.add_argument("--seed", type=int, default=None, help="of the random inputs")
    parser.add_argument("--library", metavar="FILE",
                        help="libattn.so (default: $ATTN_LIBRARY, $ATTN_LIB_DIR, ./build)")
    arguments = parser.parse_args()

    if arguments.redo and not arguments.update:
        parser.error("--redo needs --update")
    old = []
    if arguments.update and arguments.update.exists():
        old = json.loads(arguments.update.read_text())["rows"]
    path = capi.find_library(arguments.library)
    usable = len(os.sched_getaffinity(0))
    threads = ([int(n) for n in arguments.threads.split(",")] if arguments.threads
               else sorted({1, usable}))
    seed = arguments.seed if arguments.seed is not None else int(time.time()) & 0xFFFFFF
    library = capi.Library(path)
    session = suites.Session(
        library=library, build=path.parent,
        effort=measure.QUICK if arguments.quick else measure.FULL, threads=threads,
        filter=arguments.filter, seed=seed,
        settled={row["id"] for row in old if row.get("ok", True) and not row.get("disturbed")}
        if arguments.redo else set(), onnxruntime=peers.import_onnxruntime(),
        torch=peers.import_torch())
    device = library.device(session.contexts[threads[-1]])
    now = datetime.datetime.now(datetime.timezone.utc)
    record: dict[str, Any] = {
        "schema": 1,
        "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit(),
        "device": device.name.decode() or peers.cpu_name(),
        "driver": "",
        "library": library.c.attn_version_string().decode(),
        "build": library.build_info(),
        "simd": device.architecture.decode(),
        "threads": threads,
        "cores": usable,
        "seed": seed,
        "peers": peer_versions(session),
        # What one empty call of onnxruntime costs, the route through Python included.
        "onnxruntime_call_us": shortened(peers.onnx_call_us()) if session.onnxruntime else None,
        "effort": "quick" if arguments.quick else "full",
        "totals": [],
        "rows": [],
    }
    progress(f"{record['device']}, {record['simd']}, threads {threads}, seed {seed}; "
             + ", ".join(f"{name} {version}" for name, version in record["peers"].items()))

    start = time.monotonic()
    rows: list[dict[str, Any]] = []
    for name, suite in suites.SUITES.items():
        if arguments.suite and name not in arguments.suite:
            continue
        for count in threads:
            session.use_threads(count)
            for row in suite(session, count):
                row["commit"] = record["commit"]
                rows.append(shortened(row))
                progress(f"[{time.monotonic() - start:4.0f} s] {line_of(rows[-1])}")
    if not rows:
        if arguments.redo:
            progress("nothing to redo")
            return 0
        parser.error(f"no row's id holds {arguments.filter!r}")

    out = arguments.out
    if arguments.update:
        measured = {row["id"] for row in rows}
        rows += [row for row in old if row["id"] not in measured]
        out = out or arguments.update
    elif out is None and not (arguments.quick or arguments.filter or arguments.suite
                              or arguments.threads):
        out = RESULTS / f"cpu-{now:%Y-%m-%d}-{peers.slug(record['device'])}.json"
    order = list(suites.SUITES)
    record["rows"] = sorted(rows, key=lambda row: (order.index(row["suite"]), row["threads"],
                                                   row["id"]))
    record["totals"] = shortened(totals(record["rows"]))
    if out:
        write(out, record)
        progress(f"wrote {out}")
    return 0 if summary(record) else 1


if __name__ == "__main__":
    sys.exit(main())
