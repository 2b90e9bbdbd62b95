#!/usr/bin/env python3
"""Attention with libattn from numpy, checked against the formula written out.

Grouped-query attention, causal, over a sliding window, with its gradient and the merging of two
halves of the keys. Exits with status 1 if anything is wrong.
"""

import argparse
import sys

import attn
import numpy as np


def formula(q, k, v, window):
    """out and lse in float64. q [B, Sq, Hq, D], k and v [B, Sk, Hkv, D]."""
    group = q.shape[2] // k.shape[2]
    q = q.astype(np.float64)
    k = np.repeat(k.astype(np.float64), group, axis=2)
    v = np.repeat(v.astype(np.float64), group, axis=2)
    scores = np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(q.shape[-1])
    # Query i stands at position i + Sk - Sq: the last query sees the last key.
    position = np.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
    key = np.arange(k.shape[1])[None, :]
    scores[:, :, (key > position) | (key < position - window)] = -np.inf
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhij,bjhd->bihd", weights / total, v), (np.log(total) + top)[..., 0]


def main():
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    rng = np.random.default_rng(0)
    q = rng.standard_normal((2, 64, 8, 32), dtype=np.float32)  # [batch, tokens, heads, head_dim]
    k = rng.standard_normal((2, 200, 2, 32), dtype=np.float32)  # 4 query heads share a key head
    v = rng.standard_normal((2, 200, 2, 32), dtype=np.float32)
    window = 100
    problem = {"is_causal": True, "window": (window, 0)}

    out, lse = attn.sdpa(q, k, v, return_lse=True, **problem)
    expected, expected_lse = formula(q, k, v, window)
    errors = {
        "out": np.abs(out - expected).max(),
        "lse": np.abs(lse - expected_lse).max(),
    }

    # A directional derivative of sum(out * dout), against the gradients.
    dout = rng.standard_normal(out.shape, dtype=np.float32)
    grads = attn.sdpa_backward(dout, q, k, v, out, lse, **problem)
    step = 1e-5
    directions = [rng.standard_normal(x.shape) for x in (q, k, v)]
    moved = [
        (formula(*(x + sign * step * d for x, d in zip((q, k, v), directions)), window)[0] * dout)
        .sum()
        for sign in (1, -1)
    ]
    numeric = (moved[0] - moved[1]) / (2 * step)
    computed = sum(
        (g.astype(np.float64) * d).sum() for g, d in zip((grads.dq, grads.dk, grads.dv), directions)
    )
    errors["gradient (relative)"] = abs(computed - numeric) / abs(numeric)

    # The keys in two halves, merged by their log-sum-exp.
    halves = [attn.sdpa(q, k[:, s], v[:, s], return_lse=True) for s in (slice(0, 80), slice(80, 200))]
    rows = q.shape[0] * q.shape[1]
    merged, _ = attn.merge(
        np.stack([o.reshape(rows, 8, 32) for o, _ in halves], axis=1),
        np.stack([x.transpose(0, 2, 1).reshape(rows, 8) for _, x in halves], axis=1),
    )
    whole = attn.sdpa(q, k, v)
    errors["merge"] = np.abs(merged.reshape(whole.shape) - whole).max()

    ok = True
    for name, error in errors.items():
        good = bool(error < 1e-5)
        ok = ok and good
        print(f"{name:22} {error:.2e}  {'ok' if good else 'WRONG'}")

    # Mistakes are exceptions that name the field.
    try:
        attn.sdpa(q, k[:, :, :, :16], v)
    except attn.InvalidArgumentError as error:
        print(f"a mistake on purpose   {error.field}: {error}")
    else:
        ok = False
        print("a mistake on purpose   was not refused")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
