// The inputs of a call as the reference kernels see them, and for one query its visible keys and
// their scores. Forward and backward share this, so that they cannot disagree.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/ceil_div.hpp"
#include "kernels/common/philox.hpp"
#include "kernels/common/query.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/cpu/sdpa/reference/rows.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::cpu::reference {

using sdpa::Call;
using sdpa::Problem;

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Queries that are taken together, so that a key is decoded once for them.
inline constexpr int64_t kTile = 8;

struct Inputs {
  Inputs(const Problem &problem, const Call &call)
      : p(problem),
        args(call.args),
        batch(call.batch),
        q(scaled_view(args.q, p.d.q_quant, args.q_scale, p.d.head_dim_qk)),
        k(scaled_view(args.k, p.d.k_quant, args.k_scale, p.d.head_dim_qk)),
        v(scaled_view(args.v, p.latent() ? p.d.k_quant : p.d.v_quant,
                      p.latent() ? args.k_scale : args.v_scale, p.d.head_dim_v)),
        scores(make_score_inputs(p.d, args, call.seqlen_q, call.seqlen_k)),
        sequences(scores.sequences) {
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
  double sink(int64_t head) const { return scores.sink(head); }
  // sigmoid(gate) of a query and head, element d.
  double gate_factor(TokenPlace query, int64_t head, int64_t d) const {
    return scores.gate_factor<double>(query, head, d);
  }

  const Problem &p;
  const attn_sdpa_args &args;
  int64_t batch;
  ScaledRows q, k, v;
  ScoreInputs scores;
  const SequenceTable &sequences;
  Dropout dropout = {};
  int64_t rows_q = 0;    // the most places for queries of any sequence of this call
  int64_t seqlen_k = 0;  // the most keys
};

// Bytes of a block map: which key blocks a query sees.
inline int64_t block_map_bytes(const Problem &p) {
  return p.has(ATTN_SDPA_BLOCK_SPARSE) ? ceil_div(p.d.max_seqlen_k, p.d.block_size_k) : 0;
}

// One query of one head, with its list of key blocks.
class Query : public ScoredQuery<double> {
 public:
  Query() = default;

  // `block_map` is scratch of block_map_bytes() that must outlive the object.
  Query(const Inputs &in, const Sequence &s, int64_t head, int64_t i, uint8_t *block_map)
      : ScoredQuery<double>(in.scores, s, head, i), in_(&in), s_(&s) {
    if (in.p.has(ATTN_SDPA_BLOCK_SPARSE)) mark_blocks(block_map);
  }

  bool sees(int64_t j) const {
    if (!band().contains(j)) return false;
    if (blocks_ != nullptr && blocks_[j / in_->p.d.block_size_k] == 0) return false;
    return unmasked(j) && (s_->page_size == 0 || !s_->key(j).skipped());
  }
  // s_j. -inf hides the key.
  double score(int64_t j, double logit) const {
    const double b = bias(j);
    return b == -kInfinity ? b : ScoredQuery<double>::score(j, logit, b);
  }

  // 0 if dropout drops key j's weight, else the factor of those that are kept.
  double dropout_factor(int64_t j) const {
    if (!in_->p.has(ATTN_SDPA_DROPOUT)) return 1;
    const int64_t bh = s_->index * in_->p.d.num_q_heads + head();
    return in_->dropout.keeps(bh, index(), j) ? in_->dropout.keep_scale : 0;
  }

 private:
  void mark_blocks(uint8_t *map) {
    const attn_sdpa_desc &d = in_->p.d;
    const int64_t blocks = ceil_div(s_->seqlen_k, d.block_size_k);
    std::fill(map, map + blocks, uint8_t{0});
    const BlockLists &lists = in_->scores.blocks;
    const int64_t row = index() / d.block_size_q;
    const int64_t count = lists.count(s_->index, head(), row);
    const int32_t *list = lists.list(s_->index, head(), row);
    for (int64_t n = 0; n < count; n++) {
      const int64_t block = list[n * lists.indices_entry];
      if (block >= 0 && block < blocks) map[block] = 1;
    }
    blocks_ = map;
  }

  const Inputs *in_ = nullptr;
  const Sequence *s_ = nullptr;
  const uint8_t *blocks_ = nullptr;
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
