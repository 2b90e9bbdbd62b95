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
#include <cstring>

#include "hwy/highway.h"
#include "kernels/cpu/sdpa/tuned/gemm-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::cpu::tuned::HWY_NAMESPACE {

HWY_INLINE float widen(float x) {
  return x;
}
HWY_INLINE float widen(hwy::float16_t x) {
  const hn::CappedTag<float, 1> d;
  return hn::GetLane(hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::float16_t, decltype(d)>(), &x)));
}
HWY_INLINE float widen(hwy::bfloat16_t x) {
  return hwy::F32FromBF16(x);
}

// Round to nearest, ties to even; NaN stays NaN.
HWY_INLINE void narrow(float x, float *to) {
  *to = x;
}
HWY_INLINE void narrow(float x, hwy::float16_t *to) {
  const hn::CappedTag<float, 1> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> dh;
  hn::StoreU(hn::DemoteTo(dh, hn::Set(d, x)), dh, to);
}
HWY_INLINE uint16_t bf16_bits(uint32_t bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
HWY_INLINE void narrow(float x, hwy::bfloat16_t *to) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  to->bits = bf16_bits(bits);
}

HWY_INLINE VF load_wide(DF d, const float *from) {
  return hn::LoadU(d, from);
}
template <class T>
HWY_INLINE VF load_wide(DF d, const T *from) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<T, DF>(), from));
}

HWY_INLINE void store_narrow(DF d, VF x, float *to) {
  hn::StoreU(x, d, to);
}
HWY_INLINE void store_narrow(DF, VF x, hwy::float16_t *to) {
  const hn::Rebind<hwy::float16_t, DF> dh;
  hn::StoreU(hn::DemoteTo(dh, x), dh, to);
}
HWY_INLINE void store_narrow(DF d, VF x, hwy::bfloat16_t *to) {
  // Highway 1.0 truncates; round to nearest even here.
  const hn::RebindToUnsigned<DF> du;
  const hn::Rebind<uint16_t, DF> dh;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));
  const auto chosen = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, rounded);
  hn::StoreU(hn::TruncateTo(dh, hn::ShiftRight<16>(chosen)), dh, reinterpret_cast<uint16_t *>(to));
  (void)d;
}

// to[i] = from[i * stride], i < count.
template <class T>
HWY_INLINE void widen_row(const T *from, int64_t stride, size_t count, float *to) {
  if (stride != 1 || count < kLanes) {
    for (size_t i = 0; i < count; ++i) to[i] = widen(from[static_cast<int64_t>(i) * stride]);
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
