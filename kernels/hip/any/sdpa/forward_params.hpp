// What the forward kernel on matrix instructions is given.
#pragma once

#include <stdint.h>

#include "kernels/common/query.hpp"

namespace attn::hip {

struct SdpaForwardParams {
  ScoreInputs in;
  TokenView q, k, v, out;
  QueryView lse, row_max;
  int64_t batch;
  int64_t places;  // for queries: dense batch * seqlen_q, ragged the tokens of q
  int32_t tiles;   // of 16 queries: those of the longest sequence
  int32_t heads;   // query heads
  int32_t group;   // query heads that share a kv head
  int32_t head_dim_qk, head_dim_v;
  int32_t vector;  // rows of q and k can be read 16 bytes at a time
};

}  // namespace attn::hip
