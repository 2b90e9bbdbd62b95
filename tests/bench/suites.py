"""The suites: each yields rows, one for each bar and number of threads."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.bench import peers
from tests.bench.measure import Contender, Effort, Times, compare, progress
from tests.bench.problems import NUMPY, PLAUSIBLE, Problem, Shape, random
from tools.capi import Library

Row = dict[str, Any]

NEAR = 0.05  # a bar missed by less than this share is measured once more


@dataclasses.dataclass
class Session:
    """What the suites share."""

    library: Library
    build: pathlib.Path
    effort: Effort
    threads: list[int]
    filter: str
    settled: set[str]  # ids that need not be measured again
    seed: int
    onnxruntime: Any = None
    torch: Any = None

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.sgemm = peers.Sgemm(self.rng)
        self.contexts = {n: self.library.context(n) for n in self.threads}

    def wants(self, row_id: str) -> bool:
        return self.filter in row_id and row_id not in self.settled

    def use_threads(self, threads: int) -> None:
        self.sgemm.use_threads(threads)
        if self.torch:
            self.torch.set_num_threads(threads)


def base(row_id: str, suite: str, op: str, problem: Problem, threads: int) -> Row:
    return {"id": row_id, "suite": suite, "op": op, "shape": problem.shape.json(),
            "dtype": problem.dtype, "threads": threads, "cache": "warm",
            "implementation": problem.implementation}


def judge(row: Row, bar: float | None, measure: Callable[[], Row]) -> Row:
    """Measures; if the bar is missed by a little, once more, and both ratios are kept. The better
    one counts: noise only ever makes a run slower than the machine allows."""
    row.update(measure())
    if bar is None:
        return row
    row["bar"] = bar
    row["ratios"] = [row["ratio"]]
    if (1 - NEAR) * bar <= row["ratio"] < bar:
        again = measure()
        row["ratios"].append(again["ratio"])
        if again["ratio"] > row["ratio"]:
            row.update(again)
    row["ok"] = row["ratio"] >= bar and row.get("plausible", True)
    return row


def split(result: Times, own: str) -> tuple[dict[str, float], float]:
    """The peers' times, and our own."""
    return {name: us for name, us in result.us.items() if name != own}, result.us[own]


def check(problem: Problem, row: Row) -> None:
    row["error"] = float(f"{problem.error():.2g}")
    row["plausible"] = row["error"] <= PLAUSIBLE[problem.dtype]
    if not row["plausible"]:
        progress(f"  WRONG RESULT: {row['id']}: differs by {row['error']}")


def sgemm_contenders(session: Session) -> list[Contender]:
    return [Contender(name, call) for name, (call, _) in session.sgemm.builds.items()]


def against_sgemm(session: Session, ours: Callable[[], object], flops: float,
                  others: list[Contender], effort: Effort | None = None) -> Row:
    """The rate of `ours` as a share of the fastest sgemm's, all measured side by side."""
    result = compare([Contender("attn", ours), *sgemm_contenders(session), *others],
                     effort or session.effort)
    times, us = split(result, "attn")
    rates = {name: peers.SGEMM_FLOPS / times[name] * 1e-6
             for name in times if name in session.sgemm.builds}
    rate = flops / us * 1e-6
    return {"us": us, "peers_us": times, "disturbed": result.disturbed, "tflops": rate,
            "ratio": rate / max(rates.values()) if rates else 0.0,
            "ratio_of": "the rate of the fastest sgemm"}


def attention_peers(session: Session, problem: Problem, threads: int,
                    grouped: bool) -> tuple[list[Contender], dict[str, str]]:
    """onnxruntime and PyTorch on the same fp32 inputs, and why one is missing."""
    s = problem.shape
    found, errors = [], {}
    if session.onnxruntime is None:
        errors["onnxruntime"] = "not installed"
    else:
        inputs = {name: array.reshape(*array.shape[:2], -1) for name, array in
                  (("query", problem.q), ("key", problem.k), ("value", problem.v))}
        try:
            call, output = peers.onnx_attention(inputs, s.q_heads, s.kv_heads, s.head_dim, s.causal,
                                                grouped, threads)
            call()
            difference = np.abs(output.numpy().reshape(problem.out.shape) - problem.out).max()
            if difference > 1e-3:
                raise ValueError(f"its result differs from ours by {difference:.3g}")
            found.append(Contender("onnxruntime", call))
        except Exception as error:  # whatever it refuses with is recorded
            errors["onnxruntime"] = str(error)
    if session.torch is not None:
        torch_call = peers.torch_attention(session.torch, problem.q, problem.k, problem.v, s.causal)
        difference = np.abs(torch_call().transpose(1, 2).numpy() - problem.out).max()
        if difference > 1e-3:
            errors["torch"] = f"its result differs from ours by {difference:.3g}"
        else:
            found.append(Contender("torch", torch_call))
    return found, errors


# --- the suites ------------------------------------------------------------------------------


def prefill(session: Session, threads: int) -> Iterator[Row]:
    """fp32 prefill against sgemm."""
    for head_dim in (64, 128):
        for causal, bar in ((False, 0.85), (True, 0.75)):
            row_id = f"prefill/fp32/d{head_dim}/{'causal' if causal else 'full'}/t{threads}"
            if not session.wants(row_id):
                continue
            shape = Shape(1, 2048, 2048, 8, 8, head_dim, causal)
            problem = Problem(session.library, session.contexts[threads], shape, "fp32",
                              rng=session.rng)
            row = base(row_id, "prefill", "sdpa_forward", problem, threads)
            check(problem, row)
            others, errors = attention_peers(session, problem, threads, grouped=False)
            if errors:
                row["peers_err"] = errors
            yield judge(row, bar, lambda: against_sgemm(session, problem.call, shape.flops, others))


def half(session: Session, threads: int) -> Iterator[Row]:
    """fp16 and bf16 prefill against our own fp32."""
    for head_dim in (64, 128):
        for causal in (False, True):
            shape = Shape(1, 2048, 2048, 8, 8, head_dim, causal)
            ids = {d: f"prefill/{d}/d{head_dim}/{'causal' if causal else 'full'}/t{threads}"
                   for d in ("fp16", "bf16")}
            if not any(session.wants(row_id) for row_id in ids.values()):
                continue
            fp32 = Problem(session.library, session.contexts[threads], shape, "fp32",
                           rng=session.rng)
            for dtype, row_id in ids.items():
                if not session.wants(row_id):
                    continue
                kind = NUMPY[dtype]
                inputs = (fp32.q.astype(kind), fp32.k.astype(kind), fp32.v.astype(kind))
                problem = Problem(session.library, session.contexts[threads], shape, dtype,
                                  rng=session.rng, inputs=inputs)
                row = base(row_id, "half", "sdpa_forward", problem, threads)
                check(problem, row)

                def measure() -> Row:
                    result = compare([Contender(dtype, problem.call),
                                      Contender("attn_fp32", fp32.call)], session.effort)
                    times, us = split(result, dtype)
                    return {"us": us, "peers_us": times, "disturbed": result.disturbed,
                            "tflops": shape.flops / us * 1e-6,
                            "ratio": times["attn_fp32"] / us, "ratio_of": "our fp32 rate"}

                yield judge(row, 0.9, measure)


# (batch, seqlen, q heads, kv heads, head dim, causal, GroupQueryAttention).
GRID = [
    (1, 64, 8, 8, 64, False, False),
    (8, 64, 12, 12, 32, False, False),
    (4, 128, 12, 12, 32, False, False),
    (8, 128, 12, 12, 64, True, False),
    (8, 256, 12, 12, 64, False, False),
    (2, 256, 8, 8, 256, True, False),
    (1, 384, 16, 16, 80, False, False),
    (2, 512, 16, 16, 64, True, False),
    (4, 512, 8, 8, 128, False, False),
    (1, 1024, 8, 8, 128, True, False),
    (2, 1024, 8, 8, 64, False, False),
    (1, 1024, 4, 4, 256, False, False),
    (1, 2048, 8, 8, 64, True, False),
    (1, 2048, 4, 4, 128, False, False),
    (1, 2048, 8, 8, 32, True, False),
    (1, 4096, 4, 4, 64, False, False),
    (1, 4096, 2, 2, 128, True, False),
    (8, 64, 32, 8, 64, True, True),
    (4, 256, 32, 8, 128, True, True),
    (1, 512, 32, 8, 64, True, True),
    (1, 2048, 16, 4, 128, True, True),
    (1, 4096, 8, 2, 128, True, True),
]


def grid(session: Session, threads: int) -> Iterator[Row]:
    """fp32 against onnxruntime's MultiHeadAttention and GroupQueryAttention."""
    effort = dataclasses.replace(session.effort, rounds=min(session.effort.rounds, 5))
    for batch, seqlen, q_heads, kv_heads, head_dim, causal, grouped in GRID:
        kind = "gqa" if grouped else "mha"
        row_id = (f"grid/{kind}/b{batch}/s{seqlen}/h{q_heads}/d{head_dim}/"
                  f"{'causal' if causal else 'full'}/t{threads}")
        if not session.wants(row_id):
            continue
        shape = Shape(batch, seqlen, seqlen, q_heads, kv_heads, head_dim, causal)
        problem = Problem(session.library, session.contexts[threads], shape, "fp32",
                          rng=session.rng)
        row = base(row_id, "grid", "sdpa_forward", problem, threads)
        check(problem, row)
        others, errors = attention_peers(session, problem, threads, grouped)
        if errors:
            row["peers_err"] = errors

        def measure() -> Row:
            result = compare([Contender("attn", problem.call), *others], effort)
            times, us = split(result, "attn")
            return {"us": us, "peers_us": times, "disturbed": result.disturbed,
                    "tflops": shape.flops / us * 1e-6,
                    "ratio": times.get("onnxruntime", 0.0) / us,
                    "ratio_of": "onnxruntime's time over ours"}

        yield judge(row, 1.0, measure)


def decode(session: Session, threads: int) -> Iterator[Row]:
    """bf16 decode against the speed of reading memory."""
    ids = {page: f"decode/bf16/{'paged16' if page else 'dense'}/t{threads}" for page in (0, 16)}
    if not any(session.wants(row_id) for row_id in ids.values()):
        return
    shape = Shape(8, 1, 8192, 32, 8, 128, False)
    kind = NUMPY["bf16"]
    inputs = (random((8, 1, 32, 128), kind, session.rng),
              random((8, 8192, 8, 128), kind, session.rng),
              random((8, 8192, 8, 128), kind, session.rng))
    memory = peers.Memory(session.build)
    for page, row_id in ids.items():
        if not session.wants(row_id):
            continue
        paged = dataclasses.replace(shape, page_size=page)
        problem = Problem(session.library, session.contexts[threads], paged, "bf16",
                          rng=session.rng, inputs=inputs)
        size = problem.k.nbytes + problem.v.nbytes
        row = base(row_id, "decode", "sdpa_forward", problem, threads)
        row["cache"] = "cold"  # k and v are many times larger than any cache
        check(problem, row)

        def measure() -> Row:
            # The keys' memory, half of what decode reads.
            readers = {f"memory_{streams}_streams": memory.read(problem.k, threads, streams)
                       for streams in (1, 4)}
            result = compare([Contender("attn", problem.call),
                              *(Contender(n, call) for n, call in readers.items())],
                             session.effort)
            times, us = split(result, "attn")
            best = min(times[name] for name in readers)
            rate, bandwidth = size / us * 1e-6, problem.k.nbytes / best * 1e-6
            return {"us": us, "peers_us": times, "disturbed": result.disturbed, "tbs": rate,
                    "ratio": rate / bandwidth, "ratio_of": "the read bandwidth"}

        yield judge(row, 0.75, measure)


def backward(session: Session, threads: int) -> Iterator[Row]:
    """fp32 backward against sgemm, FLOPs 2.5 times the forward's."""
    for causal in (False, True):
        row_id = f"backward/fp32/d64/{'causal' if causal else 'full'}/t{threads}"
        if not session.wants(row_id):
            continue
        shape = Shape(1, 2048, 2048, 8, 8, 64, causal)
        problem = Problem(session.library, session.contexts[threads], shape, "fp32", backward=True,
                          rng=session.rng)
        row = base(row_id, "backward", "sdpa_backward", problem, threads)
        check(problem, row)
        yield judge(row, 0.6, lambda: against_sgemm(session, problem.call, 2.5 * shape.flops, []))


def overhead(session: Session, threads: int) -> Iterator[Row]:
    """Host cost, measured from C: see overhead.c."""
    names = {"execute_us": 2.0, "plan_create_us": 50.0}
    ids = {name: f"overhead/{name.removesuffix('_us')}/t{threads}" for name in names}
    program = session.build / "tests/bench/bench-overhead"
    for name, limit in names.items():
        if not session.wants(ids[name]):
            continue

        def measure() -> Row:
            text = subprocess.run([program, "--threads", str(threads)], check=True,
                                  capture_output=True, text=True).stdout
            result = json.loads(text)
            return {"implementation": result["implementation"], "us": result[name], "peers_us": {},
                    "limit_us": limit, "ratio": limit / result[name],
                    "ratio_of": "the allowed time over ours"}

        row = {"id": ids[name], "suite": "overhead", "op": name.removesuffix("_us"),
               "shape": {"batch": 1, "seqlen_q": 1, "seqlen_k": 1, "q_heads": 1, "kv_heads": 1,
                         "head_dim": 64, "causal": False},
               "dtype": "fp32", "threads": threads, "cache": "warm"}
        yield judge(row, 1.0, measure)


def seqlens(session: Session, threads: int) -> Iterator[Row]:
    """fp32 prefill at several lengths beside all peers, for the plot; no bar."""
    for causal in (False, True):
        for seqlen in (128, 256, 512, 1024, 2048, 4096):
            row_id = f"seqlens/fp32/d64/{'causal' if causal else 'full'}/s{seqlen}/t{threads}"
            if not session.wants(row_id):
                continue
            shape = Shape(1, seqlen, seqlen, 8, 8, 64, causal)
            problem = Problem(session.library, session.contexts[threads], shape, "fp32",
                              rng=session.rng)
            row = base(row_id, "seqlens", "sdpa_forward", problem, threads)
            others, errors = attention_peers(session, problem, threads, grouped=False)
            if errors:
                row["peers_err"] = errors
            effort = dataclasses.replace(session.effort, rounds=3)

            yield judge(row, None, lambda: against_sgemm(session, problem.call, shape.flops, others,
                                                         effort))


SUITES = {"overhead": overhead, "prefill": prefill, "half": half, "decode": decode,
          "backward": backward, "grid": grid, "seqlens": seqlens}


def geomean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
