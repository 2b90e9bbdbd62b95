"""`./dev gpu-check`: all that only a machine with a GPU can prove, from a packed or a usual build.

Needs Python, PyTorch and the driver there, and installs nothing. One step failing does not keep
the others from running; the output stays short enough to read, and everything is in the log.
"""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from tools.dev.pack import DEFAULT
from tools.dev.run import ROOT

SHOWN_FAILURES = 24
MOST_PARTS = 12

# Small shapes of every kernel: compute-sanitizer makes them ten to a hundred times slower.
SMALL = ["sdpa/prefill/*-65", "sdpa/prefill/varlen-*", "sdpa/decode/*-127",
         "sdpa/decode/paged-*-1025", "sdpa/option/tree", "sdpa/option/blocks-messy",
         "sdpa/option/split-fixed-odd", "sdpa/edge/everything", "sdpa/edge/negative-pages",
         "merge/everything", "merge/split-*-3"]
SANITIZED = {
    "memcheck": ["sdpa/prefill/*-65", "sdpa/prefill/*-129", "sdpa/prefill/varlen-*",
                 "sdpa/decode/*-127", "sdpa/decode/paged-*-1025", "sdpa/option/*", "sdpa/edge/*",
                 "sdpa/invariant/*", "merge/everything", "merge/padded", "merge/split-*-3"],
    "racecheck": SMALL,
    "initcheck": SMALL,
    "synccheck": SMALL,
}
SANITIZER_SECONDS = 120


class Report:
    def __init__(self, log):
        self.log = open(log, "w")
        self.steps = []
        self.start = time.monotonic()

    def write(self, text):
        self.log.write(text + "\n")
        self.log.flush()

    def say(self, text=""):
        print(text, flush=True)
        self.write(text)

    def step(self, name, passed, failed, seconds, **more):
        self.steps.append({"name": name, "passed": passed, "failed": failed,
                           "seconds": round(seconds, 1), **more})
        aside = f"  NOT RUN: {more['not_run']}" if more.get("not_run") else ""
        self.say(f"[{time.monotonic() - self.start:5.0f} s] {name}: {passed} passed, {failed} failed"
                 f" ({seconds:.1f} s){aside}")


class Build:
    """Where things are: in a folder of `./dev pack`, or in a build folder."""

    def __init__(self, path):
        path = pathlib.Path(path).resolve()
        packed = (path / "bin/attn-check").exists()
        self.path = path
        self.check = path / ("bin/attn-check" if packed else "tests/ops/attn-check")
        self.library = path / ("lib/libattn.so.1" if packed else "libattn.so.1")
        self.python = path / ("python" if packed else "bindings/python")
        self.kernels = path / ("kernels" if packed else "tests/gpu")
        self.examples = {"c": path / "examples/c/example-c-sdpa_cuda",
                         "cpp": path / "examples/cpp/example-cpp-sdpa_cuda"}
        if packed:
            self.examples = {name: path / "examples" / name for name in ("c", "cpp", "rust", "go")}
        if not self.check.exists():
            sys.exit(f"gpu-check: there is no attn-check in {path}: build it, or pack it with "
                     "./dev pack, and say where with --build")
        if packed and not os.access(self.check, os.X_OK):  # lost on the way
            for program in (path / "bin").iterdir():
                program.chmod(0o755)

    def env(self):
        return {**os.environ, "ATTN_LIBRARY": str(self.library),
                "ATTN_TEST_KERNELS": str(self.kernels),
                "LD_LIBRARY_PATH": f"{self.library.parent}:{os.environ.get('LD_LIBRARY_PATH', '')}",
                "PYTHONPATH": f"{self.python}:{ROOT}"}


def call(command, env, seconds):
    """(status, output): status 124 for one that was ended."""
    try:
        done = subprocess.run([str(part) for part in command], env=env, cwd=ROOT, text=True,
                              errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=seconds, check=False)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        out = error.stdout or b""
        return 124, out.decode(errors="replace") if isinstance(out, bytes) else out


def counts(output):
    found = re.findall(r"^(\d+) passed, (\d+) failed", output, re.MULTILINE)
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def kind_of(failure):
    """A failure without its numbers, to count alike ones."""
    return re.sub(r"-?(\d+\.?\d*(e[-+]?\d+)?|inf|nan)\b", "#", failure)[:110]


def show_failures(report, rows):
    """The failing rows by implementation and kind, each kind with a few names."""
    groups = {}
    for row in rows:
        if row.get("failure"):
            key = (row.get("implementation", ""), kind_of(row["failure"]))
            groups.setdefault(key, []).append(row)
    for number, ((implementation, _), members) in enumerate(
            sorted(groups.items(), key=lambda item: -len(item[1]))):
        if number == SHOWN_FAILURES:
            report.say(f"  and {len(groups) - number} more kinds of failure: see the JSON")
            break
        report.say(f"  {len(members)} x [{implementation}] {members[0]['failure'][:200]}")
        names = " ".join(row["id"] for row in members[:6])
        report.say(f"      {names[:260]}{' ...' if len(members) > 6 else ''}")


def check_ops(report, build, arguments):
    """Every case on every implementation."""
    json_path = pathlib.Path(arguments.json).with_suffix(".ops.json")
    # Most of its time is the formulas' on the CPU, with one thread: in parts side by side.
    parts = max(1, min(MOST_PARTS, (os.cpu_count() or 1) * 3 // 4))
    seed = arguments.seed if arguments.seed is not None else str(random.randrange(2**32))
    paths = [json_path.with_suffix(f".{part}.json") for part in range(1, parts + 1)]

    def check_part(part):
        paths[part - 1].unlink(missing_ok=True)
        command = [build.check, "--backend", "cuda", "--json", paths[part - 1], "--timeout", "60",
                   "--seed", seed, "--part", f"{part}/{parts}"]
        return call(command + (["--quick"] if arguments.quick else []), build.env(), 200)

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(parts) as pool:
        results = list(pool.map(check_part, range(1, parts + 1)))
    seconds = time.monotonic() - start
    passed = failed = 0
    data = {"rows": []}
    for path, (status, output) in zip(paths, results):
        report.write(output)
        part_passed, part_failed = counts(output)
        passed += part_passed
        failed += max(part_failed, int(status != 0))
        if path.exists():
            part_data = json.loads(path.read_text())
            part_data["rows"] = data["rows"] + part_data["rows"]
            data = part_data
            path.unlink()
        else:
            report.say("  a part wrote no JSON; its last lines:")
            report.say("\n".join("    " + line[:200] for line in output.splitlines()[-12:]))
    json_path.write_text(json.dumps(data) + "\n")
    report.step("attn-check", passed, failed, seconds, parts=parts,
                status=max(status for status, _ in results))
    rows = data["rows"]
    served = {}
    for row in rows:
        if row.get("implementation"):
            good, all_of_it = served.get(row["implementation"], (0, 0))
            served[row["implementation"]] = (good + bool(row.get("ok")), all_of_it + 1)
    for name in sorted(served):
        report.say(f"  {name}: {served[name][0]} of {served[name][1]}")
    missing = {}
    for row in rows:
        if "not_served" in row:
            missing[row["not_served"]] = missing.get(row["not_served"], 0) + 1
    for reason, number in missing.items():
        report.say(f"  not served: {number} cases: {reason[:160]}")
    show_failures(report, rows)
    return data.get("device")


def check_scripts(report, build, arguments):
    """tests/gpu/test_*.py, each in a process of its own: who comes first matters there."""
    for script in sorted((ROOT / "tests/gpu").glob("test_*.py")):
        start = time.monotonic()
        status, output = call([sys.executable, script], build.env(), 120)
        report.write(f"--- {script.name}\n{output}")
        passed, failed = counts(output)
        if status != 0 and failed == 0:
            failed = 1
        not_run = re.search(r"^NOT RUN: (.*)$", output, re.MULTILINE)
        report.step(f"tests/gpu/{script.name}", passed, failed, time.monotonic() - start,
                    status=status, **({"not_run": not_run[1]} if not_run else {}))
        if failed:
            shown = [line for line in output.splitlines() if line.startswith("FAILED")]
            for line in shown[:8] or output.splitlines()[-8:]:
                report.say("    " + line[:240])


def check_examples(report, build, arguments):
    """Each language's example for CUDA: it checks its own result."""
    found = {"python": [sys.executable, ROOT / "examples/python/attention_cuda.py"]}
    for language, path in build.examples.items():
        if path.exists():
            path.chmod(0o755)
            found[language] = [path]
        else:
            report.step(f"example in {language}", 0, 0, 0, not_run=f"{path} is not there")
    for language, command in found.items():
        start = time.monotonic()
        status, output = call(command, build.env(), 60)
        report.write(f"--- example in {language}\n{output}")
        # Without a device the examples run on the CPU, and say so.
        failed = int(status != 0 or "no CUDA device" in output)
        report.step(f"example in {language}", 1 - failed, failed, time.monotonic() - start,
                    status=status)
        if failed:
            for line in output.splitlines()[-8:]:
                report.say("    " + line[:240])


def sanitize(tool, build, arguments):
    start = time.monotonic()
    filters = [part for name in SANITIZED[tool] for part in ("--filter", name)]
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
    command += [build.check, "--backend", "cuda", "--separate", "--fresh", "0", "--seed",
                "1", *filters]
    status, output = call(command, build.env(), SANITIZER_SECONDS)
    return tool, status, output, time.monotonic() - start


def check_sanitizers(report, build, arguments):
    """compute-sanitizer's four tools on small shapes, side by side."""
    if shutil.which("compute-sanitizer") is None:
        for tool in SANITIZED:
            report.step(f"compute-sanitizer {tool}", 0, 0, 0,
                        not_run="compute-sanitizer is not on this machine")
        return
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda tool: sanitize(tool, build, arguments), SANITIZED))
    for tool, status, output, seconds in results:
        report.write(f"--- compute-sanitizer {tool}\n{output}")
        passed, _ = counts(output)
        found = re.findall(r"========= (?:ERROR SUMMARY|RACECHECK SUMMARY): (.*)", output)
        clean = any(re.match(r"0 (errors|hazards)", text) for text in found)
        if "Device not supported" in output or "not supported on this" in output.lower():
            reason = next(line for line in output.splitlines() if "supported" in line)
            report.step(f"compute-sanitizer {tool}", 0, 0, seconds, not_run=reason.strip("= "))
            continue
        if status == 124 and "========= ERROR: " not in output and "hazard" not in output.lower():
            report.step(f"compute-sanitizer {tool}", 0, 1, seconds, status=status)
            report.say(f"    not done in {SANITIZER_SECONDS} s, nothing found until then")
            continue
        failed = 0 if status == 0 and clean and passed else 1
        report.step(f"compute-sanitizer {tool}", 1 - failed, failed, seconds, status=status,
                    cases=passed, summary=found[-1] if found else "none")
        if failed:
            lines = [line for line in output.splitlines()
                     if line.startswith("=========") and len(line) > 12 and "Host Frame" not in line]
            lines += [line for line in output.splitlines() if line.startswith("FAILED")][:4]
            for line in (lines or output.splitlines())[:14]:
                report.say("    " + line[:180])


STEPS = {"ops": check_ops, "scripts": check_scripts, "examples": check_examples,
         "sanitizers": check_sanitizers}


def device():
    """(name, driver) as nvidia-smi says."""
    status, output = call(["nvidia-smi", "--query-gpu=name,driver_version",
                           "--format=csv,noheader"], os.environ, 30) \
        if shutil.which("nvidia-smi") else (1, "")
    first = output.splitlines()[0].split(", ") if status == 0 and output else ["unknown", "unknown"]
    return first[0], first[-1]


def main(arguments_given):
    parser = argparse.ArgumentParser(prog="./dev gpu-check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=DEFAULT,
                        help="a folder that ./dev pack made, or a build folder; default build/gpu")
    parser.add_argument("--quick", action="store_true", help="the quick part of the table only")
    parser.add_argument("--seed", help="of attn-check; default: a fresh one")
    parser.add_argument("--step", action="append", choices=STEPS, help="only these; default: all")
    scratch = pathlib.Path(tempfile.gettempdir())
    parser.add_argument("--log", default=str(scratch / "gpu-check.log"), help="all output")
    parser.add_argument("--json", default=str(scratch / "gpu-check.json"),
                        help="counts; attn-check's rows lie beside it as .ops.json")
    arguments = parser.parse_args(arguments_given)
    build = Build(arguments.build)
    for path in (arguments.log, arguments.json):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    report = Report(arguments.log)
    name, driver = device()
    commit = build.path / "commit.txt"
    report.say(f"gpu-check: {name}, driver {driver}, build "
               f"{commit.read_text().strip() if commit.exists() else build.path}")
    for step in arguments.step or STEPS:
        try:
            STEPS[step](report, build, arguments)
        except Exception as error:  # the next step still tells something
            report.step(step, 0, 1, 0, error=repr(error))
            report.say(f"    {error!r}")
    passed = sum(step["passed"] for step in report.steps)
    failed = sum(step["failed"] for step in report.steps)
    not_run = [step["name"] for step in report.steps if step.get("not_run")]
    pathlib.Path(arguments.json).write_text(json.dumps({
        "schema": 1, "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": name, "driver": driver, "passed": passed, "failed": failed,
        "seconds": round(time.monotonic() - report.start, 1), "steps": report.steps}, indent=1) + "\n")
    if not_run:
        report.say(f"not run: {', '.join(not_run)}")
    report.say(f"log {arguments.log}, records {arguments.json}, "
               f"{time.monotonic() - report.start:.0f} s")
    report.say(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0
