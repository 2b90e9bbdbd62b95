// Tiles in shared memory: rows of 16-byte chunks, swizzled so that the eight rows of a matrix
// fragment lie in different banks.
#pragma once

#include <stdint.h>

namespace attn::cuda {

// A tile whose rows have kRowBytes bytes, a multiple of 64. The rows of a fragment are r, r + 1 and
// the pairs kLeap, 2 kLeap and 3 kLeap further down, r even: kLeap = 2 makes them neighbours.
template <int kRowBytes, int kLeap>
struct Tile {
  static constexpr int kChunks = kRowBytes / 16;
  static_assert(kRowBytes % 64 == 0 && kLeap % 2 == 0);

  // Byte offset of a chunk.
  __device__ static uint32_t at(uint32_t row, uint32_t chunk) {
    // Rows of an odd number of 64-byte halves alternate between the two halves of the banks.
    const uint32_t pair = row / kLeap % 4;
    const uint32_t turn = kRowBytes % 128 == 0 ? pair * 2 + row % 2 : pair;
    return row * kRowBytes + ((chunk ^ turn) << 4);
  }
  // The i-th row of the first fragment; those of the next ones are 2, 4, ... further down.
  __device__ static uint32_t fragment_row(uint32_t i) { return i / 2 * kLeap + i % 2; }

  // From the address of a chunk to that of the chunk whose index differs by `delta`, a constant
  // whose bits the first index does not have. The tile must begin at a multiple of 128 bytes.
  // Cheap: at most one instruction, the rest is part of the load.
  __device__ static uint32_t moved(uint32_t address, uint32_t delta) {
    constexpr uint32_t kTurns = kRowBytes % 128 == 0 ? 8 : 4;
    return (address ^ (delta % kTurns << 4)) + delta / kTurns * kTurns * 16;
  }
  // Rows further down: `count` is even and leads to another fragment.
  __device__ static constexpr uint32_t rows(int count) { return count * kRowBytes; }
};

}  // namespace attn::cuda
