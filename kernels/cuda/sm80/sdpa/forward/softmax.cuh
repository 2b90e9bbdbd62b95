// From scores to weights, with running maximum and sum; dropout.
#pragma once

#include "kernels/common/philox.hpp"
#include "kernels/cuda/sm80/sdpa/forward/kernel.cuh"

namespace attn::cuda {

// How far the maximum may lag behind, in powers of 2, which saves rescaling (FlashAttention-4 does
// so on Blackwell). The final division uses the same reference; but weights that are to be rounded
// lose precision: a key with nearly all the weight should be the maximum, whose weight is
// exactly 1.
inline constexpr float kMostLag = kPrecise && !kGeneral ? 8 : 0;

// Moves what has been gathered to the maximum that these scores lead to.
__device__ inline void Forward::rescale(Scores &s, Running &r) const {
  const float unit = kBare ? p.scale_log2 : 1;
#pragma unroll
  for (int tile = 0; tile < kTiles; tile++) {
    float high[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float top = s[tile][0][half * 2];
      each(s[tile], half, [&](float &x, int) { top = fmaxf(top, x); });
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      high[half] = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    }
    bool move = false;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float before = r.max[tile][half];
      move = move ||
             (high[half] > before && !(kMostLag > 0 && (high[half] - before) * unit <= kMostLag));
    }
    if (!__any_sync(~0u, move)) continue;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float before = r.max[tile][half], now = fmaxf(before, high[half]);
      const float alpha = before == -infinity() ? 0 : exp2_fast((before - now) * unit);
      r.max[tile][half] = now;
      r.sum[tile][half] *= alpha;
      r.sums[half * 2 + tile] *= alpha;
#pragma unroll
      for (int n = 0; n < kDv / 8; n++) {
        r.out[tile][n][half * 2] *= alpha;
        r.out[tile][n][half * 2 + 1] *= alpha;
      }
    }
  }
}

// Turns scores into weights.
__device__ inline void Forward::weigh(Scores &s, Running &r) const {
  const float unit = kBare ? p.scale_log2 : 1;
  each_row([&](int tile, int half) {
    float offset = r.max[tile][half] == -infinity() ? 0 : r.max[tile][half];
    if (kBare) offset *= unit;
    float total = 0;
    each(s[tile], half, [&](float &x, int) {
      x = exp2_fast(kBare ? fmaf(x, unit, -offset) : x - offset);
      if (!kSumsAreProducts) total += x;
    });
    if (!kSumsAreProducts) r.sum[tile][half] += total;
  });
}

__device__ inline int64_t Forward::dropout_row(Row row) const {
  return block().sequence.index * p.num_q_heads + row.head;
}

__device__ inline void Forward::drop(Scores &s, int j0) const {
  const Dropout dropout = make_dropout(p.rng_state, p.dropout_p);
  const float kept = static_cast<float>(dropout.keep_scale);
  each_row([&](int tile, int half) {
    const Row row = row_of(local_row(tile, half));
    const int64_t bh = dropout_row(row);
    uint32_t bits = 0;
#pragma unroll 1
    for (int key = 0; key < kOwnKeys; key++) {
      const int64_t j = j0 + own_key() + key;
      bits |= static_cast<uint32_t>(dropout.keeps(bh, row.i, j)) << key;
    }
    each(s[tile], half, [&](float &x, int key) { x *= (bits >> key & 1) != 0 ? kept : 0; });
  });
}

}  // namespace attn::cuda
