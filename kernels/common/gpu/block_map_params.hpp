// What the kernel that turns lists of key blocks into bits is given.
#pragma once

#include <stdint.h>

#include "kernels/common/query.hpp"

namespace attn::gpu {

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
