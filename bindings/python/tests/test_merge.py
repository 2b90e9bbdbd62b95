"""attn.merge against the formula."""

import attn
import ml_dtypes
import numpy as np
import pytest
from conftest import assert_close


def formula(partial, lse, sink=None, includes=False):
    partial, lse = partial.astype(np.float64), lse.astype(np.float64)
    dead = np.isneginf(lse)
    m = lse.max(axis=1, initial=-np.inf)
    logit = -np.inf if sink is None else sink.astype(np.float64)
    base = np.maximum(m, logit)
    base = np.where(np.isfinite(base), base, 0.0)
    w = np.where(dead, 0.0, np.exp(lse - base[:, None]))
    alone = w.sum(axis=1)
    total = alone + np.exp(logit - base)
    values = np.where(dead[..., None], 0.0, partial)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.where(total[..., None] > 0,
                       (w[..., None] * values).sum(axis=1) / total[..., None], 0.0)
        return out, np.log(total if includes else alone) + base


def parts(rng, n=7, s=3, h=4, d=16, dtype=np.float32):
    partial = rng.standard_normal((n, s, h, d)).astype(dtype)
    lse = (3 * rng.standard_normal((n, s, h))).astype(np.float32)
    lse[0] = -np.inf
    lse[1, 0] = -np.inf
    partial[1, 0] = np.nan
    return partial, lse


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_parts(rng, dtype):
    partial, lse = parts(rng, dtype=dtype)
    out, out_lse = attn.merge(partial, lse)
    expected = formula(partial, lse)
    assert out.dtype == dtype and out_lse.dtype == np.float32
    assert_close(out, expected[0], dtype)
    assert_close(out_lse, expected[1])
    assert_close(attn.merge(partial, lse, return_lse=False), expected[0], dtype)


@pytest.mark.parametrize("includes", [False, True])
def test_sink(rng, includes):
    partial, lse = parts(rng)
    sink = rng.standard_normal(4).astype(np.float32)
    out, out_lse = attn.merge(partial, lse, sink=sink, lse_includes_sink=includes)
    expected = formula(partial, lse, sink, includes)
    assert_close(out, expected[0])
    assert_close(out_lse, expected[1])


def test_other_in_place_and_row_mask(rng):
    partial, lse = parts(rng)
    other = rng.standard_normal((7, 4, 16)).astype(np.float32)
    other_lse = rng.standard_normal((7, 4)).astype(np.float32)
    expected = formula(np.concatenate([partial, other[:, None]], 1),
                       np.concatenate([lse, other_lse[:, None]], 1))
    keep = np.array([1, 0, 1, 1, 0, 1, 1], bool)
    for i in range(2):
        expected[i][~keep] = (other, other_lse)[i][~keep]
    out, out_lse = attn.merge(partial, lse, other=other, other_lse=other_lse, row_mask=keep,
                              out=other, out_lse=other_lse)
    assert out is other and out_lse is other_lse
    assert_close(out, expected[0])
    assert_close(out_lse, expected[1])


def test_base_2_and_strides(rng):
    partial, lse = parts(rng)
    expected = formula(partial, lse)
    first = np.ascontiguousarray(partial.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3)
    out, out_lse = attn.merge(first, (lse * np.log2(np.e)).astype(np.float32), lse_base="2")
    assert_close(out, expected[0])
    assert_close(out_lse, expected[1] * np.log2(np.e))


def test_mistakes(rng):
    partial, lse = parts(rng)
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.merge(partial[0], lse)
    assert caught.value.field == "partial"
    with pytest.raises(attn.InvalidArgumentError) as caught:
        attn.merge(partial, lse[:, :2])
    assert caught.value.field.startswith("args.partial_lse")
    with pytest.raises(attn.InvalidArgumentError, match="read-only"):
        frozen = np.empty((7, 4, 16), np.float32)
        frozen.flags.writeable = False
        attn.merge(partial, lse, out=frozen)
