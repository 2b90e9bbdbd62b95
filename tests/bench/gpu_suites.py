"""The suites of the GPU benchmarks: each yields rows."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from attn import lowlevel as c
from tests.bench.gpu_measure import Contender, Effort, compare
from tests.bench.gpu_problem import (
    DTYPES, PEERS, PLAUSIBLE, Attention, Library, Refused, Shape, as_ours, difference, installed,
    peer, peer_backward, random_qkv,
)

Row = dict[str, Any]


@dataclasses.dataclass
class Session:
    library: Library
    effort: Effort
    filter: str
    implementations: list[str]  # what to compare with one another; empty: the best that serves
    peers: bool
    overhead: pathlib.Path      # the program that measures the host's cost
    small: bool = False         # tiny shapes: to try the program where there is no GPU

    @property
    def torch(self) -> Any:
        return self.library.torch

    @property
    def hopper(self) -> bool:
        """Where the goal is to be as fast as the best of all peers."""
        return bool(self.library.device == "cuda"
                    and self.torch.cuda.get_device_capability(0) == (9, 0))

    def wants(self, row_id: str) -> bool:
        return self.filter in row_id

    def installed(self, peers: list[str]) -> list[str]:
        return [name for name in peers if self.peers and installed(name)]


def base(row_id: str, suite: str, shape: Shape, dtype: str) -> Row:
    return {"id": row_id, "suite": suite, "op": "sdpa_forward", "shape": shape.json(),
            "dtype": dtype}


def cache_of(session: Session, shape: Shape, dtype: str) -> str:
    """Whether calls one after the other find their inputs in the L2 cache."""
    size = 4 if dtype == "fp32" else 2
    kv = shape.seqlen_k * shape.kv_heads * 2
    read = shape.batch * (shape.seqlen_q * shape.q_heads + kv) * shape.head_dim * size
    if session.library.device != "cuda":
        return "warm"
    properties = session.torch.cuda.get_device_properties(0)
    l2 = getattr(properties, "L2_cache_size", 50 << 20)
    return "cold" if read > 1.5 * l2 else "warm"


def measure(session: Session, row: Row, shape: Shape, dtype: str, peers: list[str], *,
            bar: float | None = None, bar_of: str = "", goal: float | None = None, flags: int = 0,
            ) -> Iterator[Row]:
    """Ours against peers on the same tensors; with several implementations, a row for each. The bar
    is held against one peer, the goal against the best of all."""
    torch = session.torch
    q, k, v = random_qkv(torch, session.library.device, shape, dtype)
    ours: dict[str, Attention] = {}
    errors: dict[str, str] = {}
    for name in session.implementations or [""]:
        try:
            problem = Attention(session.library, shape, q, k, v, flags=flags,
                                implementation=name or None)
            ours[problem.implementation] = problem
        except Refused as refused:
            errors[name or "libattn"] = str(refused)
    contenders = [Contender(name, problem) for name, problem in ours.items()]
    worst: dict[str, float] = {}
    for name in session.installed(peers):
        try:
            call = peer(torch, name, shape, q, k, v)
            reference = as_ours(name, call())
            for own, problem in ours.items():
                gap = difference(torch, problem.out, reference)
                # NaN is never plausible, and must not be lost in a maximum.
                worst[own] = max(worst.get(own, 0.0), gap if gap == gap else float("inf"))
            del reference
            contenders.append(Contender(name, call))
        except Exception as error:  # whatever it refuses with is recorded
            errors[name] = f"{type(error).__name__}: {error}".split("\n")[0][:240]
    times = compare(torch, session.library.device, contenders, session.effort)
    errors.update(times.errors)
    row["cache"] = cache_of(session, shape, dtype)
    peers_us = {name: us for name, us in times.us.items() if name not in ours}
    if not ours:
        yield {**row, "implementation": "none", "peers_us": peers_us, "peers_err": errors,
               "error_text": next(iter(errors.values())), **({"bar": bar, "ok": False} if bar else {}),
               **({"goal": goal, "goal_ok": False} if goal else {})}
        return
    for own in ours:
        out = {**row, "implementation": own}
        if session.implementations:
            out["id"] = f"{row['id']}/{own}"
        if own not in times.us:
            yield {**out, "peers_us": peers_us, "peers_err": errors, "ok": False,
                   "error_text": errors.get(own, "was not timed")}
            continue
        us = times.us[own]
        out.update(us=us, spread=times.spread[own], route=times.route[own],
                   tflops=shape.flops() / us * 1e-6, peers_us=peers_us)
        if errors:
            out["peers_err"] = errors
        if peers_us:
            best = min(peers_us, key=lambda name: peers_us[name])
            out["best_peer"], out["ratio"] = best, peers_us[best] / us
        if own in worst:
            out["error"] = worst[own]
            out["plausible"] = worst[own] <= PLAUSIBLE[dtype]
        if goal is not None and peers_us:
            out["goal"] = goal
            out["goal_ok"] = out["ratio"] >= goal and out.get("plausible", True)
        if bar is not None:
            out["bar"], out["bar_of"] = bar, bar_of
            if bar_of in peers_us:
                out["bar_ratio"] = peers_us[bar_of] / us
                out["ok"] = out["bar_ratio"] >= bar and out.get("plausible", True)
            else:
                out["ok"] = False
                out["error_text"] = f"{bar_of} was not timed"
        yield out


# --- the suites ------------------------------------------------------------------------------

HIDDEN, TOKENS = 2048, 16384


def fa3_grid(session: Session) -> Iterator[Row]:
    """FlashAttention-3's grid: 16k tokens, hidden size 2048; the bar is PyTorch's FlashAttention-2,
    the goal on Hopper the best of all."""
    tokens = 1024 if session.small else TOKENS
    for head_dim in (64, 128, 256):
        for causal in (False, True):
            for seqlen in (512, 1024, 2048, 4096, 8192, 16384):
                row_id = f"fa3-grid/d{head_dim}/{'causal' if causal else 'full'}/{seqlen}"
                if not session.wants(row_id) or seqlen > tokens:
                    continue
                heads = HIDDEN // head_dim
                shape = Shape(tokens // seqlen, seqlen, seqlen, heads, heads, head_dim, causal)
                yield from measure(session, base(row_id, "fa3-grid", shape, "bf16"), shape, "bf16",
                                   ["torch_flash", "torch_cudnn", "fa3", "fa4"], bar=1.0,
                                   bar_of="torch_flash", goal=1.0 if session.hopper else None)


def fp32(session: Session) -> Iterator[Row]:
    """fp32 against PyTorch's memory-efficient backend, products in fp32; and with TF32 allowed."""
    for batch, heads, seqlen, head_dim in ((1, 8, 512, 64), (4, 32, 1024, 64), (8, 32, 2048, 128)):
        shape = Shape(batch, seqlen, seqlen, heads, heads, head_dim, True)
        if session.small and seqlen > 512:
            continue
        for mode, flags, bar in (("exact", 0, 1.5), ("tf32", c.ATTN_SDPA_ALLOW_TF32, None)):
            row_id = f"fp32/{mode}/{batch}x{heads}x{seqlen}x{head_dim}/causal"
            if session.wants(row_id):
                yield from measure(session, base(row_id, "fp32", shape, "fp32"), shape, "fp32",
                                   ["torch_efficient", "torch_math"] if seqlen <= 1024 else
                                   ["torch_efficient"], bar=bar,
                                   bar_of="torch_efficient" if bar else "", flags=flags)


def option_tensors(session: Session, shape: Shape) -> dict[str, Callable[[], Row]]:
    """For each option: flags, fields of the descriptor, tensors."""
    torch, device = session.torch, session.library.device
    s, heads = shape.seqlen_q, shape.q_heads

    def bits(rows: int) -> Any:
        return torch.randint(0, 256, (1, 1, rows, (s + 7) // 8), dtype=torch.uint8, device=device)

    def bias(batch: int, kind: Any) -> Any:
        return torch.randn(batch, heads, s, s, device=device, dtype=torch.bfloat16).to(kind)

    def segments(count: int) -> Any:
        ids = torch.arange(s, device=device, dtype=torch.int32) * count // s
        return ids.to(torch.int32).expand(shape.batch, s).contiguous()

    def documents(count: int) -> Row:
        ids = segments(count)
        return {"flags": c.ATTN_SDPA_SEGMENT_IDS,
                "tensors": {"q_segment_ids": ids, "kv_segment_ids": ids}}

    return {
        "bias": lambda: {"flags": c.ATTN_SDPA_BIAS, "tensors": {"bias": bias(1, torch.bfloat16)}},
        "bias-per-batch": lambda: {"flags": c.ATTN_SDPA_BIAS,
                                   "tensors": {"bias": bias(shape.batch, torch.bfloat16)}},
        "alibi": lambda: {"flags": c.ATTN_SDPA_ALIBI, "tensors": {"alibi_slopes": torch.exp2(
            -8.0 * torch.arange(1, heads + 1, device=device, dtype=torch.float32) / heads)}},
        "softcap": lambda: {"flags": 0, "fields": {"softcap": 50.0}},
        "tree-mask": lambda: {"flags": c.ATTN_SDPA_TAIL_MASK, "tensors": {"tail_mask": bits(s)}},
        "mask": lambda: {"flags": c.ATTN_SDPA_MASK, "tensors": {"mask": bits(s)}},
        "one-segment": lambda: documents(1),
        "eight-segments": lambda: documents(8),
    }


BARRED_OPTIONS = {"bias", "alibi", "softcap", "tree-mask", "one-segment", "eight-segments"}
MOST_COST = 1.3


def options(session: Session) -> Iterator[Row]:
    """What an option costs: our time with it over our time without it, in the same implementation,
    on the same tensors. Where a faster one serves the plain problem, its time stands beside."""
    torch = session.torch
    for causal in (False, True):
        s = 256 if session.small else 4096
        shape = Shape(4, s, s, 16, 16, 128, causal)
        q, k, v = random_qkv(torch, session.library.device, shape, "bf16")
        for name, make in option_tensors(session, shape).items():
            row_id = f"options/{'causal' if causal else 'full'}/{name}"
            if not session.wants(row_id):
                continue
            row = {**base(row_id, "options", shape, "bf16"),
                   "cache": cache_of(session, shape, "bf16")}
            barred = name in BARRED_OPTIONS
            try:
                own = Attention(session.library, shape, q, k, v, **make())
                plain = Attention(session.library, shape, q, k, v,
                                  implementation=own.implementation)
                best = Attention(session.library, shape, q, k, v)
            except Refused as refused:
                yield {**row, "implementation": "none", "error_text": str(refused), "ok": False}
                continue
            times = compare(torch, session.library.device,
                            [Contender("plain", plain), Contender("option", own),
                             Contender("best", best)], session.effort)
            row["implementation"] = own.implementation
            if len(times.us) < 3:
                yield {**row, "ok": False, "error_text": str(times.errors)}
                continue
            us = times.us["option"]
            row.update(us=us, tflops=shape.flops() / us * 1e-6, plain_us=times.us["plain"],
                       cost=us / times.us["plain"], best_plain_us=times.us["best"],
                       best_plain_implementation=best.implementation)
            if barred:
                row.update(most=MOST_COST, ok=row["cost"] <= MOST_COST)
            yield row
            del own


def split(session: Session) -> Iterator[Row]:
    """One query a sequence against a long cache: as information, no bar. 32 heads on 8."""
    for batch, seqlen in ((1, 8192), (1, 32768), (1, 131072), (8, 8192), (32, 4096)):
        if session.small and seqlen > 8192:
            continue
        shape = Shape(batch, 1, seqlen, 32, 8, 128)
        row_id = f"split/{batch}x1x{seqlen}"
        if not session.wants(row_id):
            continue
        for row in measure(session, base(row_id, "split", shape, "bf16"), shape, "bf16",
                           ["torch_flash", "torch_cudnn", "torch_efficient"]):
            if "us" in row:  # what has to be read, over the time
                row["tbs"] = batch * seqlen * 8 * 128 * 2 * 2 / row["us"] * 1e-6
                row.pop("tflops")
            yield row


MOST_HOST_US = 3.0


def host(session: Session) -> Iterator[Row]:
    """What execute costs the host beyond cuLaunchKernel of the same kernels with the same grid."""
    if not session.wants("host/execute"):
        return
    shape = Shape(1, 1, 1, 1, 1, 64)
    row = {**base("host/execute", "host", shape, "bf16"), "cache": "warm", "implementation": "any"}
    if not session.overhead.exists():
        yield {**row, "ok": False, "error_text": f"there is no {session.overhead}"}
        return
    done = subprocess.run([str(session.overhead)], capture_output=True, text=True, timeout=60,
                          check=False)
    if done.returncode != 0:
        yield {**row, "ok": False, "error_text": done.stderr.strip()[-300:]}
        return
    for entry in json.loads(done.stdout):
        beyond = entry["execute_us"] - entry["launch_us"]
        yield {**row, "id": f"host/{entry['name']}", "implementation": entry["implementation"],
               "us": entry["execute_us"], "launch_us": entry["launch_us"],
               "kernels": entry["kernels"], "beyond_us": beyond, "most": MOST_HOST_US,
               "ok": beyond <= MOST_HOST_US}


def ad_hoc(session: Session, shape: Shape, dtype: str, *, backward: bool, both: bool,
           ) -> Iterator[Row]:
    """One problem from the command line."""
    peers = ["torch_flash", "torch_cudnn", "torch_efficient", "fa3", "fa4"]
    row_id = (f"{shape.batch}x{shape.q_heads}" + (f"/{shape.kv_heads}" if shape.kv_heads !=
              shape.q_heads else "") + f"x{shape.seqlen_q}x{shape.head_dim}/{dtype}"
              f"/{'causal' if shape.causal else 'full'}")
    assert dtype in DTYPES
    if not backward or both:
        yield from measure(session, base(row_id, "ad-hoc", shape, dtype), shape, dtype, peers)
    if not backward and not both:
        return
    row = base(row_id + ("/both" if both else "/backward"), "ad-hoc", shape, dtype)
    row.update(op="sdpa_forward_backward" if both else "sdpa_backward", implementation="none",
               error_text="libattn has no backward pass on CUDA yet",
               cache=cache_of(session, shape, dtype))
    torch = session.torch
    tensors = random_qkv(torch, session.library.device, shape, dtype)
    contenders, errors = [], {}
    for name in [name for name in session.installed(peers) if name in PEERS]:
        try:
            call = peer_backward(torch, name, shape, *tensors, both)
            call()
            contenders.append(Contender(name, call))
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}".split("\n")[0][:240]
    effort = dataclasses.replace(session.effort, graphs=False)
    times = compare(torch, session.library.device, contenders, effort)
    row.update(peers_us=times.us, peers_err={**errors, **times.errors})
    yield row
