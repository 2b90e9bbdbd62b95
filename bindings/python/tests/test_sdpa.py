"""attn.sdpa against the formula."""

import attn
import ml_dtypes
import numpy as np
import pytest
import reference
from conftest import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st


def arrays(rng, *shapes, dtype=np.float32):
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def qkv(rng, b=2, sq=9, sk=13, hq=4, hkv=2, d=16, dv=None, dtype=np.float32):
    return arrays(rng, (b, sq, hq, d), (b, sk, hkv, d), (b, sk, hkv, dv or d), dtype=dtype)


OPTIONS = {
    "plain": {},
    "causal": {"is_causal": True},
    "causal top left": {"is_causal": True, "alignment": "top_left"},
    "scale": {"scale": 0.3},
    "window": {"window": (3, 2)},
    "window left only": {"window": [4, -1], "is_causal": True},
    "softcap": {"softcap": 2.0},
    "chunk": {"chunk_size": 4, "is_causal": True},
    "sink tokens": {"window": (2, 0), "sink_tokens": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_scalar_options(rng, name, dtype):
    q, k, v = qkv(rng, dtype=dtype, dv=8)
    out, lse, row_max = attn.sdpa(q, k, v, return_lse=True, return_row_max=True, **OPTIONS[name])
    assert out.dtype == dtype and out.shape == (2, 9, 4, 8)
    assert lse.dtype == np.float32 and lse.shape == row_max.shape == (2, 4, 9)
    expected = reference.batch(q, k, v, **OPTIONS[name])
    assert_close(out, expected[0], dtype)
    assert_close(lse, expected[1])
    assert_close(row_max, expected[2])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_combination(data):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    b, sq, sk = draw(st.integers(0, 3)), draw(st.integers(0, 20)), draw(st.integers(0, 20))
    hkv, group = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    hq = hkv * group
    d, dv = draw(st.integers(1, 33)), draw(st.integers(1, 33))
    q, k, v = arrays(rng, (b, sq, hq, d), (b, sk, hkv, d), (b, sk, hkv, dv))
    options = {}
    each = {}
    if draw(st.booleans()):
        options["is_causal"] = True
    if draw(st.booleans()):
        options["window"] = (draw(st.integers(-1, 8)), draw(st.integers(-1, 8)))
    if draw(st.booleans()):
        options["softcap"] = 3.0
    options["alignment"] = draw(st.sampled_from(["bottom_right", "top_left"]))
    passed = dict(options)
    if draw(st.booleans()):
        shape = tuple(n if draw(st.booleans()) else 1 for n in (b, hq, sq)) + (sk,)
        bias = passed["bias"] = rng.standard_normal(shape).astype(np.float32)
        each["bias"] = np.broadcast_to(bias, (b, hq, sq, sk))
    if draw(st.booleans()):
        mask = passed["mask"] = rng.random((b, draw(st.sampled_from([1, hq])), sq, sk)) < 0.7
        each["mask"] = np.broadcast_to(mask, (b, hq, sq, sk))
    if draw(st.booleans()):
        slopes = passed["alibi_slopes"] = rng.random(hq).astype(np.float32)
        each["alibi_slopes"] = np.broadcast_to(slopes, (b, hq))
    if draw(st.booleans()):
        sink = passed["sink"] = rng.standard_normal(hq).astype(np.float32)
        each["sink"] = np.broadcast_to(sink, (b, hq))
        passed["lse_includes_sink"] = options["lse_includes_sink"] = draw(st.booleans())
    if draw(st.booleans()):
        gate = passed["gate"] = rng.standard_normal((b, sq, hq, draw(st.sampled_from([1, dv]))))
        passed["gate"] = gate = gate.astype(np.float32)
        each["gate"] = gate
    out, lse = attn.sdpa(q, k, v, return_lse=True, **passed)
    for i in range(b):
        expected = reference.attention(q[i], k[i], v[i], **options,
                                       **{name: value[i] for name, value in each.items()})
        assert_close(out[i], expected[0])
        assert_close(lse[i], expected[1])


def test_tf32_is_a_permission(rng):
    q, k, v = qkv(rng)
    # fp32 products satisfy it: the CPU has no others.
    np.testing.assert_array_equal(attn.sdpa(q, k, v, allow_tf32=True), attn.sdpa(q, k, v))
    half = [x.astype(np.float16) for x in (q, k, v)]
    with pytest.raises(attn.InvalidArgumentError, match="fp16.*fp32") as caught:
        attn.sdpa(*half, allow_tf32=True)
    assert caught.value.field == "desc.flags"
    attn.sdpa(*half, allow_tf32=False)


def test_segment_ids(rng):
    q, k, v = qkv(rng, sq=10, sk=10)
    ids = np.sort(rng.integers(-1, 3, (2, 10)), axis=1)  # int64: converted
    out = attn.sdpa(q, k, v, segment_ids=ids)
    expected = reference.batch(q, k, v, each=lambda b: {"segment_ids": (ids[b], ids[b])})
    assert_close(out, expected[0])
    again = attn.sdpa(q, k, v, q_segment_ids=ids.astype(np.int32), kv_segment_ids=ids.tolist())
    np.testing.assert_array_equal(out, again)


@pytest.mark.parametrize("shape", [(9, 13), (4, 9, 13), (1, 1, 1, 13), (2, 1, 9, 13)])
def test_masks_broadcast(rng, shape):
    q, k, v = qkv(rng)
    mask = rng.random(shape) < 0.6
    full = np.broadcast_to(mask, (2, 4, 9, 13))
    expected = reference.batch(q, k, v, each=lambda b: {"mask": full[b]})
    assert_close(attn.sdpa(q, k, v, mask=mask), expected[0])
    packed = np.packbits(mask, axis=-1, bitorder="little")
    assert_close(attn.sdpa(q, k, v, mask=packed), expected[0])


def test_tail_mask(rng):
    q, k, v = qkv(rng, sq=4, sk=13)
    tail = np.tril(rng.random((4, 4)) < 0.5)
    np.fill_diagonal(tail, True)
    full = np.concatenate([np.ones((4, 9), bool), tail], axis=1)
    expected = reference.batch(q, k, v, each=lambda b: {"mask": full})
    assert_close(attn.sdpa(q, k, v, tail_mask=tail), expected[0])


def test_bias_may_hide_everything(rng):
    q, k, v = qkv(rng)
    out, lse = attn.sdpa(q, k, v, bias=np.full((9, 13), -np.inf, np.float32), return_lse=True)
    assert (out == 0).all() and (lse == -np.inf).all()


def test_alibi_per_batch(rng):
    q, k, v = qkv(rng)
    slopes = rng.random((2, 4)).astype(np.float32)
    expected = reference.batch(q, k, v, each=lambda b: {"alibi_slopes": slopes[b]})
    assert_close(attn.sdpa(q, k, v, alibi_slopes=slopes), expected[0])


def test_dropout_draws_the_documented_bits(rng):
    q, k, v = qkv(rng)
    seed, offset = 0x123456789ABCDEF0, 0x0FEDCBA987
    out, lse = attn.sdpa(q, k, v, dropout_p=0.4, rng_state=(seed, offset), return_lse=True)
    expected = reference.batch(q, k, v, dropout_p=0.4, each=lambda b: {
        "keep": reference.dropout_keep(b, 4, 9, 13, 0.4, seed, offset)})
    assert_close(out, expected[0])
    assert_close(lse, expected[1])


def test_silu(rng):
    q, k, v = qkv(rng)
    out = attn.sdpa(q, k, v, activation="silu", silu_divisor=13.0, is_causal=True)
    expected = reference.batch(q, k, v, activation="silu", silu_divisor=13.0, is_causal=True)
    assert_close(out, expected[0])


def test_block_sparse(rng):
    q, k, v = qkv(rng, sq=8, sk=12)
    counts = np.array([[[2, 1]]], np.int32)
    indices = np.array([[[[0, 2, 0], [1, 0, 0]]]], np.int32)
    out = attn.sdpa(q, k, v, block_counts=counts, block_indices=indices, block_size=(4, 4))
    mask = np.zeros((8, 12), bool)
    mask[:4, 0:4] = mask[:4, 8:12] = mask[4:, 4:8] = True
    assert_close(out, reference.batch(q, k, v, each=lambda b: {"mask": mask})[0])


def test_lse_base_2(rng):
    q, k, v = qkv(rng)
    _, natural = attn.sdpa(q, k, v, return_lse=True)
    _, binary = attn.sdpa(q, k, v, return_lse=True, lse_base="2")
    assert_close(binary, natural * np.log2(np.e))


def test_latent(rng):
    q, k = arrays(rng, (2, 3, 4, 24), (2, 9, 1, 24))
    out = attn.sdpa(q, k, head_dim_v=16)
    assert_close(out, reference.batch(q, k, k[..., :16])[0])


def test_layout_bhsd_is_only_strides(rng):
    q, k, v = qkv(rng)
    expected = attn.sdpa(q, k, v, is_causal=True, return_lse=True)
    heads_first = [np.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in (q, k, v)]
    out, lse = attn.sdpa(*heads_first, is_causal=True, layout="bhsd", return_lse=True)
    assert out.shape == (2, 4, 9, 16) and out.flags.c_contiguous
    assert_close(out.transpose(0, 2, 1, 3), expected[0])
    assert_close(lse, expected[1])
    mixed = attn.sdpa(q, heads_first[1], heads_first[2], is_causal=True, kv_layout="bhsd")
    assert_close(mixed, expected[0])


def test_strides(rng):
    """Slices, reversed and repeated dimensions, read-only arrays: no copy, same result."""
    big = rng.standard_normal((2, 40, 4, 64)).astype(np.float32)
    q = big[:, :9, :, ::4]
    k = big[:, 30:4:-2, :2, 3:19]
    v = np.broadcast_to(big[:1, :13, :2, :5], (2, 13, 2, 5))  # read-only, batch stride 0
    out = attn.sdpa(q, k, v)
    assert_close(out, reference.batch(q, k, v)[0])
    k = big.copy()[:, :13, :2, :16]
    k.flags.writeable = False
    assert_close(attn.sdpa(q, k, v), reference.batch(q, k, v)[0])


def test_out_and_lse_are_written_in_place(rng):
    q, k, v = qkv(rng)
    memory = np.full((2, 9, 4, 32), np.nan, np.float32)
    out = memory[..., ::2]
    lse = np.empty((2, 4, 9), np.float32)
    answer = attn.sdpa(q, k, v, out=out, lse=lse)
    assert answer[0] is out and answer[1] is lse
    expected = reference.batch(q, k, v)
    assert_close(out, expected[0])
    assert_close(lse, expected[1])
    assert np.isnan(memory[..., 1::2]).all()
    assert attn.sdpa(q, k, v, out=out) is out


def test_out_dtype(rng):
    q, k, v = qkv(rng, dtype=ml_dtypes.bfloat16)
    out = attn.sdpa(q, k, v, out_dtype="fp32")
    assert out.dtype == np.float32
    assert_close(out, reference.batch(q, k, v)[0])


def ragged(rng, q_lengths, k_lengths, hq=4, hkv=2, d=16):
    cu_q = np.cumsum([0, *q_lengths]).astype(np.int32)
    cu_k = np.cumsum([0, *k_lengths]).astype(np.int32)
    q, k, v = arrays(rng, (cu_q[-1], hq, d), (cu_k[-1], hkv, d), (cu_k[-1], hkv, d))
    return q, k, v, cu_q, cu_k


def check_ragged(out, lse, q, k, v, cu_q, cu_k, **options):
    for b in range(len(cu_q) - 1):
        rows, keys = slice(cu_q[b], cu_q[b + 1]), slice(cu_k[b], cu_k[b + 1])
        expected = reference.attention(q[rows], k[keys], v[keys], **options)
        assert_close(out[rows], expected[0])
        assert_close(lse[:, rows], expected[1])


@pytest.mark.parametrize("convert", [lambda x: x, lambda x: x.tolist(),
                                     lambda x: x.astype(np.int64)])
def test_ragged(rng, convert):
    q, k, v, cu_q, cu_k = ragged(rng, [3, 0, 7, 1], [5, 4, 0, 9])
    out, lse = attn.sdpa(q, k, v, cu_seqlens_q=convert(cu_q), cu_seqlens_k=convert(cu_k),
                         is_causal=True, return_lse=True)
    assert lse.shape == (4, 11)
    check_ragged(out, lse, q, k, v, cu_q, cu_k, is_causal=True)


def test_ragged_heads_first(rng):
    q, k, v, cu_q, cu_k = ragged(rng, [3, 7], [5, 9])
    expected = attn.sdpa(q, k, v, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k)
    out = attn.sdpa(*(x.transpose(1, 0, 2) for x in (q, k, v)), cu_seqlens_q=cu_q,
                    cu_seqlens_k=cu_k, layout="bhsd")
    assert_close(out.transpose(1, 0, 2), expected)


def test_the_same_offsets_with_other_lengths(rng):
    """Shapes stay, contents of cu_seqlens change: the prepared call must not be reused blindly."""
    for q_lengths in ([5, 5], [1, 9], [10, 0]):
        q, k, v, cu_q, cu_k = ragged(rng, q_lengths, [6, 6])
        out, lse = attn.sdpa(q, k, v, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, return_lse=True)
        check_ragged(out, lse, q, k, v, cu_q, cu_k)


def test_seqused(rng):
    q, k, v = qkv(rng, sq=6, sk=12)
    out, lse = attn.sdpa(q, k, v, seqused_q=[6, 2], seqused_k=[12, 5], is_causal=True,
                         return_lse=True)
    assert_close(out[0], reference.attention(q[0], k[0], v[0], is_causal=True)[0])
    assert_close(out[1, :2], reference.attention(q[1, :2], k[1, :5], v[1, :5], is_causal=True)[0])
    assert (out[1, 2:] == 0).all() and (lse[1, :, 2:] == -np.inf).all()


@pytest.mark.parametrize("form", ["table", "csr"])
@pytest.mark.parametrize("kv_layout", ["bshd", "bhsd"])
def test_paged(rng, form, kv_layout):
    page, lengths = 4, [10, 3, 8]
    q = arrays(rng, (3, 2, 4, 16))[0]
    pool_k, pool_v = arrays(rng, (9, page, 2, 16), (9, page, 2, 16))
    order = rng.permutation(9)
    pages = [-(-n // page) for n in lengths]
    starts = np.cumsum([0, *pages])
    lists = [order[starts[b] : starts[b + 1]] for b in range(3)]
    if form == "table":
        table = np.full((3, 3), -1, np.int32)
        for b, pages_of in enumerate(lists):
            table[b, : len(pages_of)] = pages_of
        options = {"block_table": table, "seqused_k": lengths}
    else:
        options = {"kv_page_indptr": starts, "kv_page_indices": np.concatenate(lists),
                   "kv_last_page_len": [(n - 1) % page + 1 for n in lengths]}
    pools = (pool_k, pool_v)
    if kv_layout == "bhsd":
        pools = tuple(np.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in pools)
    out = attn.sdpa(q, *pools, is_causal=True, kv_layout=kv_layout, **options)
    for b, n in enumerate(lengths):
        k, v = (x[lists[b]].reshape(-1, 2, 16)[:n] for x in (pool_k, pool_v))
        assert_close(out[b], reference.attention(q[b], k, v, is_causal=True)[0])


@pytest.mark.parametrize("scale_shape", ["float", (1, 1, 1, 1), (2, 1, 2, 1), (2, 13, 1, 1),
                                         (2, 13, 2, 1), (2, 13, 2, 4)])
def test_fp8_keys(rng, scale_shape):
    q, k, v = qkv(rng)
    scale = 0.5 if scale_shape == "float" else (rng.random(scale_shape) + 0.5).astype(np.float32)
    stored = k.astype(ml_dtypes.float8_e4m3fn)
    full = np.broadcast_to(np.repeat(scale, 4, axis=-1) if np.ndim(scale) and
                           scale.shape[-1] > 1 else scale, k.shape)
    expected = reference.batch(q, stored.astype(np.float64) * full, v)[0]
    out = attn.sdpa(q, stored, v, k_scale=scale, v_dtype="fp32")
    assert_close(out, expected)


def test_int4_keys(rng):
    q, k, v = qkv(rng)
    numbers = rng.integers(-8, 8, k.shape)
    packed = ((numbers[..., 0::2] & 15) | ((numbers[..., 1::2] & 15) << 4)).astype(np.uint8)
    out = attn.sdpa(q, packed, v, k_dtype="int4", k_scale=0.25)
    assert_close(out, reference.batch(q, numbers * 0.25, v)[0])


def test_quantised_q_v_and_out(rng):
    q, k, v = qkv(rng)
    stored_q = np.clip(np.round(q / 0.03), -127, 127).astype(np.int8)
    stored_v = v.astype(ml_dtypes.float8_e5m2)
    expected = reference.batch(stored_q * 0.03, k, stored_v.astype(np.float64) * 2.0)[0]
    out = attn.sdpa(stored_q, k, stored_v, q_scale=0.03, v_scale=2.0, out_dtype="fp32")
    assert_close(out, expected)
    assert attn.sdpa(stored_q, k, stored_v, q_scale=0.03).dtype == ml_dtypes.bfloat16
    low = attn.sdpa(q, k, v, out_dtype="fp8_e4m3fn", out_scale=0.25)
    assert low.dtype == ml_dtypes.float8_e4m3fn
    right = reference.batch(q, k, v)[0]
    error = np.abs(low.astype(np.float64) * 0.25 - right)
    assert (error <= np.maximum(np.abs(right) * 2.0**-4, 0.25 * 2.0**-10) * 1.001).all()


def test_empty(rng):
    q, k, v = qkv(rng, b=0)
    assert attn.sdpa(q, k, v).shape == (0, 9, 4, 16)
    q, k, v = qkv(rng, sk=0)
    out, lse = attn.sdpa(q, k, v, return_lse=True)
    assert (out == 0).all() and (lse == -np.inf).all()


def test_numpy_subclasses_and_views(rng):
    class Mine(np.ndarray):
        pass

    q, k, v = qkv(rng)
    out = attn.sdpa(q.view(Mine), k, v)
    assert type(out) is np.ndarray
    assert_close(out, reference.batch(q, k, v)[0])


def test_a_chosen_implementation(rng):
    q, k, v = qkv(rng)
    out = attn.sdpa(q, k, v, implementation="cpu/sdpa/forward/reference")
    assert_close(out, reference.batch(q, k, v)[0])
