// What one decode execution needs, as plain data: filled once by decode.cpp, read by every task of
// the SIMD code. No SIMD type appears here, so that both sides can include it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/ceil_div.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::cpu::decode {

// Keys that are scored, exponentiated and multiplied into the output together. 32, so that the
// visibility of a block is one uint32_t a row.
inline constexpr int kBlock = 32;

// Bounds on the rows (query, query head) of one task: their state must stay in a core's cache.
inline constexpr int kMaxQueries = 16;
inline constexpr int kMaxRowsPerHead = 512;
inline constexpr int kRowsPerTask = 64;  // aimed at with several heads
inline constexpr int kMaxRowsPerTask = kMaxRowsPerHead;

// AUTO: pieces of this many keys, or longer ones where a sequence would need more than kMaxSplits,
// or shorter ones where it would need less than kFewSplits, but not below kLeastSplit.
inline constexpr int64_t kAutoSplit = 1024, kLeastSplit = 256;
inline constexpr int64_t kFewSplits = kAutoSplit / kLeastSplit;
inline constexpr int64_t kMaxSplits = 128;

// Rows of scratch are padded to two AVX-512 registers, whatever the target.
inline constexpr int64_t padded(int64_t n) {
  return (n + 31) / 32 * 32;
}
// Keys a piece, from nothing but the sequence's own length and the plan: not from the batch or the
// thread count, so that every policy is batch-invariant.
inline int64_t split_keys(const attn_sdpa_desc &desc, int64_t seqlen_k) {
  switch (desc.split_policy) {
    case ATTN_SPLIT_NONE:
      return std::max<int64_t>(seqlen_k, 1);
    case ATTN_SPLIT_FIXED:
      return desc.split_size;
    default:
      return std::max(std::clamp(padded(ceil_div(seqlen_k, kFewSplits)), kLeastSplit, kAutoSplit),
                      padded(ceil_div(seqlen_k, kMaxSplits)));
  }
}

inline int64_t split_count(const attn_sdpa_desc &desc, int64_t seqlen_k) {
  return std::max<int64_t>(ceil_div(seqlen_k, split_keys(desc, seqlen_k)), 1);
}

// The most that split_count gives for any length up to `limit` (AUTO's count is not monotonic).
inline int64_t split_limit(const attn_sdpa_desc &desc, int64_t limit) {
  if (desc.split_policy != ATTN_SPLIT_AUTO) return split_count(desc, limit);
  return std::clamp<int64_t>(
      std::max(ceil_div(limit, kAutoSplit), std::min(ceil_div(limit, kLeastSplit), kFewSplits)), 1,
      kMaxSplits);
}

// One thread's scratch: offsets in floats from the thread's base.
struct Scratch {
  int64_t q = 0;       // [rows][dqk_pad], scaled, in the order in which K is read
  int64_t o = 0;       // [rows][dv_pad]
  int64_t m = 0;       // [rows] running maximum
  int64_t l = 0;       // [rows] running sum
  int64_t s = 0;       // [rows][kBlock] scores, then weights
  int64_t wide_k = 0;  // [kBlock][dqk_pad] fp32 copy of a block, where K is not read in place
  int64_t wide_v = 0;  // [kBlock][dv_pad]
  int64_t floats = 0;  // in all
};

// One sequence's queries and keys.
struct Sequence {
  int64_t batch;
  int64_t q_row;     // place of query 0 among all queries of the call
  int64_t q_places;  // dense q: queries that the tensor holds; those from `queries` on are unused
  int64_t queries;
  int64_t keys;
  int64_t offset;  // p_i = i + offset
};

struct Exec {
  const sdpa::Problem *problem = nullptr;
  const sdpa::Call *call = nullptr;
  int heads_per_task = 1;     // key heads
  int head_tasks = 1;         // num_kv_heads / heads_per_task, rounded up
  int64_t max_splits = 1;     // of any sequence of this call
  int64_t split_stride = 1;   // pieces that the workspace holds for a row
  bool heads_inside = false;  // walk the heads inside a block of keys, not blocks inside a head
  Scratch scratch;
  float *thread_scratch = nullptr;  // [threads][scratch.floats]
  float *partial_o = nullptr;       // [query][q head][split_stride][head_dim_v]
  float *partial_ml = nullptr;      // [query][q head][split_stride][2]: maximum, sum

  int64_t num_tasks() const {
    // Ragged q: one more "sequence", the tokens after the last.
    return (call->batch + (problem->ragged_q() ? 1 : 0)) * max_splits * head_tasks;
  }
  int64_t num_merges() const { return max_splits > 1 ? call->batch * problem->d.num_kv_heads : 0; }
};

Sequence sequence(const sdpa::Problem &problem, const sdpa::Call &call, int64_t batch);

// One piece of one sequence for a few key heads.
void run_task(const Exec &exec, int64_t task, int thread);
// Combines the pieces of one sequence and key head, in ascending order of keys.
void run_merge(const Exec &exec, int64_t merge);

}  // namespace attn::cpu::decode
