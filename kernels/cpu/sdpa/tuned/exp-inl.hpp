// Elementary functions of the tuned attention kernels, for one SIMD target.

#if defined(ATTN_KERNELS_CPU_SDPA_TUNED_EXP_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_CPU_SDPA_TUNED_EXP_INL_HPP_
#undef ATTN_KERNELS_CPU_SDPA_TUNED_EXP_INL_HPP_
#else
#define ATTN_KERNELS_CPU_SDPA_TUNED_EXP_INL_HPP_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace attn::cpu::tuned::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 2^f for |f| <= 1/2, relative error 2^-28.9 before rounding: the minimax polynomial of degree 6
// with constant term 1.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp2_fraction(D d, V f) {
  V p = hn::Set(d, 1.53533621e-4f);
  p = hn::MulAdd(p, f, hn::Set(d, 1.33988746e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.61843736e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.55033247e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.40226479e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.93147203e-1f));
  return hn::MulAdd(p, f, hn::Set(d, 1.0f));
}

// 2^x for x <= 127 (softmax: x <= 0). Exactly 0 below -126 (and for -inf); NaN stays NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp2(D d, V x) {
#if HWY_TARGET == HWY_AVX3
  // vrndscale and vscalef do the range reduction and the scaling in one instruction each.
  if constexpr (hn::MaxLanes(d) == 16) {
    // x - round(x) is NaN for -inf: clamp first, below what vscalef underflows to 0. The operand
    // order lets a NaN in x through.
    const __m512 t = _mm512_max_ps(_mm512_set1_ps(-300.0f), x.raw);
    const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return V{_mm512_scalef_ps(exp2_fraction(d, V{_mm512_sub_ps(t, n)}).raw, n)};
  }
#endif
  const hn::RebindToSigned<D> di;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const V magic = hn::Set(d, 12582912.0f);
  const V smallest = hn::Set(d, -126.0f);
  const V t = hn::IfThenElse(hn::Lt(x, smallest), smallest, x);
  const V rounded = hn::Add(t, magic);
  const V p = exp2_fraction(d, hn::Sub(t, hn::Sub(rounded, magic)));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, rounded));
  const V result = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  return hn::IfThenZeroElse(hn::Lt(x, smallest), result);
}

// tanh(x): near 0, where (1 - e) / (1 + e) cancels, an odd minimax polynomial (relative error
// 2^-27.7).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V tanh(D d, V x) {
  const V a = hn::Abs(x);
  const V s = hn::Mul(x, x);
  V p = hn::Set(d, -5.704985081e-3f);
  p = hn::MulAdd(p, s, hn::Set(d, 2.063908561e-2f));
  p = hn::MulAdd(p, s, hn::Set(d, -5.373971461e-2f));
  p = hn::MulAdd(p, s, hn::Set(d, 1.333144219e-1f));
  p = hn::MulAdd(p, s, hn::Set(d, -3.333328194e-1f));
  const V near = hn::MulAdd(hn::Mul(p, s), x, x);
  // e^-2a in (0, 1]: no overflow.
  const V one = hn::Set(d, 1.0f);
  const V e = exp2(d, hn::Mul(a, hn::Set(d, -2.8853900817779268f)));
  const V far = hn::CopySign(hn::Div(hn::Sub(one, e), hn::Add(one, e)), x);
  return hn::IfThenElse(hn::Lt(a, hn::Set(d, 0.625f)), near, far);
}

}  // namespace attn::cpu::tuned::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
