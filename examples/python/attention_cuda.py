#!/usr/bin/env python3
"""Attention with libattn on PyTorch tensors of a CUDA device; where there is none, on the CPU.

A call on the current stream, then a plan that is executed on a stream of its own and replayed from
a CUDA graph with other data, each checked against the formula written out. Exits with status 1 if
anything is wrong.
"""

import argparse
import sys

import attn


def find_torch():
    """(torch, "") or (None, why there is no CUDA device)."""
    try:
        import torch
    except ImportError:
        return None, "PyTorch is not installed"
    if not torch.cuda.is_available():
        return None, "PyTorch finds none"
    try:
        attn.Context("cuda")
    except attn.BackendUnavailableError as error:
        return None, str(error)
    return torch, ""


def formula(torch, q, k, v):
    """Causal attention in float64. q [B, Sq, Hq, D], k and v [B, Sk, Hkv, D]."""
    q = q.double()
    k, v = (x.double().repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
    # Query i stands at position i + Sk - Sq: the last query sees the last key.
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(
        1 + k.shape[1] - q.shape[1])
    return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


def on_cuda(torch):
    q = torch.randn(2, 64, 8, 64, device="cuda").bfloat16()  # [batch, tokens, heads, head_dim]
    k = torch.randn(2, 200, 2, 64, device="cuda").bfloat16()  # 4 query heads share a key head
    v = torch.randn(2, 200, 2, 64, device="cuda").bfloat16()
    errors = {}

    def check(name, out):
        expected = formula(torch, q, k, v)
        # Twice the rounding of a bf16 result.
        errors[name] = float((out - expected).abs().max() / expected.abs().max()) / 2**-7

    # On the current stream, without waiting; out is PyTorch's own.
    out = attn.sdpa(q, k, v, is_causal=True)
    check("attn.sdpa", out)

    # Describe once, execute often: lengths may differ up to the limits.
    plan = attn.Plan.sdpa(
        context=attn.Context("cuda", device=0), q_dtype="bf16", num_q_heads=8, num_kv_heads=2,
        head_dim_qk=64, flags=["causal"], max_batch=4, max_seqlen_q=64, max_seqlen_k=512,
        softmax_scale=64**-0.5)
    plan.prepare()  # loads kernels now, not at the first execute
    stream = torch.cuda.Stream()
    out.zero_()
    stream.wait_stream(torch.cuda.current_stream())
    plan.execute(q=q, k=k, v=v, out=out, stream=stream)  # else: on the current one
    stream.synchronize()
    check("a plan on a stream", out)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan.execute(q=q, k=k, v=v, out=out)
    q.normal_()
    graph.replay()
    check("a CUDA graph with other data", out)

    print(f"{plan.info.implementation} on {attn.device_info('cuda').name}; errors as parts of what "
          "is allowed: " + ", ".join(f"{name} {error:.2f}" for name, error in errors.items()))
    return all(error <= 1 for error in errors.values())


def on_cpu():
    import numpy as np

    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, n, h, 64), dtype=np.float32)
               for n, h in ((64, 8), (200, 2), (200, 2)))
    out = attn.sdpa(q, k, v, is_causal=True)
    k, v = (np.repeat(x.astype(np.float64), 4, axis=2) for x in (k, v))
    scores = np.einsum("bihd,bjhd->bhij", q.astype(np.float64), k) / 8
    scores[:, :, np.arange(200) > np.arange(64)[:, None] + 136] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("bhij,bjhd->bihd", weights / weights.sum(-1, keepdims=True), v)
    error = np.abs(out - expected).max()
    print(f"largest difference from the formula: {error:.2g}")
    return error < 1e-5


def main():
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch, why = find_torch()
    if torch is None:
        print(f"no CUDA device: ran on the CPU ({why})")
    if not (on_cuda(torch) if torch else on_cpu()):
        sys.exit("the result is wrong")
    print("ok")


if __name__ == "__main__":
    main()
