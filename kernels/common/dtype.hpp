// Element codecs. Every stored value loads exactly; storing rounds to nearest, ties to even, in one
// step from double. The quantised formats saturate: +-inf and what lies beyond the largest value
// become the largest value. A NaN stays one where the format has it; int8 and int4 store 0, e2m1
// its largest value.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "attn/types.h"
#include "kernels/common/target.hpp"

namespace attn {

ATTN_HD inline float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// Names that device code can use, too.
ATTN_HD inline float infinity() {
  return float_from_bits(0x7f800000u);
}
ATTN_HD inline float quiet_nan() {
  return float_from_bits(0x7fc00000u);
}

ATTN_HD inline uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Formats of at most 16 bits with a sign, an exponent and `kMantissa` stored mantissa bits.
// `kLargest` is the code of the largest finite magnitude, `kOverflow` what larger ones become, and
// `kNan` the code of a NaN (all without the sign).
template <int kMantissa, int kBias, int kSignBit, uint32_t kLargest, uint32_t kOverflow,
          uint32_t kNan>
struct MiniFloat {
  ATTN_HD static float decode(uint32_t code) {
    const uint32_t magnitude = code & ((1u << kSignBit) - 1);
    const uint32_t sign = (code >> kSignBit & 1u) << 31;
    const uint32_t exponent = magnitude >> kMantissa;
    if (exponent == 0) {  // zero or subnormal: a small integer times a power of two, exact
      const uint32_t unit = static_cast<uint32_t>(127 + 1 - kBias - kMantissa) << 23;
      const float value = static_cast<float>(magnitude) * float_from_bits(unit);
      return sign != 0 ? -value : value;
    }
    const uint32_t rebased =
        (magnitude << (23 - kMantissa)) + (static_cast<uint32_t>(127 - kBias) << 23);
    return float_from_bits(sign | rebased);
  }

  ATTN_HD static uint32_t encode(double value) {
    const uint64_t bits = bits_of(value);
    const uint32_t sign = static_cast<uint32_t>(bits >> 63) << kSignBit;
    const int exponent = static_cast<int>(bits >> 52 & 0x7ff) - 1023;
    const uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    if (exponent == 1024) return sign | (fraction != 0 ? kNan : kOverflow);
    const bool subnormal = exponent < 1 - kBias;
    const int shift = 52 - kMantissa + (subnormal ? 1 - kBias - exponent : 0);
    if (shift > 54) return sign;  // less than half of the smallest subnormal
    const uint64_t significand = fraction | (UINT64_C(1) << 52);
    const uint64_t kept = significand >> shift;
    const uint64_t rest = significand & ((UINT64_C(1) << shift) - 1);
    const uint64_t half = UINT64_C(1) << (shift - 1);
    const uint64_t rounded = kept + (rest > half || (rest == half && (kept & 1) != 0) ? 1 : 0);
    // A carry out of the mantissa lands in the exponent, as it should.
    uint64_t code = rounded;
    if (!subnormal) {
      if (exponent + kBias > 0xffff) return sign | kOverflow;
      code += static_cast<uint64_t>(exponent + kBias - 1) << kMantissa;
    }
    return sign | (code > kLargest ? kOverflow : static_cast<uint32_t>(code));
  }
};

using Fp16Format = MiniFloat<10, 15, 15, 0x7bff, 0x7c00, 0x7e00>;
using E4m3fnFormat = MiniFloat<3, 7, 7, 0x7e, 0x7e, 0x7f>;
using E5m2Format = MiniFloat<2, 15, 7, 0x7b, 0x7b, 0x7e>;
using E4m3fnuzFormat = MiniFloat<3, 8, 7, 0x7f, 0x7f, 0x00>;
using E2m1Format = MiniFloat<1, 1, 3, 0x7, 0x7, 0x7>;

ATTN_HD inline float decode_fp16(uint16_t code) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(code));
  return value;
#else
  if ((code & 0x7c00) == 0x7c00) {  // infinity or NaN
    return float_from_bits(static_cast<uint32_t>(code & 0x8000) << 16 | 0x7f800000u |
                           static_cast<uint32_t>(code & 0x3ff) << 13);
  }
  return Fp16Format::decode(code);
#endif
}
ATTN_HD inline uint16_t encode_fp16(double value) {
  return static_cast<uint16_t>(Fp16Format::encode(value));
}

ATTN_HD inline float decode_bf16(uint16_t code) {
  return float_from_bits(static_cast<uint32_t>(code) << 16);
}
ATTN_HD inline uint16_t encode_bf16(double value) {
  using Format = MiniFloat<7, 127, 15, 0x7f7f, 0x7f80, 0x7fc0>;
  return static_cast<uint16_t>(Format::encode(value));
}

// Two floats, rounded once; `low` in the lower half.
ATTN_HD inline uint32_t pack_fp16(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return encode_fp16(static_cast<double>(low)) |
         static_cast<uint32_t>(encode_fp16(static_cast<double>(high))) << 16;
#endif
}
ATTN_HD inline uint32_t pack_bf16(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return encode_bf16(static_cast<double>(low)) |
         static_cast<uint32_t>(encode_bf16(static_cast<double>(high))) << 16;
#endif
}

ATTN_HD inline float decode_e4m3fn(uint8_t code) {
  return (code & 0x7f) == 0x7f ? float_from_bits(0x7fc00000u) : E4m3fnFormat::decode(code);
}
ATTN_HD inline uint8_t encode_e4m3fn(double value) {
  return static_cast<uint8_t>(E4m3fnFormat::encode(value));
}

ATTN_HD inline float decode_e5m2(uint8_t code) {
  // The upper half of a binary16.
  return decode_fp16(static_cast<uint16_t>(code << 8));
}
ATTN_HD inline uint8_t encode_e5m2(double value) {
  return static_cast<uint8_t>(E5m2Format::encode(value));
}

// The code that would be negative zero is this format's only NaN.
ATTN_HD inline float decode_e4m3fnuz(uint8_t code) {
  return code == 0x80 ? float_from_bits(0x7fc00000u) : E4m3fnuzFormat::decode(code);
}
ATTN_HD inline uint8_t encode_e4m3fnuz(double value) {
  if (value != value) return 0x80;
  const uint32_t code = E4m3fnuzFormat::encode(value);
  return code == 0x80 ? 0 : static_cast<uint8_t>(code);
}

ATTN_HD inline float decode_e8m0(uint8_t code) {
  if (code == 255) return float_from_bits(0x7fc00000u);
  return code == 0 ? float_from_bits(1u << 22) : float_from_bits(static_cast<uint32_t>(code) << 23);
}

ATTN_HD inline float decode_e2m1(uint8_t nibble) {
  return E2m1Format::decode(nibble & 0xfu);
}
ATTN_HD inline uint8_t encode_e2m1(double value) {
  return static_cast<uint8_t>(value != value ? 0x7 : E2m1Format::encode(value));
}

ATTN_HD inline float decode_int4(uint8_t nibble) {
  return static_cast<float>((nibble & 0xf) < 8 ? (nibble & 0xf) : (nibble & 0xf) - 16);
}
// Rounds to an integer, ties to even, within [low, high]; NaN to 0.
ATTN_HD inline int saturate_to_int(double value, int low, int high) {
  if (value != value) return 0;
  if (value <= low) return low;
  if (value >= high) return high;
  const double below = floor(value);
  const double rest = value - below;
  const int base = static_cast<int>(below);
  return base + (rest > 0.5 || (rest == 0.5 && (base & 1) != 0) ? 1 : 0);
}

// One codec for each dtype, for templates over the element type: load(base, i) and store(base, i,
// value), i counted in elements and possibly negative.
template <int32_t kDtype>
struct Codec;

#define ATTN_CODEC(DTYPE, STORAGE, DECODE, ENCODE)                               \
  template <>                                                                    \
  struct Codec<DTYPE> {                                                          \
    ATTN_HD static double load(const void *base, int64_t i) {                    \
      return static_cast<double>(DECODE(static_cast<const STORAGE *>(base)[i])); \
    }                                                                            \
    ATTN_HD static void store(void *base, int64_t i, double value) {             \
      static_cast<STORAGE *>(base)[i] = static_cast<STORAGE>(ENCODE(value));     \
    }                                                                            \
  };
#define ATTN_SAME(x) (x)
#define ATTN_TO_INT8(x) saturate_to_int(x, -128, 127)
ATTN_CODEC(ATTN_DTYPE_FP32, float, ATTN_SAME, ATTN_SAME)
ATTN_CODEC(ATTN_DTYPE_FP16, uint16_t, decode_fp16, encode_fp16)
ATTN_CODEC(ATTN_DTYPE_BF16, uint16_t, decode_bf16, encode_bf16)
ATTN_CODEC(ATTN_DTYPE_FP8_E4M3FN, uint8_t, decode_e4m3fn, encode_e4m3fn)
ATTN_CODEC(ATTN_DTYPE_FP8_E5M2, uint8_t, decode_e5m2, encode_e5m2)
ATTN_CODEC(ATTN_DTYPE_FP8_E4M3FNUZ, uint8_t, decode_e4m3fnuz, encode_e4m3fnuz)
ATTN_CODEC(ATTN_DTYPE_INT8, int8_t, ATTN_SAME, ATTN_TO_INT8)
#undef ATTN_TO_INT8
#undef ATTN_SAME
#undef ATTN_CODEC

template <>
struct Codec<ATTN_DTYPE_FP8_E8M0> {  // scales only: never stored
  ATTN_HD static double load(const void *base, int64_t i) {
    return static_cast<double>(decode_e8m0(static_cast<const uint8_t *>(base)[i]));
  }
};

// Two elements a byte, the even one in the low nibble.
ATTN_HD inline uint8_t load_nibble(const void *base, int64_t i) {
  const uint8_t byte = static_cast<const uint8_t *>(base)[i >> 1];
  return static_cast<uint8_t>((i & 1) != 0 ? byte >> 4 : byte & 0xf);
}
ATTN_HD inline void store_nibble(void *base, int64_t i, uint32_t nibble) {
  uint8_t &byte = static_cast<uint8_t *>(base)[i >> 1];
  byte = static_cast<uint8_t>((i & 1) != 0 ? (byte & 0x0fu) | (nibble & 0xfu) << 4
                                           : (byte & 0xf0u) | (nibble & 0xfu));
}

template <>
struct Codec<ATTN_DTYPE_INT4> {
  ATTN_HD static double load(const void *base, int64_t i) {
    return static_cast<double>(decode_int4(load_nibble(base, i)));
  }
  ATTN_HD static void store(void *base, int64_t i, double value) {
    store_nibble(base, i, static_cast<uint32_t>(saturate_to_int(value, -8, 7)));
  }
};
template <>
struct Codec<ATTN_DTYPE_FP4_E2M1> {
  ATTN_HD static double load(const void *base, int64_t i) {
    return static_cast<double>(decode_e2m1(load_nibble(base, i)));
  }
  ATTN_HD static void store(void *base, int64_t i, double value) {
    store_nibble(base, i, encode_e2m1(value));
  }
};

// Calls fn with the codec of a data dtype.
template <class Fn>
ATTN_HD inline void with_codec(int32_t dtype, const Fn &fn) {
  switch (dtype) {
    case ATTN_DTYPE_FP32:
      return fn(Codec<ATTN_DTYPE_FP32>());
    case ATTN_DTYPE_FP16:
      return fn(Codec<ATTN_DTYPE_FP16>());
    case ATTN_DTYPE_BF16:
      return fn(Codec<ATTN_DTYPE_BF16>());
    case ATTN_DTYPE_FP8_E4M3FN:
      return fn(Codec<ATTN_DTYPE_FP8_E4M3FN>());
    case ATTN_DTYPE_FP8_E5M2:
      return fn(Codec<ATTN_DTYPE_FP8_E5M2>());
    case ATTN_DTYPE_FP8_E4M3FNUZ:
      return fn(Codec<ATTN_DTYPE_FP8_E4M3FNUZ>());
    case ATTN_DTYPE_INT8:
      return fn(Codec<ATTN_DTYPE_INT8>());
    case ATTN_DTYPE_INT4:
      return fn(Codec<ATTN_DTYPE_INT4>());
    case ATTN_DTYPE_FP4_E2M1:
      return fn(Codec<ATTN_DTYPE_FP4_E2M1>());
    default:
      return;
  }
}

// An element of any data or scale dtype.
ATTN_HD ATTN_NOINLINE inline double load_scalar(const void *data, int32_t dtype, int64_t offset) {
  if (dtype == ATTN_DTYPE_FP8_E8M0) return Codec<ATTN_DTYPE_FP8_E8M0>::load(data, offset);
  double value = 0;
  with_codec(dtype, [&](auto codec) { value = codec.load(data, offset); });
  return value;
}

}  // namespace attn
