"""Running commands with progress, and counting what their suites say."""

import dataclasses
import os
import pathlib
import re
import shlex
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LOGS = ROOT / "build/logs"
TTY = sys.stderr.isatty()


def say(text=""):
    print(text, file=sys.stderr, flush=True)


def bold(text):
    return f"\033[1m{text}\033[0m" if TTY else text


def shorten(text, length=300):
    return text if len(text) <= length else text[:length] + " ..."


class Failed(Exception):
    """A command failed; its log has been shown."""


class Ticker:
    """While a command runs: on a terminal its newest line of output, else a sign of life."""

    INTERVAL = 0.2 if TTY else 30

    def __init__(self, title):
        self.title, self.line, self.start = title, "", time.monotonic()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.done.wait(self.INTERVAL):
            seconds = int(time.monotonic() - self.start)
            if TTY:
                width = max(20, os.get_terminal_size(2).columns - len(self.title) - 12)
                say(f"\r\033[K  {self.title} {seconds:4d} s  {self.line[:width]}\033[A")
            else:
                say(f"  {self.title}: {seconds} s, {self.line[:100]}")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        if TTY:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def run(title, command, *, env=None, cwd=ROOT, check=True, quiet=True):
    """Runs a command (list of arguments) and gives (status, output). Output goes to build/logs."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / (re.sub(r"\W+", "-", title).strip("-") + ".log")
    start = time.monotonic()
    lines = []
    with Ticker(title) as ticker, open(log, "w") as file:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=cwd, stdin=subprocess.DEVNULL,
            env={**os.environ, **{k: str(v) for k, v in (env or {}).items()}},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        for line in process.stdout:
            file.write(line)
            lines.append(line)
            if line.strip():
                ticker.line = line.strip().split("\r")[-1]
        status = process.wait()
    output = "".join(lines)
    seconds = time.monotonic() - start
    if status != 0:
        say(f"  {bold('FAILED')} {title} ({seconds:.0f} s): "
            f"{shorten(shlex.join(map(str, command)))}")
        say("".join("    " + line for line in lines[-40:]).rstrip())
        say(f"  whole output: {log.relative_to(ROOT)}")
        if check:
            raise Failed(title)
    elif seconds >= 2 or not quiet:
        say(f"  {title}: {seconds:.0f} s")
    return status, output


@dataclasses.dataclass
class Count:
    passed: int = 0
    failed: int = 0

    def __add__(self, other):
        return Count(self.passed + other.passed, self.failed + other.failed)


# How each kind of runner closes.
def _total(pattern, output):
    return sum(int(match) for match in re.findall(pattern, output, re.MULTILINE))


COUNTERS = {
    "plain": lambda o: Count(_total(r"^(?:\w+: )?(\d+) passed, \d+ failed", o),
                             _total(r"^(?:\w+: )?\d+ passed, (\d+) failed", o)),
    "meson": lambda o: Count(_total(r"^Ok: +(\d+)", o),
                             _total(r"^(?:Fail|Unexpected Pass|Timeout): +(\d+)", o)),
    "pytest": lambda o: Count(_total(r"(\d+) passed.* in [\d.]+", o),
                              _total(r"(\d+) (?:failed|errors?)\b.* in [\d.]+", o)),
    "cargo": lambda o: Count(_total(r"^test result: .* (\d+) passed", o),
                             _total(r"^test result: .* (\d+) failed", o)),
    "go": lambda o: Count(len(re.findall(r"^ *--- PASS", o, re.MULTILINE)),
                          len(re.findall(r"^ *--- FAIL", o, re.MULTILINE))),
    "doctest": lambda o: Count(_total(r"^\[doctest\] test cases: .*?(\d+) passed", o),
                               _total(r"^\[doctest\] test cases: .*?(\d+) failed", o)),
    # A command that is one test by itself.
    "status": lambda o: Count(1, 0),
}


def suite(title, command, counter, **options):
    """Runs a suite's command and gives its Count. A failing command counts at least one failure."""
    status, output = run(title, command, check=False, **options)
    count = COUNTERS[counter](output)
    if status != 0 and counter == "status":
        count = Count(0, 1)
    if status != 0 and count.failed == 0:
        count = Count(count.passed, 1)
    if status == 0 and count.passed == 0:
        say(f"  {title} ran no test: that counts as a failure")
        count = Count(0, count.failed + 1)
    skipped = _total(r"(\d+) skipped.* in [\d.]+", output) + _total(r"^Skipped: +(\d+)", output)
    aside = f" ({skipped} could not run here: see the log)" if skipped else ""
    say(f"  {title}: {count.passed} passed, {count.failed} failed{aside}")
    for line in output.splitlines():
        if "NOT RUN" in line or line.startswith("SKIPPED"):
            say(f"    {line.strip()}")
    return count
