"""attn.sdpa_backward against finite differences of the formula in float64."""

import attn
import ml_dtypes
import numpy as np
import pytest
import reference
from conftest import assert_close

B, SQ, SK, HQ, HKV, D, DV = 2, 6, 9, 4, 2, 8, 5


def problem(rng, dtype=np.float32):
    shapes = {"q": (B, SQ, HQ, D), "k": (B, SK, HKV, D), "v": (B, SK, HKV, DV)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def loss(inputs, dout, dlse, options, per_sequence, lse_scale=1.0):
    def each(b):
        given = {name: np.broadcast_to(inputs[name], (B, HQ, SQ, SK))[b]
                 for name in ("bias",) if name in inputs}
        given |= {name: inputs[name] for name in ("sink",) if name in inputs}
        given |= {name: inputs[name][b] for name in ("gate",) if name in inputs}
        return given | (per_sequence(b) if per_sequence else {})

    out, lse, _ = reference.batch(inputs["q"], inputs["k"], inputs["v"], each=each, **options)
    total = (out * dout).sum()
    if dlse is not None:
        seen = np.isfinite(lse)
        total += (np.where(seen, lse, 0.0) * lse_scale * dlse)[seen].sum()
    return total


CASES = {
    "plain": ({}, ()),
    "causal window softcap": ({"is_causal": True, "window": (4, 0), "softcap": 2.0}, ()),
    "bias": ({}, ("bias",)),
    "sink": ({"is_causal": True}, ("sink",)),
    "sink in lse": ({"lse_includes_sink": True}, ("sink",)),
    "gate": ({}, ("gate",)),
    "all": ({"is_causal": True, "softcap": 3.0, "scale": 0.4}, ("bias", "sink", "gate")),
    "top left": ({"is_causal": True, "alignment": "top_left"}, ()),
    "silu": ({"activation": "silu", "silu_divisor": 4.0}, ("gate",)),
    "dropout": ({"dropout_p": 0.3}, ()),
}


@pytest.mark.parametrize("with_dlse", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_directional_derivatives(rng, name, with_dlse):
    options, extras = CASES[name]
    silu = options.get("activation") == "silu"
    if silu and with_dlse:
        with_dlse = False  # the activation has no lse
    inputs = problem(rng)
    shapes = {"bias": (1, HQ, SQ, SK), "sink": (HQ,), "gate": (B, SQ, HQ, DV)}
    for extra in extras:
        inputs[extra] = rng.standard_normal(shapes[extra]).astype(np.float32)
    dout = rng.standard_normal((B, SQ, HQ, DV)).astype(np.float32)
    dlse = rng.standard_normal((B, HQ, SQ)).astype(np.float32) if with_dlse else None
    given = dict(options) | {e: inputs[e] for e in extras}
    per_sequence = None
    if "dropout_p" in options:
        state = given["rng_state"] = (7, 9)
        def per_sequence(b):
            return {"keep": reference.dropout_keep(b, HQ, SQ, SK, options["dropout_p"], *state)}
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    if silu:
        out, lse = attn.sdpa(q, k, v, **given), None
    else:
        out, lse = attn.sdpa(q, k, v, return_lse=True, **given)
    wanted = ("q", "k", "v", *extras)
    grads = attn.sdpa_backward(dout, q, k, v, out, lse, dlse=dlse, grads=wanted, **given)
    step = 1e-6
    for part in wanted:
        grad = getattr(grads, f"d{part}")
        assert grad.shape == inputs[part].shape and grad.dtype == np.float32
        direction = rng.standard_normal(inputs[part].shape)
        values = []
        for sign in (1, -1):
            moved = {n: x.astype(np.float64) for n, x in inputs.items()}
            moved[part] = moved[part] + sign * step * direction
            values.append(loss(moved, dout, dlse, options, per_sequence))
        numeric = (values[0] - values[1]) / (2 * step)
        computed = (grad.astype(np.float64) * direction).sum()
        size = np.abs(grad.astype(np.float64) * direction).sum()
        assert abs(computed - numeric) <= 1e-5 * max(size, 1.0), (part, computed, numeric)
    for part in {"q", "k", "v", "bias", "sink", "gate"} - set(wanted):
        assert getattr(grads, f"d{part}") is None


def test_only_what_is_asked_for(rng):
    x = problem(rng)
    out, lse = attn.sdpa(**x, return_lse=True)
    grads = attn.sdpa_backward(out, x["q"], x["k"], x["v"], out, lse, grads=["v"])
    assert grads.dq is None and grads.dk is None and grads.dv.shape == x["v"].shape
    every = attn.sdpa_backward(out, x["q"], x["k"], x["v"], out, lse)
    assert_close(grads.dv, every.dv)


def test_bf16_and_fp32_gradients(rng):
    x = problem(rng, ml_dtypes.bfloat16)
    out, lse = attn.sdpa(**x, return_lse=True)
    args = (out, x["q"], x["k"], x["v"], out, lse)
    low, high = attn.sdpa_backward(*args), attn.sdpa_backward(*args, grad_dtype="fp32")
    for a, b in zip(low[:3], high[:3]):
        assert a.dtype == ml_dtypes.bfloat16 and b.dtype == np.float32
        assert_close(a, b, ml_dtypes.bfloat16)


def test_ragged_and_heads_first(rng):
    cu = [0, 4, 4, 9]
    q, k, v = (rng.standard_normal((9, h, D)).astype(np.float32) for h in (HQ, HKV, HKV))
    options = {"cu_seqlens_q": cu, "cu_seqlens_k": cu, "is_causal": True}
    out, lse = attn.sdpa(q, k, v, return_lse=True, **options)
    grads = attn.sdpa_backward(out, q, k, v, out, lse, **options)
    for b in range(3):
        rows = slice(cu[b], cu[b + 1])
        one = [x[None, rows] for x in (out, q, k, v, out)]
        alone = attn.sdpa_backward(*one, np.ascontiguousarray(lse[None, :, rows]), is_causal=True)
        for a, c in zip(grads[:3], alone[:3]):
            assert_close(a[rows], c[0])
    first = [x.transpose(1, 0, 2) for x in (out, q, k, v, out)]
    again = attn.sdpa_backward(*first, lse, layout="bhsd", **options)
    for a, c in zip(grads[:3], again[:3]):
        assert_close(c.transpose(1, 0, 2), a)


def test_latent_key_gradient_holds_both(rng):
    q = rng.standard_normal((1, 3, 2, 8)).astype(np.float32)
    k = rng.standard_normal((1, 5, 1, 8)).astype(np.float32)
    out, lse = attn.sdpa(q, k, head_dim_v=6, return_lse=True)
    grads = attn.sdpa_backward(out, q, k, None, out, lse, head_dim_v=6)
    apart = attn.sdpa_backward(out, q, k, k[..., :6], out, lse)
    both = apart.dk.copy()
    both[..., :6] += apart.dv
    assert grads.dv is None
    assert_close(grads.dk, both)


def test_mistakes(rng):
    x = problem(rng)
    out, lse = attn.sdpa(**x, return_lse=True)
    with pytest.raises(attn.InvalidArgumentError, match="bias") as caught:
        attn.sdpa_backward(out, x["q"], x["k"], x["v"], out, lse, grads=["bias"])
    assert caught.value.field == "grads"
    with pytest.raises(attn.InvalidArgumentError, match="must be one of"):
        attn.sdpa_backward(out, x["q"], x["k"], x["v"], out, lse, grads=["w"])
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.sdpa_backward(out[:, :2], x["q"], x["k"], x["v"], out, lse)
    assert "dout" in caught.value.field
