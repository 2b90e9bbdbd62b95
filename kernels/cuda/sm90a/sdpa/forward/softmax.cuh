// From products to weights, with running maximum and sum. A thread has two rows of its warpgroup's
// 64, `half` 0 and 1: s[4 j + 2 half + e] is the score of key 8 j + 2 (lane % 4) + e of the tile.
#pragma once

#include "kernels/cuda/sm90a/sdpa/forward/kernel.cuh"

namespace attn::cuda::sm90 {

inline constexpr int kScores = kBlockN / 2, kOut = kDv / 2;  // registers of a thread

struct Softmax {
  float max[2];  // in units that power() takes
  float sum[2];  // over this thread's own keys
  float alpha[2];
  const ForwardParams &p;

  __device__ explicit Softmax(const ForwardParams &params) : p(params) {}
  __device__ float unit() const { return p.scale_log2; }  // from scores to powers of 2
  // Maxima are scores; but where these are computed as powers of 2, such.
  __device__ float power(float x) const { return kKind == ForwardKind::softcap ? x : x * unit(); }

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
  __device__ static void cap_all_large(float (&s)[kScores], const ForwardParams &p) {
#pragma unroll
    for (int i = 0; i < kScores; i++) s[i] = cap_large(s[i], p);
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
      cap_all_large(s, p);
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

  // Whether no row's maximum is below 0: then it will not be, later on.
  __device__ bool positive() const {
    return __all_sync(~0u, (__float_as_int(max[0]) | __float_as_int(max[1])) >= 0);
  }
  // The largest of a thread's scores of a row, and of `start`. (The maximum does not lag behind,
  // which would save results a multiplication: the largest weight is to be exactly 1, and not
  // rounded.) kPositive: positive(). Then numbers compare as integers, three at a time.
  template <bool kPositive>
  __device__ static float highest(const float (&s)[kScores], int half, float start) {
    const auto score = [&](int i) { return s[4 * (i / 2) + 2 * half + i % 2]; };
    constexpr int kCount = kScores / 2;
    if constexpr (kPositive) {
      const auto bits = [&](int i) { return __float_as_int(score(i)); };
      int top[2] = {__float_as_int(start), bits(0)};
#pragma unroll
      for (int i = 1; i + 1 < kCount; i += 2) {
        top[i / 2 % 2] = __vimax3_s32(top[i / 2 % 2], bits(i), bits(i + 1));
      }
      return __int_as_float(__vimax3_s32(top[0], top[1], bits(kCount - 1)));
    } else {
      float top[2] = {start, score(0)};
#pragma unroll
      for (int i = 1; i < kCount; i++) top[i % 2] = fmaxf(top[i % 2], score(i));
      return fmaxf(top[0], top[1]);
    }
  }
  // The largest of a row's four threads.
  template <bool kPositive>
  __device__ static float across(float x) {
#pragma unroll
    for (int lane = 1; lane < 4; lane *= 2) {
      const float other = __shfl_xor_sync(~0u, x, lane);
      x = kPositive ? __int_as_float(::max(__float_as_int(x), __float_as_int(other)))
                    : fmaxf(x, other);
    }
    return x;
  }
  // x, which the compiler cannot compute before y.
  __device__ int after(int x, float y) const {
    return x | (__float_as_int(y) & p.zero);
  }
  __device__ float after(float x, float y) const {
    return __int_as_float(after(__float_as_int(x), y));
  }
  // A row's weights, 2^difference(score, minus), where `high` is the largest score.
  template <bool kPositive, class Difference>
  __device__ void exponentials(float (&s)[kScores], int half, float high,
                               const Difference &difference) {
    const float reference = !kPositive && high == -infinity() ? 0 : high;
    alpha[half] = exp2_fast(power(max[half] - reference));
    max[half] = high;
    const float minus = -power(reference);
    float total = sum[half] * alpha[half];
#pragma unroll
    for (int i = 0; i < kScores / 2; i++) {
      float &x = s[4 * (i / 2) + 2 * half + i % 2];
      x = exp2_fast(difference(x, minus));
      total += x;
    }
    sum[half] = total;
  }

  // Turns scores into weights; results so far must follow by alpha. One row's maximum is found
  // beside the other's exponentials. between(0): what is to be done when about half of these are.
  template <bool kPositive, class Between>
  __device__ void weigh(float (&s)[kScores], const Between &between) {
    const float first = highest<kPositive>(s, 0, max[0]);
    const float second = highest<kPositive>(s, 1, after(max[1], first));
    const auto difference = [&](float x, float minus) { return fmaf(x, unit(), minus); };
    exponentials<kPositive>(s, 0, across<kPositive>(first), difference);
    between(after(after(0, second), s[kScores / 2]));
    exponentials<kPositive>(s, 1, across<kPositive>(second), difference);
  }

  // --- softcap as a part of the powers of 2 ---
  // Two or three instructions that run beside an exponential, where a pass of its own would not.

  // The largest product of each row.
  __device__ static void highest_product(const float (&s)[kScores], float (&high)[2]) {
    // As integers, right if it is not below 0.
    high[0] = across<true>(highest<true>(s, 0, -infinity()));
    high[1] = across<true>(highest<true>(s, 1, -infinity()));
    if (__any_sync(~0u, (__float_as_int(high[0]) | __float_as_int(high[1])) < 0)) {
      high[0] = across<false>(highest<false>(s, 0, -infinity()));
      high[1] = across<false>(highest<false>(s, 1, -infinity()));
    }
  }
  // The largest magnitude of a thread's products, as bits; `high`: the largest of each row, or
  // below 0.
  __device__ static int magnitude(const float (&s)[kScores], const float (&high)[2]) {
    // As unsigned numbers, those below 0 are above all others, the lowest is the largest.
    const auto bits = [&](int i) { return __float_as_uint(s[i]); };
    uint32_t top[2] = {bits(0), bits(1)};
#pragma unroll
    for (int i = 2; i < kScores; i += 2) {
      top[i / 2 % 2] = __vimax3_u32(top[i / 2 % 2], bits(i), bits(i + 1));
    }
    const int low = static_cast<int>(::max(top[0], top[1]) & 0x7fffffff);
    return __vimax3_s32(low, __float_as_int(high[0]), __float_as_int(high[1]));
  }
  // A row's weights from products x whose scores are x factor(x), in powers of 2. `high`: the
  // largest product. (Softcap rises: it has the largest score.)
  template <class Factor>
  __device__ void capped_exponentials(float (&s)[kScores], int half, float high,
                                      const Factor &factor) {
    const float score = fmaxf(max[half], high * factor(high));
    exponentials<false>(s, half, score,
                        [&](float x, float minus) { return fmaf(x, factor(x), minus); });
  }

  // The usual case, in the order of weigh(): all products are tiny, and of each row, each thread
  // has some that is not below 0. (So the vote need not wait for the row's largest.) False: it is
  // not so, and nothing was done.
  template <class Between>
  __device__ bool weigh_tiny_products(float (&s)[kScores], bool masked, const Between &between) {
    const float own[2] = {highest<true>(s, 0, -infinity()), highest<true>(s, 1, -infinity())};
    const bool tiny = magnitude(s, own) < __float_as_int(p.softcap_tiny);
    const bool usual = tiny && (__float_as_int(own[0]) | __float_as_int(own[1])) >= 0;
    if (masked || !__all_sync(~0u, usual)) return false;
    const float cubic = p.softcap_tiny_cubic * unit();
    const auto factor = [&](float x) { return fmaf(cubic, x * x, unit()); };
    const float second = across<true>(own[1]);
    capped_exponentials(s, 0, across<true>(own[0]), factor);
    between(after(after(0, second), s[kScores / 2]));
    capped_exponentials(s, 1, second, factor);
    return true;
  }

  // Whether all of a warp's products are small. Else they are to be capped by cap_all_large.
  __device__ bool small_products(const float (&s)[kScores], const float (&high)[2]) const {
    const int top = magnitude(s, high);  // of NaN, above any number
    return __all_sync(~0u, top < __float_as_int(p.softcap_small));
  }
  // As weigh, of products, or of what is capped, if not `small`. `high`: the largest of each row.
  template <class Between>
  __device__ void weigh_products(float (&s)[kScores], const float (&high)[2], bool small,
                                 const Between &between) {
    // The last term is above 0, so that -inf, of a hidden key, stays -inf.
    const float cubic = small ? p.softcap_cubic * unit() : 0;
    const float quintic = fmaxf(small ? p.softcap_quintic * unit() : 0, 1e-45f);
    const auto factor = [&](float x) {
      const float z = x * x;
      return fmaf(fmaf(quintic, z, cubic), z, unit());
    };
    capped_exponentials(s, 0, high[0], factor);
    between(after(0, s[kScores / 2]));
    capped_exponentials(s, 1, high[1], factor);
  }

  // Weights as the left operand of the next products, rounded to elements.
  __device__ static void pack(uint32_t (&weights)[kScores / 2], const float (&s)[kScores]) {
#pragma unroll
    for (int i = 0; i < kScores / 2; i++) weights[i] = Element::pack(s[2 * i], s[2 * i + 1]);
  }

  __device__ void rescale(float (&out)[kOut]) const {
    if (!__any_sync(~0u, alpha[0] != 1 || alpha[1] != 1)) return;
#pragma unroll
    for (int i = 0; i < kOut; i++) out[i] *= alpha[i / 2 % 2];
  }
};

}  // namespace attn::cuda::sm90
