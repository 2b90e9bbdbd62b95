//! Inputs and an f64 reference for the tests.
#![allow(dead_code)] // each test file uses its part

use attn::half::{bf16, f16};

/// Reproducible values in [-1, 1).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> f64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub fn values<T: Number>(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| T::from(self.next())).collect()
    }
}

/// The float types of tensors.
pub trait Number: attn::Element {
    fn from(x: f64) -> Self;
    fn to(self) -> f64;
}

impl Number for f32 {
    fn from(x: f64) -> f32 {
        x as f32
    }
    fn to(self) -> f64 {
        self as f64
    }
}

impl Number for f16 {
    fn from(x: f64) -> f16 {
        f16::from_f64(x)
    }
    fn to(self) -> f64 {
        self.to_f64()
    }
}

impl Number for bf16 {
    fn from(x: f64) -> bf16 {
        bf16::from_f64(x)
    }
    fn to(self) -> f64 {
        self.to_f64()
    }
}

pub fn wide<T: Number>(values: &[T]) -> Vec<f64> {
    values.iter().map(|x| x.to()).collect()
}

/// A dense problem, layout [batch, seqlen, heads, dim].
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub batch: usize,
    pub seqlen_q: usize,
    pub seqlen_k: usize,
    pub heads_q: usize,
    pub heads_k: usize,
    pub dim: usize,
    pub dim_v: usize,
}

impl Shape {
    pub fn q(&self) -> [usize; 4] {
        [self.batch, self.seqlen_q, self.heads_q, self.dim]
    }
    pub fn k(&self) -> [usize; 4] {
        [self.batch, self.seqlen_k, self.heads_k, self.dim]
    }
    pub fn v(&self) -> [usize; 4] {
        [self.batch, self.seqlen_k, self.heads_k, self.dim_v]
    }
    pub fn out(&self) -> [usize; 4] {
        [self.batch, self.seqlen_q, self.heads_q, self.dim_v]
    }
    pub fn lse(&self) -> [usize; 3] {
        [self.batch, self.heads_q, self.seqlen_q]
    }
    pub fn scale(&self) -> f64 {
        (1.0 / (self.dim as f64).sqrt()) as f32 as f64
    }
    /// The desc for this shape.
    pub fn desc(&self, dtype: attn::DType) -> attn::SdpaDesc {
        attn::SdpaDesc::new(dtype, self.heads_q as i32, self.dim as i32)
            .num_kv_heads(self.heads_k as i32)
            .head_dim_v(self.dim_v as i32)
            .limits(self.batch as i64, self.seqlen_q as i64, self.seqlen_k as i64)
    }
    fn kv_row(&self, b: usize, h: usize, j: usize) -> usize {
        (b * self.seqlen_k + j) * self.heads_k + h / (self.heads_q / self.heads_k)
    }
    fn q_row(&self, b: usize, h: usize, i: usize) -> usize {
        (b * self.seqlen_q + i) * self.heads_q + h
    }
}

pub fn size(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Where a score belongs.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub b: usize,
    pub h: usize,
    pub i: usize,
    pub j: usize,
}

/// Bottom-right causal: query i sees key j.
pub fn causal(shape: Shape) -> impl Fn(Place, f64) -> Option<f64> {
    move |p, s| (p.j + shape.seqlen_q <= p.i + shape.seqlen_k).then_some(s)
}

pub fn full(_: Place, s: f64) -> Option<f64> {
    Some(s)
}

pub struct Forward {
    pub out: Vec<f64>,
    pub lse: Vec<f64>,
    /// [B, Hq, Sq, Sk]
    pub weights: Vec<f64>,
}

/// Attention in f64. `score` changes a score or hides the key; `sink` is one more logit a head.
pub fn forward(
    shape: Shape,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    score: impl Fn(Place, f64) -> Option<f64>,
    sink: Option<&[f64]>,
) -> Forward {
    let Shape { batch, seqlen_q, seqlen_k, heads_q, dim, dim_v, .. } = shape;
    let mut result = Forward {
        out: vec![0.0; size(&shape.out())],
        lse: vec![f64::NEG_INFINITY; size(&shape.lse())],
        weights: vec![0.0; batch * heads_q * seqlen_q * seqlen_k],
    };
    for b in 0..batch {
        for h in 0..heads_q {
            for i in 0..seqlen_q {
                let q_row = &q[shape.q_row(b, h, i) * dim..][..dim];
                let scores: Vec<f64> = (0..seqlen_k)
                    .map(|j| {
                        let k_row = &k[shape.kv_row(b, h, j) * dim..][..dim];
                        let dot: f64 = q_row.iter().zip(k_row).map(|(x, y)| x * y).sum();
                        score(Place { b, h, i, j }, dot * shape.scale())
                            .unwrap_or(f64::NEG_INFINITY)
                    })
                    .collect();
                let logit = sink.map_or(f64::NEG_INFINITY, |sink| sink[h]);
                let max = scores.iter().copied().fold(logit, f64::max);
                if max == f64::NEG_INFINITY {
                    continue;
                }
                let keys: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                let total = keys + (logit - max).exp();
                let row = (b * heads_q + h) * seqlen_q + i;
                result.lse[row] = max + keys.ln();
                for (j, s) in scores.iter().enumerate() {
                    let weight = (s - max).exp() / total;
                    result.weights[row * seqlen_k + j] = weight;
                    let v_row = &v[shape.kv_row(b, h, j) * dim_v..][..dim_v];
                    let out = &mut result.out[shape.q_row(b, h, i) * dim_v..][..dim_v];
                    for (o, x) in out.iter_mut().zip(v_row) {
                        *o += weight * x;
                    }
                }
            }
        }
    }
    result
}

/// dq, dk, dv in f64 for scores that are `scale * q k` where visible.
pub fn backward(
    shape: Shape,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    forward: &Forward,
    dout: &[f64],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let Shape { batch, seqlen_q, seqlen_k, heads_q, dim, dim_v, .. } = shape;
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for b in 0..batch {
        for h in 0..heads_q {
            for i in 0..seqlen_q {
                let row = shape.q_row(b, h, i);
                let weights = &forward.weights[((b * heads_q + h) * seqlen_q + i) * seqlen_k..];
                let d: &[f64] = &dout[row * dim_v..][..dim_v];
                let o = &forward.out[row * dim_v..][..dim_v];
                let delta: f64 = d.iter().zip(o).map(|(x, y)| x * y).sum();
                for (j, weight) in weights[..seqlen_k].iter().enumerate() {
                    let kv = shape.kv_row(b, h, j);
                    let dp: f64 = d.iter().zip(&v[kv * dim_v..][..dim_v]).map(|(x, y)| x * y).sum();
                    let ds = weight * (dp - delta) * shape.scale();
                    for c in 0..dim {
                        dq[row * dim + c] += ds * k[kv * dim + c];
                        dk[kv * dim + c] += ds * q[row * dim + c];
                    }
                    for c in 0..dim_v {
                        dv[kv * dim_v + c] += weight * d[c];
                    }
                }
            }
        }
    }
    (dq, dk, dv)
}

/// Holds the result to twice the error that the exact result has when it is rounded once to the
/// type; for f32, whose sums are themselves in f32, to that of a sum over the keys.
#[track_caller]
pub fn assert_close<T: Number>(actual: &[T], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len());
    let rounding = |x: &f64| (T::from(*x).to() - x).abs();
    let largest = expected.iter().filter(|x| x.is_finite()).fold(0.0f64, |m, x| m.max(x.abs()));
    let once = expected.iter().filter(|x| x.is_finite()).map(rounding).fold(0.0, f64::max);
    // 16 units in the last place of f32: what a sum of some hundred products may lose.
    let bound = (2.0 * once).max(16.0 * f64::from(f32::EPSILON) * largest.max(1.0));
    for (index, (a, e)) in actual.iter().zip(expected).enumerate() {
        let a = a.to();
        if e.is_infinite() {
            assert_eq!(a, *e, "element {index}");
        } else {
            // Written so that NaN fails.
            assert!((a - e).abs() <= bound, "element {index} is {a}, not {e}: bound {bound:e}");
        }
    }
}
