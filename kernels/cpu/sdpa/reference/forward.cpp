#include "kernels/cpu/sdpa/reference/forward.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/workspace.hpp"
#include "kernels/cpu/common/device.hpp"
#include "kernels/cpu/sdpa/reference/inputs.hpp"

namespace attn::cpu::reference {
namespace {

// One thread's memory.
struct Scratch {
  double *q;        // [kTile][head_dim_qk]
  double *key;      // [max(head_dim_qk, head_dim_v)]: a row of k or v
  double *weights;  // [kTile][max_seqlen_k]: scores, then weights
  double *out;      // [kTile][head_dim_v]
  uint8_t *blocks;  // [kTile][block_map_bytes]
};

Scratch take_scratch(const Problem &p, Carver &carver) {
  Scratch s;
  s.q = carver.take<double>(kTile * p.d.head_dim_qk);
  s.key = carver.take<double>(std::max(p.d.head_dim_qk, p.d.head_dim_v));
  s.weights = carver.take<double>(kTile * p.d.max_seqlen_k);
  s.out = carver.take<double>(kTile * p.d.head_dim_v);
  s.blocks = carver.take<uint8_t>(kTile * block_map_bytes(p));
  return s;
}

Scratch scratch_of_thread(const Problem &p, void *workspace, int thread) {
  Carver carver(workspace);
  for (int t = 0; t < thread; t++) take_scratch(p, carver);
  return take_scratch(p, carver);
}

// What a row of scores comes to, natural units.
struct RowResult {
  double max;  // of the visible scores
  double lse;  // as the caller wants it: with or without the sink
};

// Turns the scores of one query into its weights, dropout not yet applied.
RowResult softmax(double *scores, int64_t n, bool has_sink, double sink, bool lse_includes_sink) {
  double max = -kInfinity;
  bool nan = false;
  for (int64_t j = 0; j < n; j++) {
    nan = nan || std::isnan(scores[j]);
    max = std::max(max, scores[j]);
  }
  if (nan) max = std::nan("");
  double sum = 0;
  for (int64_t j = 0; j < n; j++) {
    if (scores[j] == -kInfinity) {
      scores[j] = 0;
    } else if (max == kInfinity) {
      scores[j] = scores[j] == kInfinity ? 1 : 0;
    } else {
      scores[j] = std::exp(scores[j] - max);
    }
    sum += scores[j];
  }
  const double lse = std::isinf(max) ? max : max + std::log(sum);
  RowResult result = {max, lse};
  if (max == -kInfinity) {  // no visible key
    if (has_sink && lse_includes_sink) result.lse = sink;
    return result;
  }
  double share = 1 / sum;
  if (has_sink && sink != -kInfinity) {
    double with_sink = kInfinity;
    if (sink == kInfinity) {
      share = 0;
    } else if (max != kInfinity) {
      // exp(lse - with_sink) is the part of the weight that the sink leaves to the keys.
      const double larger = std::max(lse, sink);
      with_sink = larger + std::log(std::exp(lse - larger) + std::exp(sink - larger));
      share *= std::exp(lse - with_sink);
    }
    if (std::isnan(sink)) with_sink = share = sink;
    if (lse_includes_sink) result.lse = with_sink;
  }
  // Hidden keys stay at exactly 0 in rows that are NaN, too: their values must not be read (they
  // may be on a page to skip).
  for (int64_t j = 0; j < n; j++) {
    if (scores[j] != 0) scores[j] *= share;
  }
  return result;
}

// SiLU weights; says whether any key is visible.
bool silu_weights(double *scores, int64_t n, double divisor) {
  bool any = false;
  for (int64_t j = 0; j < n; j++) {
    const bool visible = scores[j] != -kInfinity;
    scores[j] = visible ? silu(scores[j]) / divisor : 0;
    any = any || visible;
  }
  return any;
}

class Forward {
 public:
  Forward(const Problem &problem, const Call &call)
      : in_(problem, call),
        p_(problem),
        out_(scaled_view(call.args.out, problem.d.out_quant, call.args.out_scale,
                         problem.d.head_dim_v)) {
    if (p_.has(ATTN_SDPA_RETURN_LSE)) lse_ = query_view(call.args.lse, false);
    if (p_.has(ATTN_SDPA_RETURN_ROW_MAX)) row_max_ = query_view(call.args.row_max, false);
  }

  const Inputs &inputs() const { return in_; }

  void tile(int64_t task, const Scratch &scratch) const {
    const Tile tile(in_, task);
    const Sequence &s = tile.sequence;
    Query queries[kTile];
    for (int64_t t = 0; t < tile.count; t++) {
      in_.q.load(s.query(tile.first + t), tile.head, scratch.q + t * p_.d.head_dim_qk);
      queries[t] =
          Query(in_, s, tile.head, tile.first + t, scratch.blocks + t * block_map_bytes(p_));
    }
    scores(tile, queries, scratch);
    bool visible[kTile] = {};
    for (int64_t t = 0; t < tile.count; t++) {
      visible[t] = weights(s, queries[t], scratch.weights + t * p_.d.max_seqlen_k);
    }
    values(tile, scratch);
    for (int64_t t = 0; t < tile.count; t++) {
      const TokenPlace place = s.query(tile.first + t);
      if (visible[t]) {
        store_out(place, tile.head, scratch.out + t * p_.d.head_dim_v);
      } else {
        store_zeros(out_.values, place, tile.head, p_.d.head_dim_v);
      }
    }
    for (int64_t t = tile.count; t < tile.places; t++) {
      store_padding(s.query(tile.first + t), tile.head);
    }
  }

  void store_padding(TokenPlace place, int64_t head) const {
    store_zeros(out_.values, place, head, p_.d.head_dim_v);
    store_statistics(place, head, {-kInfinity, -kInfinity});
  }

 private:
  void scores(const Tile &tile, const Query *queries, const Scratch &scratch) const {
    for (int64_t j = 0; j < tile.sequence.seqlen_k; j++) {
      bool loaded = false;
      for (int64_t t = 0; t < tile.count; t++) {
        double &score = scratch.weights[t * p_.d.max_seqlen_k + j];
        if (!queries[t].sees(j)) {
          score = -kInfinity;
          continue;
        }
        if (!loaded) in_.k.load(tile.sequence.key(j), tile.head / p_.group, scratch.key);
        loaded = true;
        const double qk = dot(scratch.q + t * in_.q.n, scratch.key, in_.q.n);
        score = queries[t].score(j, queries[t].logit(qk));
      }
    }
  }

  // Scores to weights; stores the row's statistics; says whether any key is visible.
  bool weights(const Sequence &s, const Query &query, double *row) const {
    bool visible;
    if (p_.softmax()) {
      const bool has_sink = p_.has(ATTN_SDPA_SINK);
      const RowResult result =
          softmax(row, s.seqlen_k, has_sink, has_sink ? in_.sink(query.head()) : -kInfinity,
                  p_.has(ATTN_SDPA_LSE_INCLUDES_SINK));
      store_statistics(s.query(query.index()), query.head(), result);
      visible = result.max != -kInfinity;
    } else {
      visible = silu_weights(row, s.seqlen_k, static_cast<double>(p_.d.silu_divisor));
    }
    if (p_.has(ATTN_SDPA_DROPOUT)) {
      for (int64_t j = 0; j < s.seqlen_k; j++) {
        if (row[j] == 0) continue;
        const double factor = query.dropout_factor(j);
        row[j] = factor == 0 ? 0 : row[j] * factor;
      }
    }
    return visible;
  }

  void values(const Tile &tile, const Scratch &scratch) const {
    std::fill(scratch.out, scratch.out + tile.count * p_.d.head_dim_v, 0.0);
    for (int64_t j = 0; j < tile.sequence.seqlen_k; j++) {
      bool loaded = false;
      for (int64_t t = 0; t < tile.count; t++) {
        const double weight = scratch.weights[t * p_.d.max_seqlen_k + j];
        if (weight == 0) continue;
        if (!loaded) in_.v.load(tile.sequence.key(j), tile.head / p_.group, scratch.key);
        loaded = true;
        add_scaled(scratch.out + t * p_.d.head_dim_v, weight, scratch.key, p_.d.head_dim_v);
      }
    }
  }

  void store_out(TokenPlace place, int64_t head, double *row) const {
    if (p_.has(ATTN_SDPA_GATE)) {
      for (int64_t d = 0; d < p_.d.head_dim_v; d++) row[d] *= in_.gate_factor(place, head, d);
    }
    out_.store(place, head, row);
  }

  void store_statistics(TokenPlace place, int64_t head, RowResult result) const {
    if (p_.has(ATTN_SDPA_RETURN_LSE)) {
      const double unit = p_.d.lse_base == ATTN_LSE_BASE_2 ? kLog2E : 1;
      static_cast<float *>(lse_.data)[lse_.offset(place, head)] =
          static_cast<float>(result.lse * unit);
    }
    if (p_.has(ATTN_SDPA_RETURN_ROW_MAX)) {
      static_cast<float *>(row_max_.data)[row_max_.offset(place, head)] =
          static_cast<float>(result.max);
    }
  }

  Inputs in_;
  const Problem &p_;
  ScaledRows out_;
  QueryView lse_ = {}, row_max_ = {};
};

}  // namespace

Verdict forward_serves(const Problem &, const Device &) {
  return Verdict::serves();
}

size_t forward_workspace(const Problem &problem, const Device &device) {
  Carver carver;
  for (int t = 0; t < pool_of(device).num_threads(); t++) take_scratch(problem, carver);
  return carver.bytes();
}

int32_t forward_launch(const Problem &problem, const Call &call, const Device &device,
                       const Resources &resources, const ErrorSink &) {
  const Forward forward(problem, call);
  const Inputs &in = forward.inputs();
  const ThreadPool &pool = pool_of(device);
  pool.parallel_for(Tile::tasks(in), [&](int64_t task, int thread) {
    forward.tile(task, scratch_of_thread(problem, resources.workspace, thread));
  });
  if (problem.ragged_q()) {
    // Tokens after the last sequence are padding, too.
    const int64_t used = call.batch == 0 ? 0 : call.args.cu_seqlens_q[call.batch];
    pool.parallel_for(call.total_q - used, [&](int64_t task, int) {
      for (int64_t h = 0; h < problem.d.num_q_heads; h++) {
        forward.store_padding({0, used + task}, h);
      }
    });
  }
  return ATTN_OK;
}

}  // namespace attn::cpu::reference
