"""Timing several contenders on a GPU side by side, by events on the current stream."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass
class Contender:
    name: str
    call: Callable[[], object]


@dataclasses.dataclass
class Effort:
    rounds: int = 11       # at least: the median is over rounds, in each of which all take turns
    turn_ms: float = 6.0   # a turn is a number of calls in a row that takes about so long
    warmup: int = 3        # untimed calls of each
    iters: int = 0         # calls a turn; 0: as many as fill turn_ms
    graphs: bool = True    # short calls are timed as replays of a captured graph


class Clock:
    """Events of CUDA; on another device, for trying the program itself, the host's clock."""

    def __init__(self, torch: Any, device: str) -> None:
        self.torch, self.cuda = torch, device == "cuda"

    def mark(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        if self.cuda:
            self.torch.cuda.synchronize()

    def us(self, begin: Any, end: Any) -> float:
        if not self.cuda:
            return float(end - begin) * 1e6
        return float(begin.elapsed_time(end)) * 1e3

    def time_once(self, call: Callable[[], object], count: int) -> float:
        """Microseconds a call, of `count` in a row."""
        begin = self.mark()
        for _ in range(count):
            call()
        end = self.mark()
        self.wait()
        return self.us(begin, end) / count


SHORT_US = 250.0  # below, launching from Python may cost as much as the kernel
IN_A_GRAPH = 20


@dataclasses.dataclass
class Times:
    us: dict[str, float]        # medians
    spread: dict[str, float]    # (third quartile - first) / median
    route: dict[str, str]       # "eager" or "graph"
    errors: dict[str, str]      # who failed while being timed


def captured(torch: Any, call: Callable[[], object]) -> Callable[[], object]:
    """Replays IN_A_GRAPH calls at once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(IN_A_GRAPH):
            call()
    return graph.replay


def compare(torch: Any, device: str, contenders: list[Contender], effort: Effort) -> Times:
    clock = Clock(torch, device)
    turns: dict[str, tuple[Callable[[], object], int, int]] = {}
    result = Times({}, {}, {}, {})
    for contender in contenders:
        try:
            for _ in range(max(effort.warmup, 1)):
                contender.call()
            clock.wait()
            once = min(clock.time_once(contender.call, 2), clock.time_once(contender.call, 2))
            call, each = contender.call, 1
            if effort.graphs and clock.cuda and once < SHORT_US:
                try:
                    call, each = captured(torch, contender.call), IN_A_GRAPH
                    once = clock.time_once(call, 3) / each
                except Exception as error:  # it cannot be captured: then as it is
                    result.errors[contender.name + " graph"] = str(error)[:160]
            result.route[contender.name] = "graph" if each > 1 else "eager"
            count = effort.iters or max(1, min(2000, round(effort.turn_ms * 1e3 / once)))
            turns[contender.name] = (call, max(1, count // each), each)
        except Exception as error:
            result.errors[contender.name] = f"{type(error).__name__}: {error}"[:300]
    marks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in turns}
    names = list(turns)
    for number in range(effort.rounds):
        shift = number % max(len(names), 1)
        for name in names[shift:] + names[:shift]:
            call, count, _ = turns[name]
            call()  # wakes it, and warms what a warm call finds warm
            begin = clock.mark()
            for _ in range(count):
                call()
            marks[name].append((begin, clock.mark()))
        clock.wait()
    for name in names:
        _, count, each = turns[name]
        values = sorted(clock.us(begin, end) / count / each for begin, end in marks[name])
        result.us[name] = statistics.median(values)
        n = len(values)
        result.spread[name] = (values[(3 * n) // 4] - values[n // 4]) / result.us[name]
    return result
