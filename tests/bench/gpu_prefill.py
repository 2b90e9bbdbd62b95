"""Suites of prefill beyond the grid: other shapes, small ones, ragged batches and paged keys."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from typing import Any

from attn import lowlevel as c
from tests.bench.gpu_measure import Contender, compare
from tests.bench.gpu_problem import (
    DTYPES, PLAUSIBLE, Attention, Refused, Shape, difference, flash_function, random_qkv,
)
from tests.bench.gpu_suites import Row, Session, base, cache_of, measure

PEERS = ["torch_flash", "torch_cudnn", "fa3", "fa4"]


def smaller(session: Session, shape: Shape) -> Shape:
    """To try the program where there is no GPU."""
    if not session.small:
        return shape
    return dataclasses.replace(shape, batch=1, seqlen_q=min(shape.seqlen_q, 128),
                               seqlen_k=min(shape.seqlen_k, 128),
                               window_left=min(shape.window_left, 31))


def self_attention(batch: int, q_heads: int, kv_heads: int, seqlen: int, head_dim: int,
                   causal: bool, **more: int) -> Shape:
    return Shape(batch, seqlen, seqlen, q_heads, kv_heads, head_dim, causal, **more)


def shapes(session: Session) -> Iterator[Row]:
    """Grouped heads, windows, unequal head dims, head dims between the usual, fp16, and grids that
    do not fill the chip."""
    table = {
        "gqa/1x64q8kvx8192": ("bf16", self_attention(1, 64, 8, 8192, 128, True)),
        "gqa/1x32q8kvx32768": ("bf16", self_attention(1, 32, 8, 32768, 128, True)),
        "mla/1x128x8192/192-128": ("bf16", self_attention(1, 128, 128, 8192, 192, True,
                                                          head_dim_v=128)),
        "window-1024/2x64q8kvx8192/d64": ("bf16", self_attention(2, 64, 8, 8192, 64, True,
                                                                 window_left=1023)),
        "window-1024/2x64q8kvx16384/d64": ("bf16", self_attention(2, 64, 8, 16384, 64, True,
                                                                  window_left=1023)),
    }
    for causal in (False, True):
        name = "causal" if causal else "full"
        table[f"d96/4x20x4096/{name}"] = ("bf16", self_attention(4, 20, 20, 4096, 96, causal))
        table[f"d192/4x10x4096/{name}"] = ("bf16", self_attention(4, 10, 10, 4096, 192, causal))
        table[f"fp16/4x16x4096/d128/{name}"] = ("fp16", self_attention(4, 16, 16, 4096, 128,
                                                                       causal))
        # Tiles of 128 queries: one for each multiprocessor of an H200, and one more.
        table[f"tiles-132/1x12x1408/{name}"] = ("bf16", self_attention(1, 12, 12, 1408, 128,
                                                                       causal))
        table[f"tiles-133/1x19x896/{name}"] = ("bf16", self_attention(1, 19, 19, 896, 128, causal))
        table[f"tiles-256/1x8x4096/{name}"] = ("bf16", self_attention(1, 8, 8, 4096, 128, causal))
    for name, (dtype, shape) in table.items():
        if session.wants(f"shapes/{name}"):
            shape = smaller(session, shape)
            yield from measure(session, base(f"shapes/{name}", "shapes", shape, dtype), shape,
                               dtype, PEERS, goal=1.0 if session.hopper else None)


def small(session: Session) -> Iterator[Row]:
    """Problems of microseconds, as other libraries time them."""
    table = [
        ("fp16", False, [(2, 12, 12, 512, 64), (4, 12, 12, 1024, 64), (2, 16, 16, 2048, 64),
                         (1, 32, 32, 4096, 128)]),
        ("bf16", True, [(2, 8, 4, 1024, 128), (32, 10, 10, 2048, 128)]),
        ("fp16", True, [(1, 8, 8, 512, 64), (4, 32, 32, 1024, 64), (8, 32, 32, 2048, 128)]),
    ]
    for dtype, causal, sizes in table:
        for batch, q_heads, kv_heads, seqlen, head_dim in sizes:
            heads = f"{q_heads}" + (f"q{kv_heads}kv" if q_heads != kv_heads else "")
            row_id = (f"small/{batch}x{heads}x{seqlen}x{head_dim}/{dtype}/"
                      f"{'causal' if causal else 'full'}")
            if session.wants(row_id):
                shape = smaller(session, self_attention(batch, q_heads, kv_heads, seqlen, head_dim,
                                                        causal))
                yield from measure(session, base(row_id, "small", shape, dtype), shape, dtype,
                                   [*PEERS, "torch_efficient"],
                                   goal=1.05 if session.hopper else None)


def against_dense(session: Session, row: Row, make: Any, dense_shape: Shape, flops: float,
                  bar: float, peers: dict[str, Any], peer_bar: float | None) -> Iterator[Row]:
    """Ours in another layout beside ours on dense tensors of about the same work: the bar is on the
    ratio of the rates. `peers`: functions that make a peer's call."""
    torch = session.torch
    q, k, v = random_qkv(torch, session.library.device, dense_shape, row["dtype"])
    errors: dict[str, str] = {}
    try:
        own = make()
        dense = Attention(session.library, dense_shape, q, k, v)
    except Refused as refused:
        yield {**row, "implementation": "none", "ok": False, "error_text": str(refused)}
        return
    contenders = [Contender("own", own), Contender("dense", dense)]
    worst = 0.0
    for name, peer in peers.items():
        if not session.installed([name]):
            continue
        try:
            call = peer()
            gap = difference(torch, own.out, call())
            worst = max(worst, gap if gap == gap else float("inf"))
            contenders.append(Contender(name, call))
        except Exception as error:  # whatever it refuses with is recorded
            errors[name] = f"{type(error).__name__}: {error}".split("\n")[0][:240]
    times = compare(torch, session.library.device, contenders, session.effort)
    errors.update(times.errors)
    row.update(implementation=own.implementation, cache=cache_of(session, dense_shape, row["dtype"]))
    if "own" not in times.us or "dense" not in times.us:
        yield {**row, "ok": False, "error_text": str(errors)}
        return
    us = times.us["own"]
    peers_us = {name: times.us[name] for name in peers if name in times.us}
    row.update(us=us, spread=times.spread["own"], route=times.route["own"],
               tflops=flops / us * 1e-6, dense_implementation=dense.implementation,
               dense_tflops=dense_shape.flops() / times.us["dense"] * 1e-6, peers_us=peers_us)
    if errors:
        row["peers_err"] = errors
    row.update(bar=bar, bar_of="our dense rate", bar_ratio=row["tflops"] / row["dense_tflops"])
    row["plausible"] = worst <= PLAUSIBLE[row["dtype"]]
    row["ok"] = row["bar_ratio"] >= bar and row["plausible"]
    if peers_us:
        row["error"] = worst
        row["best_peer"] = min(peers_us, key=lambda name: peers_us[name])
        row["ratio"] = peers_us[row["best_peer"]] / us
        if peer_bar is not None and session.hopper:
            row.update(goal=peer_bar, goal_ok=row["ratio"] >= peer_bar)
    yield row


def ragged(session: Session) -> Iterator[Row]:
    """64 sequences of lengths log-uniform in 16..8192, causal, 16 heads of 128."""
    row_id = "ragged/64x16..8192/d128/causal"
    if not session.wants(row_id):
        return
    torch, device = session.torch, session.library.device
    draw = random.Random(64)
    most = 128 if session.small else 8192
    lengths = [round(math.exp(draw.uniform(math.log(16), math.log(most)))) for _ in range(64)]
    tokens, longest = sum(lengths), max(lengths)
    heads, dim = (2 if session.small else 16), 128
    offsets = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0).to(torch.int32).to(device)
    kind = getattr(torch, DTYPES["bf16"])
    q, k, v = (torch.randn(tokens, heads, dim, device=device).to(kind) for _ in range(3))
    shape = Shape(len(lengths), longest, longest, heads, heads, dim, True)
    pairs = sum(n * n for n in lengths)
    flops = 2.0 * heads * pairs * dim
    # As many tokens and pairs in sequences of one length.
    length = pairs // tokens // 128 * 128 or 128
    dense = self_attention(max(tokens // length, 1), heads, heads, length, dim, True)

    def make() -> Attention:
        return Attention(
            session.library, shape, q, k, v,
            pointers={"cu_seqlens_q": offsets, "cu_seqlens_k": offsets},
            fields={"q_layout": c.ATTN_LAYOUT_RAGGED, "kv_layout": c.ATTN_LAYOUT_RAGGED,
                    "max_total_q": tokens, "max_total_k": tokens})

    def varlen(name: str) -> Any:
        flash = flash_function(name, "flash_attn_varlen_func")
        return lambda: flash(q, k, v, cu_seqlens_q=offsets, cu_seqlens_k=offsets,
                             max_seqlen_q=longest, max_seqlen_k=longest, causal=True)

    row = base(row_id, "ragged", shape, "bf16")
    row["shape"] = {**shape.json(), "tokens": tokens, "dense_batch": dense.batch,
                    "dense_seqlen": length}
    yield from against_dense(session, row, make, dense, flops, 0.9,
                             {name: (lambda name=name: varlen(name)) for name in ("fa3", "fa4")},
                             1.1)


def paged(session: Session) -> Iterator[Row]:
    """Prefill with keys in permuted pages beside the same in dense memory."""
    torch, device = session.torch, session.library.device
    for page in (16, 64):
        for causal in (False, True):
            row_id = f"paged/{page}/4x16x4096/d128/{'causal' if causal else 'full'}"
            if not session.wants(row_id):
                continue
            shape = smaller(session, self_attention(4, 16, 16, 4096, 128, causal))
            q, k, v = random_qkv(torch, device, shape, "bf16")
            count = shape.batch * shape.seqlen_k // page
            table = torch.randperm(count, device=device).to(torch.int32)
            pool_k, pool_v = torch.empty_like(k), torch.empty_like(v)
            for pool, dense in ((pool_k, k), (pool_v, v)):
                pool.view(count, page, shape.kv_heads, -1)[table.long()] = dense.view(
                    count, page, shape.kv_heads, -1)
            rows = table.view(shape.batch, -1)
            lengths = torch.full((shape.batch,), shape.seqlen_k, dtype=torch.int32, device=device)

            def make() -> Attention:
                return Attention(
                    session.library, shape, q, pool_k.view(count, page, shape.kv_heads, -1),
                    pool_v.view(count, page, shape.kv_heads, -1), tensors={"block_table": rows},
                    pointers={"seqused_k": lengths},
                    fields={"kv_layout": c.ATTN_LAYOUT_PAGED_TABLE, "page_size": page})

            yield from against_dense(session, base(row_id, "paged", shape, "bf16"), make, shape,
                                     shape.flops(), 0.95, {}, None)
