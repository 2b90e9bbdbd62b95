"""Benchmarks of the CUDA backend beside PyTorch's own attention, in one process, interleaved, on
the same random tensors: medians over events on the stream.

Suites (all, unless --suite says otherwise):
  fa3-grid  FlashAttention-3's grid in bf16; bar: 1.0 times PyTorch's FlashAttention-2; goal on
            Hopper: 1.0 times the best of all peers
  fp32      bar: 1.5 times PyTorch's memory-efficient backend
  options   bias, ALiBi, softcap, tree mask, segments; bar: at most 1.3 times our plain time
  split     one query against a long cache; no bar
  shapes    grouped heads, windows, unequal and unusual head dims, fp16, few tiles; goal on Hopper: 1.0
            times the best of all peers
  small     problems of microseconds; goal on Hopper: 1.05 times the best of all peers
  ragged    64 sequences of mixed lengths; bar: 0.9 times our dense rate; goal on Hopper: 1.1 times
            the best peer
  paged     keys in permuted pages; bar: 0.95 times our dense rate
  accuracy  error against fp64 on normal, large and outlier-heavy inputs; bar: at most 1.01 times
            FlashAttention-3's (where that is missing, PyTorch's FlashAttention-2's)
  host      what execute costs the host beyond the driver's launch; bar: 3 microseconds

With any of --batch, --heads, --kv-heads, --seqlen, --seqlen-k, --headdim, --dtype, --causal,
--backward, --both: that one problem instead, always beside the peers.

Peers are PyTorch's backends and, where they are installed, FlashAttention-3 (flash_attn_interface)
and FlashAttention-4 (flash_attn.cute).

Writes one JSON file (schema: see HACKING.md) and prints a table. Exits with 1 if a
bar or a goal is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RESULTS = pathlib.Path(__file__).resolve().parent / "results"


def commit(build: pathlib.Path | None) -> str:
    """What is measured: what the packed build says, else the checkout's."""
    if build and (build / "commit.txt").exists():
        return (build / "commit.txt").read_text().strip()
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                              capture_output=True, check=False)
        return done.stdout.strip() or "unknown"
    except OSError:
        return "unknown"


def version_of(module: str) -> str:
    """Of the package that brings a module."""
    from importlib import metadata
    names = metadata.packages_distributions().get(module.partition(".")[0], [])
    return ", ".join(f"{name} {metadata.version(name)}" for name in sorted(set(names))) or "unknown"


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def shortened(value: Any) -> Any:
    """Floats to five significant digits: more would be noise; infinities as text."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if abs(value) < float("inf") else str(value)
    if isinstance(value, dict):
        return {key: shortened(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [shortened(entry) for entry in value]
    return value


def write(path: pathlib.Path, record: dict[str, Any]) -> None:
    """One row a line, so that differences between two runs can be read."""
    head = {key: value for key, value in record.items() if key != "rows"}
    lines = json.dumps(head, indent=1).removesuffix("\n}")
    rows = ",\n  ".join(json.dumps(row) for row in record["rows"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines + f',\n "rows": [\n  {rows}\n ]' + "\n}\n")


def verdict(row: dict[str, Any]) -> str:
    goal = ""
    if "goal_ok" in row:
        goal = f"  goal {row['goal']:g}x {'ok' if row['goal_ok'] else 'MISSED'}"
    if "ok" not in row:
        return goal
    if "bar_ratio" in row:
        said = f"{row['bar_ratio']:.2f}x of {row['bar']:g}x"
    elif "cost" in row:
        said = f"cost {row['cost']:.2f} of {row['most']:g}"
    elif "beyond_us" in row:
        said = f"{row['beyond_us']:+.2f} us of {row['most']:g}"
    else:
        said = ""
    return f"{said} {'ok' if row['ok'] else 'MISSED'}{goal}"


def line_of(row: dict[str, Any]) -> str:
    name = row["implementation"].removeprefix("cuda/sdpa/")
    if "errors" in row:
        peers = " ".join(f"{n.removeprefix('torch_')} {e['rms']:.2e}/{e['max']:.1e}"
                         for n, e in row["peers_errors"].items())
        return (f"{row['id']:34} {name:20} rms/max {row['errors']['rms']:.2e}/"
                f"{row['errors']['max']:.1e}  {peers}  {verdict(row)}")
    if "us" not in row:
        text = row.get("error_text", "not timed")
        peers = " ".join(f"{n.removeprefix('torch_')} {us:.1f}"
                         for n, us in row.get("peers_us", {}).items())
        return f"{row['id']:34} {name:20} {text[:120]} {peers} {verdict(row)}"
    rate = (f"{row['tflops']:6.1f} TF" if "tflops" in row else
            f"{row['tbs']:5.2f} TB/s" if "tbs" in row else " " * 9)
    peers = " ".join(f"{n.removeprefix('torch_')} {us:.1f}"
                     for n, us in row.get("peers_us", {}).items())
    best = f" best x{row['ratio']:.2f}" if "ratio" in row else ""
    wrong = "" if row.get("plausible", True) else f"  WRONG RESULT: differs by {row['error']}"
    if not wrong and "error" in row:
        wrong = f" diff {row['error']:.1e}"
    return f"{row['id']:34} {name:20} {row['us']:9.1f} us {rate}  {peers}{best}{wrong}  {verdict(row)}"


def summary(rows: list[dict[str, Any]]) -> bool:
    judged = [row for row in rows if "ok" in row]
    missed = [row for row in judged if not row["ok"]]
    refusals: dict[str, list[str]] = {}
    for row in rows:
        for name, words in row.get("peers_err", {}).items():
            refusals.setdefault(f"{name}: {words}", []).append(row["id"])
    for words, ids in refusals.items():
        print(f"refused ({len(ids)}, first {ids[0]}): {words[:240]}")
    for suite in dict.fromkeys(row["suite"] for row in judged):
        of_suite = [row for row in judged if row["suite"] == suite]
        print(f"{suite}: {sum(row['ok'] for row in of_suite)} of {len(of_suite)} bars reached")
    print(f"{len(judged) - len(missed)} of {len(judged)} bars reached"
          + (f"; missed: {', '.join(row['id'] for row in missed)[:1500]}" if missed else ""))
    aims = [row for row in rows if "goal_ok" in row]
    short = [row for row in aims if not row["goal_ok"]]
    for suite in dict.fromkeys(row["suite"] for row in aims):
        of_suite = [row for row in aims if row["suite"] == suite]
        ratios = [row["ratio"] for row in of_suite if "ratio" in row]
        mean = statistics.geometric_mean(ratios) if ratios else 0
        print(f"{suite}: {sum(row['goal_ok'] for row in of_suite)} of {len(of_suite)} goals reached;"
              f" {mean:.3f} times the best peer in the geometric mean")
    if short:
        print(f"goals missed: {', '.join(row['id'] for row in short)[:1500]}")
    return not missed and not short


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, metavar="DIR",
                        help="a folder of ./dev pack or a build folder (default: build/gpu)")
    parser.add_argument("--peers", action="store_true", help="beside PyTorch's backends")
    parser.add_argument("--suite", action="append", metavar="NAME",
                        help="only this suite; may be given several times")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only rows whose id holds TEXT")
    parser.add_argument("--implementation", action="append", default=[], metavar="NAME",
                        help="this of our implementations; given several times, all side by side")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE",
                        help="the JSON file (default, for a run of all suites with peers: "
                        "tests/bench/results/gpu-<date>-<gpu>.json)")
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: not to report")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"],
                        help="cpu: tiny shapes on the CPU, to try this program")
    parser.add_argument("--warmup", type=int, default=3, help="untimed calls of each contender")
    parser.add_argument("--iters", type=int, default=0, help="calls a turn; default: by time")
    one = parser.add_argument_group("one problem")
    for name, default, about in (("batch", 1, ""), ("heads", 16, ""),
                                 ("kv-heads", None, "default: as many as --heads"),
                                 ("seqlen", 4096, "of queries and keys; "),
                                 ("seqlen-k", None, "of keys; default: as --seqlen"),
                                 ("headdim", 128, "")):
        one.add_argument(f"--{name}", type=positive, metavar="N",
                         help=about + (f"default: {default}" if default else ""))
    one.add_argument("--dtype", choices=["bf16", "fp16", "fp32"], help="default: bf16")
    for name, about in (("causal", "the last query sees the last key"), ("backward", "the backward pass alone"),
                        ("both", "forward, and forward with backward")):
        one.add_argument(f"--{name}", action="store_true", help=about)
    arguments = parser.parse_args(argv)
    given = [name for name in ("batch", "heads", "kv_heads", "seqlen", "seqlen_k", "headdim",
                               "dtype", "causal", "backward", "both") if getattr(arguments, name)]
    arguments.one = bool(given)
    if given and arguments.suite:
        parser.error(f"--{given[0].replace('_', '-')} names one problem, which is of no --suite")
    arguments.batch = arguments.batch or 1
    arguments.heads = arguments.heads or 16
    arguments.kv_heads = arguments.kv_heads or arguments.heads
    if arguments.heads % arguments.kv_heads:
        parser.error(f"--kv-heads is {arguments.kv_heads}; it must divide --heads, "
                     f"{arguments.heads}")
    arguments.seqlen = arguments.seqlen or 4096
    arguments.headdim = arguments.headdim or 128
    arguments.dtype = arguments.dtype or "bf16"
    return arguments


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def find_build(given: pathlib.Path | None, device: str) -> pathlib.Path:
    """Sets the paths of the library and of the Python package that the build holds."""
    usual = [ROOT / "build/gpu", ROOT / "build/release"] if device == "cuda" else \
        [ROOT / "build/release"]
    build = given or next((path for path in usual if path.exists()), usual[-1])
    packed = (build / "lib/libattn.so.1").exists()
    library = build / ("lib/libattn.so.1" if packed else "libattn.so.1")
    if not library.exists():
        sys.exit(f"no libattn in {build}: build it, or say where with --build")
    os.environ["ATTN_LIBRARY"] = str(library.resolve())
    os.environ["LD_LIBRARY_PATH"] = f"{library.parent}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    sys.path.insert(0, str(build / ("python" if packed else "bindings/python")))
    return build


def main(argv: list[str] | None = None) -> int:
    arguments = arguments_of(argv)
    build = find_build(arguments.build, arguments.device)
    import torch

    from tests.bench import gpu_accuracy
    from tests.bench import gpu_prefill as prefill
    from tests.bench import gpu_suites as suites
    from tests.bench.gpu_measure import Effort
    from tests.bench.gpu_problem import PACKAGES, Library, Refused, Shape, installed

    cuda = arguments.device == "cuda"
    if cuda and not torch.cuda.is_available():
        print("bench gpu: PyTorch sees no GPU here", file=sys.stderr)
        return 2
    all_suites = {"fa3-grid": suites.fa3_grid, "fp32": suites.fp32, "options": suites.options,
                  "split": suites.split, "shapes": prefill.shapes, "small": prefill.small,
                  "ragged": prefill.ragged, "paged": prefill.paged,
                  "accuracy": gpu_accuracy.accuracy, "host": suites.host}
    for name in arguments.suite or []:
        if name not in all_suites:
            print(f"bench gpu: no suite {name!r}; there are {', '.join(all_suites)}",
                  file=sys.stderr)
            return 2
    torch.manual_seed(arguments.seed)
    try:
        library = Library(torch, arguments.device)
    except Refused as refused:
        print(f"bench gpu: {refused}", file=sys.stderr)
        return 2
    effort = Effort(rounds=5 if arguments.quick else 11, turn_ms=2 if arguments.quick else 6,
                    warmup=arguments.warmup, iters=arguments.iters, graphs=arguments.iters == 0)
    packed = (build / "bin").exists()
    session = suites.Session(
        library, effort, arguments.filter, arguments.implementation,
        arguments.peers or arguments.one,
        build / ("bin/bench-gpu-overhead" if packed else "tests/bench/bench-gpu-overhead"),
        small=not cuda)
    info = library.info()
    now = datetime.datetime.now(datetime.timezone.utc)
    record: dict[str, Any] = {
        "schema": 1, "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "commit": commit(build),
        "device": info.name.decode(), "architecture": info.architecture.decode(), "driver": "",
        "library": suites.c.attn_version_string().decode(), "seed": arguments.seed,
        "effort": "quick" if arguments.quick else "full", "peers": {"torch": torch.__version__},
        "rows": [],
    }
    for name in filter(installed, PACKAGES):
        record["peers"][name] = version_of(PACKAGES[name])
    if cuda:
        record["peers"]["cudnn"] = str(torch.backends.cudnn.version())
        try:
            record["driver"] = subprocess.run(
                ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], text=True,
                capture_output=True, check=False).stdout.strip().split("\n")[0]
        except OSError:
            pass
    print(f"{record['device']} ({record['architecture']}), driver {record['driver']}, libattn "
          f"{record['commit']}, torch {torch.__version__}", flush=True)
    start = time.monotonic()

    def take(rows: Any) -> None:
        for row in rows:
            record["rows"].append(shortened(row))
            print(line_of(record["rows"][-1]), flush=True)

    if arguments.one:
        shape = Shape(arguments.batch, arguments.seqlen, arguments.seqlen_k or arguments.seqlen,
                      arguments.heads, arguments.kv_heads, arguments.headdim, arguments.causal)
        take(suites.ad_hoc(session, shape, arguments.dtype, backward=arguments.backward,
                           both=arguments.both))
    else:
        for name, suite in all_suites.items():
            if arguments.suite and name not in arguments.suite:
                continue
            try:
                take(suite(session))
            except Exception as error:  # the next suite still tells something
                text = f"{type(error).__name__}: {error}".split("\n")[0]
                record["rows"].append({"id": f"{name}/stopped", "suite": name, "ok": False,
                                       "implementation": "none", "error_text": text})
                print(line_of(record["rows"][-1]), flush=True)
            if cuda:
                torch.cuda.empty_cache()
    out = arguments.out
    if out is None and cuda and arguments.peers and not (
            arguments.suite or arguments.filter or arguments.implementation or arguments.quick
            or arguments.one):
        out = RESULTS / f"gpu-{now:%Y-%m-%d}-{slug(record['device'])}.json"
    if out:
        write(out, record)
        print(f"wrote {out}")
    good = summary(record["rows"])
    print(f"in {time.monotonic() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
