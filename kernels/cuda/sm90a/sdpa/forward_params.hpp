// What the Hopper forward kernels are given, and what the host must know of a variant to launch it.
#pragma once

#include <stdint.h>

#include "kernels/common/sequence.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cuda/common/divider.hpp"
#include "kernels/cuda/common/tensor_map.hpp"

namespace attn::cuda::sm90 {

// ForwardParams::options
enum ForwardOption : uint32_t {
  kForwardLse = 1u << 0,
  kForwardLseBase2 = 1u << 1,
  kForwardSink = 1u << 2,
  kForwardLseIncludesSink = 1u << 3,
  // Sequences end where the tensor does, so that what lies behind them arrives as 0.
  kForwardWholeQ = 1u << 4,
  kForwardWholeKv = 1u << 5,
  kForwardSoftcap = 1u << 6,
  kForwardAlibi = 1u << 7,
};

struct ForwardParams {
  // (head dim, token, head, outer) as kernels/common/sequence.hpp has it; boxes of 64 columns. Of
  // pages, a box has box_groups of eight tokens: as many as divide both a page and a tile. Where
  // tiles are grouped (variant.cuh), pages are (64 columns, 8 tokens, blocks of columns, groups of
  // tokens, head), and a box has all columns; or, of head dims that are no multiple of 64, which
  // would read what is beside them, (head dim, 8 tokens, 1, groups of tokens, head).
  TensorMap q, k, v;
  SequenceTable sequences;
  TokenView q_view, k_view, v_view, out;
  QueryView lse;
  const float *sink;
  int64_t sink_head;
  const float *alibi_slopes;
  int64_t alibi_batch, alibi_head;
  int64_t total_q;
  int64_t page_step;  // elements between two entries of a sequence's list of pages

  PositionRulesOf<int32_t> rules;  // of the descriptor; seqlen_k and offset are a sequence's own
  int32_t bottom_right;
  uint32_t options;
  int32_t batch;  // sequences
  int32_t head_dim_qk, head_dim_v;
  Divider page_size;
  int32_t box_groups;                    // of eight tokens, in a box; 0: keys are not in pages
  int32_t box_whole;                     // 1: a box of a grouped tile has all columns
  int32_t k_page_groups, v_page_groups;  // groups from one page to the next
  // The order of work. An item is a block of queries; where later blocks see more keys, it is the
  // n-th from the end and the n-th from the beginning of a (batch, head) pair, and so all items
  // take the same time. They go around the multiprocessors, all of a pair before those of the next,
  // so that neighbours find the same keys in the L2. The blocks of the last tail_pairs are dealt
  // one by one, the longest first, and fill up what is left.
  int32_t items, blocks_an_item, m_blocks;
  int32_t even_rounds;  // in which each multiprocessor has an item
  int32_t tail_blocks, first_tail_pair;
  Divider items_a_pair, tail_pairs, heads, group;
  int32_t zero;  // 0, which the compiler must not know: see Softmax::after()
  // Ragged queries have a number of items a sequence, and come in classes: see RaggedOrder.
  int32_t classes;      // 0: not ragged
  float scale_log2;     // softmax_scale in units of log 2
  float scale_inverse;  // 1 / softmax_scale
  float softcap_scale;  // softmax_scale / softcap
  float bare_softcap;   // 1 over it
  // Products of lower magnitude are for kernels/cuda/common/softcap.hpp's polynomials.
  float softcap_small, softcap_tiny;
  float softcap_cubic, softcap_quintic;  // with powers of softcap_scale
  float softcap_tiny_cubic;
};

// Sequences of about the same length: 0 for the shortest, one more for each doubling.
ATTN_HD inline int32_t length_class(int32_t seqlen_k) {
  int32_t n = 0;
  for (int32_t tiles = seqlen_k >> 7; tiles != 0; tiles >>= 1) n++;
  return n;
}

// One row of the table of variants.
struct ForwardConfig {
  int32_t head_dim_qk, head_dim_v;  // the largest that it serves
  int32_t block_m, block_n;
  int32_t q_stages, kv_stages;

  static constexpr int32_t kColumns = 64;  // of a block of a tile: 128 bytes
  ATTN_HD static constexpr int32_t blocks(int32_t columns) {
    return (columns + kColumns - 1) / kColumns;
  }
  // Whether tiles of keys in pages are grouped: see variant.cuh.
  ATTN_HD static constexpr bool groups(int32_t columns_qk, int32_t columns_v) {
    return columns_qk % kColumns == 0 && columns_v % kColumns == 0;
  }
  ATTN_HD constexpr int32_t consumers() const { return block_m / 64; }  // warpgroups
  ATTN_HD constexpr int32_t threads() const { return 128 * (consumers() + 1); }
  // Shared memory: stages of q, k and v; barriers, descriptions of work, the planner's own, and
  // where pages are.
  static constexpr int32_t kBarrierBytes = 512, kWorkBytes = 128, kWorks = 4, kPlanBytes = 384,
                           kPlaceBytes = 512;
  ATTN_HD constexpr int32_t q_bytes() const { return block_m * 128 * blocks(head_dim_qk); }
  ATTN_HD constexpr int32_t k_bytes() const { return block_n * 128 * blocks(head_dim_qk); }
  ATTN_HD constexpr int32_t v_bytes() const { return block_n * 128 * blocks(head_dim_v); }
  ATTN_HD constexpr int32_t k_at() const { return q_stages * q_bytes(); }
  ATTN_HD constexpr int32_t v_at() const { return k_at() + kv_stages * k_bytes(); }
  ATTN_HD constexpr int32_t barriers_at() const { return v_at() + kv_stages * v_bytes(); }
  ATTN_HD constexpr int32_t works_at() const { return barriers_at() + kBarrierBytes; }
  ATTN_HD constexpr int32_t plan_at() const { return works_at() + kWorks * kWorkBytes; }
  ATTN_HD constexpr int32_t places_at() const { return plan_at() + kPlanBytes; }
  ATTN_HD constexpr int32_t smem_bytes() const { return places_at() + kPlaceBytes; }
};

}  // namespace attn::cuda::sm90
