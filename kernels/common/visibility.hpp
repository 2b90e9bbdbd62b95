// Which keys a query sees, as pure functions of positions and mask memory.
#pragma once

#include <stdint.h>

#include "attn/sdpa.h"
#include "kernels/common/target.hpp"

namespace attn {

template <class Int>
ATTN_HD inline Int floor_divide(Int a, Int b) {  // b > 0
  return a >= 0 ? a / b : -((-a + b - 1) / b);
}

// The rules that depend on positions alone, of one sequence. Int: int64_t, or int32_t where that
// holds every position and twice that.
template <class Int>
struct PositionRulesOf {
  Int seqlen_k;
  Int offset;        // p_i = i + offset
  Int window_left;   // -1 = unbounded
  Int window_right;  // -1 = unbounded
  Int chunk_size;    // 0 = none
  Int sink_tokens;
  bool causal;
};
using PositionRules = PositionRulesOf<int64_t>;

ATTN_HD inline PositionRules position_rules(const attn_sdpa_desc &desc, int64_t seqlen_q,
                                            int64_t seqlen_k) {
  const bool window = (desc.flags & ATTN_SDPA_WINDOW) != 0;
  PositionRules rules;
  rules.seqlen_k = seqlen_k;
  rules.offset = desc.alignment == ATTN_ALIGN_BOTTOM_RIGHT ? seqlen_k - seqlen_q : 0;
  rules.window_left = window ? desc.window_left : -1;
  rules.window_right = window ? desc.window_right : -1;
  rules.chunk_size = desc.chunk_size;
  rules.sink_tokens = desc.sink_tokens;
  rules.causal = (desc.flags & ATTN_SDPA_CAUSAL) != 0;
  return rules;
}

// The keys that the position rules leave to one query: [0, sink_end) and [begin, end), which may
// overlap. All bounds lie in [0, seqlen_k]; begin <= end.
template <class Int>
struct BandOf {
  Int sink_end;
  Int begin;
  Int end;

  ATTN_HD bool contains(Int j) const { return j < sink_end || (j >= begin && j < end); }
};
using Band = BandOf<int64_t>;

template <class Int>
ATTN_HD inline BandOf<Int> band_of(const PositionRulesOf<Int> &rules, Int i) {
  const Int p = i + rules.offset;
  Int limit = rules.seqlen_k;
  if (rules.causal && p + 1 < limit) limit = p + 1 > 0 ? p + 1 : 0;
  Int begin = 0;
  Int end = limit;
  if (rules.window_left >= 0 && p - rules.window_left > begin) begin = p - rules.window_left;
  if (rules.window_right >= 0 && p + rules.window_right + 1 < end) {
    end = p + rules.window_right + 1;
  }
  if (rules.chunk_size > 0) {
    const Int chunk = floor_divide(p, rules.chunk_size) * rules.chunk_size;
    if (chunk > begin) begin = chunk;
    if (chunk + rules.chunk_size < end) end = chunk + rules.chunk_size;
  }
  if (end < 0) end = 0;
  if (begin > end) begin = end;
  const Int sink_end = rules.sink_tokens < limit ? rules.sink_tokens : limit;
  return {sink_end, begin, end};
}

// Bit j of packed bits whose bytes lie `stride` apart.
ATTN_HD inline bool packed_bit(const uint8_t *row, int64_t stride, int64_t j) {
  return (row[(j >> 3) * stride] >> (j & 7) & 1) != 0;
}

// A row of the tail mask: bit t stands for key seqlen_k - seqlen_q + t; keys before that are free.
ATTN_HD inline bool tail_bit(const uint8_t *row, int64_t stride, int64_t seqlen_q, int64_t seqlen_k,
                             int64_t j) {
  const int64_t t = j - (seqlen_k - seqlen_q);
  return t < 0 || packed_bit(row, stride, t);
}

ATTN_HD inline bool same_segment(int32_t q_id, int32_t kv_id) {
  return q_id == kv_id && q_id >= 0;
}

}  // namespace attn
