// The inputs of an sdpa call as plain views, and for one query which keys it sees and what their
// scores are. The reference kernels of every backend share this, so that they cannot disagree.
#pragma once

#include <math.h>
#include <stdint.h>

#include "attn/sdpa.h"
#include "kernels/common/activation.hpp"
#include "kernels/common/dtype.hpp"
#include "kernels/common/philox.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/common/target.hpp"
#include "kernels/common/visibility.hpp"

namespace attn {

// A tensor with its scales: real = stored * scale.
struct ScaledView {
  TokenView values;
  TokenView scales;
  int32_t scaled;  // 0: stored values are real ones
  int32_t block;   // elements of the last dimension that one scale covers
  int64_t n;       // extent of the last dimension

  // The scale of elements d / block * block and following.
  ATTN_HD double scale(TokenPlace place, int64_t head, int64_t d) const {
    return load_scalar(scales.data, scales.dtype,
                       scales.offset(place, head) + d / block * scales.dim);
  }
};

ATTN_HD inline ScaledView scaled_view(const attn_tensor &tensor, const attn_quant &quant,
                                      const attn_tensor &scale, int32_t extent) {
  ScaledView view = {};
  view.values = token_view(tensor);
  view.scaled = quant.granularity != ATTN_QUANT_NONE ? 1 : 0;
  if (view.scaled != 0) view.scales = token_view(scale);
  view.block = quant.granularity == ATTN_QUANT_BLOCK ? quant.block_size : extent;
  view.n = extent;
  return view;
}

// Lists of visible key blocks, one for each block of queries. Strides in elements, 0 where shared.
struct BlockLists {
  const int32_t *counts;
  const int32_t *indices;
  int64_t counts_batch, counts_head, counts_row;
  int64_t indices_batch, indices_head, indices_row, indices_entry;

  ATTN_HD int64_t count(int64_t b, int64_t head, int64_t row) const {
    return counts[b * counts_batch + head * counts_head + row * counts_row];
  }
  // Entry n of the list is at n * indices_entry.
  ATTN_HD const int32_t *list(int64_t b, int64_t head, int64_t row) const {
    return indices + b * indices_batch + head * indices_head + row * indices_row;
  }
};

ATTN_HD inline BlockLists block_lists(const attn_tensor &counts, const attn_tensor &indices) {
  return {static_cast<const int32_t *>(counts.data),
          static_cast<const int32_t *>(indices.data),
          shared_stride(counts, 0),
          shared_stride(counts, 1),
          shared_stride(counts, 2),
          shared_stride(indices, 0),
          shared_stride(indices, 1),
          shared_stride(indices, 2),
          indices.stride[3]};
}

// Everything of a call but q, k, v and the outputs. Views of options that are off are zero.
struct ScoreInputs {
  attn_sdpa_desc d;
  SequenceTable sequences;
  QueryView mask, tail_mask, bias;
  TokenView gate;
  BlockLists blocks;
  const int32_t *q_segments, *kv_segments;
  int64_t q_segment_outer, q_segment_inner, kv_segment_outer, kv_segment_inner;
  const float *slopes;
  int64_t slope_batch, slope_head;
  const float *sinks;
  int64_t sink_head;
  const uint64_t *rng_state;

  ATTN_HD bool has(uint64_t flag) const { return (d.flags & flag) != 0; }
  ATTN_HD double slope(int64_t b, int64_t head) const {
    return static_cast<double>(slopes[b * slope_batch + head * slope_head]);
  }
  ATTN_HD double sink(int64_t head) const { return static_cast<double>(sinks[head * sink_head]); }
  // sigmoid(gate) of a query and head, element n.
  template <class T>
  ATTN_HD T gate_factor(TokenPlace query, int64_t head, int64_t n) const {
    return sigmoid(static_cast<T>(
        load_scalar(gate.data, gate.dtype, gate.offset(query, head) + n * gate.dim)));
  }
};

ATTN_HD inline ScoreInputs make_score_inputs(const attn_sdpa_desc &desc, const attn_sdpa_args &args,
                                             int64_t seqlen_q, int64_t seqlen_k) {
  ScoreInputs in = {};
  in.d = desc;
  in.sequences = make_sequence_table(desc, args, seqlen_q, seqlen_k);
  if (in.has(ATTN_SDPA_MASK)) in.mask = query_view(args.mask, true);
  if (in.has(ATTN_SDPA_TAIL_MASK)) in.tail_mask = query_view(args.tail_mask, true);
  if (in.has(ATTN_SDPA_BIAS)) in.bias = query_view(args.bias, true);
  if (in.has(ATTN_SDPA_GATE)) in.gate = token_view(args.gate);
  if (in.has(ATTN_SDPA_BLOCK_SPARSE))
    in.blocks = block_lists(args.block_counts, args.block_indices);
  if (in.has(ATTN_SDPA_SEGMENT_IDS)) {
    const attn_tensor &q = args.q_segment_ids, &kv = args.kv_segment_ids;
    in.q_segments = static_cast<const int32_t *>(q.data);
    in.q_segment_outer = q.rank == 2 ? q.stride[0] : 0;
    in.q_segment_inner = q.stride[q.rank - 1];
    in.kv_segments = static_cast<const int32_t *>(kv.data);
    in.kv_segment_outer = kv.rank == 2 ? kv.stride[0] : 0;
    in.kv_segment_inner = kv.stride[kv.rank - 1];
  }
  if (in.has(ATTN_SDPA_ALIBI)) {
    const attn_tensor &slopes = args.alibi_slopes;
    in.slopes = static_cast<const float *>(slopes.data);
    in.slope_batch = slopes.rank == 2 ? slopes.stride[0] : 0;
    in.slope_head = slopes.stride[slopes.rank - 1];
  }
  if (in.has(ATTN_SDPA_SINK)) {
    in.sinks = static_cast<const float *>(args.sink.data);
    in.sink_head = args.sink.stride[0];
  }
  if (in.has(ATTN_SDPA_DROPOUT)) in.rng_state = args.rng_state;
  return in;
}

// One query of one head: which keys it sees, and their scores, computed in T. Keeps pointers to
// what it is made from.
template <class T>
class ScoredQuery {
 public:
  ScoredQuery() = default;
  ATTN_HD ScoredQuery(const ScoreInputs &in, const Sequence &s, int64_t head, int64_t i)
      : in_(&in),
        s_(&s),
        head_(head),
        i_(i),
        rules_(position_rules(in.d, s.seqlen_q, s.seqlen_k)),
        band_(band_of(rules_, i)) {
    const TokenPlace place = s.query(i);
    if (in.has(ATTN_SDPA_MASK)) {
      mask_ = static_cast<const uint8_t *>(in.mask.data) + in.mask.offset(place, head);
    }
    if (in.has(ATTN_SDPA_TAIL_MASK)) {
      tail_mask_ =
          static_cast<const uint8_t *>(in.tail_mask.data) + in.tail_mask.offset(place, head);
    }
    if (in.has(ATTN_SDPA_BIAS)) bias_ = in.bias.offset(place, head);
    if (in.has(ATTN_SDPA_ALIBI)) slope_ = static_cast<T>(in.slope(s.index, head));
    if (in.has(ATTN_SDPA_SEGMENT_IDS)) {
      segment_ = in.q_segments[place.outer * in.q_segment_outer + place.inner * in.q_segment_inner];
      // Only ragged keys have a first place other than 0 in their sequence.
      segments_ =
          in.kv_segments + s.index * in.kv_segment_outer + s.first_k.inner * in.kv_segment_inner;
    }
  }

  ATTN_HD int64_t index() const { return i_; }
  ATTN_HD int64_t head() const { return head_; }
  ATTN_HD const Band &band() const { return band_; }

  // Whether key j of the band is visible as far as masks and segments go. (What else hides a key:
  // the band, the block list, a page to skip, a bias of -inf.)
  ATTN_HD bool unmasked(int64_t j) const {
    if (mask_ != nullptr && !packed_bit(mask_, in_->mask.last, j)) return false;
    if (tail_mask_ != nullptr &&
        !tail_bit(tail_mask_, in_->tail_mask.last, s_->seqlen_q, s_->seqlen_k, j)) {
      return false;
    }
    return segments_ == nullptr || same_segment(segment_, segments_[j * in_->kv_segment_inner]);
  }

  // The part of s_j that depends on <q, k_j>.
  ATTN_HD T logit(T qk) const {
    const T x = static_cast<T>(in_->d.softmax_scale) * qk;
    const T cap = static_cast<T>(in_->d.softcap);
    return cap > 0 ? softcap(x, cap) : x;
  }
  // Its derivative after <q, k_j>.
  ATTN_HD T logit_derivative(T logit) const {
    const T scale = static_cast<T>(in_->d.softmax_scale);
    const T cap = static_cast<T>(in_->d.softcap);
    return cap > 0 ? scale * softcap_derivative(logit, cap) : scale;
  }
  // The bias of key j; 0 if there is none. -inf hides the key, whatever else its score is made of.
  ATTN_HD T bias(int64_t j) const {
    if (!in_->has(ATTN_SDPA_BIAS)) return 0;
    return static_cast<T>(load_scalar(in_->bias.data, in_->bias.dtype, bias_ + j * in_->bias.last));
  }
  // s_j, of a key that its bias does not hide.
  ATTN_HD T score(int64_t j, T logit, T bias) const {
    T s = logit;
    if (in_->has(ATTN_SDPA_BIAS)) s += bias;
    if (in_->has(ATTN_SDPA_ALIBI)) {
      const int64_t distance = i_ + rules_.offset - j;
      s -= slope_ * static_cast<T>(distance < 0 ? -distance : distance);
    }
    return s;
  }

 private:
  const ScoreInputs *in_ = nullptr;
  const Sequence *s_ = nullptr;
  int64_t head_ = 0;
  int64_t i_ = 0;
  PositionRules rules_ = {};
  Band band_ = {};
  const uint8_t *mask_ = nullptr, *tail_mask_ = nullptr;
  int64_t bias_ = 0;
  T slope_ = 0;
  int32_t segment_ = 0;
  const int32_t *segments_ = nullptr;
};

}  // namespace attn
