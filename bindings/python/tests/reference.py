"""Attention written out in numpy float64, from the formulas in include/attn/sdpa.h."""

from __future__ import annotations

import numpy as np


def visible(sq, sk, *, is_causal=False, window=None, alignment="bottom_right", chunk_size=0,
            sink_tokens=0):
    """bool [sq, sk]."""
    offset = sk - sq if alignment == "bottom_right" else 0
    p = np.arange(sq)[:, None] + offset
    j = np.arange(sk)[None, :]
    near = np.ones((sq, sk), bool)
    if window is not None:
        left, right = window
        if left >= 0:
            near &= j >= p - left
        if right >= 0:
            near &= j <= p + right
    if chunk_size:
        near &= (j // chunk_size) == np.floor_divide(p, chunk_size)
    near |= j < sink_tokens
    if is_causal:
        near &= j <= p
    return near


def attention(q, k, v, *, scale=None, softcap=0.0, bias=None, alibi_slopes=None, mask=None,
              sink=None, lse_includes_sink=False, gate=None, segment_ids=None, keep=None,
              dropout_p=0.0, alignment="bottom_right", activation="softmax", silu_divisor=1.0,
              **rules):
    """(out [Sq, Hq, Dv], lse [Hq, Sq], row_max) of one sequence: q [Sq, Hq, D], k [Sk, Hkv, D],
    v [Sk, Hkv, Dv]; bias and mask broadcast to [Hq, Sq, Sk]."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    sq, sk = q.shape[0], k.shape[0]
    s = np.einsum("ihd,jhd->hij", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap:
        s = softcap * np.tanh(s / softcap)
    if bias is not None:
        s = s + np.asarray(bias, np.float64)
    if alibi_slopes is not None:
        offset = sk - sq if alignment == "bottom_right" else 0
        distance = np.abs(np.arange(sq)[:, None] + offset - np.arange(sk)[None, :])
        s = s - np.asarray(alibi_slopes, np.float64)[:, None, None] * distance
    seen = np.broadcast_to(visible(sq, sk, alignment=alignment, **rules), s.shape).copy()
    if mask is not None:
        seen &= mask
    if segment_ids is not None:
        a, b = segment_ids
        seen &= ((a[:, None] == b[None, :]) & (a[:, None] >= 0))[None]
    if activation == "silu":
        p = np.where(seen, s / (1 + np.exp(-s)) / silu_divisor, 0.0)
        out = np.einsum("hij,jhd->ihd", p, v)
        return _gated(out, gate), None, None
    s = np.where(seen, s, -np.inf)
    top = s.max(axis=-1, initial=-np.inf)
    logit = np.full(s.shape[0], -np.inf) if sink is None else np.asarray(sink, np.float64)
    base = np.maximum(top, logit[:, None])
    safe = np.where(np.isfinite(base), base, 0.0)
    e = np.exp(s - safe[..., None])
    alone = e.sum(axis=-1)
    whole = alone + np.exp(logit[:, None] - safe)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(whole[..., None] > 0, e / whole[..., None], 0.0)
        lse = np.log(whole if lse_includes_sink else alone) + safe
    if keep is not None:
        p = p * keep / (1 - dropout_p)
    return _gated(np.einsum("hij,jhd->ihd", p, v), gate), lse, top


def _gated(out, gate):
    return out if gate is None else out / (1 + np.exp(-np.asarray(gate, np.float64)))


def batch(q, k, v, each=None, **options):
    """The same for [B, ...]; `each(b)` gives the options of one sequence."""
    results = [
        attention(q[b], k[b], v[b], **options, **(each(b) if each else {}))
        for b in range(q.shape[0])
    ]
    return tuple(None if parts[0] is None else np.stack(parts) for parts in zip(*results))


def philox(key, counter):
    """Philox4x32-10 (Salmon et al., SC 2011) of arrays of counters [..., 4]."""
    c = [counter[..., i].astype(np.uint64) for i in range(4)]
    k0, k1 = key
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a = c[0] * np.uint64(0xD2511F53)
        b = c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), b & low,
             (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), a & low]
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=-1)


def dropout_keep(b, heads, sq, sk, p, seed, offset):
    """bool [heads, sq, sk]: which weights of sequence b are kept."""
    h, i, j = np.meshgrid(np.arange(heads), np.arange(sq), np.arange(sk), indexing="ij")
    counter = np.stack([j // 4, i, b * heads + h, np.full_like(j, offset & 0xFFFFFFFF)], axis=-1)
    words = philox((seed & 0xFFFFFFFF, (seed >> 32) ^ (offset >> 32)), counter)
    word = np.take_along_axis(words, (j % 4)[..., None], axis=-1)[..., 0]
    return (word >> np.uint64(8)).astype(np.float64) / 2**24 >= p
