// An sdpa problem as plain data: what a valid descriptor means, and one execute's checked
// arguments.
#pragma once

#include <cstdint>

#include "attn/sdpa.h"
#include "core/implementation.hpp"
#include "core/saturating.hpp"

namespace attn::sdpa {

// A validated descriptor with its defaults filled in (dtypes, head counts, limits, grads), and what
// follows from it.
struct Problem {
  attn_sdpa_desc d;
  int32_t group;  // query heads that share a kv head

  bool has(uint64_t flag) const { return (d.flags & flag) != 0; }
  bool wants(uint32_t grad) const { return (d.grads & grad) != 0; }
  bool backward() const { return d.pass == ATTN_SDPA_BACKWARD; }
  bool softmax() const { return d.activation == ATTN_ACTIVATION_SOFTMAX; }
  bool ragged_q() const { return d.q_layout == ATTN_LAYOUT_RAGGED; }
  bool ragged_k() const { return d.kv_layout == ATTN_LAYOUT_RAGGED; }
  bool paged() const {
    return d.kv_layout == ATTN_LAYOUT_PAGED_TABLE || d.kv_layout == ATTN_LAYOUT_PAGED_CSR;
  }
  // Of all sequences of a call, in places; saturates.
  int64_t most_queries() const {
    return ragged_q() ? d.max_total_q : saturating_product({d.max_batch, d.max_seqlen_q});
  }
  bool latent() const { return has(ATTN_SDPA_LATENT_KV); }
  // p_i = i + diagonal_offset for a sequence of these lengths.
  int64_t diagonal_offset(int64_t seqlen_q, int64_t seqlen_k) const {
    return d.alignment == ATTN_ALIGN_BOTTOM_RIGHT ? seqlen_k - seqlen_q : 0;
  }
};

// One execute: arguments whose shapes, dtypes and presence have been checked against the problem
// (contents of device memory have not; the CPU backend checks those itself). With LATENT_KV,
// args.v has been filled in as the view of args.k's leading columns.
struct Call {
  attn_sdpa_args args;
  int64_t batch;
  int64_t seqlen_q;  // dense q: the extent; ragged q: desc.max_seqlen_q
  int64_t seqlen_k;  // dense k: the extent; else desc.max_seqlen_k
  int64_t total_q;   // ragged q: tokens in all; dense: batch * seqlen_q
  // Gradients; backward only. `forward` is null: args above is it.
  attn_sdpa_backward_args grads;
};

using Row = Implementation<Problem, Call>;
using List = ImplementationList<Problem, Call>;

// The table of a backend for a pass, best first; empty if it has none. Defined by the backends, in
// src/backend/registry.cpp.
List implementations(int32_t backend, int32_t pass);

// Checks a descriptor and fills in its defaults. `error` names desc.<field>.
int32_t make_problem(const attn_sdpa_desc *desc, Problem &problem, const ErrorSink &error);

// Checks arguments against the problem. `error` names args.<field>.
int32_t make_call(const Problem &problem, const attn_sdpa_args *args, Call &call,
                  const ErrorSink &error);
int32_t make_backward_call(const Problem &problem, const attn_sdpa_backward_args *args, Call &call,
                           const ErrorSink &error);

}  // namespace attn::sdpa
