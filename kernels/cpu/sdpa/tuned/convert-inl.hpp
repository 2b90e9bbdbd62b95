// Rows of fp32, fp16 and bf16 elements to and from fp32, for one SIMD target.

#if defined(ATTN_KERNELS_CPU_SDPA_TUNED_CONVERT_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_CPU_SDPA_TUNED_CONVERT_INL_HPP_
#undef ATTN_KERNELS_CPU_SDPA_TUNED_CONVERT_INL_HPP_
#else
#define ATTN_KERNELS_CPU_SDPA_TUNED_CONVERT_INL_HPP_
#endif

#include <attn/types.h>

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/sdpa/tuned/gemm-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::cpu::tuned::HWY_NAMESPACE {

// Whether the target converts fp16 in hardware. Highway's emulation knows no infinity and no NaN,
// so it is not used.
#undef ATTN_TUNED_HAS_FP16_CONVERSION
#if HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
#define ATTN_TUNED_HAS_FP16_CONVERSION 0
#else
#define ATTN_TUNED_HAS_FP16_CONVERSION 1
#endif

// Vectors of any tag of float, so that a vector of one lane serves for scalars.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V load_wide(D d, const float *from) {
  return hn::LoadU(d, from);
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE V load_wide(D d, const hwy::bfloat16_t *from) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::bfloat16_t, D>(), from));
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE V load_wide(D d, const hwy::float16_t *from) {
#if ATTN_TUNED_HAS_FP16_CONVERSION
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::float16_t, D>(), from));
#else
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> dh;
  const auto bits = hn::PromoteTo(du, hn::LoadU(dh, reinterpret_cast<const uint16_t *>(from)));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000)));
  const auto rest = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7fff)));
  // 2^112 moves the exponent from bias 15 to 127, subnormals included.
  const V finite = hn::Mul(hn::BitCast(d, rest), hn::Set(d, 0x1p112f));
  const V special = hn::BitCast(d, hn::Or(rest, hn::Set(du, 0x7f800000)));
  const auto is_special = hn::Ge(finite, hn::Set(d, 65536.0f));
  const V value = hn::IfThenElse(is_special, special, finite);
  return hn::Or(value, hn::BitCast(d, sign));
#endif
}

// Stores round to nearest, ties to even; NaN stays NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void store_narrow(D d, V x, float *to) {
  hn::StoreU(x, d, to);
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE void store_narrow(D d, V x, hwy::bfloat16_t *to) {
  // Highway 1.0 truncates.
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> dh;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const V rounded = hn::BitCast(d, hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff))));
  const V quiet = hn::BitCast(d, hn::Or(bits, hn::Set(du, 0x400000)));
  const auto chosen = hn::BitCast(du, hn::IfThenElse(hn::Eq(x, x), rounded, quiet));
  hn::StoreU(hn::TruncateTo(dh, hn::ShiftRight<16>(chosen)), dh, reinterpret_cast<uint16_t *>(to));
  (void)d;
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE void store_narrow(D d, V x, hwy::float16_t *to) {
#if ATTN_TUNED_HAS_FP16_CONVERSION
  const hn::Rebind<hwy::float16_t, D> dh;
  hn::StoreU(hn::DemoteTo(dh, x), dh, to);
  (void)d;
#else
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> dh;
  const V magnitude = hn::Abs(x);
  const auto bits = hn::BitCast(du, magnitude);
  const auto sign = hn::ShiftRight<16>(hn::BitCast(du, hn::AndNot(magnitude, x)));
  const auto odd = hn::And(hn::ShiftRight<13>(bits), hn::Set(du, 1));
  // Exponent from bias 127 to 15, and half a unit in the last place; may carry into infinity.
  const auto normal =
      hn::ShiftRight<13>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0xfffu - (112u << 23)))));
  // Adding 1/2 leaves a subnormal's bits, rounded, at the bottom.
  const auto small = hn::Sub(hn::BitCast(du, hn::Add(magnitude, hn::Set(d, 0.5f))),
                             hn::BitCast(du, hn::Set(d, 0.5f)));
  V half = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 0x1p-14f)), hn::BitCast(d, small),
                          hn::BitCast(d, normal));
  half = hn::IfThenElse(hn::Ge(magnitude, hn::Set(d, 65520.0f)),
                        hn::BitCast(d, hn::Set(du, 0x7c00)), half);
  half = hn::IfThenElse(hn::Eq(x, x), half, hn::BitCast(d, hn::Set(du, 0x7e00)));
  hn::StoreU(hn::TruncateTo(dh, hn::Or(hn::BitCast(du, half), sign)), dh,
             reinterpret_cast<uint16_t *>(to));
#endif
}

template <class T>
HWY_INLINE float widen(const T *from) {
  return hn::GetLane(load_wide(hn::CappedTag<float, 1>(), from));
}
template <class T>
HWY_INLINE void narrow(float x, T *to) {
  const hn::CappedTag<float, 1> d;
  store_narrow(d, hn::Set(d, x), to);
}

// to[i] = from[i * stride], i < count.
template <class T>
HWY_INLINE void widen_row(const T *from, int64_t stride, size_t count, float *to) {
  if (stride != 1 || count < kLanes) {
    for (size_t i = 0; i < count; ++i) to[i] = widen(from + static_cast<int64_t>(i) * stride);
    return;
  }
  const DF d;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) hn::StoreU(load_wide(d, from + i), d, to + i);
  // The last vector overlaps the one before.
  if (i < count) hn::StoreU(load_wide(d, from + count - kLanes), d, to + count - kLanes);
}

// to[i * stride] = from[i], i < count.
template <class T>
HWY_INLINE void narrow_row(const float *from, size_t count, int64_t stride, T *to) {
  if (stride != 1 || count < kLanes) {
    for (size_t i = 0; i < count; ++i) narrow(from[i], to + static_cast<int64_t>(i) * stride);
    return;
  }
  const DF d;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store_narrow(d, hn::LoadU(d, from + i), to + i);
  if (i < count) {
    store_narrow(d, hn::LoadU(d, from + count - kLanes), to + count - kLanes);
  }
}

// Calls f(T()) with the element type of a dtype.
template <class F>
HWY_INLINE void with_dtype(int32_t dtype, F &&f) {
  switch (dtype) {
    case ATTN_DTYPE_FP16:
      return f(hwy::float16_t());
    case ATTN_DTYPE_BF16:
      return f(hwy::bfloat16_t());
    default:
      return f(float());
  }
}

}  // namespace attn::cpu::tuned::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
