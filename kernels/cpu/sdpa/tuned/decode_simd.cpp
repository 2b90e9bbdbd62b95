// The SIMD part of decode, compiled once for each instruction set.
//
// A block is 32 keys of some key heads. A head's scores are dot products with lanes along the head
// dim (K is read once, in the order in which it lies, for up to four rows at a time); its output is
// an outer product with lanes along head_dim_v. While a block is computed, the next one is
// prefetched: the pointers of its tokens have been resolved already, so a page's place in memory
// costs nothing. decode_pairs-inl.hpp has another order for heads that lie side by side.
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/cpu/sdpa/tuned/decode_call.hpp"
#include "kernels/cpu/sdpa/tuned/simd_target.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sdpa/tuned/decode_simd.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h.
#include "kernels/cpu/sdpa/tuned/exp-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::cpu::decode::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(DF()));
inline constexpr int kPair = 2 * kLanes;  // elements that load_pair reads
inline constexpr float kInf = std::numeric_limits<float>::infinity();

// Rows that share one load of K or V: four need 16 accumulators and so 32 registers.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
inline constexpr int kTileRows = 4;
#else
inline constexpr int kTileRows = 2;
#endif
inline constexpr int kTileKeys = 4;
inline constexpr int kScoreKeys = HWY_TARGET == HWY_AVX3 ? 16 : 4;  // stored together

// kBf16Dot: K of bf16 against queries of bf16, with the dot-product instruction of the CPU.
enum class Format { kFp32, kFp16, kBf16, kBf16Dot };

#if HWY_TARGET == HWY_AVX3
#undef ATTN_DECODE_BF16_DOT
#define ATTN_DECODE_BF16_DOT 1
// Highway 1.0 has no name for vdpbf16ps.
inline bool has_bf16_dot() {
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
}
HWY_INLINE void add_bf16_dot(VF &acc, VF a, VF b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(acc.raw) : "v"(a.raw), "v"(b.raw));
}
#else
#undef ATTN_DECODE_BF16_DOT
#define ATTN_DECODE_BF16_DOT 0
inline bool has_bf16_dot() {
  return false;
}
#endif

inline Format format_of(int32_t dtype) {
  return dtype == ATTN_DTYPE_FP32   ? Format::kFp32
         : dtype == ATTN_DTYPE_FP16 ? Format::kFp16
                                    : Format::kBf16;
}
inline int64_t element_bytes(int32_t dtype) {
  return dtype == ATTN_DTYPE_FP32 ? 4 : 2;
}

// --- Elements ---------------------------------------------------------------------------------

template <size_t N, class F>
HWY_INLINE void unroll(F &&f) {
  [&]<size_t... I>(std::index_sequence<I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<size_t, I>{}), ...);
  }
  (std::make_index_sequence<N>{});
}
#define ATTN_INLINE_LAMBDA __attribute__((always_inline))

HWY_INLINE float bits_to_float(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}
HWY_INLINE uint32_t float_to_bits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, sizeof f);
  return bits;
}

HWY_INLINE float fp16_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, rest = h & 0x7fffu;
  // Shifted into place, the exponent is 112 too small; a multiplication also mends subnormals.
  const float magnitude = rest >= 0x7c00u ? bits_to_float(0x7f800000u | (rest & 0x3ffu) << 13)
                                          : bits_to_float(rest << 13) * 0x1p112f;
  return bits_to_float(float_to_bits(magnitude) | sign);
}

// Round to nearest, ties to even.
HWY_INLINE uint16_t float_to_bf16(float f) {
  const uint32_t bits = float_to_bits(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t(bits >> 16 | 0x40u);
  return uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
HWY_INLINE uint16_t float_to_fp16(float f) {
  const uint32_t bits = float_to_bits(f), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return uint16_t(sign | 0x7e00u);
  if (rest >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // 65520 and more round to infinity
  if (rest < 0x38800000u) {
    // Subnormal: the unit in the last place of 0.5 is that of the smallest half, so the addition
    // rounds.
    return uint16_t(sign | (float_to_bits(bits_to_float(rest) + 0.5f) - 0x3f000000u));
  }
  return uint16_t(sign | ((rest - 0x38000000u + 0xfffu + (rest >> 13 & 1u)) >> 13));
}

HWY_INLINE float load_element(const void *data, int64_t index, int32_t dtype) {
  if (dtype == ATTN_DTYPE_FP32) return static_cast<const float *>(data)[index];
  const uint16_t bits = static_cast<const uint16_t *>(data)[index];
  return dtype == ATTN_DTYPE_BF16 ? bits_to_float(uint32_t(bits) << 16) : fp16_to_float(bits);
}
HWY_INLINE void store_element(void *data, int64_t index, int32_t dtype, float value) {
  if (dtype == ATTN_DTYPE_FP32) {
    static_cast<float *>(data)[index] = value;
  } else {
    static_cast<uint16_t *>(data)[index] =
        dtype == ATTN_DTYPE_BF16 ? float_to_bf16(value) : float_to_fp16(value);
  }
}

// Reads kPair elements from element `at` on as two vectors: in memory order, but bf16 as its even
// and its odd elements, which takes no shuffle. Queries are packed, outputs unpacked to match.
template <Format F>
HWY_INLINE void load_pair(const char *HWY_RESTRICT row, int64_t at, VF &a, VF &b) {
  const DF d;
  if constexpr (F == Format::kFp32) {
    const float *p = reinterpret_cast<const float *>(row) + at;
    a = hn::LoadU(d, p);
    b = hn::LoadU(d, p + kLanes);
  } else if constexpr (F == Format::kFp16) {
#if HWY_TARGET == HWY_SCALAR
    a = hn::Set(d, load_element(row, at, ATTN_DTYPE_FP16));
    b = hn::Set(d, load_element(row, at + 1, ATTN_DTYPE_FP16));
#else
    const hn::Rebind<hwy::float16_t, DF> dh;
    const hwy::float16_t *p = reinterpret_cast<const hwy::float16_t *>(row) + at;
    a = hn::PromoteTo(d, hn::LoadU(dh, p));
    b = hn::PromoteTo(d, hn::LoadU(dh, p + kLanes));
#endif
  } else {
#if HWY_TARGET == HWY_SCALAR
    a = hn::Set(d, load_element(row, at, ATTN_DTYPE_BF16));
    b = hn::Set(d, load_element(row, at + 1, ATTN_DTYPE_BF16));
#else
    const hn::RebindToUnsigned<DF> d32;
    auto both = hn::LoadU(d32, reinterpret_cast<const uint32_t *>(row + 2 * at));
#if HWY_TARGET == HWY_AVX3
    // Compilers would read it once for each use, or by way of the stack.
    asm("" : "+v"(both.raw));
#endif
    a = hn::BitCast(d, hn::ShiftLeft<16>(both));
    b = hn::BitCast(d, hn::And(both, hn::Set(d32, 0xffff0000u)));
#endif
  }
}

// Whether the pair (a, b) holds even and odd elements rather than two halves.
constexpr bool interleaved(Format f) {
  return f == Format::kBf16;
}

// n elements to fp32 in memory order, zeros up to `padded_n`.
inline void widen(const void *source, int64_t stride, int32_t dtype, int64_t n, int64_t padded_n,
                  float *HWY_RESTRICT to) {
  int64_t i = 0;
  if (stride == 1) {
    const DF d;
    const char *row = static_cast<const char *>(source);
    for (; i + kPair <= n; i += kPair) {
      VF a, b;
      if (dtype == ATTN_DTYPE_FP32) {
        load_pair<Format::kFp32>(row, i, a, b);
      } else if (dtype == ATTN_DTYPE_FP16) {
        load_pair<Format::kFp16>(row, i, a, b);
      } else {
#if HWY_TARGET == HWY_SCALAR
        load_pair<Format::kBf16>(row, i, a, b);
#else
        const hn::Rebind<uint16_t, DF> dh;
        const hn::RebindToUnsigned<DF> du;
        const uint16_t *p = reinterpret_cast<const uint16_t *>(row) + i;
        a = hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, p))));
        b = hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, p + kLanes))));
#endif
      }
      hn::StoreU(a, d, to + i);
      hn::StoreU(b, d, to + i + kLanes);
    }
  }
  for (; i < n; i++) to[i] = load_element(source, i * stride, dtype);
  for (; i < padded_n; i++) to[i] = 0;
}

// e^x for x <= 0; 0 where the result would be subnormal.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_negative(D d, V x) {
  return tuned::HWY_NAMESPACE::exp2(d, hn::Mul(x, hn::Set(d, 1.44269504f)));
}

// --- Scores: s[row][key] = <q_row, k_key> ------------------------------------------------------

struct Sum {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    return hn::Add(a, b);
  }
};
struct Max {
  template <class V>
  HWY_INLINE V operator()(V a, V b) const {
    return hn::Max(a, b);
  }
};

#if HWY_TARGET != HWY_SCALAR
template <class Op, class V>
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> fold_blocks(Op op, V v) {
  const hn::DFromV<V> d;
  if constexpr (hn::MaxLanes(d) == 4) {
    return v;
  } else {
    const hn::Half<decltype(d)> dh;
    return fold_blocks(op, op(hn::LowerHalf(dh, v), hn::UpperHalf(dh, v)));
  }
}
#endif

#if HWY_TARGET != HWY_SCALAR
// In each block of four lanes: the sums or maxima over that block of a, b, c and e.
template <class Op>
HWY_INLINE VF fold_four(Op op, VF a, VF b, VF c, VF e) {
  const DF d;
  const hn::Repartition<uint64_t, DF> d64;
  const auto ab = hn::BitCast(d64, op(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce = hn::BitCast(d64, op(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  return op(hn::BitCast(d, hn::InterleaveLower(d64, ab, ce)),
            hn::BitCast(d, hn::InterleaveUpper(d64, ab, ce)));
}
#endif

// Writes the sums or maxima over the lanes of four vectors.
template <class Op>
HWY_INLINE void store_folded(Op op, VF a, VF b, VF c, VF e, float *HWY_RESTRICT to) {
#if HWY_TARGET == HWY_SCALAR
  (void)op;
  to[0] = hn::GetLane(a);
  to[1] = hn::GetLane(b);
  to[2] = hn::GetLane(c);
  to[3] = hn::GetLane(e);
#else
  hn::StoreU(fold_blocks(op, fold_four(op, a, b, c, e)), hn::FixedTag<float, 4>(), to);
#endif
}

#if HWY_TARGET == HWY_AVX3
// Block r of the result: the sum over the blocks of v[r].
HWY_INLINE VF sum_blocks(const VF *v) {
  const auto pair = [](VF a, VF b) ATTN_INLINE_LAMBDA {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a.raw, b.raw, 0x44),
                         _mm512_shuffle_f32x4(a.raw, b.raw, 0xee));
  };
  const __m512 ab = pair(v[0], v[1]), cd = pair(v[2], v[3]);
  return VF{_mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd))};
}

// Writes block r of each of four vectors, side by side, to to + r * stride.
HWY_INLINE void store_blocks(const float *HWY_RESTRICT from, float *HWY_RESTRICT to,
                             int64_t stride) {
  const __m512 a = _mm512_load_ps(from), b = _mm512_load_ps(from + 16),
               c = _mm512_load_ps(from + 32), e = _mm512_load_ps(from + 48);
  const __m512 ab01 = _mm512_shuffle_f32x4(a, b, 0x44), ab23 = _mm512_shuffle_f32x4(a, b, 0xee);
  const __m512 ce01 = _mm512_shuffle_f32x4(c, e, 0x44), ce23 = _mm512_shuffle_f32x4(c, e, 0xee);
  _mm512_storeu_ps(to, _mm512_shuffle_f32x4(ab01, ce01, 0x88));
  _mm512_storeu_ps(to + stride, _mm512_shuffle_f32x4(ab01, ce01, 0xdd));
  _mm512_storeu_ps(to + 2 * stride, _mm512_shuffle_f32x4(ab23, ce23, 0x88));
  _mm512_storeu_ps(to + 3 * stride, _mm512_shuffle_f32x4(ab23, ce23, 0xdd));
}
#endif

// Memory to fetch while a block is computed, in ascending order of addresses and a little at a
// time: bursts fill the line buffers and stall the loads behind them, and rows in another order
// cost a third of the bandwidth. The addresses are listed beforehand, so that a step is short.
class Stream {
 public:
  Stream() = default;
  Stream(const Stream &) = delete;

  void clear() { next_ = end_ = unit_; }
  // `bytes` from each of rows[0 .. n) + offset, in `steps` calls of step().
  void list(const char *const *rows, int n, int64_t offset, int64_t bytes, int64_t steps) {
    clear();
    const int64_t row_lines = ceil_div(bytes, 64);
    const int64_t step_lines =
        ceil_div(n * row_lines, std::clamp<int64_t>(steps, 1, kMaxUnits / 2));
    const int64_t lines = std::min(row_lines, step_lines);
    if (lines <= 0) return;
    unit_bytes_ = ceil_div(lines, 2) * 2 * 64;
    units_a_step_ = step_lines / lines;
    for (int row = 0; row < n; row++) {
      const char *at = rows[row] + offset;
      for (int64_t i = 0; i < bytes && end_ < unit_ + kMaxUnits; i += unit_bytes_) {
        *end_++ = at + i;
      }
    }
  }

  void rest() {
    while (next_ != end_) step();
  }
  HWY_INLINE void step() {
    const char *const *const stop = std::min<const char *const *>(next_ + units_a_step_, end_);
    for (; next_ != stop; next_++) {
      const char *at = *next_, *const unit_end = at + unit_bytes_;
      for (; at != unit_end; at += 128) {
        __builtin_prefetch(at);
        __builtin_prefetch(at + 64);
      }
    }
  }

 private:
  static constexpr int64_t kMaxUnits = 1024;

  int64_t unit_bytes_ = 0, units_a_step_ = 0;
  const char *const *next_ = unit_;
  const char **end_ = unit_;
  const char *unit_[kMaxUnits];
};

// Rows of K or V of one head.
struct Rows {
  const char *const *token;
  int64_t offset;  // of the head
  HWY_INLINE const char *at(int key) const { return token[key] + offset; }
};

template <int M, Format F, bool kPrefetch>
HWY_NOINLINE void score_tile(const float *HWY_RESTRICT q, int64_t q_stride, int64_t depth, Rows k,
                             int n, Stream &next, float *HWY_RESTRICT s) {
  const DF d;
#if HWY_TARGET == HWY_AVX3
  // Four rows times four keys are folded into one vector: a third of the shuffles.
  alignas(64) float quads[kScoreKeys / kTileKeys * kLanes];
#endif
  for (int key = 0; key < n; key += kTileKeys) {
    const char *HWY_RESTRICT rows[kTileKeys] = {k.at(key), k.at(key + 1), k.at(key + 2),
                                                k.at(key + 3)};
    VF acc[M][kTileKeys];
    unroll<M>([&](auto r) ATTN_INLINE_LAMBDA {
      unroll<kTileKeys>([&](auto t) ATTN_INLINE_LAMBDA { acc[r][t] = hn::Zero(d); });
    });
    if (kPrefetch) next.step();
    for (int64_t at = 0; at < depth; at += kPair) {
#if ATTN_DECODE_BF16_DOT
      if constexpr (F == Format::kBf16Dot) {
        // 32 elements of 16 bits are as long as 16 floats.
        VF qs[M];
        unroll<M>([&](auto r)
                      ATTN_INLINE_LAMBDA { qs[r] = hn::LoadU(d, q + r * q_stride + at / 2); });
        unroll<kTileKeys>([&](auto t) ATTN_INLINE_LAMBDA {
          const VF ks = hn::LoadU(d, reinterpret_cast<const float *>(rows[t]) + at / 2);
          unroll<M>([&](auto r) ATTN_INLINE_LAMBDA { add_bf16_dot(acc[r][t], qs[r], ks); });
        });
        continue;
      }
#endif
      VF qa[M], qb[M];
      unroll<M>([&](auto r) ATTN_INLINE_LAMBDA {
        qa[r] = hn::LoadU(d, q + r * q_stride + at);
        qb[r] = hn::LoadU(d, q + r * q_stride + at + kLanes);
      });
      unroll<kTileKeys>([&](auto t) ATTN_INLINE_LAMBDA {
        VF ka, kb;
        load_pair<F>(rows[t], at, ka, kb);
        unroll<M>([&](auto r) ATTN_INLINE_LAMBDA {
          acc[r][t] = hn::MulAdd(qa[r], ka, acc[r][t]);
          acc[r][t] = hn::MulAdd(qb[r], kb, acc[r][t]);
        });
      });
    }
#if HWY_TARGET == HWY_AVX3
    if constexpr (M == 4) {
      VF rows_folded[4];
      unroll<4>([&](auto r) ATTN_INLINE_LAMBDA {
        rows_folded[r] = fold_four(Sum(), acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
      });
      hn::Store(sum_blocks(rows_folded), d, quads + key % kScoreKeys / kTileKeys * kLanes);
      if ((key + kTileKeys) % kScoreKeys == 0) {
        store_blocks(quads, s + key + kTileKeys - kScoreKeys, kBlock);
      }
      continue;
    }
#endif
    unroll<M>([&](auto r) ATTN_INLINE_LAMBDA {
      store_folded(Sum(), acc[r][0], acc[r][1], acc[r][2], acc[r][3], s + r * kBlock + key);
    });
  }
}

template <Format F, bool kPrefetch>
void score_rows(int rows, const float *q, int64_t q_stride, int64_t depth, Rows k, int n,
                Stream &next, float *s) {
  switch (rows) {
    case 1:
      return score_tile<1, F, kPrefetch>(q, q_stride, depth, k, n, next, s);
    case 2:
      return score_tile<2, F, kPrefetch>(q, q_stride, depth, k, n, next, s);
    case 3:
      if constexpr (kTileRows > 2) {
        return score_tile<3, F, kPrefetch>(q, q_stride, depth, k, n, next, s);
      }
      break;
    default:
      if constexpr (kTileRows > 2) {
        return score_tile<4, F, kPrefetch>(q, q_stride, depth, k, n, next, s);
      }
  }
}

// n must be a multiple of kScoreKeys.
template <Format F>
void scores(int rows, const float *q, int64_t q_stride, int64_t depth, Rows k, int n, Stream &next,
            float *s) {
  for (int r = 0; r < rows; r += kTileRows) {
    const int tile = std::min(kTileRows, rows - r);
    if (r == 0) {
      score_rows<F, true>(tile, q, q_stride, depth, k, n, next, s);
    } else {
      score_rows<F, false>(tile, q + r * q_stride, q_stride, depth, k, n, next, s + r * kBlock);
    }
  }
}

// --- Output: o[row][:] = alpha_row * o[row][:] + sum over keys of p[row][key] * v_key ----------

template <int M, int P, Format F, bool kPrefetch>
HWY_NOINLINE void output_tile(float *HWY_RESTRICT o, int64_t o_stride,
                              const float *HWY_RESTRICT alpha, const float *HWY_RESTRICT p, Rows v,
                              int n, int64_t at, Stream &next) {
  const DF d;
  VF acc[M][2 * P];
  unroll<M>([&](auto r) ATTN_INLINE_LAMBDA {
    const VF scale = hn::Set(d, alpha[r]);
    unroll<2 * P>([&](auto c) ATTN_INLINE_LAMBDA {
      acc[r][c] = hn::Mul(scale, hn::LoadU(d, o + r * o_stride + at + c * kLanes));
    });
  });
  for (int key = 0; key < n; key++) {
    if (kPrefetch && key % kTileKeys == 0) next.step();
    const char *HWY_RESTRICT row = v.at(key);
    VF w[M];
    unroll<M>([&](auto r) ATTN_INLINE_LAMBDA { w[r] = hn::Set(d, p[r * kBlock + key]); });
    unroll<P>([&](auto c) ATTN_INLINE_LAMBDA {
      VF va, vb;
      load_pair<F>(row, at + c * kPair, va, vb);
      unroll<M>([&](auto r) ATTN_INLINE_LAMBDA {
        acc[r][2 * c] = hn::MulAdd(w[r], va, acc[r][2 * c]);
        acc[r][2 * c + 1] = hn::MulAdd(w[r], vb, acc[r][2 * c + 1]);
      });
    });
  }
  unroll<M>([&](auto r) ATTN_INLINE_LAMBDA {
    unroll<2 * P>([&](auto c) ATTN_INLINE_LAMBDA {
      hn::StoreU(acc[r][c], d, o + r * o_stride + at + c * kLanes);
    });
  });
}

template <int M, Format F, bool kPrefetch>
void output_columns(float *o, int64_t o_stride, const float *alpha, const float *p, Rows v, int n,
                    int64_t columns, Stream &next) {
  int64_t at = 0;
  for (; at + 2 * kPair <= columns; at += 2 * kPair) {
    output_tile<M, 2, F, kPrefetch>(o, o_stride, alpha, p, v, n, at, next);
  }
  if (at < columns) output_tile<M, 1, F, kPrefetch>(o, o_stride, alpha, p, v, n, at, next);
}

template <Format F, bool kPrefetch>
void output_rows(int rows, float *o, int64_t o_stride, const float *alpha, const float *p, Rows v,
                 int n, int64_t columns, Stream &next) {
  switch (rows) {
    case 1:
      return output_columns<1, F, kPrefetch>(o, o_stride, alpha, p, v, n, columns, next);
    case 2:
      return output_columns<2, F, kPrefetch>(o, o_stride, alpha, p, v, n, columns, next);
    case 3:
      if constexpr (kTileRows > 2) {
        return output_columns<3, F, kPrefetch>(o, o_stride, alpha, p, v, n, columns, next);
      }
      break;
    default:
      if constexpr (kTileRows > 2) {
        return output_columns<4, F, kPrefetch>(o, o_stride, alpha, p, v, n, columns, next);
      }
  }
}

template <Format F>
void outputs(int rows, float *o, int64_t o_stride, const float *alpha, const float *p, Rows v,
             int n, int64_t columns, Stream &next) {
  for (int r = 0; r < rows; r += kTileRows) {
    const int tile = std::min(kTileRows, rows - r);
    float *to = o + r * o_stride;
    const float *weights = p + r * kBlock;
    if (r == 0) {
      output_rows<F, true>(tile, to, o_stride, alpha, weights, v, n, columns, next);
    } else {
      output_rows<F, false>(tile, to, o_stride, alpha + r, weights, v, n, columns, next);
    }
  }
}

// --- Where the tokens lie ----------------------------------------------------------------------

// A K or V tensor with strides in bytes.
struct View {
  const char *base;  // of the sequence; paged: of the pool
  int64_t page, token, head;
  int64_t element;  // elements
  int32_t dtype;
  int32_t width;    // head dim
  bool direct;      // read in place
  Format format;    // as it is read
  int64_t columns;  // as they are read: a multiple of kPair
  int64_t bytes;    // of a row in memory, for prefetching; 0 if rows are not contiguous
};

inline View make_view(const Exec &e, const Sequence &seq, const attn_tensor &t, int32_t width) {
  const sdpa::Problem &p = *e.problem;
  const int64_t size = element_bytes(t.dtype);
  const int last = t.rank - 1;
  View v{};
  v.base = static_cast<const char *>(t.data);
  v.token = t.stride[last - 2] * size;
  v.head = t.stride[last - 1] * size;
  v.element = t.stride[last];
  v.dtype = t.dtype;
  v.width = width;
  if (p.paged()) {
    v.page = t.stride[0] * size;
  } else if (p.ragged_k()) {
    v.base += e.call->args.cu_seqlens_k[seq.batch] * v.token;
  } else {
    v.base += seq.batch * t.stride[0] * size;
  }
  v.direct = v.element == 1 && width % kPair == 0;
  v.format = v.direct ? format_of(t.dtype) : Format::kFp32;
  v.columns = ceil_div(width, kPair) * kPair;
  v.bytes = v.element == 1 ? width * size : 0;
  return v;
}

struct Views {
  View k, v;
};

inline Views views_of(const Exec &e, const Sequence &seq) {
  const attn_sdpa_desc &d = e.problem->d;
  Views views = {make_view(e, seq, e.call->args.k, d.head_dim_qk),
                 make_view(e, seq, e.call->args.v, d.head_dim_v)};
  View &k = views.k, &v = views.v;
  if (e.problem->latent()) {
    // V is read where K is: columns past head_dim_v may hold the rest of K and are not written out.
    k.direct = k.direct && v.direct;
    k.format = k.direct ? v.format : Format::kFp32;
    v.direct = k.direct;
    v.format = k.format;
  }
  return views;
}

// The tokens of one block, for all heads; two alternate, so that the next can be prefetched.
struct Tokens {
  int64_t first = 0;
  int n = 0;
  uint32_t present = 0;  // bit t: token t has a page
  const char *k[kBlock];
  const char *v[kBlock];
};

inline uint32_t low_bits(int64_t n) {
  return n <= 0 ? 0u : n >= 32 ? ~0u : (1u << n) - 1u;
}
// Bits of the positions in [lo, hi), relative to `first`.
inline uint32_t range_bits(int64_t lo, int64_t hi, int64_t first) {
  return low_bits(hi - first) & ~low_bits(lo - first);
}

inline void resolve(const Exec &e, const Sequence &seq, const View &k, const View &v, int64_t first,
                    int n, Tokens &to) {
  to.first = first;
  to.n = n;
  to.present = low_bits(n);
  if (!e.problem->paged()) {
    for (int t = 0; t < kBlock; t++) {
      const int64_t j = first + std::min(t, n - 1);
      to.k[t] = k.base + j * k.token;
      to.v[t] = v.base + j * v.token;
    }
    return;
  }
  const attn_sdpa_args &a = e.call->args;
  const bool csr = e.problem->d.kv_layout == ATTN_LAYOUT_PAGED_CSR;
  const int64_t page_size = e.problem->d.page_size;
  const int32_t *pages =
      csr ? a.kv_page_indices + a.kv_page_indptr[seq.batch]
          : static_cast<const int32_t *>(a.block_table.data) + seq.batch * a.block_table.stride[0];
  const int64_t page_stride = csr ? 1 : a.block_table.stride[1];
  int64_t index = first / page_size, slot = first % page_size;
  int t = 0;
  while (t < n) {
    const int64_t page = pages[index * page_stride];
    // A hole is read nowhere: its pointers are mended below.
    const char *k_page = k.base + page * k.page, *v_page = v.base + page * v.page;
    for (; t < n && slot < page_size; t++, slot++) {
      to.k[t] = page < 0 ? nullptr : k_page + slot * k.token;
      to.v[t] = page < 0 ? nullptr : v_page + slot * v.token;
      if (page < 0) to.present &= ~(1u << t);
    }
    index++;
    slot = 0;
  }
  if (to.present == low_bits(n)) {
    for (; t < kBlock; t++) {
      to.k[t] = to.k[n - 1];
      to.v[t] = to.v[n - 1];
    }
  } else if (to.present != 0) {
    const int some = __builtin_ctz(to.present);
    for (t = 0; t < kBlock; t++) {
      if (t < n && (to.present >> t & 1u) != 0) continue;
      to.k[t] = to.k[some];
      to.v[t] = to.v[some];
    }
  }
}

// --- Masks -------------------------------------------------------------------------------------

// Keys that causal, window, chunk and sink tokens let a query see: [lo, hi) and [0, sink).
struct Span {
  int64_t lo, hi, sink;
};

inline Span span_of(const attn_sdpa_desc &d, const Sequence &seq, int64_t query) {
  const int64_t p = query + seq.offset;
  int64_t causal = seq.keys, lo = 0, hi = seq.keys;
  if ((d.flags & ATTN_SDPA_CAUSAL) != 0) causal = std::clamp<int64_t>(p + 1, 0, seq.keys);
  if ((d.flags & ATTN_SDPA_WINDOW) != 0) {
    if (d.window_left >= 0) lo = std::max(lo, p - d.window_left);
    if (d.window_right >= 0) hi = std::min(hi, p + d.window_right + 1);
  }
  if (d.chunk_size > 0) {
    const int64_t c = d.chunk_size;
    const int64_t begin = (p >= 0 ? p / c : -((-p + c - 1) / c)) * c;
    lo = std::max(lo, begin);
    hi = std::min(hi, begin + c);
  }
  hi = std::min(hi, causal);
  return {lo, std::max(lo, hi), std::min<int64_t>(d.sink_tokens, causal)};
}

// Bit t of the result: bit (first + t) of packed bits of which `bytes` exist, each `stride` apart.
inline uint32_t packed_bits(const uint8_t *data, int64_t stride, int64_t bytes, int64_t first) {
  uint64_t window = 0;
  const int64_t byte = first >> 3;  // rounds down, for negative positions too
  for (int64_t i = 0; i < 5; i++) {
    if (byte + i >= 0 && byte + i < bytes) {
      window |= uint64_t(data[(byte + i) * stride]) << (8 * i);
    }
  }
  return uint32_t(window >> (first - byte * 8));
}

// Offset of [1|B, 1|Hq, 1|Sq, ...], or [1|Hq, 1|total_q, ...] with ragged q, in elements.
inline int64_t place(const Exec &e, const attn_tensor &t, const Sequence &seq, int64_t head,
                     int64_t query) {
  const auto step = [&t](int dim, int64_t index) {
    return t.shape[dim] == 1 ? 0 : index * t.stride[dim];
  };
  if (e.problem->ragged_q()) return step(0, head) + step(1, seq.q_row + query);
  return step(0, seq.batch) + step(1, head) + step(2, query);
}

// Offset of [B, Sq, ...] or [total_q, ...]; `rest` is the first dimension after it.
inline int64_t query_place(const Exec &e, const attn_tensor &t, const Sequence &seq, int64_t query,
                           int &rest) {
  if (e.problem->ragged_q()) {
    rest = 1;
    return (seq.q_row + query) * t.stride[0];
  }
  rest = 2;
  return seq.batch * t.stride[0] + query * t.stride[1];
}

// Offset in lse or row_max.
inline int64_t lse_place(const Exec &e, const attn_tensor &t, const Sequence &seq, int64_t head,
                         int64_t query) {
  if (e.problem->ragged_q()) return head * t.stride[0] + (seq.q_row + query) * t.stride[1];
  return seq.batch * t.stride[0] + head * t.stride[1] + query * t.stride[2];
}

// --- A task ------------------------------------------------------------------------------------

struct Task {
  Task(const Exec &exec, const Sequence &sequence)
      : e(exec), p(*exec.problem), d(exec.problem->d), a(exec.call->args), seq(sequence) {}

  const Exec &e;
  const sdpa::Problem &p;
  const attn_sdpa_desc &d;
  const attn_sdpa_args &a;
  Sequence seq;
  View k, v;
  int head0, heads;  // key heads
  int rows;          // of one key head: query-major, then query head
  Span spans[kMaxQueries];
  Span any, all;      // bounds of their union and of their intersection
  bool elementwise;   // some mask looks at single keys
  float score_scale;  // what scores must be multiplied by; 1 if the packed queries have it in them
  float *q, *o, *m, *l, *s, *wide_k, *wide_v;

  int query_of(int row) const { return row / p.group; }
  int q_head(int head, int row) const { return (head0 + head) * p.group + row % p.group; }
};

inline bool sees_nothing(const Task &t, int64_t first, int64_t end) {
  return (end <= t.any.lo || first >= t.any.hi) && first >= t.any.sink;
}
// Whether the block has all its keys and each row sees all of them.
inline bool all_see(const Task &t, const Tokens &tokens) {
  const int64_t first = tokens.first, end = first + kBlock;
  return !t.elementwise && tokens.n == kBlock && tokens.present == ~0u &&
         ((first >= t.all.lo && end <= t.all.hi) || end <= t.all.sink);
}

void pack_queries(const Task &t) {
  const attn_tensor &q = t.a.q;
  const int64_t size = element_bytes(q.dtype);
  const int64_t columns = t.k.columns, stride = padded(t.d.head_dim_qk);
  for (int head = 0; head < t.heads; head++) {
    for (int row = 0; row < t.rows; row++) {
      int rest;
      const int64_t at = query_place(t.e, q, t.seq, t.query_of(row), rest);
      const char *from =
          static_cast<const char *>(q.data) + (at + t.q_head(head, row) * q.stride[rest]) * size;
      float *to = t.q + (head * t.rows + row) * stride;
      if (t.k.format == Format::kBf16Dot) {
        uint16_t *bits = reinterpret_cast<uint16_t *>(to);
        const uint16_t *source = reinterpret_cast<const uint16_t *>(from);
        const int64_t step = q.stride[rest + 1];
        if (step == 1) {
          std::copy_n(source, columns, bits);
        } else {
          for (int64_t i = 0; i < columns; i++) bits[i] = source[i * step];
        }
        continue;
      }
      widen(from, q.stride[rest + 1], q.dtype, t.d.head_dim_qk, columns, to);
      for (int64_t i = 0; i < columns; i++) to[i] *= t.d.softmax_scale;
      if (!interleaved(t.k.format)) continue;
      for (int64_t i = 0; i < columns; i += kPair) {
        float odd[kLanes];
        for (int lane = 0; lane < kLanes; lane++) odd[lane] = to[i + 2 * lane + 1];
        for (int lane = 0; lane < kLanes; lane++) to[i + lane] = to[i + 2 * lane];
        for (int lane = 0; lane < kLanes; lane++) to[i + kLanes + lane] = odd[lane];
      }
    }
  }
}

// Which keys of the block each row sees.
void visibility(const Task &t, int head, const Tokens &tokens, uint32_t *HWY_RESTRICT visible) {
  const int64_t first = tokens.first;
  const int64_t max_bytes = ceil_div(t.seq.keys, 8), tail_bytes = ceil_div(t.seq.queries, 8);
  for (int row = 0; row < t.rows; row++) {
    const int query = t.query_of(row), q_head = t.q_head(head, row);
    const Span &span = t.spans[query];
    uint32_t bits =
        (range_bits(span.lo, span.hi, first) | range_bits(0, span.sink, first)) & tokens.present;
    if (t.p.has(ATTN_SDPA_MASK)) {
      const attn_tensor &mask = t.a.mask;
      bits &= packed_bits(
          static_cast<const uint8_t *>(mask.data) + place(t.e, mask, t.seq, q_head, query),
          mask.stride[mask.rank - 1], max_bytes, first);
    }
    if (t.p.has(ATTN_SDPA_TAIL_MASK)) {
      const attn_tensor &mask = t.a.tail_mask;
      const int64_t tail = t.seq.keys - t.seq.queries;
      bits &= ~range_bits(tail, t.seq.keys, first) |
              packed_bits(
                  static_cast<const uint8_t *>(mask.data) + place(t.e, mask, t.seq, q_head, query),
                  mask.stride[mask.rank - 1], tail_bytes, first - tail);
    }
    if (t.p.has(ATTN_SDPA_SEGMENT_IDS)) {
      const attn_tensor &qs = t.a.q_segment_ids, &ks = t.a.kv_segment_ids;
      int rest;
      const int32_t id =
          static_cast<const int32_t *>(qs.data)[query_place(t.e, qs, t.seq, query, rest)];
      const int32_t *keys = static_cast<const int32_t *>(ks.data);
      int64_t stride = ks.stride[0];
      if (t.p.ragged_k()) {
        keys += t.a.cu_seqlens_k[t.seq.batch] * stride;
      } else {
        keys += t.seq.batch * stride;
        stride = ks.stride[1];
      }
      for (uint32_t left = bits; left != 0; left &= left - 1) {
        const int key = __builtin_ctz(left);
        if (id < 0 || keys[(first + key) * stride] != id) bits &= ~(1u << key);
      }
    }
    visible[row] = bits;
  }
}

// Softcap, bias and ALiBi on the scores of one row; a bias of -inf hides its key.
void adjust(const Task &t, int head, int row, const Tokens &tokens, float *s, uint32_t &visible) {
  const DF d;
  const int query = t.query_of(row), q_head = t.q_head(head, row);
  if (t.d.softcap <= 0) {
    for (int key = 0; key < kBlock; key++) s[key] *= t.score_scale;
  } else {
    const VF cap = hn::Set(d, t.d.softcap), inverse = hn::Set(d, t.score_scale / t.d.softcap);
    for (int i = 0; i < kBlock; i += kLanes) {
      hn::StoreU(hn::Mul(cap, tuned::HWY_NAMESPACE::tanh(d, hn::Mul(hn::LoadU(d, s + i), inverse))),
                 d, s + i);
    }
  }
  if (t.p.has(ATTN_SDPA_BIAS)) {
    const attn_tensor &bias = t.a.bias;
    const int64_t base = place(t.e, bias, t.seq, q_head, query);
    const int64_t stride = bias.stride[bias.rank - 1];
    for (uint32_t left = visible; left != 0; left &= left - 1) {
      const int key = __builtin_ctz(left);
      const float b = load_element(bias.data, base + (tokens.first + key) * stride, bias.dtype);
      if (b == -kInf) visible &= ~(1u << key);
      s[key] += b;
    }
  }
  if (t.p.has(ATTN_SDPA_ALIBI)) {
    const attn_tensor &slopes = t.a.alibi_slopes;
    const int64_t at = slopes.rank == 2 ? t.seq.batch * slopes.stride[0] + q_head * slopes.stride[1]
                                        : q_head * slopes.stride[0];
    const float slope = static_cast<const float *>(slopes.data)[at];
    const int64_t distance = tokens.first - (query + t.seq.offset);
    for (int key = 0; key < kBlock; key++) {
      s[key] -= slope * static_cast<float>(std::abs(distance + key));
    }
  }
}

// Turns the scores of up to four rows into weights, against the running maxima; alpha is what the
// rows' outputs so far must be scaled by.
HWY_INLINE void weigh(int rows, float scale, float *HWY_RESTRICT s, const uint32_t *visible,
                      float *HWY_RESTRICT m, float *HWY_RESTRICT l, float *HWY_RESTRICT alpha) {
  const DF d;
  constexpr int kVecs = kBlock / kLanes;
  const VF factor = hn::Set(d, scale);
  VF tops[4];
  float m_old[4], l_old[4], tops4[4], sums4[4];
  for (int r = 0; r < 4; r++) {
    float *row = s + std::min(r, rows - 1) * kBlock;
    m_old[r] = m[std::min(r, rows - 1)];
    l_old[r] = l[std::min(r, rows - 1)];
    if (r >= rows) {
      tops[r] = tops[rows - 1];
      continue;
    }
    VF top = hn::Set(d, -kInf);
    unroll<kVecs>([&](auto i) ATTN_INLINE_LAMBDA {
      VF v = hn::Mul(factor, hn::LoadU(d, row + i * kLanes));
      if (visible[r] != ~0u) {
        uint8_t bits[8] = {};
        const uint32_t shifted = visible[r] >> (i * kLanes);
        std::memcpy(bits, &shifted, sizeof shifted);
        v = hn::IfThenElse(hn::LoadMaskBits(d, bits), v, hn::Set(d, -kInf));
      }
      hn::StoreU(v, d, row + i * kLanes);
      top = hn::Max(top, v);
    });
    tops[r] = top;
  }
  store_folded(Max(), tops[0], tops[1], tops[2], tops[3], tops4);

  const hn::CappedTag<float, 4> d4;
  constexpr int kStep = static_cast<int>(hn::MaxLanes(d4));
  float m_new[4], m_sub[4], alpha4[4];
  for (int i = 0; i < 4; i += kStep) {
    const auto old = hn::LoadU(d4, m_old + i);
    const auto now = hn::Max(old, hn::LoadU(d4, tops4 + i));
    hn::StoreU(now, d4, m_new + i);
    // No key so far, unless scores are -inf themselves: weight 0 in any case.
    const auto sub = hn::IfThenZeroElse(hn::Eq(now, hn::Set(d4, -kInf)), now);
    hn::StoreU(sub, d4, m_sub + i);
    hn::StoreU(exp_negative(d4, hn::Sub(old, sub)), d4, alpha4 + i);
  }
  for (int r = 0; r < rows; r++) {
    if (m_new[r] != kInf) continue;
    // Keys with scores of +inf share the weight.
    for (int key = 0; key < kBlock; key++) {
      float &score = s[r * kBlock + key];
      score = score == kInf ? 0.0f : score - kInf;  // NaN stays NaN
    }
    m_sub[r] = 0;
    alpha4[r] = m_old[r] == kInf ? 1.0f : 0.0f;
  }

  VF sums[4];
  for (int r = 0; r < 4; r++) {
    if (r >= rows) {
      sums[r] = hn::Zero(d);
      continue;
    }
    const VF max = hn::Set(d, m_sub[r]);
    VF sum = hn::Zero(d);
    unroll<kVecs>([&](auto i) ATTN_INLINE_LAMBDA {
      float *at = s + r * kBlock + i * kLanes;
      const VF w = exp_negative(d, hn::Sub(hn::LoadU(d, at), max));
      hn::StoreU(w, d, at);
      sum = hn::Add(sum, w);
    });
    sums[r] = sum;
  }
  store_folded(Sum(), sums[0], sums[1], sums[2], sums[3], sums4);
  for (int r = 0; r < rows; r++) {
    m[r] = m_new[r];
    l[r] = l_old[r] * alpha4[r] + sums4[r];
    alpha[r] = alpha4[r];
  }
}

void dispatch_scores(Format f, int rows, const float *q, int64_t q_stride, int64_t depth, Rows k,
                     int n, Stream &next, float *s) {
  switch (f) {
    case Format::kFp32:
      return scores<Format::kFp32>(rows, q, q_stride, depth, k, n, next, s);
    case Format::kFp16:
      return scores<Format::kFp16>(rows, q, q_stride, depth, k, n, next, s);
    case Format::kBf16Dot:
#if ATTN_DECODE_BF16_DOT
      return scores<Format::kBf16Dot>(rows, q, q_stride, depth, k, n, next, s);
#endif
    case Format::kBf16:
      return scores<Format::kBf16>(rows, q, q_stride, depth, k, n, next, s);
  }
}

void dispatch_outputs(Format f, int rows, float *o, int64_t o_stride, const float *alpha,
                      const float *p, Rows v, int n, int64_t columns, Stream &next) {
  switch (f) {
    case Format::kFp32:
      return outputs<Format::kFp32>(rows, o, o_stride, alpha, p, v, n, columns, next);
    case Format::kFp16:
      return outputs<Format::kFp16>(rows, o, o_stride, alpha, p, v, n, columns, next);
    case Format::kBf16Dot:
    case Format::kBf16:
      return outputs<Format::kBf16>(rows, o, o_stride, alpha, p, v, n, columns, next);
  }
}

// The rows of one head: in place, or in a widened copy.
Rows rows_of_head(const View &view, int64_t pad, const char *const *tokens, int n, int head,
                  float *wide, const char **wide_rows) {
  if (view.direct) return {tokens, head * view.head};
  for (int t = 0; t < n; t++) {
    float *to = wide + t * pad;
    widen(tokens[t] + head * view.head, view.element, view.dtype, view.width, view.columns, to);
    wide_rows[t] = reinterpret_cast<const char *>(to);
  }
  return {wide_rows, 0};
}

// The weights times V where rows do not all see the same keys, or not all keys: hidden values must
// not be touched, they may be NaN.
void masked_outputs(const Task &t, const uint32_t *visible, float *s, float *o, const float *alpha,
                    Rows v, Stream &next) {
  const int64_t stride = padded(t.d.head_dim_v);
  const auto compact = [&](int row, int rows) {
    const char *kept[kBlock];
    int n = 0;
    for (uint32_t left = visible[row]; left != 0; left &= left - 1) {
      const int key = __builtin_ctz(left);
      for (int r = row; r < row + rows; r++) s[r * kBlock + n] = s[r * kBlock + key];
      kept[n++] = v.token[key];
    }
    dispatch_outputs(t.v.format, rows, o + row * stride, stride, alpha + row, s + row * kBlock,
                     {kept, v.offset}, n, t.v.columns, next);
  };
  bool uniform = true;
  for (int row = 1; row < t.rows; row++) uniform = uniform && visible[row] == visible[0];
  if (uniform) return compact(0, t.rows);
  for (int row = 0; row < t.rows; row++) compact(row, 1);
}

// Lists what to fetch of the block `next` while another one, of n keys, is computed.
void fetch(const Task &t, int head0, int heads, int n, const Tokens *next, Stream &next_k,
           Stream &next_v) {
  if (next == nullptr || next->present == 0) {
    next_k.clear();
    next_v.clear();
    return;
  }
  const int64_t first = t.head0 + head0, tiles = int64_t{heads} * (n / kTileKeys);
  const auto list = [&](Stream &to, const View &view, const char *const *rows, int64_t steps) {
    const int64_t bytes = view.bytes == 0 ? 0 : (heads - 1) * view.head + view.bytes;
    to.list(rows, next->n, first * view.head, bytes, steps);
  };
  list(next_k, t.k, next->k, tiles);
  if (!t.p.latent()) list(next_v, t.v, next->v, tiles * ceil_div(t.v.columns, 2 * kPair));
}

#if HWY_TARGET == HWY_AVX3
#include "kernels/cpu/sdpa/tuned/decode_pairs-inl.hpp"

// Whether blocks whose keys all rows see go through block_pairs(). This must not depend on how many
// heads a task has: its sums are in another order, and results do not depend on threads.
bool takes_pairs(const Task &t) {
  return t.e.heads_inside && t.d.num_kv_heads > 1 && t.rows % 4 == 0 && t.k.direct && t.v.direct &&
         !t.p.latent() && t.d.softcap <= 0 && !t.p.has(ATTN_SDPA_BIAS | ATTN_SDPA_ALIBI);
}

void block_pairs(const Task &t, int heads, const Tokens &tokens, const Tokens *next) {
  float alpha[kMaxRowsPerTask];
  const auto run = [&t](const char *const *rows, const View &view) {
    return Run{rows, view.head, view.bytes};
  };
  PairBlock b;
  // The run of a task's heads starts at its first head.
  const char *k[kBlock], *v[kBlock], *next_k[kBlock];
  for (int i = 0; i < kBlock; i++) {
    k[i] = tokens.k[i] + t.head0 * t.k.head;
    v[i] = tokens.v[i] + t.head0 * t.v.head;
  }
  const bool follows = next != nullptr && next->present != 0;
  for (int i = 0; follows && i < kBlock; i++) next_k[i] = next->k[i] + t.head0 * t.k.head;
  b.k = run(k, t.k);
  b.v = run(v, t.v);
  b.next_k = run(follows ? next_k : nullptr, t.k);
  b.heads = heads;
  b.rows = t.rows;
  b.depth = t.k.columns;
  b.columns = t.v.columns;
  b.q = t.q;
  b.q_stride = padded(t.d.head_dim_qk);
  b.scale = t.score_scale;
  b.s = t.s;
  b.m = t.m;
  b.l = t.l;
  b.alpha = alpha;
  b.o = t.o;
  b.o_stride = padded(t.d.head_dim_v);
  switch (t.k.format) {
    case Format::kFp32:
      score_pairs<Format::kFp32>(b);
      break;
    case Format::kFp16:
      score_pairs<Format::kFp16>(b);
      break;
    case Format::kBf16:
      score_pairs<Format::kBf16>(b);
      break;
    case Format::kBf16Dot:
      score_pairs<Format::kBf16Dot>(b);
  }
  weigh_pairs(b);
  switch (t.v.format) {
    case Format::kFp32:
      output_pairs<Format::kFp32>(b);
      break;
    case Format::kFp16:
      output_pairs<Format::kFp16>(b);
      break;
    default:
      output_pairs<Format::kBf16>(b);
  }
}
#endif

// One block of keys for `heads` heads, whose K and V lie side by side: all scores, then all
// weights, then all outputs, so that memory is read in long runs and the weights' chains of
// dependent operations overlap. Meanwhile fetches the block `next` (null: nothing follows).
void block(const Task &t, int head0, int heads, const Tokens &tokens, const Tokens *next,
           Stream &next_k, Stream &next_v) {
  const bool latent = t.p.latent();
  const int64_t q_stride = padded(t.d.head_dim_qk), o_stride = padded(t.d.head_dim_v);
  const int n = static_cast<int>(ceil_div(tokens.n, kScoreKeys)) * kScoreKeys;
  fetch(t, head0, heads, n, next, next_k, next_v);

  const char *wide_rows[kBlock];
  const int64_t s_stride = int64_t{t.rows} * kBlock;
  const auto k_rows = [&](int head) {
    return rows_of_head(t.k, q_stride, tokens.k, n, t.head0 + head, t.wide_k, wide_rows);
  };
  for (int head = head0; head < head0 + heads; head++) {
    dispatch_scores(t.k.format, t.rows, t.q + head * t.rows * q_stride, q_stride, t.k.columns,
                    k_rows(head), n, next_k, t.s + (head - head0) * s_stride);
  }

  uint32_t visible[kMaxRowsPerTask];
  float alpha[kMaxRowsPerTask];
  bool hidden[kMaxRowsPerTask];  // of a head: whether some row does not see all keys
  const bool full = all_see(t, tokens);
  const bool adjusted = t.d.softcap > 0 || t.p.has(ATTN_SDPA_BIAS | ATTN_SDPA_ALIBI);
  if (full) std::fill_n(visible, t.rows * heads, ~0u);
  std::fill_n(hidden, heads, !full);
  for (int h = 0; h < heads; h++) {
    float *s = t.s + h * s_stride;
    uint32_t *seen = visible + h * t.rows;
    if (!full) visibility(t, head0 + h, tokens, seen);
    if (adjusted) {
      for (int row = 0; row < t.rows; row++) {
        adjust(t, head0 + h, row, tokens, s + row * kBlock, seen[row]);
        hidden[h] = hidden[h] || seen[row] != ~0u;
      }
    }
  }
  const int rows = t.rows * heads, first_row = head0 * t.rows;
  for (int row = 0; row < rows; row += 4) {
    weigh(std::min(4, rows - row), adjusted ? 1.0f : t.score_scale, t.s + row * kBlock,
          visible + row, t.m + first_row + row, t.l + first_row + row, alpha + row);
  }

  for (int h = 0; h < heads; h++) {
    const int row = h * t.rows;
    const Rows v =
        latent ? k_rows(head0 + h)
               : rows_of_head(t.v, o_stride, tokens.v, n, t.head0 + head0 + h, t.wide_v, wide_rows);
    float *o = t.o + (first_row + row) * o_stride, *s = t.s + h * s_stride;
    if (hidden[h]) {
      masked_outputs(t, visible + row, s, o, alpha + row, v, next_v);
    } else {
      dispatch_outputs(t.v.format, t.rows, o, o_stride, alpha + row, s, v, kBlock, t.v.columns,
                       next_v);
    }
  }
}

// The place in a row of o of output column c.
HWY_INLINE int64_t column_place(Format f, int64_t c) {
  if (!interleaved(f)) return c;
  const int64_t in_pair = c % kPair;
  return c - in_pair + in_pair / 2 + (in_pair % 2) * kLanes;
}

// Writes one query's results: sum o = sum of exp(s - m) v, l = sum of exp(s - m).
void finish(const Exec &e, const Sequence &seq, int q_head, int64_t query, float m, float l,
            const float *o, Format order) {
  const sdpa::Problem &p = *e.problem;
  const attn_sdpa_args &a = e.call->args;
  float scale = 0, lse = -kInf;
  if (m > -kInf || l != 0) {  // NaN in m leaves m at -inf, but not l at 0
    scale = 1 / l;
    lse = m + std::log(l);
  }
  if (p.has(ATTN_SDPA_SINK)) {
    const float sink = static_cast<const float *>(a.sink.data)[q_head * a.sink.stride[0]];
    if (sink > -kInf) {
      // exp(sink) joins the denominator: the output shrinks by 1 / (1 + exp(sink - lse)).
      const float both = std::max(lse, sink) + std::log1p(std::exp(-std::abs(lse - sink)));
      const float joined = sink == kInf ? kInf : lse == -kInf ? sink : both;
      if (sink == kInf) {
        scale = 0;
      } else if (lse > -kInf && lse < kInf) {
        scale *= std::exp(lse - joined);
      }
      if (p.has(ATTN_SDPA_LSE_INCLUDES_SINK)) lse = joined;
    }
  }
  if (p.has(ATTN_SDPA_RETURN_LSE)) {
    const float unit = p.d.lse_base == ATTN_LSE_BASE_2 ? 1.44269504f : 1.0f;
    static_cast<float *>(a.lse.data)[lse_place(e, a.lse, seq, q_head, query)] = lse * unit;
  }
  if (p.has(ATTN_SDPA_RETURN_ROW_MAX)) {
    static_cast<float *>(a.row_max.data)[lse_place(e, a.row_max, seq, q_head, query)] = m;
  }
  int rest;
  const attn_tensor &out = a.out;
  const int64_t at = query_place(e, out, seq, query, rest) + q_head * out.stride[rest];
  int64_t gate_at = 0, gate_stride = 0;
  const bool gated = p.has(ATTN_SDPA_GATE);
  if (gated) {
    gate_at = query_place(e, a.gate, seq, query, rest) + q_head * a.gate.stride[rest];
    gate_stride = a.gate.shape[rest + 1] == 1 ? 0 : a.gate.stride[rest + 1];
  }
  const bool zeros = o == nullptr || scale == 0;
  const int64_t step = out.stride[rest + 1];
  // In pieces, so that each loop does one thing.
  float value[64];
  for (int64_t c = 0; c < p.d.head_dim_v; c += 64) {
    const int64_t n = std::min<int64_t>(64, p.d.head_dim_v - c);
    for (int64_t i = 0; i < n; i++) value[i] = zeros ? 0.0f : o[column_place(order, c + i)] * scale;
    for (int64_t i = 0; gated && i < n; i++) {
      value[i] /=
          1 + std::exp(-load_element(a.gate.data, gate_at + (c + i) * gate_stride, a.gate.dtype));
    }
    if (out.dtype == ATTN_DTYPE_BF16 && step == 1) {
      uint16_t *to = static_cast<uint16_t *>(out.data) + at + c;
      for (int64_t i = 0; i < n; i++) to[i] = float_to_bf16(value[i]);
    } else {
      for (int64_t i = 0; i < n; i++) {
        store_element(out.data, at + (c + i) * step, out.dtype, value[i]);
      }
    }
  }
}

// Zeros and -inf for places [from, to) of a sequence, which no query uses.
void finish_padding(const Exec &e, const Sequence &seq, int64_t from, int64_t to, int head0,
                    int heads) {
  const int group = e.problem->group;
  for (int64_t query = from; query < to; query++) {
    for (int h = head0 * group; h < (head0 + heads) * group; h++) {
      finish(e, seq, h, query, -kInf, 0, nullptr, Format::kFp32);
      if (e.problem->has(ATTN_SDPA_RETURN_LSE)) {  // without a sink
        const attn_tensor &lse = e.call->args.lse;
        static_cast<float *>(lse.data)[lse_place(e, lse, seq, h, query)] = -kInf;
      }
    }
  }
}

// The first token of the block at or after `first` that some query sees.
int64_t next_seen(const Task &t, int64_t first, int64_t end) {
  while (first < end && sees_nothing(t, first, std::min(first + kBlock, end))) {
    // Over a gap between sink tokens and the window in one step.
    const int64_t jump = first >= t.any.hi ? end : (t.any.lo - first) / kBlock * kBlock + first;
    first = std::max(first + kBlock, std::min(jump, end));
  }
  return first;
}

void run(const Exec &e, int64_t task, int thread) {
  const sdpa::Problem &p = *e.problem;
  const attn_sdpa_desc &d = p.d;
  // Heads vary fastest, then pieces: neighbours in time share pages and lines.
  const int64_t head_task = task % e.head_tasks;
  const int64_t split = task / e.head_tasks % e.max_splits;
  const int64_t batch = task / e.head_tasks / e.max_splits;
  if (batch == e.call->batch) {
    // Tokens after the last sequence are padding, too.
    Sequence rest{};
    rest.q_row = batch == 0 ? 0 : e.call->args.cu_seqlens_q[batch];
    if (task % (e.head_tasks * e.max_splits) == 0) {
      finish_padding(e, rest, 0, e.call->total_q - rest.q_row, 0, d.num_kv_heads);
    }
    return;
  }
  const Sequence seq = sequence(p, *e.call, batch);
  const int64_t splits = split_count(d, seq.keys), piece = split_keys(d, seq.keys);
  if (split >= splits) return;

  const int head0 = static_cast<int>(head_task) * e.heads_per_task;
  const int heads = std::min(e.heads_per_task, d.num_kv_heads - head0);
  if (split == 0) finish_padding(e, seq, seq.queries, seq.q_places, head0, heads);
  if (seq.queries <= 0) return;

  Task t(e, seq);
  const Views views = views_of(e, seq);
  t.k = views.k;
  t.v = views.v;
  t.score_scale = 1;
  if (t.k.format == Format::kBf16 && t.a.q.dtype == ATTN_DTYPE_BF16 && has_bf16_dot()) {
    t.k.format = Format::kBf16Dot;
    t.score_scale = d.softmax_scale;
  }
  t.head0 = head0;
  t.heads = heads;
  t.rows = static_cast<int>(seq.queries) * p.group;
  t.elementwise = p.has(ATTN_SDPA_MASK | ATTN_SDPA_TAIL_MASK | ATTN_SDPA_SEGMENT_IDS);
  for (int i = 0; i < seq.queries; i++) {
    const Span s = t.spans[i] = span_of(d, seq, i);
    if (i == 0) t.any = t.all = s;
    t.any = {std::min(t.any.lo, s.lo), std::max(t.any.hi, s.hi), std::max(t.any.sink, s.sink)};
    t.all = {std::max(t.all.lo, s.lo), std::min(t.all.hi, s.hi), std::min(t.all.sink, s.sink)};
  }
  float *scratch = e.thread_scratch + thread * e.scratch.floats;
  t.q = scratch + e.scratch.q;
  t.o = scratch + e.scratch.o;
  t.m = scratch + e.scratch.m;
  t.l = scratch + e.scratch.l;
  t.s = scratch + e.scratch.s;
  t.wide_k = scratch + e.scratch.wide_k;
  t.wide_v = scratch + e.scratch.wide_v;
  const int64_t o_stride = padded(d.head_dim_v);
  const int all_rows = t.rows * heads;
  std::fill_n(t.o, all_rows * o_stride, 0.0f);
  std::fill_n(t.m, all_rows, -kInf);
  std::fill_n(t.l, all_rows, 0.0f);
  pack_queries(t);

  const int64_t begin = split * piece, end = std::min(seq.keys, begin + piece);
  const int64_t start = next_seen(t, begin, end);
  const auto find = [&](int64_t first, Tokens &to) {
    resolve(e, seq, t.k, t.v, first, static_cast<int>(std::min<int64_t>(kBlock, end - first)), to);
  };
  Tokens tokens[2];
  Stream next_k, next_v;
  const int passes = e.heads_inside ? 1 : heads;
  const int inner = e.heads_inside ? heads : 1;
#if HWY_TARGET == HWY_AVX3
  const bool pairs = takes_pairs(t);
#else
  constexpr bool pairs = false;
#endif
  for (int pass = 0; pass < passes && start < end; pass++) {
    int64_t first = start;
    int now = 0;
    find(first, tokens[0]);
    if (!pairs) {
      fetch(t, pass, inner, kBlock, &tokens[0], next_k, next_v);
      next_k.rest();
      next_v.rest();
    }
    while (first < end) {
      const int64_t following = next_seen(t, first + kBlock, end);
      Tokens *after = nullptr;
      if (following < end) {
        after = &tokens[1 - now];
        find(following, *after);
      }
      if (tokens[now].present != 0) {
#if HWY_TARGET == HWY_AVX3
        if (pairs && all_see(t, tokens[now])) {
          block_pairs(t, inner, tokens[now], after);
        } else
#endif
        {
          block(t, pass, inner, tokens[now], after, next_k, next_v);
        }
      }
      first = following;
      now = 1 - now;
    }
  }

  for (int head = 0; head < heads; head++) {
    for (int row = 0; row < t.rows; row++) {
      const int at = head * t.rows + row, q_head = t.q_head(head, row), query = t.query_of(row);
      const float *o = t.o + at * o_stride;
      if (splits == 1) {
        finish(e, seq, q_head, query, t.m[at], t.l[at], o, t.v.format);
        continue;
      }
      const int64_t slot = ((seq.q_row + query) * d.num_q_heads + q_head) * e.split_stride + split;
      e.partial_ml[slot * 2] = t.m[at];
      e.partial_ml[slot * 2 + 1] = t.l[at];
      std::copy_n(o, d.head_dim_v, e.partial_o + slot * d.head_dim_v);  // in its own order
    }
  }
}

void merge(const Exec &e, int64_t task) {
  const sdpa::Problem &p = *e.problem;
  const attn_sdpa_desc &d = p.d;
  const int kv_head = static_cast<int>(task % d.num_kv_heads);
  const Sequence seq = sequence(p, *e.call, task / d.num_kv_heads);
  const int64_t splits = split_count(d, seq.keys);
  if (splits == 1) return;
  const Format order = views_of(e, seq).v.format;
  for (int64_t query = 0; query < seq.queries; query++) {
    for (int q_head = kv_head * p.group; q_head < (kv_head + 1) * p.group; q_head++) {
      const int64_t slot = ((seq.q_row + query) * d.num_q_heads + q_head) * e.split_stride;
      const float *ml = e.partial_ml + slot * 2;
      float m = -kInf, l = 0;
      for (int64_t i = 0; i < splits; i++) m = std::max(m, ml[2 * i]);
      // The first piece's place collects the sum.
      float *o = e.partial_o + slot * d.head_dim_v;
      for (int64_t i = 0; i < splits; i++) {
        // The maxima of two pieces may both be +inf.
        const float weight = ml[2 * i + 1] == 0 ? 0.0f
                             : ml[2 * i] == m   ? 1.0f
                                                : std::exp(ml[2 * i] - m);
        const float *HWY_RESTRICT from = o + i * d.head_dim_v;
        if (weight == 0) {
          if (i == 0) std::fill_n(o, d.head_dim_v, 0.0f);
          continue;
        }
        l += weight * ml[2 * i + 1];
        if (i == 0) {
          for (int64_t c = 0; c < d.head_dim_v; c++) o[c] *= weight;
        } else {
          for (int64_t c = 0; c < d.head_dim_v; c++) o[c] += weight * from[c];
        }
      }
      finish(e, seq, q_head, query, m, l, o, order);
    }
  }
}

}  // namespace attn::cpu::decode::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::cpu::decode {
void run_task(const Exec &exec, int64_t task, int thread) {
  static const auto function = ATTN_SIMD_DISPATCH(run);
  function(exec, task, thread);
}
void run_merge(const Exec &exec, int64_t task) {
  static const auto function = ATTN_SIMD_DISPATCH(merge);
  function(exec, task);
}
}  // namespace attn::cpu::decode
#endif
