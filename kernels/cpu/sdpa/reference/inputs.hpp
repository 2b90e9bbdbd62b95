// The inputs of a call as the reference kernels see them: views, and for one query its visible keys
// and their scores. Forward and backward share this, so that they cannot disagree.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/common/activation.hpp"
#include "kernels/common/philox.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/sdpa/reference/rows.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::cpu::reference {

using sdpa::Call;
using sdpa::Problem;

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Queries that are taken together, so that a key is decoded once for them.
inline constexpr int64_t kTile = 8;

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

struct Inputs {
  Inputs(const Problem &problem, const Call &call)
      : p(problem),
        args(call.args),
        batch(call.batch),
        q(args.q, p.d.q_quant, args.q_scale, p.d.head_dim_qk),
        k(args.k, p.d.k_quant, args.k_scale, p.d.head_dim_qk),
        v(args.v, p.latent() ? p.d.k_quant : p.d.v_quant, p.latent() ? args.k_scale : args.v_scale,
          p.d.head_dim_v),
        sequences(make_sequence_table(p.d, args, call.seqlen_q, call.seqlen_k)) {
    if (p.has(ATTN_SDPA_MASK)) mask = query_view(args.mask, true);
    if (p.has(ATTN_SDPA_TAIL_MASK)) tail_mask = query_view(args.tail_mask, true);
    if (p.has(ATTN_SDPA_BIAS)) bias = query_view(args.bias, true);
    if (p.has(ATTN_SDPA_GATE)) gate = token_view(args.gate);
    if (p.has(ATTN_SDPA_DROPOUT) && batch > 0) {
      dropout = make_dropout(args.rng_state, p.d.dropout_p);
    }
    for (int64_t b = 0; b < batch; b++) {
      const Sequence s = sequences.sequence(b);
      rows_q = std::max(rows_q, s.rows_q);
      seqlen_k = std::max(seqlen_k, s.seqlen_k);
    }
  }

  // One number for each place of a query, for arrays of the workspace.
  int64_t query_row(const Sequence &s, int64_t i) const {
    return p.ragged_q() ? s.first_q.inner + i : s.index * s.rows_q + i;
  }
  double sink(int64_t head) const {
    return load_scalar(args.sink.data, args.sink.dtype, head * args.sink.stride[0]);
  }
  double slope(int64_t b, int64_t head) const {
    const attn_tensor &t = args.alibi_slopes;
    const int64_t offset = t.rank == 2 ? b * t.stride[0] + head * t.stride[1] : head * t.stride[0];
    return load_scalar(t.data, t.dtype, offset);
  }
  // sigmoid(gate) of a query and head, element d.
  double gate_factor(TokenPlace query, int64_t head, int64_t d) const {
    return sigmoid(load_scalar(gate.data, gate.dtype, gate.offset(query, head) + d * gate.dim));
  }

  const Problem &p;
  const attn_sdpa_args &args;
  int64_t batch;
  ScaledView q, k, v;
  SequenceTable sequences;
  QueryView mask = {}, tail_mask = {}, bias = {};
  TokenView gate = {};
  Dropout dropout = {};
  int64_t rows_q = 0;    // the most places for queries of any sequence of this call
  int64_t seqlen_k = 0;  // the most keys
};

// Bytes of a block map: which key blocks a query sees.
inline int64_t block_map_bytes(const Problem &p) {
  return p.has(ATTN_SDPA_BLOCK_SPARSE) ? ceil_div(p.d.max_seqlen_k, p.d.block_size_k) : 0;
}

// One query of one head: which keys it sees, and their scores.
class Query {
 public:
  Query() = default;

  // `block_map` is scratch of block_map_bytes() that must outlive the object.
  Query(const Inputs &in, const Sequence &s, int64_t head, int64_t i, uint8_t *block_map)
      : in_(&in),
        s_(&s),
        head_(head),
        i_(i),
        band_(band_of(position_rules(in.p.d, s.seqlen_q, s.seqlen_k), i)),
        position_(static_cast<double>(i + in.p.diagonal_offset(s.seqlen_q, s.seqlen_k))) {
    const TokenPlace place = s.query(i);
    const auto row_of = [&](const QueryView &view) {
      return static_cast<const uint8_t *>(view.data) + view.offset(place, head);
    };
    if (in.p.has(ATTN_SDPA_MASK)) mask_ = row_of(in.mask);
    if (in.p.has(ATTN_SDPA_TAIL_MASK)) tail_mask_ = row_of(in.tail_mask);
    if (in.p.has(ATTN_SDPA_BIAS)) bias_ = in.bias.offset(place, head);
    if (in.p.has(ATTN_SDPA_ALIBI)) slope_ = in.slope(s.index, head);
    if (in.p.has(ATTN_SDPA_SEGMENT_IDS)) {
      const attn_tensor &ids = in.args.q_segment_ids;
      const int64_t offset = ids.rank == 1
                                 ? place.inner * ids.stride[0]
                                 : place.outer * ids.stride[0] + place.inner * ids.stride[1];
      segment_ = static_cast<const int32_t *>(ids.data)[offset];
      const attn_tensor &kv = in.args.kv_segment_ids;
      segments_ = static_cast<const int32_t *>(kv.data) +
                  (kv.rank == 1 ? s.first_k.inner * kv.stride[0] : s.index * kv.stride[0]);
      segment_stride_ = kv.stride[kv.rank - 1];
    }
    if (in.p.has(ATTN_SDPA_BLOCK_SPARSE)) mark_blocks(block_map);
  }

  int64_t index() const { return i_; }
  int64_t head() const { return head_; }

  bool sees(int64_t j) const {
    if (!band_.contains(j)) return false;
    if (blocks_ != nullptr && blocks_[j / in_->p.d.block_size_k] == 0) return false;
    if (mask_ != nullptr && !packed_bit(mask_, in_->mask.last, j)) return false;
    if (tail_mask_ != nullptr &&
        !tail_bit(tail_mask_, in_->tail_mask.last, s_->seqlen_q, s_->seqlen_k, j)) {
      return false;
    }
    if (segments_ != nullptr && !same_segment(segment_, segments_[j * segment_stride_])) {
      return false;
    }
    return s_->page_size == 0 || !s_->key(j).skipped();
  }

  // The part of s_j that depends on <q, k_j>.
  double logit(double qk) const {
    const double x = static_cast<double>(in_->p.d.softmax_scale) * qk;
    const double cap = static_cast<double>(in_->p.d.softcap);
    return cap > 0 ? softcap(x, cap) : x;
  }
  // Its derivative after <q, k_j>.
  double logit_derivative(double logit) const {
    const double scale = static_cast<double>(in_->p.d.softmax_scale);
    const double cap = static_cast<double>(in_->p.d.softcap);
    return cap > 0 ? scale * softcap_derivative(logit, cap) : scale;
  }
  // s_j. -inf hides the key.
  double score(int64_t j, double logit) const {
    double s = logit;
    if (in_->p.has(ATTN_SDPA_BIAS)) {
      const double bias = load_scalar(in_->bias.data, in_->bias.dtype, bias_ + j * in_->bias.last);
      if (bias == -kInfinity) return -kInfinity;  // whatever the key holds
      s += bias;
    }
    if (in_->p.has(ATTN_SDPA_ALIBI)) s -= slope_ * std::fabs(position_ - static_cast<double>(j));
    return s;
  }

  // 0 if dropout drops key j's weight, else the factor of those that are kept.
  double dropout_factor(int64_t j) const {
    if (!in_->p.has(ATTN_SDPA_DROPOUT)) return 1;
    const int64_t bh = s_->index * in_->p.d.num_q_heads + head_;
    return in_->dropout.keeps(bh, i_, j) ? in_->dropout.keep_scale : 0;
  }

 private:
  void mark_blocks(uint8_t *map) {
    const attn_sdpa_desc &d = in_->p.d;
    const int64_t blocks = ceil_div(s_->seqlen_k, d.block_size_k);
    std::fill(map, map + blocks, uint8_t{0});
    const attn_tensor &counts = in_->args.block_counts, &indices = in_->args.block_indices;
    const int64_t row = i_ / d.block_size_q;
    const auto offset = [&](const attn_tensor &t) {
      return s_->index * shared_stride(t, 0) + head_ * shared_stride(t, 1) +
             row * shared_stride(t, 2);
    };
    const int64_t count = static_cast<const int32_t *>(counts.data)[offset(counts)];
    const int32_t *list = static_cast<const int32_t *>(indices.data) + offset(indices);
    for (int64_t n = 0; n < count; n++) {
      const int64_t block = list[n * indices.stride[3]];
      if (block >= 0 && block < blocks) map[block] = 1;
    }
    blocks_ = map;
  }

  const Inputs *in_ = nullptr;
  const Sequence *s_ = nullptr;
  int64_t head_ = 0;
  int64_t i_ = 0;
  Band band_ = {};
  double position_ = 0;
  const uint8_t *mask_ = nullptr, *tail_mask_ = nullptr, *blocks_ = nullptr;
  int64_t bias_ = 0;
  double slope_ = 0;
  int32_t segment_ = 0;
  const int32_t *segments_ = nullptr;
  int64_t segment_stride_ = 0;
};

// Up to kTile queries of one head of one sequence.
struct Tile {
  Tile(const Inputs &in, int64_t task)
      : tiles(ceil_div(in.rows_q, kTile)),
        sequence(in.sequences.sequence(task / (tiles * in.p.d.num_q_heads))),
        head(task / tiles % in.p.d.num_q_heads),
        first(task % tiles * kTile),
        places(std::clamp<int64_t>(sequence.rows_q - first, 0, kTile)),
        count(std::clamp<int64_t>(sequence.seqlen_q - first, 0, kTile)) {}

  static int64_t tasks(const Inputs &in) {
    return in.batch * in.p.d.num_q_heads * ceil_div(in.rows_q, kTile);
  }

  int64_t tiles;  // of a head of any sequence
  Sequence sequence;
  int64_t head;
  int64_t first;   // query
  int64_t places;  // that exist
  int64_t count;   // that are in use
};

}  // namespace attn::cpu::reference
