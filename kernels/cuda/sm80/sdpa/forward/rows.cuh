// Rows from global to shared memory, asynchronously, 16 bytes at a time.
#pragma once

#include "kernels/cuda/sm80/sdpa/forward/kernel.cuh"

namespace attn::cuda {

// Where a row begins, and whether it exists.
struct Source {
  const char *row;
  bool exists;
};

// How the threads of a block share a tile: groups of them take a part of a row each, then the next
// part; the groups take rows in turns.
template <class Rows>
struct Turns {
  static constexpr int kGroup = Rows::kChunks % 8 == 0 ? 8 : 4;
  static constexpr int kPass = kThreads / kGroup;  // rows of a turn
  static constexpr int kParts = Rows::kChunks / kGroup;
  __device__ static int row() { return (Forward::tid() / kGroup) & (kPass - 1); }
  __device__ static int chunk() { return Forward::tid() % kGroup; }
};

// Fills a tile of kRows rows, of which the first `bytes` exist; the rest becomes 0. place(n, row)
// gives the source of row `row`, the n-th of this thread; it is asked in order. kWhole: `bytes` is
// a multiple of 16.
template <class Rows, int kRows, bool kWhole, class Place>
__device__ inline void copy_rows(uint32_t tile, int bytes, Place place) {
  using T = Turns<Rows>;
  static_assert(kRows % T::kPass == 0);
  const int row = T::row(), chunk = T::chunk();
#pragma unroll
  for (int n = 0; n < kRows / T::kPass; n++) {
    const Source source = place(n, row + n * T::kPass);
    const uint32_t to = tile + Rows::at(row + n * T::kPass, chunk);
#pragma unroll
    for (int part = 0; part < T::kParts; part++) {
      const int at = part * T::kGroup * 16, left = bytes - at - chunk * 16;
      const bool exists = source.exists && left > 0;
      copy_async_16(to + at, source.row + at + chunk * 16,
                    !exists  ? 0
                    : kWhole ? 16
                             : min(left, 16));
    }
  }
}

// The source of rows `stride` bytes apart, `count` of them. One pointer walks down.
template <class Rows>
struct Walk {
  const char *at;
  int64_t pass;
  int left;

  __device__ Walk(const char *first, int64_t stride, int count)
      : at(first + Turns<Rows>::row() * stride),
        pass(Turns<Rows>::kPass * stride),
        left(count - Turns<Rows>::row()) {}
  __device__ Source operator()(int n, int) {
    const Source source = {at, n * Turns<Rows>::kPass < left};
    at += pass;
    return source;
  }
};

}  // namespace attn::cuda
