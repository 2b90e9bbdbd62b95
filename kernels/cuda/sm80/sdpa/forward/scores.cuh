// From products <q, k> to scores: scale, softcap, bias, ALiBi, and -inf for hidden keys.
#pragma once

#include "kernels/cuda/sm80/sdpa/forward/kernel.cuh"

namespace attn::cuda {

// tanh(y) for |y| < kTanhSmall, as precise as the element type needs; the terms may hold a factor
// of y (see SoftcapTerms).
inline constexpr float kTanhSmall =
    kBytes == 4 ? SoftcapTerms::kPreciseSmall : SoftcapTerms::kQuickSmall;
__device__ inline float tanh_small(float y, const float (&terms)[SoftcapTerms::kMost]) {
  constexpr int kTerms = kBytes == 4 ? SoftcapTerms::kPrecise : SoftcapTerms::kQuick;
  const float z = y * y;
  float c = terms[kTerms - 1];
#pragma unroll
  for (int n = kTerms - 2; n >= 0; n--) c = fmaf(c, z, terms[n]);
  return y * fmaf(c, z, 1.0f);
}
__device__ inline float tanh_large(float y) {
  const float e = exp2_fast(-2 * kLog2EF * fabsf(y));
  return copysignf(__fdividef(1 - e, 1 + e), y);
}

__device__ inline float Forward::slope(Row row) const {
  return p.alibi_slopes[block().sequence.index * p.alibi_batch + row.head * p.alibi_head];
}

// s_j of a visible key from <q, k_j>, as the formula reads. -inf: the bias hides it.
__device__ inline float Forward::score(Row row, int j, float qk) const {
  float s = qk * p.softmax_scale;
  if (has(kForwardSoftcap)) {
    const bool small = fabsf(qk * p.softcap.scale) < kTanhSmall;
    s = small ? tanh_small(qk, p.softcap.terms) * p.softmax_scale
              : p.softcap.cap * tanh_large(qk * p.softcap.scale);
  }
  if (has(kForwardBias)) {
    const float bias = load_float(p.bias.data, p.bias.dtype, bias_row(row) + j * p.bias.last);
    s = bias == -infinity() ? bias : s + bias;
  }
  if (has(kForwardAlibi)) {
    s -= slope(row) * fabsf(static_cast<float>(row.i + block().diagonal - j));
  }
  return s;
}
__device__ inline float Forward::silu_weight(float s) const {
  return s * (1 / (1 + exp2_fast(-kLog2EF * s))) / p.silu_divisor;
}

// What the products are added to.
__device__ inline void Forward::begin_scores(Scores &s) const {
  each_row([&](int tile, int half) {
    if constexpr (kKind == ForwardKind::bias) {
      begin_with_bias(s[tile], half, local_row(tile, half));
    } else {
      each(s[tile], half, [&](float &x, int) { x = 0; });
    }
  });
}

// Turns a row's <q, k> into scores, -inf where hidden. Row by row, so that few registers are needed
// beside the scores.
__device__ inline void Forward::row_scores(float (&s)[kBlockN / 8][4], int half, int local,
                                           uint32_t visible, int j0, bool interior, bool skips,
                                           int buffer) const {
  constexpr bool kAsIs = kKind == ForwardKind::plain || kKind == ForwardKind::paged ||
                         kKind == ForwardKind::bias || kKind == ForwardKind::segments;
  if (kAsIs && interior && !skips) return;
  const Row row = used_row_of(local);
  const float unit = has(kForwardSilu) ? 1 : kLog2EF;
  if (has(kForwardSoftcap)) {
    float high = 0;
    each(s, half, [&](float &x, int) { high = fmaxf(high, fabsf(x)); });
    // Scores far below the cap, the usual case, need no exponential.
    if (__all_sync(~0u, high * fabsf(p.softcap.scale) < kTanhSmall)) {
      each(s, half, [&](float &x, int) { x = tanh_small(x, p.softcap.terms); });
    } else {
      each(s, half, [&](float &x, int) {
        const float y = x * p.softcap.scale;
        x = fabsf(y) < kTanhSmall ? tanh_small(x, p.softcap.terms)
                                  : p.softcap.bare_cap * tanh_large(y);
      });
    }
  }
  if (kGeneral) {
    const float factor = p.softmax_scale * unit;
    each(s, half, [&](float &x, int) { x *= factor; });
    if (has(kForwardBias)) add_bias(s, half, row, j0, unit);
  }
  if (has(kForwardAlibi)) {
    const float minus = -slope(row) * (kBare ? p.scale_inverse : unit);
    const float from = static_cast<float>(row.i + block().diagonal - j0 - own_key());
    each(s, half,
         [&](float &x, int key) { x = fmaf(minus, fabsf(from - static_cast<float>(key)), x); });
  }
  if (!interior) {
    const BandOf<int32_t> band = keys_of(block(), row.i);
    const int first = j0 + own_key();
    const int from = band.begin - first;
    const uint32_t count = static_cast<uint32_t>(max(band.end - band.begin, 0));
    const int sinks = kGeneral ? band.sink_end - first : 0;
    each(s, half, [&](float &x, int key) {
      bool sees = static_cast<uint32_t>(key - from) < count;
      if (kGeneral) sees = sees || key < sinks;
      x = sees ? x : -infinity();
    });
  }
  if (has(kForwardMask | kForwardTailMask)) {
    if (kGeneral) visible = visible_bits(row, j0);
    const uint32_t hidden = kOwnKeys == 32 ? ~visible : ~visible << (32 - kOwnKeys) % 32;
    if (__any_sync(~0u, hidden != 0)) {
      each(s, half, [&](float &x, int key) { x = (visible >> key & 1) != 0 ? x : -infinity(); });
    }
  }
  if (has(kForwardBlocks)) {
    const uint32_t *blocks = block_bits_of(row);
    uint32_t bits = 0;
#pragma unroll 1
    for (int key = 0; key < kOwnKeys; key++) {
      const int n = min(j0 + own_key() + key, block().key_end - 1) / p.block_size_k;
      bits |= (blocks[n >> 5] >> (n & 31) & 1) << key;
    }
    each(s, half, [&](float &x, int key) { x = (bits >> key & 1) != 0 ? x : -infinity(); });
  }
  if (paged() && skips) {
    const int2 *own = slots() + buffer * kBlockN + own_key();
    each(s, half, [&](float &x, int key) { x = own[key].x >= 0 ? x : -infinity(); });
  }
}

// The same for all rows.
__device__ inline void Forward::finish_scores(Scores &s, const Ahead &ahead, int j0, bool skips,
                                              int buffer) const {
  // All rows see all keys of the tile, as far as positions say.
  const bool interior = j0 >= block().all_begin && j0 + kBlockN <= block().all_end;
  int shift = 0;
  if constexpr (kKind == ForwardKind::mask) shift = max(mask_shift(j0), 0) & 31;
  each_row([&](int tile, int half) {
    const uint32_t visible = kKind == ForwardKind::mask ? ahead.mask[tile][half] >> shift : 0;
    row_scores(s[tile], half, local_row(tile, half), visible, j0, interior, skips, buffer);
    one_by_one();
  });
  if (has(kForwardSegments) && block().one_segment[buffer] == 0) {
    each_row([&](int tile, int half) {
      hide_segments(s[tile], half, local_row(tile, half), buffer);
      one_by_one();
    });
  }
}

}  // namespace attn::cuda
