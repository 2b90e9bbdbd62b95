// Register-tiled products of the tuned attention kernels, for one SIMD target.
//
// Both products are kept transposed: the vector lanes run over query rows. Row maximum, row sum,
// mask bounds and rescaling are then lane-wise and need no shuffle, and K and V are read as
// broadcast scalars in the row-major order that the caller has them in: neither is ever transposed.
//
//   scores  S^T[key][row]  = sum over d    of  K[key][d] * Q^T[d][row]
//   output  O^T[d][row]    = sum over key  of  V[key][d] * P^T[key][row]
//
// A panel is kVecs vectors of rows wide. A tile is up to kTileRows scalars high, so that the
// accumulators (kTileRows * kVecs), a row of the panel (kVecs) and a broadcast fit the register
// file: 14 * 2 + 2 + 1 of 32 registers, 6 * 2 + 2 + 1 of 16. Eight rows already hide the latency of
// the multiply-adds, so the remainders of a tiled extent are spread evenly (tile_split).
//
// Measured on Zen 5 (512-bit, peak 273 GFLOP/s a core): 272 to 275 GFLOP/s for heights 8, 12, 13
// from rows 256 bytes apart; 14 rows 4 KiB apart exceed the L1's 12 ways (258), hence 12 for K.

#if defined(ATTN_KERNELS_CPU_SDPA_TUNED_GEMM_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_CPU_SDPA_TUNED_GEMM_INL_HPP_
#undef ATTN_KERNELS_CPU_SDPA_TUNED_GEMM_INL_HPP_
#else
#define ATTN_KERNELS_CPU_SDPA_TUNED_GEMM_INL_HPP_
#endif

#include <cstddef>
#include <utility>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attn::cpu::tuned::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
using DI = hn::RebindToSigned<DF>;
using VI = hn::Vec<DI>;

inline constexpr size_t kLanes = hn::MaxLanes(DF());
// Vectors of query rows in a panel, and its width in rows.
inline constexpr size_t kVecs = 2;
inline constexpr size_t kPanel = kVecs * kLanes;
// AVX-512 and AArch64 have 32 vector registers, the rest 16.
#if HWY_TARGET == HWY_AVX3 || (HWY_ARCH_ARM_A64 && HWY_TARGET == HWY_NEON)
inline constexpr size_t kTileRows = 14;
inline constexpr size_t kScoreTileRows = 12;
#else
inline constexpr size_t kTileRows = 6;
inline constexpr size_t kScoreTileRows = 6;
#endif

#define ATTN_INLINE_LAMBDA __attribute__((always_inline))

// Calls f(integral_constant 0), ..., f(integral_constant N-1): a loop unrolled before anything
// else, so that arrays of vectors indexed in it become registers.
template <size_t N, class F>
HWY_INLINE void unroll(F &&f) {
  [&]<size_t... I>(std::index_sequence<I...>) ATTN_INLINE_LAMBDA {
    (f(std::integral_constant<size_t, I>{}), ...);
  }
  (std::make_index_sequence<N>{});
}

// The height of the next tile when `left` rows remain and tiles are at most `most` high: as even as
// possible, never a sliver at the end.
HWY_INLINE size_t tile_split(size_t left, size_t most) {
  const size_t tiles = (left + most - 1) / most;
  return (left + tiles - 1) / tiles;
}

// acc[i][v] = sum over k < depth of a(i, k) * b[k][v], b being a panel [depth][kPanel].
// kColumns: a(i, k) = a[i + k * stride] (columns of V); else a[i * stride + k] (rows of K).
template <size_t M, bool kColumns>
HWY_INLINE void tile_product(const float *HWY_RESTRICT a, ptrdiff_t stride,
                             const float *HWY_RESTRICT b, size_t depth, VF (&acc)[M][kVecs]) {
  const DF d;
  unroll<M>([&](auto i) ATTN_INLINE_LAMBDA {
    unroll<kVecs>([&](auto v) ATTN_INLINE_LAMBDA { acc[i][v] = hn::Zero(d); });
  });
  for (size_t k = 0; k < depth; ++k) {
    VF right[kVecs];
    unroll<kVecs>([&](auto v) ATTN_INLINE_LAMBDA { right[v] = hn::Load(d, b + v * kLanes); });
    unroll<M>([&](auto i) ATTN_INLINE_LAMBDA {
      const float *at = kColumns ? a + i : a + static_cast<ptrdiff_t>(i) * stride;
      const VF left = hn::Set(d, *at);
      unroll<kVecs>([&](auto v)
                        ATTN_INLINE_LAMBDA { acc[i][v] = hn::MulAdd(left, right[v], acc[i][v]); });
    });
    a += kColumns ? stride : 1;
    b += kPanel;
  }
}

}  // namespace attn::cpu::tuned::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
