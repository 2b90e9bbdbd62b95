// What the merge kernels are given. One struct serves attn_merge and the last step of an attention
// whose keys were split: there the rows lie in two dimensions, and a gate follows.
#pragma once

#include <stdint.h>

#include "kernels/common/sequence.hpp"

namespace attn::gpu {

// The lse, as bits, of the first part of a row that is padding: neither the sink nor anything else
// counts there. A NaN that arithmetic does not give.
inline constexpr uint32_t kPaddingLse = 0x7fc0d0d0;

struct MergeParams {
  // Strides in elements, 0 where there is no such tensor.
  const void *partial;
  int64_t partial_row, partial_part, partial_head, partial_dim;
  const float *partial_lse;  // partial_max, too
  int64_t lse_row, lse_part, lse_head;
  const void *other;  // null: none
  int64_t other_row, other_head, other_dim;
  const float *other_lse;
  int64_t other_lse_row, other_lse_head;
  const uint8_t *row_mask;  // null: none
  int64_t row_mask_row;
  const float *sink;  // null: none
  int64_t sink_head;
  TokenView gate;     // data null: none
  TokenView out;      // row r lies at (r / inner, r % inner)
  QueryView out_lse;  // data null: not wanted
  // The largest score of each part, and of all: null or both given.
  const float *partial_max;
  QueryView row_max;

  int64_t rows, inner;
  int64_t parts;  // `other` not counted
  int32_t heads, head_dim;
  int32_t base2;      // of the parts' lse: not natural
  int32_t out_base2;  // of out_lse
  int32_t lse_includes_sink;
  int32_t padding;  // rows may be marked by kPaddingLse
  int32_t vector;   // elements can be read and written 16 bytes of `partial` at a time
  int32_t preload;  // values are worth reading before the weights are known
  // A block has `items` (row, head) pairs at once; `teams` of `lanes` threads share the parts of
  // each. Powers of two, lanes <= 32.
  int32_t items, teams, lanes;
};

}  // namespace attn::gpu
