// Lists of visible key blocks to bits: bit n of word w of a row is set if block 32 w + n is listed.
// Entries come in any order, repeated or negative.
//
// A block of threads makes one row, a window of words at a time in shared memory. Lists of query
// blocks that no query uses may hold anything: counts are clamped, entries out of range skipped.
#pragma once

#include "kernels/common/gpu/block_map_params.hpp"
#include "kernels/common/gpu/threads.hpp"

namespace attn::gpu {
namespace {

constexpr int kBlockMapWindow = 1024;  // words

__device__ inline void write_block_map(const BlockMapParams &p,
                                       uint32_t (&window)[kBlockMapWindow]) {
  constexpr int kThreads = kBlockMapThreads;
  const int thread = static_cast<int>(thread_index());
  const int64_t maps = p.batch * p.heads * p.rows;
  for (int64_t map = block_index(); map < maps; map += grid_size()) {
    const int64_t row = map % p.rows, head = map / p.rows % p.heads, b = map / p.rows / p.heads;
    const int64_t listed = p.lists.count(b, head, row);
    const int64_t count = listed < p.max_blocks ? listed : p.max_blocks;
    const int32_t *list = p.lists.list(b, head, row);
    for (int first = 0; first < p.words; first += kBlockMapWindow) {
      const int words = p.words - first < kBlockMapWindow ? p.words - first : kBlockMapWindow;
      sync_block();
#pragma unroll 1
      for (int w = thread; w < words; w += kThreads) window[w] = 0;
      sync_block();
#pragma unroll 1
      for (int64_t n = thread; n < count; n += kThreads) {
        const int32_t block = list[n * p.lists.indices_entry];
        if (block < 0 || block >= p.key_blocks) continue;
        const int word = block / 32 - first;
        if (word >= 0 && word < words) atomic_or(&window[word], 1u << (block & 31));
      }
      sync_block();
#pragma unroll 1
      for (int w = thread; w < words; w += kThreads) p.bits[map * p.words + first + w] = window[w];
    }
  }
}

}  // namespace
}  // namespace attn::gpu
