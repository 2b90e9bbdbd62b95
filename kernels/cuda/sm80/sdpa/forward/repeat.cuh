// A row computed once more, by hand. The tensor cores multiply hidden keys' values by 0, so one NaN
// or infinity among these spoils rows that do not see it. Such rows are computed again, key by key,
// from visible keys only.
#pragma once

#include <type_traits>

#include "kernels/common/philox.hpp"
#include "kernels/cuda/sm80/sdpa/forward/kernel.cuh"

namespace attn::cuda {

__device__ inline float load_element(const TokenView &view, int64_t at) {
  using Bits = std::conditional_t<kBytes == 4, uint32_t, uint16_t>;
  return Element::unpack(static_cast<const Bits *>(view.data)[at]);
}

__device__ inline void Forward::repeat_row(int local) const {
  const Row row = row_of(local);
  const BandOf<int32_t> band = keys_of(block(), row.i);
  const int64_t q_at = p.q.offset(query_place(row.i), row.head);
  constexpr int kOwn = (kDv + 31) / 32;
  float o[kOwn] = {};
  float m = -infinity(), sum = 0;
  const bool silu = has(kForwardSilu);
  for (int pass = 0; pass < 2; pass++) {
    const int2 keys = pass == 0 ? block().sink_keys : block().band_keys;
    for (int base = keys.x; base < keys.y; base += 32) {
      const int j = base + lane();
      const bool visible = j < keys.y && band.contains(j) && sees(row, j);
      float s = silu ? 0 : -infinity();
      if (visible) {
        const TokenPlace key = block().sequence.key(j);
        const int64_t k_at = p.k.offset(key, block().kv_head);
        float qk = 0;
        for (int d = 0; d < p.head_dim_qk; d++) {
          qk = fmaf(load_element(p.q, q_at + d * p.q.dim), load_element(p.k, k_at + d * p.k.dim),
                    qk);
        }
        s = score(row, j, qk);
      }
      float weight;
      if (silu) {
        weight = visible && s != -infinity() ? silu_weight(s) : 0;
      } else {
        s *= kLog2EF;
        float high = s;
        const bool nan = s != s;
        for (int step = 16; step > 0; step /= 2) {
          high = fmaxf(high, __shfl_xor_sync(~0u, high, step));
        }
        const float next = fmaxf(m, high);
        const float alpha = next == -infinity() || m == next ? 1 : exp2f(m - next);
        weight = s == next && visible ? 1 : s == -infinity() ? 0 : exp2f(s - next);
        if (nan) weight = s;
        float total = weight;
        for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(~0u, total, step);
        if (s == -infinity()) weight = 0;
        m = next;
        sum = sum * alpha + (next == -infinity() ? 0 : total);
#pragma unroll
        for (int n = 0; n < kOwn; n++) o[n] *= alpha;
      }
      const bool counts = visible && s != -infinity();
      if (has(kForwardDropout) && counts) {
        const Dropout dropout = make_dropout(p.rng_state, p.dropout_p);
        weight *= dropout.keeps(dropout_row(row), row.i, static_cast<int64_t>(j))
                      ? static_cast<float>(dropout.keep_scale)
                      : 0;
      }
      for (uint32_t rest = __ballot_sync(~0u, counts); rest != 0; rest &= rest - 1) {
        const int n = __ffs(static_cast<int>(rest)) - 1;
        const float w = __shfl_sync(~0u, weight, n);
        const int64_t v_at = p.v.offset(block().sequence.key(base + n), block().kv_head);
#pragma unroll
        for (int c = 0; c < kOwn; c++) {
          const int d = c * 32 + lane();
          // A weight of 0 (underflow, dropout) takes nothing, not even a NaN.
          if (d < block().v_columns && w != 0) {
            o[c] = fmaf(w, load_element(p.v, v_at + (block().v_offset + d) * p.v.dim), o[c]);
          }
        }
      }
    }
  }
  const Finish done = finish(local, m, sum);
  if (lane() == 0) store_statistics(row, done.lse, m * kLn2F);
#pragma unroll
  for (int c = 0; c < kOwn; c++) store_value(row, c * 32 + lane(), o[c] * done.factor);
}

// `odd`: a bit for each row of which this thread has a part; met by any of them.
__device__ __noinline__ void Forward::repeat_rows(uint32_t odd) const {
#pragma unroll 1
  for (int own = 0; own < kTiles * 2; own++) {
    const uint32_t met = __ballot_sync(~0u, (odd >> own & 1) != 0);
#pragma unroll 1
    for (int row = 0; row < 8; row++) {
      if ((met >> (4 * row) & 15) != 0) repeat_row((warp() * kTiles * 2 + own) * 8 + row);
    }
  }
}

}  // namespace attn::cuda
