// What the forward kernels are given, and what the host must know of a variant to launch it.
#pragma once

#include <stdint.h>

#include "kernels/common/sequence.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cuda/common/divider.hpp"

namespace attn::cuda {

// ForwardParams::options
enum ForwardOption : uint32_t {
  kForwardBias = 1u << 0,
  kForwardAlibi = 1u << 1,
  kForwardSoftcap = 1u << 2,
  kForwardMask = 1u << 3,
  kForwardTailMask = 1u << 4,
  kForwardSegments = 1u << 5,
  kForwardBlocks = 1u << 6,
  kForwardDropout = 1u << 7,
  kForwardSilu = 1u << 8,
  kForwardSink = 1u << 9,
  kForwardLseIncludesSink = 1u << 10,
  kForwardGate = 1u << 11,
  kForwardLse = 1u << 12,
  kForwardRowMax = 1u << 13,
  kForwardLseBase2 = 1u << 14,
  kForwardVectorQ = 1u << 15,    // rows of q can be read 16 bytes at a time
  kForwardVectorKv = 1u << 16,   // rows of k and v can
  kForwardVectorOut = 1u << 17,  // rows of out can be written so
  kForwardHeavyLast = 1u << 18,  // later query blocks have more keys (causal)
  kForwardFixedSplit = 1u << 19,
  kForwardVectorBias = 1u << 20,  // rows of the bias can be read 16 bytes at a time
  kForwardWordMasks = 1u << 21,   // rows of masks are contiguous and begin at multiples of 4 bytes
};

// tanh(y) = y (1 + z (t_0 + z (t_1 + ...))), z = y^2, for small y: least squares on Chebyshev
// points. For y = scale * x and terms t_n scale^(2 n + 2), the same in x gives tanh(y) / scale.
struct SoftcapTerms {
  // For elements of 16 bits, and of 32: relative errors of 5e-7 and 1e-7.
  static constexpr int kQuick = 2, kPrecise = 5, kMost = 5;
  static constexpr float kQuickSmall = 0.25f, kPreciseSmall = 0.5f;

  float cap;
  float scale;     // from <q, k> to y: softmax_scale / cap
  float bare_cap;  // 1 / scale
  float terms[kMost];
};

struct ForwardParams {
  SequenceTable sequences;
  TokenView q, k, v, out, gate;
  QueryView lse, row_max, mask, tail_mask, bias;
  const int32_t *q_segment_ids, *kv_segment_ids;
  int64_t q_segment_outer, q_segment_inner, kv_segment_outer, kv_segment_inner;
  const float *alibi_slopes;
  int64_t alibi_batch, alibi_head;
  const float *sink;
  int64_t sink_head;
  const uint64_t *rng_state;
  // Bit n of word w of a row: key block 32 w + n is visible to the query block.
  const uint32_t *block_bits;
  int64_t block_batch, block_head, block_row;  // strides in words
  // Split: partial results by [split][row][head](dim), where a row is a query's place.
  float *partial_out, *partial_lse, *partial_max;  // the last is null unless wanted
  int64_t total_q;

  PositionRulesOf<int32_t> rules;  // of the descriptor; seqlen_k and offset are a sequence's own
  int32_t bottom_right;
  uint32_t options;
  int32_t batch;  // sequences
  int32_t num_q_heads;
  int32_t head_dim_qk, head_dim_v;
  int32_t split_size;  // FixedSplit: keys a piece
  int32_t tail;        // ragged: 1, as if one more sequence held the tokens after the last one
  int32_t block_size_q, block_size_k;
  int32_t p_terms;  // roundings whose sum stands for a weight: 1, or more where out is more precise
  // The grid: from the fastest index on, pieces of a block's keys; pieces of head_dim_v; then
  // (batch, head) pairs, in sections whose blocks run side by side for the L2's sake, block of
  // query rows by block.
  int32_t num_splits, v_chunks, pairs, m_blocks;
  Divider splits, chunks, section, section_blocks;  // the last: blocks of a whole section
  Divider heads;  // of the grid: kv heads if rows are packed, else q heads
  Divider pack;   // query heads that share a row block: the group or 1
  Divider group;
  float softmax_scale, silu_divisor, dropout_p;
  float scale_log2;     // softmax_scale in units of log 2
  float scale_inverse;  // 1 / softmax_scale
  SoftcapTerms softcap;
};

// One row of the table of variants.
struct ForwardConfig {
  int32_t element_bytes;
  int32_t head_dim_qk, head_dim_v;  // the largest that it serves
  int32_t block_m, block_n, warps;

  ATTN_HD constexpr int32_t threads() const { return warps * 32; }
  // Shared memory: tiles of q, k and v; what all threads of a block know, of it and of its rows;
  // pages and segments of the keys of two tiles; kind bias: a tile of biases.
  static constexpr int32_t kBlockBytes = 256, kRowBytes = 16;
  ATTN_HD constexpr int32_t q_bytes() const { return block_m * head_dim_qk * element_bytes; }
  ATTN_HD constexpr int32_t k_bytes() const { return block_n * head_dim_qk * element_bytes; }
  ATTN_HD constexpr int32_t v_bytes() const { return block_n * head_dim_v * element_bytes; }
  ATTN_HD constexpr int32_t block_at() const { return q_bytes() + k_bytes() + v_bytes(); }
  ATTN_HD constexpr int32_t rows_at() const { return block_at() + kBlockBytes; }
  ATTN_HD constexpr int32_t slots_at() const { return rows_at() + block_m * kRowBytes; }
  ATTN_HD constexpr int32_t segments_at() const { return slots_at() + 2 * block_n * 8; }
  ATTN_HD constexpr int32_t bias_at() const { return segments_at() + 2 * block_n * 4; }
  ATTN_HD constexpr int32_t smem_bytes(int32_t bias_bytes = 0) const {  // of a bias's element
    return bias_at() + block_m * block_n * bias_bytes;
  }
};

}  // namespace attn::cuda
