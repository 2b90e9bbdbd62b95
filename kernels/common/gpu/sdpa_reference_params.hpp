// What the reference forward kernel is given.
#pragma once

#include <stdint.h>

#include "kernels/common/query.hpp"

namespace attn::gpu {

struct SdpaReferenceParams {
  ScoreInputs in;
  ScaledView q, k, v, out;
  QueryView lse, row_max;
  int64_t batch;
  int64_t places;  // for queries: dense batch * seqlen_q, ragged the tokens of q
  int64_t tiles;   // of places: one is what a block takes of a head
  int64_t blocks;  // tiles * groups of heads; the grid may be smaller
  int32_t group;   // query heads that share a kv head
  int32_t heads;   // of one block, which has a warp for each (place, head)
  int32_t places_per_block;
  int32_t warp_bytes;  // shared memory of a warp
};

// Of a warp's shared memory, for bits of listed key blocks.
inline constexpr int32_t kBlockWords = 64;

// Shared memory of one warp, in this order. Every part is a multiple of 8 bytes.
struct ReferenceLayout {
  static constexpr int32_t kKeys = 32;  // that a warp takes at a time
  // k_at, k_scale_at, v_at, v_scale_at; k_scale, v_scale, weight
  static constexpr int32_t kKeyBytes = kKeys * (4 * 8 + 3 * 4);

  ATTN_HD static constexpr int32_t row_bytes(int32_t head_dim) {
    return (head_dim * 4 + 7) / 8 * 8;
  }
  ATTN_HD static constexpr int32_t bytes(int32_t head_dim_qk, int32_t head_dim_v) {
    return kKeyBytes + kBlockWords * 4 + row_bytes(head_dim_qk) + row_bytes(head_dim_v);
  }
};

}  // namespace attn::gpu
