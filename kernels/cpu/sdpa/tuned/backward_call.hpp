// What the tasks of one backward execution share, as plain data: filled by backward.cpp, read by
// the SIMD code.
#pragma once

#include <cstdint>

#include "kernels/common/sequence.hpp"
#include "kernels/cpu/sdpa/page_uses.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::cpu::tuned {

// Bounds over all SIMD targets; each rounds its own block sizes below them.
inline constexpr int64_t kBackwardPad = 32;    // rows and columns of packed arrays
inline constexpr int64_t kBackwardKeys = 112;  // of a block
inline constexpr int64_t kBackwardRows = 224;  // queries of a block

inline int64_t backward_pad(int64_t n) {
  return (n + kBackwardPad - 1) / kBackwardPad * kBackwardPad;
}

// One thread's scratch: offsets in floats. "Panels" are columns in groups of a SIMD panel, a
// group's rows one after the other.
struct BackwardScratch {
  int64_t q_rows, dout_rows;        // [row panel][head dim][panel]: transposed
  int64_t q_columns, dout_columns;  // panels
  int64_t dq;                       // panels
  int64_t k, v;                     // rows
  int64_t k_columns;                // panels
  int64_t dk, dv;                   // panels
  int64_t p, ds;                    // [key of a block][row of a block]
  int64_t lse, d;                   // [row]
  int64_t begin, end, sink;         // [row], int32: the keys that position rules leave
  int64_t stage;                    // a panel of rows
  int64_t floats;                   // in all
};

struct BackwardExec {
  const sdpa::Problem *problem = nullptr;
  const sdpa::Call *call = nullptr;
  SequenceTable sequences = {};
  BackwardScratch scratch = {};
  float *thread_scratch = nullptr;  // [threads][scratch.floats]
  double *sink_parts = nullptr;     // GRAD_SINK: [batch][num_q_heads]
  // Paged keys: what each task adds, [batch][kv head][max_seqlen_k][head dim], and by whom a page
  // is used. A page may be used more than once, so its gradients are summed when all tasks are
  // done.
  float *dk_parts = nullptr, *dv_parts = nullptr;
  PageUse *page_uses = nullptr;
  int64_t *page_groups = nullptr;  // first use of each page, and the end

  // With fewer sequences times key heads than threads, each is cut into pieces of its queries,
  // which give dq, and pieces of its keys, which give dk and dv. The scores are computed twice
  // then, but no thread is idle, and sums have the same order as without.
  int64_t pieces = 1;

  int64_t tasks_a_head() const { return pieces == 1 ? 1 : 2 * pieces; }
  int64_t num_tasks() const { return call->batch * problem->d.num_kv_heads * tasks_a_head(); }
  // The part of a key; `parts` is dk_parts or dv_parts.
  float *part(float *parts, int64_t sequence, int64_t kv_head, int64_t key, int64_t dim) const {
    const int64_t head = sequence * problem->d.num_kv_heads + kv_head;
    return parts + (head * problem->d.max_seqlen_k + key) * dim;
  }
};

void run_backward(const BackwardExec &exec, int64_t task, int thread);
// Zeros for one page of dk and dv.
void clear_page(const BackwardExec &exec, int64_t page);
// The sums of one page that is used, by its place in page_groups.
void sum_page(const BackwardExec &exec, int64_t group);
// Zeros for tokens after the last sequence of ragged layouts.
void clear_ragged_rest(const BackwardExec &exec, int64_t head);

}  // namespace attn::cpu::tuned
