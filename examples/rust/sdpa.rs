//! Causal attention with libattn: describe, plan, execute; then check the result.
//!
//! Run it in this repository with
//!   ATTN_LIB_DIR=build LD_LIBRARY_PATH=build cargo run --manifest-path examples/rust/Cargo.toml

use attn::{Context, DType, SdpaArgs, SdpaDesc, Tensor, TensorMut};

const BATCH: usize = 2;
const SEQLEN: usize = 48;
const HEADS: usize = 8;
const KV_HEADS: usize = 2; // four query heads share a key head
const DIM: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let context = Context::cpu()?;
    let device = context.device()?;
    println!(
        "libattn {} on {}, {} threads",
        attn::version()?,
        device.name,
        device.num_units
    );

    // The problem by its limits: the plan serves every batch and length up to them.
    let desc = SdpaDesc::new(DType::FP32, HEADS as i32, DIM as i32)
        .num_kv_heads(KV_HEADS as i32)
        .limits(BATCH as i64, SEQLEN as i64, SEQLEN as i64)
        .causal();
    let plan = context.sdpa(&desc)?;
    let info = plan.info()?;
    println!(
        "plan: {}, {} bytes of workspace",
        info.implementation, info.workspace_bytes
    );

    // Tensors are views of slices: [batch, seqlen, heads, head_dim].
    let q = values(BATCH * SEQLEN * HEADS * DIM, 1);
    let k = values(BATCH * SEQLEN * KV_HEADS * DIM, 2);
    let v = values(BATCH * SEQLEN * KV_HEADS * DIM, 3);
    let mut out = vec![0.0f32; q.len()];
    let mut workspace = plan.workspace()?;
    let mut args = SdpaArgs::new(
        Tensor::new(&q, [BATCH, SEQLEN, HEADS, DIM])?,
        Tensor::new(&k, [BATCH, SEQLEN, KV_HEADS, DIM])?,
        Tensor::new(&v, [BATCH, SEQLEN, KV_HEADS, DIM])?,
        TensorMut::new(&mut out, [BATCH, SEQLEN, HEADS, DIM])?,
    );
    plan.forward(&mut args, &mut workspace)?;

    // Errors name the field, the value and the rule.
    match context.sdpa(&desc.num_kv_heads(3)) {
        Err(error) => println!("as it should, 3 kv heads are refused: {}", error.message()),
        Ok(_) => return Err("3 kv heads for 8 query heads were accepted".into()),
    }

    let largest = largest_difference(&q, &k, &v, &out);
    println!("largest difference from plain loops in f64: {largest:.2e}");
    // Written so that NaN fails.
    if largest < 1e-5 {
        println!("ok");
        Ok(())
    } else {
        Err("the result is wrong".into())
    }
}

/// Reproducible values in [-1, 1).
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Compares with the definition of attention.
fn largest_difference(q: &[f32], k: &[f32], v: &[f32], out: &[f32]) -> f64 {
    let mut largest = 0.0f64;
    for b in 0..BATCH {
        for i in 0..SEQLEN {
            for h in 0..HEADS {
                let row = |heads: usize, token: usize, head: usize| {
                    let start = ((b * SEQLEN + token) * heads + head) * DIM;
                    start..start + DIM
                };
                let kv_head = h / (HEADS / KV_HEADS);
                // Causal: query i sees keys 0 to i.
                let weights: Vec<f64> = (0..=i)
                    .map(|j| {
                        let pairs = q[row(HEADS, i, h)]
                            .iter()
                            .zip(&k[row(KV_HEADS, j, kv_head)]);
                        let dot: f64 = pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                        (dot / (DIM as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for (d, x) in out[row(HEADS, i, h)].iter().enumerate() {
                    let sum: f64 = (0..=i)
                        .map(|j| weights[j] * f64::from(v[row(KV_HEADS, j, kv_head)][d]))
                        .sum();
                    let difference = (f64::from(*x) - sum / total).abs();
                    largest = if difference.is_nan() {
                        difference
                    } else {
                        largest.max(difference)
                    };
                    if largest.is_nan() {
                        return largest;
                    }
                }
            }
        }
    }
    largest
}
