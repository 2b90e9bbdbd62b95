// Rows of floats to and from panels [d][kPanel] whose lanes are rows, for one SIMD target.
//
// Built of 4 x 4 transpositions inside the 128-bit blocks of a vector: block i of the b-th vector
// holds four elements of row 4 * i + b. Works for any vector width.

#if defined(ATTN_KERNELS_CPU_SDPA_TUNED_TRANSPOSE_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_CPU_SDPA_TUNED_TRANSPOSE_INL_HPP_
#undef ATTN_KERNELS_CPU_SDPA_TUNED_TRANSPOSE_INL_HPP_
#else
#define ATTN_KERNELS_CPU_SDPA_TUNED_TRANSPOSE_INL_HPP_
#endif

#include <cstddef>

#include "hwy/highway.h"
#include "kernels/cpu/sdpa/tuned/gemm-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::cpu::tuned::HWY_NAMESPACE {

#if HWY_TARGET != HWY_SCALAR
// Block i of the result: four floats from rows[4 * i] + offset.
template <class D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const float *const *rows, size_t offset) {
  if constexpr (hn::MaxLanes(d) <= 4) {
    return hn::LoadU(d, rows[0] + offset);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, load_blocks(half, rows + hn::MaxLanes(half), offset),
                       load_blocks(half, rows, offset));
  }
}

template <class D>
HWY_INLINE void store_blocks(D d, hn::Vec<D> v, float *const *rows, size_t offset) {
  if constexpr (hn::MaxLanes(d) <= 4) {
    hn::StoreU(v, d, rows[0] + offset);
  } else {
    const hn::Half<D> half;
    store_blocks(half, hn::LowerHalf(half, v), rows, offset);
    store_blocks(half, hn::UpperHalf(half, v), rows + hn::MaxLanes(half), offset);
  }
}

HWY_INLINE void transpose_blocks(VF (&r)[4]) {
  const DF d;
  const hn::Repartition<double, DF> dd;
  const auto lo01 = hn::BitCast(dd, hn::InterleaveLower(d, r[0], r[1]));
  const auto hi01 = hn::BitCast(dd, hn::InterleaveUpper(d, r[0], r[1]));
  const auto lo23 = hn::BitCast(dd, hn::InterleaveLower(d, r[2], r[3]));
  const auto hi23 = hn::BitCast(dd, hn::InterleaveUpper(d, r[2], r[3]));
  r[0] = hn::BitCast(d, hn::InterleaveLower(dd, lo01, lo23));
  r[1] = hn::BitCast(d, hn::InterleaveUpper(dd, lo01, lo23));
  r[2] = hn::BitCast(d, hn::InterleaveLower(dd, hi01, hi23));
  r[3] = hn::BitCast(d, hn::InterleaveUpper(dd, hi01, hi23));
}
#endif

// panel[c][row] = rows[row][c] * factor, c < count.
HWY_INLINE void rows_to_panel(const float *const *rows, size_t count, float factor, float *panel) {
  size_t c = 0;
#if HWY_TARGET != HWY_SCALAR
  const DF d;
  const VF scale = hn::Set(d, factor);
  for (; c + 4 <= count; c += 4) {
    for (size_t v = 0; v < kVecs; ++v) {
      VF r[4];
      for (size_t b = 0; b < 4; ++b) r[b] = load_blocks(d, rows + v * kLanes + b, c);
      transpose_blocks(r);
      for (size_t b = 0; b < 4; ++b) {
        hn::Store(hn::Mul(r[b], scale), d, panel + (c + b) * kPanel + v * kLanes);
      }
    }
  }
#endif
  for (; c < count; ++c) {
    for (size_t row = 0; row < kPanel; ++row) panel[c * kPanel + row] = rows[row][c] * factor;
  }
}

// rows[row][c] = panel[c][row] * factor[row], c < count. All kPanel rows are written.
HWY_INLINE void panel_to_rows(const float *panel, size_t count, const float *factor,
                              float *const *rows) {
  size_t c = 0;
#if HWY_TARGET != HWY_SCALAR
  const DF d;
  for (; c + 4 <= count; c += 4) {
    for (size_t v = 0; v < kVecs; ++v) {
      const VF scale = hn::Load(d, factor + v * kLanes);
      VF r[4];
      for (size_t b = 0; b < 4; ++b) {
        r[b] = hn::Mul(hn::Load(d, panel + (c + b) * kPanel + v * kLanes), scale);
      }
      transpose_blocks(r);
      for (size_t b = 0; b < 4; ++b) store_blocks(d, r[b], rows + v * kLanes + b, c);
    }
  }
#endif
  for (; c < count; ++c) {
    for (size_t row = 0; row < kPanel; ++row) rows[row][c] = panel[c * kPanel + row] * factor[row];
  }
}

}  // namespace attn::cpu::tuned::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
