// Bits of listed key blocks, and what the kernel that makes them of lists is given.
#pragma once

#include <stdint.h>

#include "kernels/common/query.hpp"

namespace attn::gpu {

// Where the bits of (sequence b, head h, query block r) are: words b * batch + h * head + r * row
// and following; bit n of word w is key block 32 w + n. 0 strides where lists are shared.
struct BlockMap {
  uint32_t *bits;
  int64_t batch, head, row;  // strides in words
};

inline constexpr uint32_t kBlockMapThreads = 128;

struct BlockMapParams {
  BlockLists lists;
  uint32_t *bits;      // [batch][heads][rows][words]
  int64_t batch;       // 1 if all sequences share their lists
  int64_t max_blocks;  // entries that a list has room for
  int32_t heads;       // 1 if all heads do
  int32_t rows;        // blocks of queries
  int32_t key_blocks;
  int32_t words;  // of a row
};

}  // namespace attn::gpu
