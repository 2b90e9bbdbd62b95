// What the backward kernel is given.
#pragma once

#include <stdint.h>

#include "kernels/common/gpu/sdpa_reference_params.hpp"
#include "kernels/common/query.hpp"

namespace attn::gpu {

// What all keys of a query and head need, natural units.
struct BackwardRow {
  float lse;         // as given, with or without the sink
  float total;       // with the sink
  float share;       // of each key with s = +inf, where there is one, in the lse
  float kept_share;  // and in the weights: 0 if a sink of +inf takes all
  float d;           // <dout, out>
  float dlse;        // 0 if not given
};

// The kernel runs once for each step that is wanted, in this order.
enum class BackwardStep : int32_t {
  rows,  // BackwardRow, gated dout, dgate, zeros of padding
  dq,
  keys,  // dk and dv
  bias,
  sink,
};

struct SdpaBackwardParams {
  ScoreInputs in;
  TokenView q, k, v, out, dout;
  // dout * sigmoid(gate), the gradient of the ungated output: fp32 in the workspace, which the
  // first step writes; dout itself where there is no gate.
  TokenView gated;
  QueryView lse, dlse;          // data null: not given
  TokenView dq, dk, dv, dgate;  // data null: not wanted
  QueryView dbias;              // data null: not wanted
  float *dsink;
  int64_t dsink_head;
  BackwardRow *rows;  // [place][head]
  int64_t batch;
  int64_t places;                // for queries: dense batch * seqlen_q, ragged the tokens of q
  int64_t key_outer, key_inner;  // extents of k: batch and places, 1 and tokens, pages and slots
  int64_t bias_batch, bias_heads, bias_rows, bias_keys;  // extents of dbias; batch 0: rank 3
  int64_t tasks;                                         // of this step; a warp takes one at a time
  BackwardStep step;
  int32_t latent;      // v is part of k: dk gets dv, too
  int32_t dgate_n;     // last extent of dgate
  int32_t group;       // query heads that share a kv head
  int32_t warps;       // of a block
  int32_t warp_bytes;  // shared memory of a warp
};

// Shared memory of one warp, in this order. Every part is a multiple of 8 bytes.
struct BackwardLayout {
  static constexpr int32_t kPartners = 32;  // that a warp takes at a time
  // Of a partner: where its two rows begin, and their factors.
  static constexpr int32_t kPartnerBytes = kPartners * (2 * 8 + 2 * 4);

  // Two rows, and a sum of each.
  ATTN_HD static constexpr int32_t bytes(int32_t head_dim_qk, int32_t head_dim_v) {
    return kPartnerBytes + kBlockWords * 4 + 2 * ReferenceLayout::row_bytes(head_dim_qk) +
           2 * ReferenceLayout::row_bytes(head_dim_v);
  }
};

}  // namespace attn::gpu
