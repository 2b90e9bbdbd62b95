"""Timing several contenders side by side."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable


@dataclasses.dataclass
class Contender:
    """Something to time. `select` is called, untimed, before each of its turns."""

    name: str
    call: Callable[[], object]
    select: Callable[[], object] | None = None


@dataclasses.dataclass
class Effort:
    """How long to look. A turn is a number of calls in a row that takes about `turn_s`."""

    rounds: int = 7
    turn_s: float = 0.05


FULL = Effort()
QUICK = Effort(rounds=3, turn_s=0.02)


def settle(longest_s: float = 0.25, slice_s: float = 0.004) -> None:
    """Waits until this process is idle: thread pools spin for a while after a call, and would slow
    down whoever comes next."""
    end = time.perf_counter() + longest_s
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(slice_s)
        if time.process_time() - before < 0.1 * slice_s:
            return


def calls_a_turn(contender: Contender, effort: Effort) -> int:
    contender.call()
    begin = time.perf_counter()
    contender.call()
    once = time.perf_counter() - begin
    if once < effort.turn_s / 20:  # too short for a single call to say
        begin = time.perf_counter()
        for _ in range(10):
            contender.call()
        once = (time.perf_counter() - begin) / 10
    return max(1, min(10000, round(effort.turn_s / once)))


class Neighbours:
    """What other processes do meanwhile. A turn in which they took part of our cores says nothing
    about who had the turn, and is repeated."""

    PRESSURE = pathlib.Path("/proc/pressure/cpu")
    TICK = 1 / os.sysconf("SC_CLK_TCK")

    def __init__(self) -> None:
        self.wall, self.stalled, self.others = time.perf_counter(), self._stalled(), self._others()

    def _stalled(self) -> float:
        """Seconds in which some task, most likely one of ours, waited for a CPU."""
        try:
            return int(self.PRESSURE.read_text().split("total=")[1].split()[0]) * 1e-6
        except (OSError, IndexError, ValueError):  # a kernel without it
            return 0.0

    def _others(self) -> float:
        """CPU seconds of all processes but this one; coarse."""
        fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        busy = sum(map(int, fields)) - int(fields[3]) - int(fields[4])  # less idle and waiting
        return busy * self.TICK - time.process_time()

    def disturbed(self) -> bool:
        now = Neighbours()
        wall = now.wall - self.wall
        if self.PRESSURE.exists():
            return now.stalled - self.stalled > 0.05 * wall + 1e-3
        return now.others - self.others > 0.3 * wall + 3 * self.TICK


@dataclasses.dataclass
class Times:
    """Microseconds a call of each contender, and how many turns count although other processes
    disturbed them again and again."""

    us: dict[str, float]
    disturbed: int


def compare(contenders: list[Contender], effort: Effort) -> Times:
    """The median over rounds, in each of which every contender has one turn. The order turns round
    from one round to the next."""
    calls = {}
    for contender in contenders:
        if contender.select:
            contender.select()
        settle()
        calls[contender.name] = calls_a_turn(contender, effort)
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    patience, disturbed = effort.rounds * len(contenders), 0
    for number in range(effort.rounds):
        shift = number % len(contenders)
        for contender in contenders[shift:] + contenders[:shift]:
            if contender.select:
                contender.select()
            while True:
                settle()
                contender.call()  # wakes its threads, warms its caches
                count = calls[contender.name]
                neighbours = Neighbours()
                begin = time.perf_counter()
                for _ in range(count):
                    contender.call()
                passed = time.perf_counter() - begin
                if not neighbours.disturbed():
                    break
                if patience == 0:
                    disturbed += 1
                    break
                patience -= 1
                time.sleep(0.05)
            times[contender.name].append(passed / count)
    return Times({name: statistics.median(values) * 1e6 for name, values in times.items()},
                 disturbed)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
