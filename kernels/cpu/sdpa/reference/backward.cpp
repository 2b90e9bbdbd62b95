#include "kernels/cpu/sdpa/reference/backward.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/workspace.hpp"
#include "kernels/cpu/common/device.hpp"
#include "kernels/cpu/sdpa/page_uses.hpp"
#include "kernels/cpu/sdpa/reference/inputs.hpp"

namespace attn::cpu::reference {
namespace {

// Keys (slots of one page) whose gradients one task sums.
constexpr int64_t kKeyBlock = 64;

// What all keys of a query need, natural units.
struct RowStatistics {
  double lse;         // as given, with or without the sink
  double total;       // with the sink
  double share;       // of each key with s = +inf, where there is one, in the lse
  double kept_share;  // and in the weights: 0 if a sink of +inf takes all
  double d;           // <dout, out>
  double dlse;        // 0 if not given
};

// One thread's memory.
struct Scratch {
  double *q, *dout, *dq;  // [kTile] rows
  double *key, *value;    // [kKeyBlock] rows
  double *dk, *dv;        // [kKeyBlock] rows
  double *dbias;          // [max_seqlen_k]
  uint8_t *blocks;        // [kTile][block_map_bytes]
};

struct Memory {
  RowStatistics *rows;  // [query place][num_q_heads]
  PageUse *uses;        // [max_batch * pages of max_seqlen_k], by page
  int64_t *groups;      // the first use of each page that is used, and the end
};

Memory take_memory(const Problem &p, Carver &carver) {
  Memory m;
  m.rows = carver.take<RowStatistics>(p.most_queries() * p.d.num_q_heads);
  m.uses = carver.take<PageUse>(most_page_uses(p));
  m.groups = carver.take<int64_t>(p.paged() ? most_page_uses(p) + 1 : 0);
  return m;
}

Scratch take_scratch(const Problem &p, Carver &carver) {
  const int64_t dqk = p.d.head_dim_qk, dv = p.d.head_dim_v;
  Scratch s;
  s.q = carver.take<double>(kTile * dqk);
  s.dout = carver.take<double>(kTile * dv);
  s.dq = carver.take<double>(kTile * dqk);
  s.key = carver.take<double>(kKeyBlock * dqk);
  s.value = carver.take<double>(kKeyBlock * dv);
  s.dk = carver.take<double>(kKeyBlock * dqk);
  s.dv = carver.take<double>(kKeyBlock * dv);
  s.dbias = carver.take<double>(p.wants(ATTN_SDPA_GRAD_BIAS) ? p.d.max_seqlen_k : 0);
  s.blocks = carver.take<uint8_t>(kTile * block_map_bytes(p));
  return s;
}

Scratch scratch_of_thread(const Problem &p, void *workspace, int thread) {
  Carver carver(workspace);
  take_memory(p, carver);
  for (int t = 0; t < thread; t++) take_scratch(p, carver);
  return take_scratch(p, carver);
}

// exp(s - lse), where +inf is shared.
double weight_of(double s, double lse, double share) {
  if (s == -kInfinity || lse == -kInfinity) return 0;
  if (lse == kInfinity) return s == kInfinity ? share : 0;
  return std::exp(s - lse);
}

// What one key gets from one query.
struct Pair {
  double weight;  // of dO in dv
  double ds;      // the gradient of s_j
  double dqk;     // the gradient of <q, k_j>
};

class Backward {
 public:
  Backward(const Problem &problem, const Call &call, Memory memory)
      : in_(problem, call),
        p_(problem),
        grads_(call.grads),
        memory_(memory),
        dqk_(problem.d.head_dim_qk),
        dv_(problem.d.head_dim_v),
        out_(token_view(call.args.out)),
        dout_(token_view(call.grads.dout)) {
    if (p_.softmax()) lse_ = query_view(call.args.lse, false);
    if (p_.wants(ATTN_SDPA_GRAD_LSE_IN)) dlse_ = query_view(grads_.dlse, false);
    if (p_.wants(ATTN_SDPA_GRAD_Q)) dq_view_ = token_view(grads_.dq);
    if (p_.wants(ATTN_SDPA_GRAD_K)) dk_view_ = token_view(grads_.dk);
    if (p_.wants(ATTN_SDPA_GRAD_V)) dv_view_ = token_view(grads_.dv);
    if (p_.wants(ATTN_SDPA_GRAD_GATE)) dgate_view_ = token_view(grads_.dgate);
    if (p_.wants(ATTN_SDPA_GRAD_BIAS)) dbias_view_ = query_view(grads_.dbias, true);
  }

  const Inputs &inputs() const { return in_; }
  bool keys_wanted() const { return p_.wants(ATTN_SDPA_GRAD_K) || p_.wants(ATTN_SDPA_GRAD_V); }

  // Statistics, dq and dgate of a tile's queries.
  void tile(int64_t task, const Scratch &scratch) const {
    const Tile tile(in_, task);
    const Sequence &s = tile.sequence;
    Query queries[kTile];
    for (int64_t t = 0; t < tile.count; t++) {
      const int64_t i = tile.first + t;
      load_query(s, tile.head, i, scratch.q + t * dqk_, scratch.dout + t * dv_);
      queries[t] = Query(in_, s, tile.head, i, scratch.blocks + t * block_map_bytes(p_));
      statistics(s, i, tile.head) = measure(s, queries[t], scratch.q + t * dqk_, scratch);
      if (p_.wants(ATTN_SDPA_GRAD_GATE)) store_dgate(s.query(i), tile.head);
    }
    if (p_.wants(ATTN_SDPA_GRAD_Q)) store_dq(tile, queries, scratch);
    for (int64_t t = tile.count; t < tile.places; t++) {
      store_padding(s.query(tile.first + t), tile.head);
    }
  }

  void store_padding(TokenPlace place, int64_t head) const {
    if (p_.wants(ATTN_SDPA_GRAD_Q)) store_zeros(dq_view_, place, head, dqk_);
    if (p_.wants(ATTN_SDPA_GRAD_GATE)) {
      store_zeros(dgate_view_, place, head, grads_.dgate.shape[grads_.dgate.rank - 1]);
    }
  }

  // Gives the number of pages that are used.
  int64_t group_pages() const {
    return cpu::group_pages(in_.sequences, in_.batch, memory_.uses, memory_.groups);
  }

  // dk and dv of slots [first, first + kKeyBlock) of a page, from all sequences that use it.
  void page_block(int64_t group, int64_t kv_head, int64_t first, const Scratch &scratch) const {
    const PageUse *uses = memory_.uses + memory_.groups[group];
    const PageUse *end = memory_.uses + memory_.groups[group + 1];
    const auto keys_of = [&](const PageUse &use, const Sequence &s) {
      return std::clamp<int64_t>(s.seqlen_k - use.ordinal * s.page_size - first, 0,
                                 std::min(kKeyBlock, s.page_size - first));
    };
    int64_t count = 0;
    for (const PageUse *use = uses; use < end; use++) {
      count = std::max(count, keys_of(*use, in_.sequences.sequence(use->sequence)));
    }
    const TokenPlace place = {uses->page, first};
    load_keys(place, kv_head, count, scratch);
    for (const PageUse *use = uses; use < end; use++) {
      const Sequence s = in_.sequences.sequence(use->sequence);
      add_keys(s, kv_head, use->ordinal * s.page_size + first, keys_of(*use, s), scratch);
    }
    store_keys(place, kv_head, count, scratch);
  }

  // dk and dv of keys [first, first + kKeyBlock) of a sequence with keys of its own.
  void key_block(const Sequence &s, int64_t kv_head, int64_t first, const Scratch &scratch) const {
    const int64_t count = std::clamp<int64_t>(s.seqlen_k - first, 0, kKeyBlock);
    if (count == 0) return;
    load_keys(s.key(first), kv_head, count, scratch);
    add_keys(s, kv_head, first, count, scratch);
    store_keys(s.key(first), kv_head, count, scratch);
  }

  // One row of dbias: sums over what the row is shared by.
  void bias_row(int64_t b_row, int64_t h_row, int64_t i_row, const Scratch &scratch) const {
    const attn_tensor &t = grads_.dbias;
    const int64_t keys = t.shape[t.rank - 1];
    const int64_t summed = std::min(keys, in_.seqlen_k);
    std::fill(scratch.dbias, scratch.dbias + summed, 0.0);
    const bool all_heads = t.shape[t.rank - 3] == 1;
    for (int64_t b = 0; b < in_.batch; b++) {
      const Sequence s = in_.sequences.sequence(b);
      int64_t begin = i_row, end = i_row + 1;
      if (p_.ragged_q()) {
        begin = i_row - s.first_q.inner;
        end = begin + 1;
      } else {
        if (t.shape[0] != 1 && b != b_row) continue;
        if (t.shape[2] == 1) {
          begin = 0;
          end = s.seqlen_q;
        }
      }
      begin = std::max<int64_t>(begin, 0);
      end = std::min(end, s.seqlen_q);
      for (int64_t h = all_heads ? 0 : h_row; h < (all_heads ? p_.d.num_q_heads : h_row + 1); h++) {
        for (int64_t i = begin; i < end; i++) add_bias(s, h, i, scratch);
      }
    }
    const int64_t at = (t.rank == 4 ? b_row * t.stride[0] : 0) + h_row * t.stride[t.rank - 3] +
                       i_row * t.stride[t.rank - 2];
    with_codec(t.dtype, [&](auto codec) {
      for (int64_t j = 0; j < keys; j++) {
        codec.store(t.data, at + j * t.stride[t.rank - 1], j < summed ? scratch.dbias[j] : 0);
      }
    });
  }

  void store_dsink(int64_t head) const {
    const double sink = in_.sink(head);
    const bool in_lse = p_.has(ATTN_SDPA_LSE_INCLUDES_SINK);
    double sum = 0;
    for (int64_t b = 0; b < in_.batch; b++) {
      const Sequence s = in_.sequences.sequence(b);
      for (int64_t i = 0; i < s.seqlen_q; i++) {
        const RowStatistics &row = statistics(s, i, head);
        const double weight = weight_of(sink, row.total, 1);
        if (weight != 0) sum += weight * ((in_lse ? row.dlse : 0) - row.d);
      }
    }
    static_cast<float *>(grads_.dsink.data)[head * grads_.dsink.stride[0]] =
        static_cast<float>(sum);
  }

 private:
  RowStatistics &statistics(const Sequence &s, int64_t i, int64_t head) const {
    return memory_.rows[in_.query_row(s, i) * p_.d.num_q_heads + head];
  }

  // q, and dout with the gate's factor: the gradient of the ungated output.
  void load_query(const Sequence &s, int64_t head, int64_t i, double *q, double *dout) const {
    const TokenPlace place = s.query(i);
    in_.q.load(place, head, q);
    load_row(dout_, place, head, dv_, dout);
    if (p_.has(ATTN_SDPA_GATE)) {
      for (int64_t d = 0; d < dv_; d++) dout[d] *= in_.gate_factor(place, head, d);
    }
  }

  RowStatistics measure(const Sequence &s, const Query &query, const double *q,
                        const Scratch &scratch) const {
    RowStatistics row = {};
    if (!p_.softmax()) return row;
    const TokenPlace place = s.query(query.index());
    const int64_t head = query.head();
    const bool base2 = p_.d.lse_base == ATTN_LSE_BASE_2;
    row.lse = load_scalar(lse_.data, lse_.dtype, lse_.offset(place, head)) * (base2 ? kLn2 : 1);
    row.total = row.lse;
    if (p_.has(ATTN_SDPA_SINK) && !p_.has(ATTN_SDPA_LSE_INCLUDES_SINK)) {
      const double sink = in_.sink(head);
      const double larger = std::max(row.lse, sink);
      if (!std::isinf(larger)) {
        row.total = larger + std::log(std::exp(row.lse - larger) + std::exp(sink - larger));
      } else {
        row.total = larger;
      }
    }
    if (p_.wants(ATTN_SDPA_GRAD_LSE_IN) && row.lse != -kInfinity) {
      row.dlse =
          load_scalar(dlse_.data, dlse_.dtype, dlse_.offset(place, head)) * (base2 ? kLog2E : 1);
    }
    const int64_t out = out_.offset(place, head), dout = dout_.offset(place, head);
    for (int64_t d = 0; row.total != -kInfinity && d < dv_; d++) {
      row.d += load_scalar(dout_.data, dout_.dtype, dout + d * dout_.dim) *
               load_scalar(out_.data, out_.dtype, out + d * out_.dim);
    }
    if (row.lse == kInfinity) {
      double infinite = 0;
      for (int64_t j = 0; j < s.seqlen_k; j++) {
        if (!query.sees(j)) continue;
        in_.k.load(s.key(j), head / p_.group, scratch.key);
        if (query.score(j, query.logit(dot(q, scratch.key, dqk_))) == kInfinity) infinite++;
      }
      const bool sink_takes_all = p_.has(ATTN_SDPA_SINK) && in_.sink(head) == kInfinity;
      row.share = infinite == 0 ? 0 : 1 / infinite;
      row.kept_share = sink_takes_all ? 0 : row.share;
    }
    return row;
  }

  Pair pair(const Query &query, const RowStatistics &row, int64_t j, const double *q,
            const double *dout, const double *key, const double *value) const {
    const double logit = query.logit(dot(q, key, dqk_));
    const double s = query.score(j, logit);
    Pair result = {0, 0, 0};
    if (s == -kInfinity) return result;
    if (p_.softmax()) {
      const double weight = weight_of(s, row.total, row.kept_share);
      if (weight != 0) {
        const double kept = query.dropout_factor(j);
        result.weight = kept == 0 ? 0 : weight * kept;
        result.ds = weight * ((kept == 0 ? 0 : kept * dot(dout, value, dv_)) - row.d);
      }
      if (row.dlse != 0) {
        const double in_lse =
            p_.has(ATTN_SDPA_LSE_INCLUDES_SINK) ? weight : weight_of(s, row.lse, row.share);
        if (in_lse != 0) result.ds += row.dlse * in_lse;
      }
    } else {
      const double kept = query.dropout_factor(j);
      if (kept == 0) return result;
      const double factor = kept / static_cast<double>(p_.d.silu_divisor);
      result.weight = silu(s) * factor;
      result.ds = dot(dout, value, dv_) * silu_derivative(s) * factor;
    }
    result.dqk = result.ds == 0 ? 0 : result.ds * query.logit_derivative(logit);
    return result;
  }

  void store_dq(const Tile &tile, const Query *queries, const Scratch &scratch) const {
    const Sequence &s = tile.sequence;
    const int64_t kv_head = tile.head / p_.group;
    std::fill(scratch.dq, scratch.dq + tile.count * dqk_, 0.0);
    for (int64_t j = 0; j < s.seqlen_k; j++) {
      bool loaded = false;
      for (int64_t t = 0; t < tile.count; t++) {
        if (!queries[t].sees(j)) continue;
        if (!loaded) {
          in_.k.load(s.key(j), kv_head, scratch.key);
          in_.v.load(s.key(j), kv_head, scratch.value);
          loaded = true;
        }
        const Pair p =
            pair(queries[t], statistics(s, tile.first + t, tile.head), j, scratch.q + t * dqk_,
                 scratch.dout + t * dv_, scratch.key, scratch.value);
        if (p.dqk != 0) add_scaled(scratch.dq + t * dqk_, p.dqk, scratch.key, dqk_);
      }
    }
    for (int64_t t = 0; t < tile.count; t++) {
      store_row(dq_view_, s.query(tile.first + t), tile.head, dqk_, scratch.dq + t * dqk_);
    }
  }

  void store_dgate(TokenPlace place, int64_t head) const {
    const int64_t extent = grads_.dgate.shape[grads_.dgate.rank - 1];
    const int64_t out = out_.offset(place, head), dout = dout_.offset(place, head);
    const int64_t at = dgate_view_.offset(place, head);
    double sum = 0;
    with_codec(dgate_view_.dtype, [&](auto codec) {
      for (int64_t d = 0; d < dv_; d++) {
        sum += load_scalar(dout_.data, dout_.dtype, dout + d * dout_.dim) *
               load_scalar(out_.data, out_.dtype, out + d * out_.dim) *
               (1 - in_.gate_factor(place, head, d));
        if (extent == 1 && d + 1 < dv_) continue;
        codec.store(dgate_view_.data, at + (extent == 1 ? 0 : d * dgate_view_.dim), sum);
        sum = 0;
      }
    });
  }

  void load_keys(TokenPlace place, int64_t kv_head, int64_t count, const Scratch &scratch) const {
    for (int64_t n = 0; n < count; n++) {
      in_.k.load({place.outer, place.inner + n}, kv_head, scratch.key + n * dqk_);
      in_.v.load({place.outer, place.inner + n}, kv_head, scratch.value + n * dv_);
    }
    std::fill(scratch.dk, scratch.dk + count * dqk_, 0.0);
    std::fill(scratch.dv, scratch.dv + count * dv_, 0.0);
  }

  // Adds what keys [first, first + count) of a sequence get from all queries of their heads.
  void add_keys(const Sequence &s, int64_t kv_head, int64_t first, int64_t count,
                const Scratch &scratch) const {
    for (int64_t h = kv_head * p_.group; h < (kv_head + 1) * p_.group; h++) {
      for (int64_t i = 0; i < s.seqlen_q; i++) {
        const Query query(in_, s, h, i, scratch.blocks);
        bool loaded = false;
        for (int64_t n = 0; n < count; n++) {
          const int64_t j = first + n;
          if (!query.sees(j)) continue;
          if (!loaded) load_query(s, h, i, scratch.q, scratch.dout);
          loaded = true;
          const Pair p = pair(query, statistics(s, i, h), j, scratch.q, scratch.dout,
                              scratch.key + n * dqk_, scratch.value + n * dv_);
          if (p.dqk != 0) add_scaled(scratch.dk + n * dqk_, p.dqk, scratch.q, dqk_);
          if (p.weight != 0) add_scaled(scratch.dv + n * dv_, p.weight, scratch.dout, dv_);
        }
      }
    }
  }

  void store_keys(TokenPlace place, int64_t kv_head, int64_t count, const Scratch &scratch) const {
    for (int64_t n = 0; n < count; n++) {
      const TokenPlace key = {place.outer, place.inner + n};
      double *dk = scratch.dk + n * dqk_;
      const double *dv = scratch.dv + n * dv_;
      if (p_.latent()) add_scaled(dk, 1, dv, dv_);
      if (p_.wants(ATTN_SDPA_GRAD_K)) store_row(dk_view_, key, kv_head, dqk_, dk);
      if (p_.wants(ATTN_SDPA_GRAD_V)) store_row(dv_view_, key, kv_head, dv_, dv);
    }
  }

  void add_bias(const Sequence &s, int64_t h, int64_t i, const Scratch &scratch) const {
    const Query query(in_, s, h, i, scratch.blocks);
    load_query(s, h, i, scratch.q, scratch.dout);
    for (int64_t j = 0; j < s.seqlen_k; j++) {
      if (!query.sees(j)) continue;
      in_.k.load(s.key(j), h / p_.group, scratch.key);
      in_.v.load(s.key(j), h / p_.group, scratch.value);
      scratch.dbias[j] +=
          pair(query, statistics(s, i, h), j, scratch.q, scratch.dout, scratch.key, scratch.value)
              .ds;
    }
  }

  Inputs in_;
  const Problem &p_;
  const attn_sdpa_backward_args &grads_;
  Memory memory_;
  int64_t dqk_, dv_;
  TokenView out_, dout_;
  QueryView lse_ = {}, dlse_ = {}, dbias_view_ = {};
  TokenView dq_view_ = {}, dk_view_ = {}, dv_view_ = {}, dgate_view_ = {};
};

// Zeros all of a [B, S, H, D], [T, H, D] or [pages, slots, H, D] gradient.
void clear(const attn_tensor &tensor, const ThreadPool &pool) {
  const TokenView view = token_view(tensor);
  const int64_t outers = tensor.rank == 4 ? tensor.shape[0] : 1;
  const int64_t inners = tensor.shape[tensor.rank - 3];
  pool.parallel_for(outers * inners, [&](int64_t task, int) {
    for (int64_t h = 0; h < tensor.shape[tensor.rank - 2]; h++) {
      store_zeros(view, {task / inners, task % inners}, h, tensor.shape[tensor.rank - 1]);
    }
  });
}

}  // namespace

Verdict backward_serves(const Problem &problem, const Device &) {
  // Sizes in bytes must stay within 64 bits.
  constexpr double kMost = 1e15;
  const double batch = static_cast<double>(problem.d.max_batch);
  const double rows = problem.ragged_q() ? static_cast<double>(problem.d.max_total_q)
                                         : batch * static_cast<double>(problem.d.max_seqlen_q);
  if (rows * problem.d.num_q_heads > kMost) {
    return Verdict::refuses("the limits allow more than 1e15 queries times heads");
  }
  if (problem.paged() && batch * static_cast<double>(problem.d.max_seqlen_k) > kMost) {
    return Verdict::refuses("the limits allow more than 1e15 keys");
  }
  return Verdict::serves();
}

size_t backward_workspace(const Problem &problem, const Device &device) {
  Carver carver;
  take_memory(problem, carver);
  for (int t = 0; t < pool_of(device).num_threads(); t++) take_scratch(problem, carver);
  return carver.bytes();
}

int32_t backward_launch(const Problem &problem, const Call &call, const Device &device,
                        const Resources &resources, const ErrorSink &) {
  Carver carver(resources.workspace);
  const Backward backward(problem, call, take_memory(problem, carver));
  const Inputs &in = backward.inputs();
  const ThreadPool &pool = pool_of(device);
  const auto scratch = [&](int thread) {
    return scratch_of_thread(problem, resources.workspace, thread);
  };

  // First: the statistics of all rows, which the other passes read.
  pool.parallel_for(Tile::tasks(in),
                    [&](int64_t task, int thread) { backward.tile(task, scratch(thread)); });
  if (problem.ragged_q()) {
    const int64_t used = call.batch == 0 ? 0 : call.args.cu_seqlens_q[call.batch];
    pool.parallel_for(call.total_q - used, [&](int64_t task, int) {
      for (int64_t h = 0; h < problem.d.num_q_heads; h++) {
        backward.store_padding({0, used + task}, h);
      }
    });
  }

  if (problem.wants(ATTN_SDPA_GRAD_K)) clear(call.grads.dk, pool);
  if (problem.wants(ATTN_SDPA_GRAD_V)) clear(call.grads.dv, pool);
  if (backward.keys_wanted()) {
    const int64_t kv_heads = problem.d.num_kv_heads;
    const int64_t groups = problem.paged() ? backward.group_pages() : in.batch;
    const int64_t extent = problem.paged() ? problem.d.page_size : in.seqlen_k;
    const int64_t blocks = ceil_div(extent, kKeyBlock);
    pool.parallel_for(groups * kv_heads * blocks, [&](int64_t task, int thread) {
      const int64_t group = task / (kv_heads * blocks);
      const int64_t head = task / blocks % kv_heads;
      const int64_t first = task % blocks * kKeyBlock;
      if (problem.paged()) {
        backward.page_block(group, head, first, scratch(thread));
      } else {
        backward.key_block(in.sequences.sequence(group), head, first, scratch(thread));
      }
    });
  }

  if (problem.wants(ATTN_SDPA_GRAD_BIAS)) {
    const attn_tensor &t = call.grads.dbias;
    const int64_t batches = t.rank == 4 ? t.shape[0] : 1;
    const int64_t heads = t.shape[t.rank - 3], queries = t.shape[t.rank - 2];
    pool.parallel_for(batches * heads * queries, [&](int64_t task, int thread) {
      backward.bias_row(task / (heads * queries), task / queries % heads, task % queries,
                        scratch(thread));
    });
  }
  if (problem.wants(ATTN_SDPA_GRAD_SINK)) {
    pool.parallel_for(problem.d.num_q_heads,
                      [&](int64_t head, int) { backward.store_dsink(head); });
  }
  return ATTN_OK;
}

}  // namespace attn::cpu::reference
