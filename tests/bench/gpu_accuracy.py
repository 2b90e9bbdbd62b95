"""The error against fp64 beside the peers', on easy and on hard inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.bench.gpu_problem import DTYPES, Attention, Refused, Shape, as_ours, peer
from tests.bench.gpu_suites import Row, Session, base

PEERS = ["fa3", "torch_flash", "torch_cudnn", "fa4"]
# Of the peer's error. Roundings are other ones, so that equal methods differ in the third digit.
MOST = 1.01


def inputs(torch: Any, device: str, shape: Shape, dtype: str, kind: str) -> list[Any]:
    """normal: N(0, 1). large: q and k ten times that, so that most of a row's weight is on one key.
    outliers: one element in a thousand of q and k has N(0, 100) added, as in FlashAttention-3's
    paper (arXiv 2407.08608, section 4.3)."""
    result = []
    for name, heads, dim in (("q", shape.q_heads, shape.head_dim),
                             ("k", shape.kv_heads, shape.head_dim),
                             ("v", shape.kv_heads, shape.dim_v)):
        x = torch.randn(shape.batch, shape.seqlen_k, heads, dim, device=device)
        if kind == "large" and name != "v":
            x *= 10
        if kind == "outliers" and name != "v":
            x += 10 * torch.randn_like(x) * (torch.rand_like(x) < 1e-3)
        result.append(x.to(getattr(torch, DTYPES[dtype])))
    return result


def exact(torch: Any, shape: Shape, q: Any, k: Any, v: Any) -> Any:
    """In fp64, head by head: [B, S, H, Dv]."""
    out = torch.empty(*q.shape[:-1], shape.dim_v, dtype=torch.float64, device=q.device)
    hidden = torch.ones(shape.seqlen_q, shape.seqlen_k, dtype=torch.bool, device=q.device).triu(
        1 + shape.seqlen_k - shape.seqlen_q)
    for b in range(shape.batch):
        for h in range(shape.q_heads):
            kv = h * shape.kv_heads // shape.q_heads
            scores = q[b, :, h].double() @ k[b, :, kv].double().T * shape.head_dim ** -0.5
            if shape.causal:
                scores.masked_fill_(hidden, float("-inf"))
            out[b, :, h] = scores.softmax(-1) @ v[b, :, kv].double()
    return out


def error(out: Any, reference: Any) -> dict[str, float]:
    """Of all elements in the root mean square, and the largest, in units of the reference's root
    mean square."""
    gap = out.double() - reference
    unit = reference.square().mean().sqrt()
    return {"rms": float(gap.square().mean().sqrt() / unit), "max": float(gap.abs().max() / unit)}


def accuracy(session: Session) -> Iterator[Row]:
    """The root-mean-square error against fp64: at most that of FlashAttention-3, or, where that is
    not installed, of PyTorch's FlashAttention-2."""
    torch, device = session.torch, session.library.device
    seqlen = 128 if session.small else 2048
    for dtype in ("bf16", "fp16"):
        for head_dim in (64, 128, 256):
            for causal in (False, True):
                for kind in ("normal", "large", "outliers"):
                    name = "causal" if causal else "full"
                    row_id = f"accuracy/{dtype}/d{head_dim}/{name}/{kind}"
                    if not session.wants(row_id):
                        continue
                    shape = Shape(1, seqlen, seqlen, 4, 4, head_dim, causal)
                    q, k, v = inputs(torch, device, shape, dtype, kind)
                    reference = exact(torch, shape, q, k, v)
                    row = base(row_id, "accuracy", shape, dtype)
                    errors: dict[str, dict[str, float]] = {}
                    said: dict[str, str] = {}
                    for peer_name in session.installed(PEERS):
                        try:
                            out = as_ours(peer_name, peer(torch, peer_name, shape, q, k, v)())
                            errors[peer_name] = error(out, reference)
                        except Exception as problem:  # whatever it refuses with is recorded
                            said[peer_name] = f"{type(problem).__name__}: {problem}"[:240]
                    if said:
                        row["peers_err"] = said
                    for implementation in session.implementations or [None]:
                        try:
                            own = Attention(session.library, shape, q, k, v,
                                            implementation=implementation)
                        except Refused as refused:
                            yield {**row, "implementation": implementation or "none", "ok": False,
                                   "error_text": str(refused)}
                            continue
                        ours = error(own.out, reference)
                        done = {**row, "implementation": own.implementation, "errors": ours,
                                "peers_errors": errors}
                        if session.implementations:
                            done["id"] = f"{row_id}/{own.implementation}"
                        of = next((p for p in ("fa3", "torch_flash") if p in errors), None)
                        if of is not None:
                            done.update(most=MOST, most_of=of, cost=ours["rms"] / errors[of]["rms"])
                            done["ok"] = done["cost"] <= MOST
                        yield done
