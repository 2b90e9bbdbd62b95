// Sixteen rows of 64 elements in LDS, of one wave: how operands are read across their rows.
#pragma once

#include "kernels/hip/common/tile.hpp"

namespace attn::hip {

__device__ inline bool wave_any(bool x) {
#if defined(__GFX9__)
  return __builtin_amdgcn_ballot_w64(x) != 0;
#else
  return gpu::any(x);
#endif
}

// Rows have a pitch for which the lanes of a read of one element lie in different banks.
constexpr int kStagedRows = 16, kStagedDim = 64, kStagedPitch = kStagedDim + 4;
using Staged = uint16_t[kStagedRows][kStagedPitch];

// A lane's part on the way there: of row lane % 16 elements lane / 16 * kStagedPart and following.
constexpr int kStagedLanes = gpu::kWave / kStagedRows, kStagedPart = kStagedDim / kStagedLanes;
struct StagedWords {
  uint32_t word[kStagedPart / 2] = {};
};

template <int32_t kElement>
constexpr uint32_t kExponent = kElement == ATTN_DTYPE_FP16 ? 0x7c00 : 0x7f80;
// Added to two elements without their signs, it carries into the signs of those that are not
// finite.
template <int32_t kElement>
constexpr uint32_t kExponentStep = (0x8000 - kExponent<kElement>)*0x10001u;

// To LDS, where all lanes of the wave read them. Tells whether all are finite.
template <int32_t kElement>
__device__ inline bool stage(const StagedWords &v, int lane, Staged &to) {
  gpu::sync_warp();  // the last tile's have been read
  uint32_t *store =
      reinterpret_cast<uint32_t *>(&to[lane % kStagedRows][lane / kStagedRows * kStagedPart]);
  uint32_t special = 0;
#pragma unroll
  for (int k = 0; k < kStagedPart / 2; k++) {
    special |= (v.word[k] & 0x7fff7fffu) + kExponentStep<kElement>;
    store[k] = v.word[k];
  }
  gpu::sync_warp();
  return !wave_any((special & 0x80008000u) != 0);
}

// Elements 16 c to 16 c + 15 of the rows, as operand A of rows.
__device__ inline Operand rows_of(const Staged &rows, int c, int lane) {
  Operand a;
  const uint32_t *from =
      reinterpret_cast<const uint32_t *>(&rows[lane % kStagedRows][16 * c + first_of(lane)]);
#pragma unroll
  for (int e = 0; e < kElements / 2; e++) a.word[e] = from[e];
  return a;
}

// The same transposed: A's rows are the elements.
__device__ inline Operand columns_of(const Staged &rows, int c, int lane) {
  Operand a;
#pragma unroll
  for (int e = 0; e < kElements; e += 2) {
    const uint16_t *low = &rows[first_of(lane) + e][16 * c + lane % 16];
    a.word[e / 2] = low[0] | static_cast<uint32_t>(low[kStagedPitch]) << 16;
  }
  return a;
}

// out + (elements 16 c to 16 c + 15 of the rows, transposed) * weights. A weight of 0 silences
// infinities and NaNs; `finite`: there are none. `counts`: the weights tell by themselves whether a
// row counts (where a weight has several terms, the first does).
template <int32_t kElement, bool kSigned>
__device__ inline Results add_transposed(const Staged &rows, int c, const Operand &weights,
                                         bool finite, bool counts, int lane, Results out) {
  const Operand v = columns_of(rows, c, lane);
  if (finite) return multiply_add<kElement>(v, weights, out);
  // Infinities and NaNs apart: where a weight that is not 0 meets one, it is in the result. A NaN
  // counts as infinities of both signs. Two elements at a time; what is found is in bits 15 and 31.
  constexpr uint32_t kOne = kElement == ATTN_DTYPE_FP16 ? 0x3c00 : 0x3f80;
  Operand finite_part, positive, negative;
#pragma unroll
  for (int e = 0; e < kElements / 2; e++) {
    constexpr uint32_t kMantissa = (0x7fff - kExponent<kElement>)*0x10001u;
    constexpr int kToTop = kElement == ATTN_DTYPE_FP16 ? 5 : 8;
    const uint32_t word = v.word[e];
    const uint32_t special = ((word & 0x7fff7fffu) + kExponentStep<kElement>)&0x80008000u;
    const uint32_t nan = ((word & kMantissa) + kMantissa) << kToTop;
    finite_part.word[e] = word & ~((special >> 15) * 0xffffu);
    positive.word[e] = ((special & (~word | nan)) >> 15) * kOne;
    negative.word[e] = ((special & (word | nan)) >> 15) * kOne;
  }
  out = multiply_add<kElement>(finite_part, weights, out);
  if (!counts) return out;
  Results above, below;
  if constexpr (kSigned) {  // of weights only the signs
    Operand up, down;
#pragma unroll
    for (int e = 0; e < kElements / 2; e++) {
      const uint32_t word = weights.word[e];
      const uint32_t some = (word & 0x7fff7fffu) + 0x7fff7fffu;
      up.word[e] = ((some & ~word & 0x80008000u) >> 15) * kOne;
      down.word[e] = ((some & word & 0x80008000u) >> 15) * kOne;
    }
    above = multiply_add<kElement>(negative, down, multiply_add<kElement>(positive, up, Results{}));
    below = multiply_add<kElement>(positive, down, multiply_add<kElement>(negative, up, Results{}));
  } else {
    above = multiply_add<kElement>(positive, weights, Results{});
    below = multiply_add<kElement>(negative, weights, Results{});
  }
  for (int r = 0; r < kResults; r++) {
    out[r] += above[r] > 0 ? infinity() : 0.0f;
    out[r] -= below[r] > 0 ? infinity() : 0.0f;
  }
  return out;
}

}  // namespace attn::hip
