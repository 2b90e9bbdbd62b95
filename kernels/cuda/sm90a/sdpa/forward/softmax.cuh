// From products to weights, with running maximum and sum. A thread has two rows of its warpgroup's
// 64, `half` 0 and 1: s[4 j + 2 half + e] is the score of key 8 j + 2 (lane % 4) + e of the tile.
#pragma once

#include "kernels/cuda/sm90a/sdpa/forward/kernel.cuh"

namespace attn::cuda::sm90 {

inline constexpr int kScores = kBlockN / 2, kOut = kDv / 2;  // registers of a thread

struct Softmax {
  float max[2];  // in units of scores
  float sum[2];  // over this thread's own keys
  float alpha[2];
  const ForwardParams &p;

  __device__ explicit Softmax(const ForwardParams &params) : p(params) {}
  __device__ float unit() const { return p.scale_log2; }  // from scores to powers of 2

  __device__ void begin() {
    max[0] = max[1] = -infinity();
    sum[0] = sum[1] = 0;
  }

  // Hides keys that a row does not see. `first`: the tile's first key. What is seen of up to 32 of
  // a thread's own keys is a word, whose bits the compiler moves to predicates many at a time.
  __device__ static void mask(float (&s)[kScores], const ForwardParams &p, const Work &w, int row,
                              int first) {
    const int own = first + (tid() & 3) * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const BandOf<int32_t> band = keys_of(p, w.seqlen_k, w.diagonal, row + half * 8);
      // Own keys before a place: two of every eight.
      const auto before = [&](int place) {
        const int n = ::max(place - own, 0);
        return (n >> 3) * 2 + ::min(n & 7, 2);
      };
      const int begin = before(band.begin), end = before(band.end);
#pragma unroll
      for (int word = 0; word * 32 < kScores / 2; word++) {
        const auto below = [&](int n) {
          n -= word * 32;
          return n <= 0 ? 0u : n >= 32 ? ~0u : (1u << n) - 1;
        };
        const uint32_t seen = below(end) & ~below(begin);
#pragma unroll
        for (int i = 0; i < 32 && word * 32 + i < kScores / 2; i++) {
          const int own_key = word * 32 + i;
          float &x = s[4 * (own_key / 2) + 2 * half + own_key % 2];
          x = (seen >> i & 1) != 0 ? x : -infinity();
        }
      }
    }
  }

  // Softcap of a product: tanh(x softcap_scale) / softcap_scale. Small: below kSoftcapSmall.
  __device__ static float cap_small(float x, const ForwardParams &p) {
    const float z = x * x;
    return x * fmaf(fmaf(p.softcap_quintic, z, p.softcap_cubic), z, 1.0f);
  }
  __device__ static float cap_large(float x, const ForwardParams &p) {
    const float e = exp2_fast(-2 * kLog2EF * fabsf(x * p.softcap_scale));
    return copysignf((1 - e) * reciprocal_fast(1 + e) * p.bare_softcap, x);
  }
  __device__ static void cap(float (&s)[kScores], const ForwardParams &p) {
    float high = 0;
#pragma unroll
    for (int i = 0; i < kScores; i++) high = fmaxf(high, fabsf(s[i]));
    // Scores far below the cap, the usual case, need no exponential.
    if (__all_sync(~0u, high * p.softcap_scale < kSoftcapSmall)) {
#pragma unroll
      for (int i = 0; i < kScores; i++) s[i] = cap_small(s[i], p);
    } else {
#pragma unroll
      for (int i = 0; i < kScores; i++) s[i] = cap_large(s[i], p);
    }
  }
  // ALiBi. `row`, `first`: as of mask().
  __device__ static void slope(float (&s)[kScores], const Work &w, int row, int first) {
    const float minus = -w.slope;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float from = static_cast<float>(row + half * 8 + w.diagonal - first - (tid() & 3) * 2);
#pragma unroll
      for (int i = 0; i < kScores / 2; i++) {
        float &x = s[4 * (i / 2) + 2 * half + i % 2];
        x = fmaf(minus, fabsf(from - static_cast<float>(8 * (i / 2) + i % 2)), x);
      }
    }
  }

  // Hides groups of eight keys: a bit each.
  __device__ static void hide(float (&s)[kScores], uint32_t groups) {
#pragma unroll
    for (int i = 0; i < kScores; i++) s[i] = (groups >> (i / 4) & 1) != 0 ? -infinity() : s[i];
  }

  // The largest of a row's scores and of those before. (The maximum does not lag behind, which
  // would save results a multiplication: the largest weight is to be exactly 1, and not rounded.)
  __device__ float highest(const float (&s)[kScores], int half) const {
    float high = max[half];
#pragma unroll
    for (int i = 0; i < kScores / 4; i++) {
      high = fmaxf(high, fmaxf(s[4 * i + 2 * half], s[4 * i + 2 * half + 1]));
    }
    high = fmaxf(high, __shfl_xor_sync(~0u, high, 1));
    return fmaxf(high, __shfl_xor_sync(~0u, high, 2));
  }
  // The same compared as integers, three at a time: right if it is not below 0, else some number
  // below 0.
  __device__ int highest_bits(const float (&s)[kScores], int half) const {
    const auto bits = [&](int i) { return __float_as_int(s[4 * (i / 2) + 2 * half + i % 2]); };
    constexpr int kCount = kScores / 2;
    int top[2] = {__float_as_int(max[half]), bits(0)};
#pragma unroll
    for (int i = 1; i + 1 < kCount; i += 2) {
      top[i / 2 % 2] = __vimax3_s32(top[i / 2 % 2], bits(i), bits(i + 1));
    }
    int high = __vimax3_s32(top[0], top[1], bits(kCount - 1));
    high = ::max(high, __shfl_xor_sync(~0u, high, 1));
    return ::max(high, __shfl_xor_sync(~0u, high, 2));
  }

  // Turns scores into weights. True if the warp's results so far must follow by alpha.
  __device__ bool weigh(float (&s)[kScores]) {
    const int bits[2] = {highest_bits(s, 0), highest_bits(s, 1)};
    float high[2] = {__int_as_float(bits[0]), __int_as_float(bits[1])};
    if (__any_sync(~0u, (bits[0] | bits[1]) < 0)) {
      high[0] = highest(s, 0);
      high[1] = highest(s, 1);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float reference = high[half] == -infinity() ? 0 : high[half];
      alpha[half] = exp2_fast((max[half] - reference) * unit());
      max[half] = high[half];
      const float minus = -reference * unit();
      float total[2] = {sum[half] * alpha[half], 0};
#pragma unroll
      for (int i = 0; i < kScores / 4; i++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float &x = s[4 * i + 2 * half + e];
          x = exp2_fast(fmaf(x, unit(), minus));
          total[e] += x;
        }
      }
      sum[half] = total[0] + total[1];
    }
    return __any_sync(~0u, alpha[0] != 1 || alpha[1] != 1);
  }

  // Weights as the left operand of the next products, rounded to elements.
  __device__ static void pack(uint32_t (&weights)[kScores / 2], const float (&s)[kScores]) {
#pragma unroll
    for (int i = 0; i < kScores / 2; i++) weights[i] = Element::pack(s[2 * i], s[2 * i + 1]);
  }

  __device__ void rescale(float (&out)[kOut]) const {
#pragma unroll
    for (int i = 0; i < kOut; i++) out[i] *= alpha[i / 2 % 2];
  }
};

}  // namespace attn::cuda::sm90
