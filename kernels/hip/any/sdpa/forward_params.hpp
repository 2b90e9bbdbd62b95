// What the forward kernel on matrix instructions is given.
#pragma once

#include <stdint.h>

#include "kernels/common/gpu/block_map_params.hpp"
#include "kernels/common/query.hpp"

namespace attn::hip {

struct SdpaForwardParams {
  ScoreInputs in;
  TokenView q, k, v, out;
  QueryView lse, row_max;
  int64_t batch;
  int64_t places;  // for queries: dense batch * seqlen_q, ragged the tokens of q
  // Rows of a tile are pairs of a query and one of `pack` neighbouring heads, which share a kv
  // head.
  int32_t tiles;        // of 16 rows: those of the longest sequence
  int32_t pack;         // 1, or group
  int32_t heads;        // query heads
  int32_t head_blocks;  // heads / pack
  int32_t group;        // query heads that share a kv head
  int32_t head_dim_qk, head_dim_v;
  int32_t vector;         // rows of q and k can be read 16 bytes at a time
  int32_t vector_values;  // those of v, too
  int32_t terms;          // 16-bit numbers that make up a weight: more than 1 where out is fp32
  // Pieces of the keys, whose results (PartialResults of src/backend/gpu/merge.hpp) are merged by
  // another kernel; 1: none. A piece is an equal share of the tiles that a wave has to do, or
  // `split_size` keys if that is not 0.
  int32_t splits, split_size;
  float *partial_out, *partial_lse, *partial_max;
  gpu::BlockMap blocks;  // BLOCK_SPARSE
};

}  // namespace attn::hip
