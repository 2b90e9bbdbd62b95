// A row's end, and a row computed once more, by hand. The tensor cores multiply hidden keys' values
// by 0, so one NaN or infinity among these spoils rows that do not see it. Such rows are computed
// again by their warp, key by key, from visible keys only.
#pragma once

#include "kernels/cuda/sm90a/sdpa/forward/softmax.cuh"

namespace attn::cuda::sm90 {

// What a row's weighted sum is to be multiplied by. `max`, in log 2; `sum`, of 2^(s - max).
__device__ inline float factor_of(const ForwardParams &p, const Work &w, float max, float sum) {
  if (max == -infinity()) return 0;
  if ((p.options & kForwardSink) != 0) {
    sum += exp2f(fmaf(p.sink[w.head * p.sink_head], kLog2EF, -max));
  }
  return reciprocal_fast(sum);
}

// A row's log-sum-exp as it is stored, with the sink if it is to be included.
__device__ inline float lse_of(const ForwardParams &p, const Work &w, float max, float sum) {
  float lse = max == -infinity() ? max : fmaf(max, kLn2F, logf(sum));
  if ((p.options & kForwardLseIncludesSink) != 0 && (p.options & kForwardSink) != 0) {
    const float sink = p.sink[w.head * p.sink_head];
    const float high = fmaxf(lse, sink), low = fminf(lse, sink);
    lse = high == -infinity() || high == infinity() ? high : high + log1pf(expf(low - high));
  }
  return (p.options & kForwardLseBase2) != 0 ? lse * kLog2EF : lse;
}

__device__ inline float load_element(const TokenView &view, int64_t at) {
  return Element::unpack(static_cast<const uint16_t *>(view.data)[at]);
}

__device__ inline void repeat_row(const ForwardParams &p, const Work &w, int i, int lane) {
  const BandOf<int32_t> band = keys_of(p, w.seqlen_k, w.diagonal, i);
  const TokenPlace query = {w.outer_q, w.inner_q + i};
  const int64_t q_at = p.q_view.offset(query, w.head);
  constexpr int kOwn = (kDv + 31) / 32;
  float o[kOwn] = {};
  float m = -infinity(), sum = 0;
  // (Told to be the same in all lanes: else, by one loop here, the compiler holds for possible that
  // threads of a warp go separate ways in all of the kernel, and keeps addresses of operands and
  // counters in registers of threads, which products cannot take them from.)
#pragma unroll 1
  for (int base = uniform(band.begin), end = uniform(band.end); base < end; base += 32) {
    const int j = base + lane;
    const TokenPlace own = j < band.end ? key_place(p, w, j) : TokenPlace{-1, 0};
    const bool visible = !own.skipped();
    float s = -infinity();
    if (visible) {
      const int64_t k_at = p.k_view.offset(own, w.kv_head);
      float qk = 0;
#pragma unroll 1
      for (int d = 0; d < p.head_dim_qk; d++) {
        qk = fmaf(load_element(p.q_view, q_at + d), load_element(p.k_view, k_at + d), qk);
      }
      if (kSoftcap && (p.options & kForwardSoftcap) != 0) {
        const bool small = fabsf(qk * p.softcap_scale) < kSoftcapSmall;
        qk = small ? Softmax::cap_small(qk, p) : Softmax::cap_large(qk, p);
      }
      if (kAlibi && (p.options & kForwardAlibi) != 0) {
        qk -= w.slope * fabsf(static_cast<float>(i + w.diagonal - j));
      }
      s = qk * p.scale_log2;
    }
    float high = s;
#pragma unroll 1
    for (int step = 16; step > 0; step /= 2) {
      high = fmaxf(high, __shfl_xor_sync(~0u, high, step));
    }
    const float next = fmaxf(m, high);
    const float alpha = next == -infinity() || m == next ? 1 : exp2f(m - next);
    float weight = s == next && visible ? 1 : s == -infinity() ? 0 : exp2f(s - next);
    if (s != s) weight = s;
    float total = weight;
#pragma unroll 1
    for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(~0u, total, step);
    const bool counts = s != -infinity();
    m = next;
    sum = sum * alpha + (next == -infinity() ? 0 : total);
#pragma unroll
    for (int n = 0; n < kOwn; n++) o[n] *= alpha;
#pragma unroll 1
    for (uint32_t rest = __ballot_sync(~0u, counts); rest != 0; rest &= rest - 1) {
      const int n = __ffs(static_cast<int>(rest)) - 1;
      const float weight_n = __shfl_sync(~0u, weight, n);
      const int64_t v_at = p.v_view.offset(key_place(p, w, base + n), w.kv_head);
#pragma unroll
      for (int c = 0; c < kOwn; c++) {
        const int d = c * 32 + lane;
        // A weight of 0 (underflow) takes nothing, not even a NaN.
        if (d < p.head_dim_v && weight_n != 0) {
          o[c] = fmaf(weight_n, load_element(p.v_view, v_at + d), o[c]);
        }
      }
    }
  }
  if (lane == 0 && (p.options & kForwardLse) != 0) {
    static_cast<float *>(p.lse.data)[p.lse.offset(query, w.head)] = lse_of(p, w, m, sum);
  }
  const float factor = factor_of(p, w, m, sum);
  uint16_t *out = static_cast<uint16_t *>(p.out.data) + p.out.offset(query, w.head);
#pragma unroll
  for (int c = 0; c < kOwn; c++) {
    const int d = c * 32 + lane;
    if (d < p.head_dim_v) out[d] = static_cast<uint16_t>(Element::pack(o[c] * factor, 0.0f));
  }
}

}  // namespace attn::cuda::sm90
