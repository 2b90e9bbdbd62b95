//! Forward, backward and merge on the CPU against an f64 reference.

mod common;

use attn::half::{bf16, f16};
use attn::{
    Alignment, Context, DType, Gradients, Layout, LseBase, MergeArgs, MergeDesc, SdpaArgs,
    SdpaBackwardArgs, SdpaDesc, Tensor, TensorMut,
};
use common::{assert_close, causal, full, size, wide, Number, Place, Random, Shape};

const SHAPE: Shape =
    Shape { batch: 2, seqlen_q: 13, seqlen_k: 37, heads_q: 6, heads_k: 2, dim: 32, dim_v: 32 };

struct Inputs<T> {
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
}

fn inputs<T: Number>(shape: Shape, seed: u64) -> Inputs<T> {
    let mut random = Random::new(seed);
    Inputs {
        q: random.values(size(&shape.q())),
        k: random.values(size(&shape.k())),
        v: random.values(size(&shape.v())),
    }
}

/// Runs `desc` with lse over dense inputs and gives out and lse; the last part adds arguments.
macro_rules! run {
    ($shape:expr, $desc:expr, $inputs:expr, |$args:ident| $more:expr) => {{
        let (shape, inputs) = ($shape, $inputs);
        let plan = Context::cpu().unwrap().sdpa(&$desc.return_lse()).unwrap();
        let mut out = inputs.q.clone();
        out.resize(size(&shape.out()), inputs.q[0]);
        let mut lse = vec![f32::NAN; size(&shape.lse())];
        let $args = SdpaArgs::new(
            Tensor::new(&inputs.q, shape.q()).unwrap(),
            Tensor::new(&inputs.k, shape.k()).unwrap(),
            Tensor::new(&inputs.v, shape.v()).unwrap(),
            TensorMut::new(&mut out, shape.out()).unwrap(),
        )
        .lse(TensorMut::new(&mut lse, shape.lse()).unwrap());
        let mut args = $more;
        plan.forward(&mut args, &mut plan.workspace().unwrap()).unwrap();
        (out, lse)
    }};
}

fn check_type<T: Number>() {
    let data = inputs::<T>(SHAPE, 1);
    let (q, k, v) = (wide(&data.q), wide(&data.k), wide(&data.v));

    let (out, lse) = run!(SHAPE, SHAPE.desc(T::DTYPE), &data, |args| args);
    let expected = common::forward(SHAPE, &q, &k, &v, full, None);
    assert_close(&out, &expected.out);
    assert_close(&lse, &expected.lse);

    let (out, lse) = run!(SHAPE, SHAPE.desc(T::DTYPE).causal(), &data, |args| args);
    let expected = common::forward(SHAPE, &q, &k, &v, causal(SHAPE), None);
    assert_close(&out, &expected.out);
    assert_close(&lse, &expected.lse);
}

#[test]
fn forward_f32() {
    check_type::<f32>();
}

#[test]
fn forward_f16() {
    check_type::<f16>();
}

#[test]
fn forward_bf16() {
    check_type::<bf16>();
}

/// The CPU multiplies in fp32, which the permission to use TF32 allows.
#[test]
fn tf32_is_a_permission() {
    let data = inputs::<f32>(SHAPE, 21);
    let (plain, _) = run!(SHAPE, SHAPE.desc(DType::FP32), &data, |args| args);
    let (allowed, _) = run!(SHAPE, SHAPE.desc(DType::FP32).allow_tf32(), &data, |args| args);
    assert_eq!(plain, allowed);
}

/// More queries than keys: bottom-right causal leaves the first queries without a key.
#[test]
fn rows_without_a_key_are_zero() {
    let shape = Shape { seqlen_q: 9, seqlen_k: 5, ..SHAPE };
    let data = inputs::<f32>(shape, 2);
    let (out, lse) = run!(shape, shape.desc(DType::FP32).causal(), &data, |args| args);
    let (q, k, v) = (wide(&data.q), wide(&data.k), wide(&data.v));
    let expected = common::forward(shape, &q, &k, &v, causal(shape), None);
    assert!(expected.lse.contains(&f64::NEG_INFINITY));
    assert_close(&out, &expected.out);
    assert_close(&lse, &expected.lse);
}

#[test]
fn window_and_top_left() {
    let data = inputs::<f32>(SHAPE, 3);
    let desc = SHAPE.desc(DType::FP32).window(4, 2).alignment(Alignment::TOP_LEFT);
    let (out, lse) = run!(SHAPE, desc, &data, |args| args);
    let (q, k, v) = (wide(&data.q), wide(&data.k), wide(&data.v));
    let window = |p: Place, s| (p.j + 4 >= p.i && p.j <= p.i + 2).then_some(s);
    let expected = common::forward(SHAPE, &q, &k, &v, window, None);
    assert_close(&out, &expected.out);
    assert_close(&lse, &expected.lse);
}

#[test]
fn bias_alibi_softcap_and_sink() {
    let data = inputs::<f32>(SHAPE, 4);
    let Shape { seqlen_q, seqlen_k, heads_q, .. } = SHAPE;
    let mut random = Random::new(40);
    let bias: Vec<f32> = random.values(heads_q * seqlen_q * seqlen_k);
    let slopes: Vec<f32> = (0..heads_q).map(|h| 0.5f32.powi(h as i32 + 1)).collect();
    let sink: Vec<f32> = random.values(heads_q);
    let desc = SHAPE.desc(DType::FP32).bias().alibi().softcap(1.5).sink();
    let bias_view = Tensor::new(&bias, [1, heads_q, seqlen_q, seqlen_k]).unwrap();
    let (out, lse) = run!(SHAPE, desc, &data, |args| {
        args.bias(bias_view)
            .alibi_slopes(Tensor::new(&slopes, [heads_q]).unwrap())
            .sink(Tensor::new(&sink, [heads_q]).unwrap())
    });
    let score = |p: Place, s: f64| {
        let capped = 1.5 * (s / 1.5).tanh();
        let distance = (p.i + seqlen_k - seqlen_q).abs_diff(p.j) as f64;
        let bias = bias[(p.h * seqlen_q + p.i) * seqlen_k + p.j] as f64;
        Some(capped + bias - slopes[p.h] as f64 * distance)
    };
    let (q, k, v) = (wide(&data.q), wide(&data.k), wide(&data.v));
    let expected = common::forward(SHAPE, &q, &k, &v, score, Some(&wide(&sink)));
    assert_close(&out, &expected.out);
    assert_close(&lse, &expected.lse);
}

#[test]
fn bit_mask_and_segment_ids() {
    let data = inputs::<f32>(SHAPE, 5);
    let Shape { batch, seqlen_q, seqlen_k, .. } = SHAPE;
    let visible = |b: usize, i: usize, j: usize| (b + 3 * i + 5 * j) % 4 != 0;
    let row = seqlen_k.div_ceil(8);
    let mut mask = vec![0u8; batch * seqlen_q * row];
    for b in 0..batch {
        for i in 0..seqlen_q {
            for j in (0..seqlen_k).filter(|j| visible(b, i, *j)) {
                mask[(b * seqlen_q + i) * row + j / 8] |= 1 << (j % 8);
            }
        }
    }
    let q_ids: Vec<i32> = (0..batch * seqlen_q).map(|x| (x % seqlen_q / 5) as i32).collect();
    let k_ids: Vec<i32> = (0..batch * seqlen_k).map(|x| (x % seqlen_k / 13) as i32).collect();
    let (out, lse) = run!(SHAPE, SHAPE.desc(DType::FP32).mask().segment_ids(), &data, |args| {
        args.mask(Tensor::new(&mask, [batch, 1, seqlen_q, row]).unwrap())
            .q_segment_ids(Tensor::new(&q_ids, [batch, seqlen_q]).unwrap())
            .kv_segment_ids(Tensor::new(&k_ids, [batch, seqlen_k]).unwrap())
    });
    let score = |p: Place, s| (visible(p.b, p.i, p.j) && p.i / 5 == p.j / 13).then_some(s);
    let (q, k, v) = (wide(&data.q), wide(&data.k), wide(&data.v));
    let expected = common::forward(SHAPE, &q, &k, &v, score, None);
    assert_close(&out, &expected.out);
    assert_close(&lse, &expected.lse);
}

/// Tensors as [batch, heads, seqlen, dim] in memory, seen through strides.
#[test]
fn strided_views() {
    let data = inputs::<f32>(SHAPE, 6);
    let (q, k, v) = (wide(&data.q), wide(&data.k), wide(&data.v));
    let expected = common::forward(SHAPE, &q, &k, &v, full, None);

    let transpose = |values: &[f32], shape: [usize; 4]| -> Vec<f32> {
        let [batch, seqlen, heads, dim] = shape;
        let mut result = vec![0.0; values.len()];
        for (index, value) in values.iter().enumerate() {
            let (d, h) = (index % dim, index / dim % heads);
            let (s, b) = (index / dim / heads % seqlen, index / dim / heads / seqlen);
            result[((b * heads + h) * seqlen + s) * dim + d] = *value;
        }
        assert_eq!(result.len(), batch * seqlen * heads * dim);
        result
    };
    let strides = |[_, seqlen, heads, dim]: [usize; 4]| {
        [heads * seqlen * dim, dim, seqlen * dim, 1].map(|x| x as isize)
    };
    let (tq, tk, tv) = (
        transpose(&data.q, SHAPE.q()),
        transpose(&data.k, SHAPE.k()),
        transpose(&data.v, SHAPE.v()),
    );
    let mut out = vec![f32::NAN; size(&SHAPE.out())];
    let context = Context::cpu().unwrap();
    let plan = context.sdpa(&SHAPE.desc(DType::FP32)).unwrap();
    let mut args = SdpaArgs::new(
        Tensor::strided(&tq, 0, SHAPE.q(), strides(SHAPE.q())).unwrap(),
        Tensor::strided(&tk, 0, SHAPE.k(), strides(SHAPE.k())).unwrap(),
        Tensor::strided(&tv, 0, SHAPE.v(), strides(SHAPE.v())).unwrap(),
        TensorMut::strided(&mut out, 0, SHAPE.out(), strides(SHAPE.out())).unwrap(),
    );
    plan.forward(&mut args, &mut plan.workspace().unwrap()).unwrap();
    let expected: Vec<f32> = expected.out.iter().map(|x| *x as f32).collect();
    assert_close(&out, &wide(&transpose(&expected, SHAPE.out())));
}

/// Two sequences of different lengths, packed; then the same keys in pages.
#[test]
fn ragged_and_paged() {
    let (heads_q, heads_k, dim) = (4, 2, 16);
    let lengths = [(3usize, 7usize), (5, 11)];
    let (total_q, total_k) = (8, 18);
    let mut random = Random::new(7);
    let q: Vec<f32> = random.values(total_q * heads_q * dim);
    let k: Vec<f32> = random.values(total_k * heads_k * dim);
    let v: Vec<f32> = random.values(total_k * heads_k * dim);
    let (cu_q, cu_k) = ([0, 3, 8], [0, 7, 18]);

    let mut expected = Vec::new();
    let (mut start_q, mut start_k) = (0, 0);
    for (seqlen_q, seqlen_k) in lengths {
        let shape = Shape { batch: 1, seqlen_q, seqlen_k, heads_q, heads_k, dim, dim_v: dim };
        let part =
            |x: &[f32], start: usize, row: usize, n: usize| wide(&x[start * row..][..n * row]);
        let result = common::forward(
            shape,
            &part(&q, start_q, heads_q * dim, seqlen_q),
            &part(&k, start_k, heads_k * dim, seqlen_k),
            &part(&v, start_k, heads_k * dim, seqlen_k),
            causal(shape),
            None,
        );
        expected.extend(result.out);
        start_q += seqlen_q;
        start_k += seqlen_k;
    }

    let context = Context::cpu().unwrap();
    let desc = SdpaDesc::new(DType::FP32, heads_q as i32, dim as i32)
        .num_kv_heads(heads_k as i32)
        .limits(4, 8, 16)
        .q_layout(Layout::RAGGED)
        .causal();
    let q_view = Tensor::new(&q, [total_q, heads_q, dim]).unwrap();

    let plan = context.sdpa(&desc.clone().kv_layout(Layout::RAGGED)).unwrap();
    let mut out = vec![f32::NAN; q.len()];
    let mut args = SdpaArgs::new(
        q_view,
        Tensor::new(&k, [total_k, heads_k, dim]).unwrap(),
        Tensor::new(&v, [total_k, heads_k, dim]).unwrap(),
        TensorMut::new(&mut out, [total_q, heads_q, dim]).unwrap(),
    )
    .cu_seqlens_q(&cu_q)
    .cu_seqlens_k(&cu_k);
    plan.forward(&mut args, &mut plan.workspace().unwrap()).unwrap();
    assert_close(&out, &expected);

    // Pages of 4 tokens, used in an odd order; the pool's unused slots hold NaN.
    let (page, pages) = (4usize, 8usize);
    let table: [[usize; 3]; 2] = [[6, 1, 7], [2, 0, 5]];
    let row = heads_k * dim;
    let mut pool_k = vec![f32::NAN; pages * page * row];
    let mut pool_v = pool_k.clone();
    for (b, (start, seqlen)) in [(0, 7), (7, 11)].into_iter().enumerate() {
        for j in 0..seqlen {
            let to = (table[b][j / page] * page + j % page) * row;
            let from = (start + j) * row;
            pool_k[to..to + row].copy_from_slice(&k[from..from + row]);
            pool_v[to..to + row].copy_from_slice(&v[from..from + row]);
        }
    }
    let pool_shape = [pages, page, heads_k, dim];
    let seqused_k = [7, 11];
    let entries: Vec<i32> = table.iter().flatten().map(|x| *x as i32).collect();
    let plan = context.sdpa(&desc.clone().paged(Layout::PAGED_TABLE, page as i32)).unwrap();
    let mut out = vec![f32::NAN; q.len()];
    let mut args = SdpaArgs::new(
        q_view,
        Tensor::new(&pool_k, pool_shape).unwrap(),
        Tensor::new(&pool_v, pool_shape).unwrap(),
        TensorMut::new(&mut out, [total_q, heads_q, dim]).unwrap(),
    )
    .cu_seqlens_q(&cu_q)
    .seqused_k(&seqused_k)
    .block_table(Tensor::new(&entries, [2, 3]).unwrap());
    plan.forward(&mut args, &mut plan.workspace().unwrap()).unwrap();
    assert_close(&out, &expected);

    let (indptr, indices, last) = ([0, 2, 5], [6, 1, 2, 0, 5], [3, 3]);
    let plan = context.sdpa(&desc.paged(Layout::PAGED_CSR, page as i32)).unwrap();
    let mut out = vec![f32::NAN; q.len()];
    let mut args = SdpaArgs::new(
        q_view,
        Tensor::new(&pool_k, pool_shape).unwrap(),
        Tensor::new(&pool_v, pool_shape).unwrap(),
        TensorMut::new(&mut out, [total_q, heads_q, dim]).unwrap(),
    )
    .cu_seqlens_q(&cu_q)
    .kv_page_indptr(&indptr)
    .kv_page_indices(&indices)
    .kv_last_page_len(&last);
    plan.forward(&mut args, &mut plan.workspace().unwrap()).unwrap();
    assert_close(&out, &expected);

    // Without a page, the list of pages may be empty.
    let (indptr, indices, last) = ([0; 3], [0; 0], [0; 2]);
    let mut out = vec![f32::NAN; q.len()];
    let mut args = SdpaArgs::new(
        q_view,
        Tensor::new(&pool_k, pool_shape).unwrap(),
        Tensor::new(&pool_v, pool_shape).unwrap(),
        TensorMut::new(&mut out, [total_q, heads_q, dim]).unwrap(),
    )
    .cu_seqlens_q(&cu_q)
    .kv_page_indptr(&indptr)
    .kv_page_indices(&indices)
    .kv_last_page_len(&last);
    plan.forward(&mut args, &mut plan.workspace().unwrap()).unwrap();
    assert!(out.iter().all(|x| *x == 0.0));
}

#[test]
fn backward_f32() {
    let shape = Shape { dim_v: 24, ..SHAPE };
    let data = inputs::<f32>(shape, 8);
    let dout: Vec<f32> = Random::new(80).values(size(&shape.out()));
    let (q, k, v) = (wide(&data.q), wide(&data.k), wide(&data.v));
    let forward = common::forward(shape, &q, &k, &v, causal(shape), None);
    let (dq, dk, dv) = common::backward(shape, &q, &k, &v, &forward, &wide(&dout));

    let (out, lse) = run!(shape, shape.desc(DType::FP32).causal(), &data, |args| args);
    let context = Context::cpu().unwrap();
    let desc = shape.desc(DType::FP32).causal();
    let plan = context.sdpa_backward(&desc).unwrap();
    let mut workspace = plan.workspace().unwrap();
    let (mut gq, mut gk, mut gv) =
        (vec![f32::NAN; q.len()], vec![f32::NAN; k.len()], vec![f32::NAN; v.len()]);
    let args = || {
        SdpaBackwardArgs::new(
            Tensor::new(&data.q, shape.q()).unwrap(),
            Tensor::new(&data.k, shape.k()).unwrap(),
            Tensor::new(&data.v, shape.v()).unwrap(),
            Tensor::new(&out, shape.out()).unwrap(),
            Tensor::new(&dout, shape.out()).unwrap(),
        )
        .lse(Tensor::new(&lse, shape.lse()).unwrap())
    };
    let mut all = args()
        .dq(TensorMut::new(&mut gq, shape.q()).unwrap())
        .dk(TensorMut::new(&mut gk, shape.k()).unwrap())
        .dv(TensorMut::new(&mut gv, shape.v()).unwrap());
    plan.backward(&mut all, &mut workspace).unwrap();
    assert_close(&gq, &dq);
    assert_close(&gk, &dk);
    assert_close(&gv, &dv);

    // Only what is asked for.
    let plan = context.sdpa_backward(&desc.gradients(Gradients::Q | Gradients::V)).unwrap();
    let mut workspace = plan.workspace().unwrap();
    let (mut gq, mut gv) = (vec![f32::NAN; q.len()], vec![f32::NAN; v.len()]);
    let mut some = args().dq(TensorMut::new(&mut gq, shape.q()).unwrap()).dv(TensorMut::new(
        &mut gv,
        shape.v(),
    )
    .unwrap());
    plan.backward(&mut some, &mut workspace).unwrap();
    assert_close(&gq, &dq);
    assert_close(&gv, &dv);

    let mut gk = vec![0f32; k.len()];
    let mut extra = args()
        .dq(TensorMut::new(&mut gq, shape.q()).unwrap())
        .dk(TensorMut::new(&mut gk, shape.k()).unwrap())
        .dv(TensorMut::new(&mut gv, shape.v()).unwrap());
    let error = plan.backward(&mut extra, &mut workspace).unwrap_err();
    assert!(error.field().contains("dk"), "{error:?}");
}

/// Attention over two halves of the keys, merged, is attention over all.
#[test]
fn merge_of_parts() {
    let data = inputs::<f32>(SHAPE, 9);
    let (q, k, v) = (wide(&data.q), wide(&data.k), wide(&data.v));
    let expected = common::forward(SHAPE, &q, &k, &v, full, None);
    let Shape { batch, seqlen_q, seqlen_k, heads_q, heads_k, dim, .. } = SHAPE;
    let (first, rows) = (20, batch * seqlen_q);

    // Parts first in memory: [2, rows, heads, dim].
    let mut partial = vec![f32::NAN; 2 * rows * heads_q * dim];
    let mut partial_lse = vec![f32::NAN; 2 * rows * heads_q];
    let context = Context::cpu().unwrap();
    let plan = context.sdpa(&SHAPE.desc(DType::FP32).return_lse().lse_base(LseBase::TWO)).unwrap();
    let mut workspace = plan.workspace().unwrap();
    for (part, (start, length)) in [(0, first), (first, seqlen_k - first)].into_iter().enumerate() {
        let (offset, strides) =
            (start * heads_k * dim, [seqlen_k * heads_k * dim, heads_k * dim, dim, 1]);
        let (shape, strides) = ([batch, length, heads_k, dim], strides.map(|x| x as isize));
        let out = &mut partial[part * rows * heads_q * dim..][..rows * heads_q * dim];
        let lse = &mut partial_lse[part * rows * heads_q..][..rows * heads_q];
        // lse is [batch, heads, seqlen] to the plan, and [batch, seqlen, heads] in memory.
        let lse_strides = [seqlen_q * heads_q, 1, heads_q].map(|x| x as isize);
        let mut args = SdpaArgs::new(
            Tensor::new(&data.q, SHAPE.q()).unwrap(),
            Tensor::strided(&data.k, offset, shape, strides).unwrap(),
            Tensor::strided(&data.v, offset, shape, strides).unwrap(),
            TensorMut::new(out, SHAPE.out()).unwrap(),
        )
        .lse(TensorMut::strided(lse, 0, SHAPE.lse(), lse_strides).unwrap());
        plan.forward(&mut args, &mut workspace).unwrap();
    }

    let expected_lse: Vec<f64> = (0..rows * heads_q)
        .map(|x| {
            let (h, row) = (x % heads_q, x / heads_q);
            let (i, b) = (row % seqlen_q, row / seqlen_q);
            expected.lse[(b * heads_q + h) * seqlen_q + i] / std::f64::consts::LN_2
        })
        .collect();

    let part_strides = [heads_q * dim, rows * heads_q * dim, dim, 1].map(|x| x as isize);
    let lse_strides = [heads_q, rows * heads_q, 1].map(|x| x as isize);
    let desc = MergeDesc::new(DType::FP32, heads_q as i32, dim as i32)
        .limits(rows as i64, 2)
        .lse_base(LseBase::TWO)
        .return_lse();
    context.merge_supported(&desc).unwrap();
    let plan = context.merge(&desc).unwrap();
    let mut out = vec![f32::NAN; rows * heads_q * dim];
    let mut out_lse = vec![f32::NAN; rows * heads_q];
    let mut args = MergeArgs::new(
        Tensor::strided(&partial, 0, [rows, 2, heads_q, dim], part_strides).unwrap(),
        Tensor::strided(&partial_lse, 0, [rows, 2, heads_q], lse_strides).unwrap(),
        TensorMut::new(&mut out, [rows, heads_q, dim]).unwrap(),
    )
    .out_lse(TensorMut::new(&mut out_lse, [rows, heads_q]).unwrap());
    plan.merge(&mut args, &mut plan.workspace().unwrap()).unwrap();
    assert_close(&out, &expected.out);
    assert_close(&out_lse, &expected_lse);

    // In place: the second part is merged into the first.
    let plan = context.merge(&desc.other()).unwrap();
    let (into, from) = partial.split_at_mut(rows * heads_q * dim);
    let (into_lse, from_lse) = partial_lse.split_at_mut(rows * heads_q);
    let mut args = MergeArgs::in_place(
        Tensor::new(from, [rows, 1, heads_q, dim]).unwrap(),
        Tensor::new(from_lse, [rows, 1, heads_q]).unwrap(),
        TensorMut::new(into, [rows, heads_q, dim]).unwrap(),
        TensorMut::new(into_lse, [rows, heads_q]).unwrap(),
    );
    plan.merge(&mut args, &mut plan.workspace().unwrap()).unwrap();
    assert_close(into, &expected.out);
    assert_close(into_lse, &expected_lse);
}
