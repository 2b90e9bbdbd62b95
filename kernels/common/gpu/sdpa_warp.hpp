// What the reference kernels of both passes have in common: sums across a warp, a query's list of
// key blocks, and which sequence a token belongs to.
#pragma once

#include "kernels/common/gpu/sdpa_reference_params.hpp"
#include "kernels/common/gpu/threads.hpp"
#include "kernels/common/query.hpp"

namespace attn::gpu {
namespace {

__device__ inline float warp_max(float x) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, shuffle_xor(x, step));
  return x;
}
__device__ inline float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += shuffle_xor(x, step);
  return x;
}

// Sums four values over the warp; lanes 8 r .. 8 r + 7 get that of sums[r].
__device__ inline float warp_sum_of_four(const float (&sums)[4], int lane) {
  const bool high = (lane & 16) != 0, odd = (lane & 8) != 0;
  float a = high ? sums[2] : sums[0], b = high ? sums[3] : sums[1];
  a += shuffle_xor(high ? sums[0] : sums[2], 16);
  b += shuffle_xor(high ? sums[1] : sums[3], 16);
  float x = odd ? b : a;
  x += shuffle_xor(odd ? a : b, 8);
  for (int step = 4; step > 0; step /= 2) x += shuffle_xor(x, step);
  return x;
}

// The list of key blocks of one query, if it has one, as bits of a window that follows the keys.
class ListedBlocks {
 public:
  __device__ ListedBlocks(const ScoreInputs &in, const Sequence &s, int64_t head, int64_t i,
                          uint32_t *bits, int lane)
      : bits_(bits), size_(in.has(ATTN_SDPA_BLOCK_SPARSE) ? in.d.block_size_k : 0), lane_(lane) {
    if (size_ == 0) return;
    const int64_t row = i / in.d.block_size_q;
    count_ = in.blocks.count(s.index, head, row);
    list_ = in.blocks.list(s.index, head, row);
    entry_ = in.blocks.indices_entry;
  }

  // Call with all lanes before contains() of 32 keys from `first` on, a multiple of 32. The window
  // holds a multiple of 32 blocks, so that these keys lie in one.
  __device__ void reach(int64_t first) {
    if (size_ == 0) return;
    const int64_t window = first / size_ / (32 * kBlockWords) * (32 * kBlockWords);
    if (window == window_) return;
    window_ = window;
    sync_warp();
    for (int n = lane_; n < kBlockWords; n += 32) bits_[n] = 0;
    sync_warp();
    for (int64_t n = lane_; n < count_; n += 32) {
      const int64_t block = list_[n * entry_] - window;
      if (block >= 0 && block < 32 * kBlockWords) {
        atomic_or(&bits_[block / 32], 1u << static_cast<unsigned>(block % 32));
      }
    }
    sync_warp();
  }
  __device__ bool contains(int64_t j) const {
    if (size_ == 0) return true;
    const int64_t block = j / size_ - window_;
    return (bits_[block / 32] >> static_cast<unsigned>(block % 32) & 1u) != 0;
  }

 private:
  uint32_t *bits_;
  int64_t size_;  // keys a block; 0: no list
  int lane_;
  int64_t count_ = 0, entry_ = 0;
  const int32_t *list_ = nullptr;
  int64_t window_ = -1;
};

// The sequence that token t belongs to; `batch` if it comes after the last.
__device__ inline int64_t sequence_of(const int32_t *cu_seqlens, int64_t batch, int64_t t) {
  int64_t low = 0, high = batch;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (cu_seqlens[middle + 1] <= t) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace
}  // namespace attn::gpu
