// The matrix instructions of AMD's processors as one operation on tiles of 16 x 16 x 16, one wave
// each: MFMA on gfx9 (waves of 64), WMMA on gfx11 and gfx12 (waves of 32).
//
// Of A a lane holds a part of row lane % 16, of B a part of column lane % 16: elements
// first() .. first() + kElements - 1 of that row or column. Of the result it holds kResults
// elements of column lane % 16, result r being in row row_of(r). So a column of the result is, but
// for gfx11, already where B wants it: to_operand().
#pragma once

#include "kernels/common/dtype.hpp"
#include "kernels/common/gpu/threads.hpp"

namespace attn::hip {

using Results4 = float __attribute__((ext_vector_type(4)));
using Results8 = float __attribute__((ext_vector_type(8)));

#if defined(__GFX9__)
inline constexpr int kElements = 4, kResults = 4;
using Results = Results4;
#elif defined(__GFX12__)
inline constexpr int kElements = 8, kResults = 8;
using Results = Results8;
#else
inline constexpr int kElements = 16, kResults = 8;
using Results = Results8;
#endif

struct Operand {
  uint32_t word[kElements / 2];
};

__device__ inline int group_of(int lane) {
  return lane / 16;
}
__device__ inline int first_of(int lane) {
  return kElements == 16 ? 0 : kElements * group_of(lane);
}
__device__ inline int row_of(int r, int lane) {
  return kElements == 16 ? 2 * r + group_of(lane) : kResults * group_of(lane) + r;
}

// `kElement` is ATTN_DTYPE_FP16 or _BF16.
template <int32_t kElement>
__device__ inline Results multiply_add(const Operand &a, const Operand &b, Results c) {
  constexpr bool kHalf = kElement == ATTN_DTYPE_FP16;
#if defined(__GFX9__)
  using Half = _Float16 __attribute__((ext_vector_type(4)));
  using Short = short __attribute__((ext_vector_type(4)));
  if constexpr (kHalf) {
    return __builtin_amdgcn_mfma_f32_16x16x16f16(__builtin_bit_cast(Half, a),
                                                 __builtin_bit_cast(Half, b), c, 0, 0, 0);
  } else {
    return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(__builtin_bit_cast(Short, a),
                                                     __builtin_bit_cast(Short, b), c, 0, 0, 0);
  }
#elif defined(__GFX12__)
  using Half = _Float16 __attribute__((ext_vector_type(8)));
  using Brain = __bf16 __attribute__((ext_vector_type(8)));
  if constexpr (kHalf) {
    return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(__builtin_bit_cast(Half, a),
                                                            __builtin_bit_cast(Half, b), c);
  } else {
    return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(__builtin_bit_cast(Brain, a),
                                                             __builtin_bit_cast(Brain, b), c);
  }
#else
  using Half = _Float16 __attribute__((ext_vector_type(16)));
  using Short = short __attribute__((ext_vector_type(16)));
  if constexpr (kHalf) {
    return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(__builtin_bit_cast(Half, a),
                                                      __builtin_bit_cast(Half, b), c);
  } else {
    return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(__builtin_bit_cast(Short, a),
                                                       __builtin_bit_cast(Short, b), c);
  }
#endif
}

// Rounded to nearest, ties to even.
template <int32_t kElement>
__device__ inline uint32_t to_element(float x) {
  if constexpr (kElement == ATTN_DTYPE_FP16) {
    return __builtin_bit_cast(uint16_t, static_cast<_Float16>(x));
  } else {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    if (x != x) return 0x7fc0;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }
}
// The same of a number that is finite.
template <int32_t kElement>
__device__ inline uint32_t weight_to_element(float x) {
  if constexpr (kElement == ATTN_DTYPE_FP16) return to_element<kElement>(x);
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
template <int32_t kElement>
__device__ inline float from_element(uint32_t bits) {
  if constexpr (kElement == ATTN_DTYPE_FP16) {
    return static_cast<float>(__builtin_bit_cast(_Float16, static_cast<uint16_t>(bits)));
  } else {
    return __builtin_bit_cast(float, bits << 16);
  }
}

// A column of results, already rounded, as the column of B.
__device__ inline Operand to_operand(const uint32_t (&column)[kResults], int lane) {
  Operand b;
  if constexpr (kElements == kResults) {
    for (int n = 0; n < kElements / 2; n++) b.word[n] = column[2 * n] | column[2 * n + 1] << 16;
  } else {
    // Each half of the wave has every other row: the other half's lie 16 lanes away.
    for (int n = 0; n < kElements / 2; n++) {
      const auto mine = __builtin_bit_cast(float, column[n]);
      const auto other = __builtin_bit_cast(uint32_t, gpu::shuffle_xor(mine, 16));
      b.word[n] = lane < 16 ? column[n] | other << 16 : other | column[n] << 16;
    }
  }
  return b;
}

// The largest and the sum over the lanes that share a column.
__device__ inline float column_max(float x) {
  x = fmaxf(x, gpu::shuffle_xor(x, 16));
  return gpu::kWave == 64 ? fmaxf(x, gpu::shuffle_xor(x, 32)) : x;
}
__device__ inline float column_sum(float x) {
  x += gpu::shuffle_xor(x, 16);
  return gpu::kWave == 64 ? x + gpu::shuffle_xor(x, 32) : x;
}

}  // namespace attn::hip
