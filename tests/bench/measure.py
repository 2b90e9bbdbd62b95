"""Timing several contenders side by side."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from typing import Callable


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


def compare(contenders: list[Contender], effort: Effort) -> dict[str, float]:
    """Microseconds a call of each contender: the median over rounds, in each of which every
    contender has one turn. The order turns round from one round to the next."""
    calls = {}
    for contender in contenders:
        if contender.select:
            contender.select()
        settle()
        calls[contender.name] = calls_a_turn(contender, effort)
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(effort.rounds):
        shift = number % len(contenders)
        for contender in contenders[shift:] + contenders[:shift]:
            if contender.select:
                contender.select()
            settle()
            contender.call()  # wakes its threads, warms its caches
            count = calls[contender.name]
            begin = time.perf_counter()
            for _ in range(count):
                contender.call()
            times[contender.name].append((time.perf_counter() - begin) / count)
    return {name: statistics.median(values) * 1e6 for name, values in times.items()}


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
