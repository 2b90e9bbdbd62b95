// sdpa backward for every option: fp32, fp16 and bf16, any stride, layout, mask and head dim. The
// formulas are those of the CPU's reference (kernels/cpu/sdpa/reference/backward.hpp).
//
// A warp computes one row of a gradient: of dq for a query and head, of dk and dv for a place of k
// and a kv head, 32 elements of dbias, one of dsink. It holds its own two rows, (q, dout) or (k,
// v), in shared memory, and takes partners 32 at a time, keys of its query or queries of its key: a
// lane a partner to find out which are visible, all lanes along the head dims for the products <q,
// k> and <dout, v>, a lane a partner for the gradient of its score, all lanes along the head dims
// to add up. Nothing is added by two warps, so results are deterministic; each 32 partners are
// summed by themselves, so that rounding errors do not grow with their number.
#pragma once

#include "kernels/common/gpu/sdpa_backward_params.hpp"
#include "kernels/common/gpu/sdpa_warp.hpp"
#include "kernels/common/gpu/threads.hpp"

namespace attn::gpu {
namespace {

constexpr int kPartners = BackwardLayout::kPartners;

// One warp's shared memory. `a` goes with the scores, q or k, `b` with the output, dout or v.
struct BackwardMemory {
  int64_t *at_a, *at_b;  // offsets of the partners' rows
  float *factor_a, *factor_b;
  uint32_t *blocks;
  float *row_a, *row_b;  // of the warp's own
  float *sum_a, *sum_b;
};

ATTN_HD inline BackwardMemory carve_backward(unsigned char *memory, int32_t head_dim_qk,
                                             int32_t head_dim_v) {
  BackwardMemory w;
  w.at_a = reinterpret_cast<int64_t *>(memory);
  w.at_b = w.at_a + kPartners;
  w.factor_a = reinterpret_cast<float *>(w.at_b + kPartners);
  w.factor_b = w.factor_a + kPartners;
  w.blocks = reinterpret_cast<uint32_t *>(w.factor_b + kPartners);
  w.row_a = reinterpret_cast<float *>(w.blocks + kBlockWords);
  w.row_b = w.row_a + ReferenceLayout::row_bytes(head_dim_qk) / 4;
  w.sum_a = w.row_b + ReferenceLayout::row_bytes(head_dim_v) / 4;
  w.sum_b = w.sum_a + ReferenceLayout::row_bytes(head_dim_qk) / 4;
  return w;
}

// Calls fn with the codec of one of the types that the backward pass takes.
template <class Fn>
ATTN_HD inline void with_real(int32_t dtype, const Fn &fn) {
  if (dtype == ATTN_DTYPE_FP32) {
    fn(Codec<ATTN_DTYPE_FP32>());
  } else if (dtype == ATTN_DTYPE_FP16) {
    fn(Codec<ATTN_DTYPE_FP16>());
  } else {
    fn(Codec<ATTN_DTYPE_BF16>());
  }
}

// --- along the head dim: each function does the elements of one lane ---------------------------

ATTN_HD inline void load_row(const TokenView &t, TokenPlace place, int64_t head, int n, float *row,
                             int lane) {
  const int64_t at = t.offset(place, head);
  with_real(t.dtype, [&](auto codec) {
#pragma unroll 1
    for (int d = lane; d < n; d += 32) {
      row[d] = static_cast<float>(codec.load(t.data, at + d * t.dim));
    }
  });
}

template <class Value>
ATTN_HD inline void store_row(const TokenView &t, TokenPlace place, int64_t head, int n, int lane,
                              const Value &value) {
  const int64_t at = t.offset(place, head);
  with_real(t.dtype, [&](auto codec) {
#pragma unroll 1
    for (int d = lane; d < n; d += 32) {
      codec.store(t.data, at + d * t.dim, static_cast<double>(value(d)));
    }
  });
}

// This lane's part of the products of a row with rows first .. first + 3 of the list; those after
// the last are the last again.
ATTN_HD inline void partial_dots(const TokenView &t, const float *row, int n, const int64_t *at,
                                 int first, int count, int lane, float (&sums)[4]) {
  int64_t from[4];
  for (int r = 0; r < 4; r++) {
    from[r] = at[first + r < count ? first + r : count - 1];
    sums[r] = 0;
  }
  with_real(t.dtype, [&](auto codec) {
#pragma unroll 1
    for (int d = lane; d < n; d += 32) {
      for (int r = 0; r < 4; r++) {
        sums[r] += row[d] * static_cast<float>(codec.load(t.data, from[r] + d * t.dim));
      }
    }
  });
}

// sum += the rows of the list, each times its factor; factors of 0 take part in nothing.
ATTN_HD inline void add_rows(const TokenView &t, int n, const int64_t *at, const float *factor,
                             int count, float *sum, int lane) {
  with_real(t.dtype, [&](auto codec) {
#pragma unroll 1
    for (int d = lane; d < n; d += 32) {
      float x = 0;
#pragma unroll 1
      for (int r = 0; r < count; r++) {
        if (factor[r] == 0) continue;
        x += factor[r] * static_cast<float>(codec.load(t.data, at[r] + d * t.dim));
      }
      sum[d] += x;
    }
  });
}

// exp(s - lse), where +inf is shared.
ATTN_HD inline float weight_of(float s, float lse, float share) {
  if (s == -infinity() || lse == -infinity()) return 0;
  if (lse == infinity()) return s == infinity() ? share : 0.0f;
  return expf(s - lse);
}

// What one key gets from one query.
struct Pair {
  float weight;  // of dout in dv
  float ds;      // the gradient of s_j
  float dqk;     // the gradient of <q, k_j>
};

class Backward {
 public:
  __device__ Backward(const SdpaBackwardParams &p, const BackwardMemory &w, int lane)
      : p_(p),
        in_(p.in),
        w_(w),
        dqk_(static_cast<int>(p.in.d.head_dim_qk)),
        dv_(static_cast<int>(p.in.d.head_dim_v)),
        lane_(lane) {
    if (in_.has(ATTN_SDPA_DROPOUT)) dropout_ = make_dropout(in_.rng_state, in_.d.dropout_p);
  }

  __device__ void run(int64_t task) {
    switch (p_.step) {
      case BackwardStep::rows:
        return rows_step(task);
      case BackwardStep::dq:
        return dq_step(task);
      case BackwardStep::keys:
        return keys_step(task);
      case BackwardStep::bias:
        return bias_step(task);
      case BackwardStep::sink:
        return sink_step(task);
    }
  }

 private:
  // --- steps -----------------------------------------------------------------------------------

  __device__ void rows_step(int64_t task) {
    const int64_t head = task % in_.d.num_q_heads;
    const Place place = place_of(task / in_.d.num_q_heads);
    const TokenPlace query = place.query;
    if (!place.valid) {
      const auto zero = [](int) { return 0.0f; };
      if (p_.dq.data != nullptr) store_row(p_.dq, query, head, dqk_, lane_, zero);
      if (p_.dgate.data != nullptr) store_row(p_.dgate, query, head, p_.dgate_n, lane_, zero);
      return;
    }
    const auto out = [&](int d) {
      return static_cast<float>(
          load_scalar(p_.out.data, p_.out.dtype, p_.out.offset(query, head) + d * p_.out.dim));
    };
    const auto dout = [&](int d) {
      return static_cast<float>(
          load_scalar(p_.dout.data, p_.dout.dtype, p_.dout.offset(query, head) + d * p_.dout.dim));
    };
    if (in_.has(ATTN_SDPA_GATE)) {
      store_row(p_.gated, query, head, dv_, lane_,
                [&](int d) { return dout(d) * in_.gate_factor<float>(query, head, d); });
      sync_warp();
    }
    if (in_.d.activation == ATTN_ACTIVATION_SOFTMAX) measure(place, head, out, dout);
    if (p_.dgate.data == nullptr) return;
    const auto of_gate = [&](int d) {
      return dout(d) * out(d) * (1 - in_.gate_factor<float>(query, head, d));
    };
    if (p_.dgate_n != 1) return store_row(p_.dgate, query, head, dv_, lane_, of_gate);
    float sum = 0;
    for (int d = lane_; d < dv_; d += 32) sum += of_gate(d);
    sum = warp_sum(sum);
    store_row(p_.dgate, query, head, 1, lane_, [&](int) { return sum; });
  }

  __device__ void dq_step(int64_t task) {
    const int64_t head = task % in_.d.num_q_heads;
    const Place place = place_of(task / in_.d.num_q_heads);
    if (!place.valid) return;
    own_query(place, head);
    for (int d = lane_; d < dqk_; d += 32) w_.sum_a[d] = 0;
    sync_warp();
    const ScoredQuery<float> query(in_, place.s, head, place.i);
    const BackwardRow row = statistics(place.query, place.s, head);
    for_keys(place.s, query, [&](int64_t j, bool visible) {
      const Pair pair = key_pair(place.s, query, row, j, visible);
      add(p_.k, dqk_, w_.at_a, w_.factor_a, pair.dqk, w_.sum_a);
    });
    store_row(p_.dq, place.query, head, dqk_, lane_, [&](int d) { return w_.sum_a[d]; });
    sync_warp();  // before the next task uses the memory
  }

  __device__ void keys_step(int64_t task) {
    const int64_t kv_head = task % in_.d.num_kv_heads;
    const int64_t t = task / in_.d.num_kv_heads;
    const TokenPlace place = {t / p_.key_inner, t % p_.key_inner};
    for (int d = lane_; d < dqk_; d += 32) w_.sum_a[d] = 0;
    for (int d = lane_; d < dv_; d += 32) w_.sum_b[d] = 0;
    loaded_ = false;
    const SequenceTable &sequences = in_.sequences;
    if (sequences.page_size == 0) {
      const int64_t b = sequences.cu_seqlens_k != nullptr
                            ? sequence_of(sequences.cu_seqlens_k, p_.batch, place.inner)
                            : place.outer;
      if (b < p_.batch) {
        const Sequence s = sequences.sequence(b);
        add_queries(s, kv_head, place, place.inner - s.first_k.inner);
      }
    } else {
      // Every use of this page by any sequence.
      for (int64_t b = 0; b < p_.batch; b++) {
        const Sequence s = sequences.sequence(b);
        const int64_t pages = (s.seqlen_k + s.page_size - 1) / s.page_size;
        for (int64_t first = 0; first < pages; first += 32) {
          const int64_t n = first + lane_;
          unsigned uses = ballot(n < pages && s.pages[n * s.page_stride] == place.outer);
          for (int use = 0; uses != 0; use++, uses >>= 1) {
            if ((uses & 1) == 0) continue;
            add_queries(s, kv_head, place, (first + use) * s.page_size + place.inner);
          }
        }
      }
    }
    sync_warp();
    if (p_.dk.data != nullptr) {
      store_row(p_.dk, place, kv_head, dqk_, lane_, [&](int d) {
        return w_.sum_a[d] + (p_.latent != 0 && d < dv_ ? w_.sum_b[d] : 0.0f);
      });
    }
    if (p_.dv.data != nullptr) {
      store_row(p_.dv, place, kv_head, dv_, lane_, [&](int d) { return w_.sum_b[d]; });
    }
    sync_warp();
  }

  // 32 elements of one row of dbias: sums over what the row is shared by.
  __device__ void bias_step(int64_t task) {
    const int64_t blocks = (p_.bias_keys + 31) / 32;
    const int64_t j = task % blocks * 32 + lane_;
    const int64_t i_row = task / blocks % p_.bias_rows;
    const int64_t h_row = task / blocks / p_.bias_rows % p_.bias_heads;
    const int64_t b_row = task / blocks / p_.bias_rows / p_.bias_heads;
    const bool all_heads = p_.bias_heads == 1;
    float sum = 0;
    for (int64_t b = 0; b < p_.batch; b++) {
      const Sequence s = in_.sequences.sequence(b);
      int64_t begin = i_row, end = i_row + 1;
      if (in_.sequences.cu_seqlens_q != nullptr) {
        begin = i_row - s.first_q.inner;
        end = begin + 1;
      } else {
        if (p_.bias_batch > 1 && b != b_row) continue;
        if (p_.bias_rows == 1) {
          begin = 0;
          end = s.seqlen_q;
        }
      }
      if (begin < 0) begin = 0;
      if (end > s.seqlen_q) end = s.seqlen_q;
      const int64_t heads = all_heads ? in_.d.num_q_heads : h_row + 1;
      for (int64_t head = all_heads ? 0 : h_row; head < heads; head++) {
        for (int64_t i = begin; i < end; i++) sum += bias_gradient(s, head, i, j);
      }
    }
    if (j >= p_.bias_keys) return;
    const int64_t at = b_row * p_.dbias.outer + h_row * p_.dbias.head + i_row * p_.dbias.inner;
    with_real(p_.dbias.dtype, [&](auto codec) {
      codec.store(p_.dbias.data, at + j * p_.dbias.last, static_cast<double>(sum));
    });
  }

  __device__ void sink_step(int64_t head) {
    const float sink = static_cast<float>(in_.sink(head));
    const bool in_lse = in_.has(ATTN_SDPA_LSE_INCLUDES_SINK);
    float sum = 0;
    for (int64_t b = 0; b < p_.batch; b++) {
      const Sequence s = in_.sequences.sequence(b);
      for (int64_t i = lane_; i < s.seqlen_q; i += 32) {
        const BackwardRow row = statistics(s.query(i), s, head);
        const float weight = weight_of(sink, row.total, 1);
        if (weight != 0) sum += weight * ((in_lse ? row.dlse : 0.0f) - row.d);
      }
    }
    sum = warp_sum(sum);
    if (lane_ == 0) p_.dsink[head * p_.dsink_head] = sum;
  }

  // --- queries ---------------------------------------------------------------------------------

  struct Place {
    Sequence s;
    TokenPlace query;
    int64_t i;
    bool valid;  // else padding, or a token after the last sequence
  };

  __device__ Place place_of(int64_t t) const {
    const SequenceTable &sequences = in_.sequences;
    const bool ragged = sequences.cu_seqlens_q != nullptr;
    const int64_t b =
        ragged ? sequence_of(sequences.cu_seqlens_q, p_.batch, t) : t / sequences.dense_seqlen_q;
    Place place = {};
    place.query = {ragged ? 0 : b, ragged ? t : t % sequences.dense_seqlen_q};
    if (b >= p_.batch) return place;
    place.s = sequences.sequence(b);
    place.i = place.query.inner - place.s.first_q.inner;
    place.valid = place.i < place.s.seqlen_q;
    return place;
  }

  __device__ BackwardRow &statistics(TokenPlace query, const Sequence &s, int64_t head) const {
    const int64_t place = in_.sequences.cu_seqlens_q != nullptr
                              ? query.inner
                              : s.index * in_.sequences.dense_seqlen_q + query.inner;
    return p_.rows[place * in_.d.num_q_heads + head];
  }

  template <class Out, class Dout>
  __device__ void measure(const Place &place, int64_t head, const Out &out, const Dout &dout) {
    const bool base2 = in_.d.lse_base == ATTN_LSE_BASE_2;
    BackwardRow row = {};
    row.lse = static_cast<const float *>(p_.lse.data)[p_.lse.offset(place.query, head)];
    if (base2) row.lse *= static_cast<float>(kLn2);
    row.total = row.lse;
    const bool has_sink = in_.has(ATTN_SDPA_SINK);
    const float sink = has_sink ? static_cast<float>(in_.sink(head)) : -infinity();
    if (has_sink && !in_.has(ATTN_SDPA_LSE_INCLUDES_SINK)) {
      // NaN stays one whichever of the two it is.
      const float larger = row.lse > sink || row.lse != row.lse ? row.lse : sink;
      row.total = larger;
      if (larger != infinity() && larger != -infinity()) {
        row.total = larger + logf(expf(row.lse - larger) + expf(sink - larger));
      }
    }
    if (p_.dlse.data != nullptr && row.lse != -infinity()) {
      row.dlse = static_cast<const float *>(p_.dlse.data)[p_.dlse.offset(place.query, head)];
      if (base2) row.dlse *= static_cast<float>(kLog2E);
    }
    if (row.total != -infinity()) {
      float sum = 0;
      for (int d = lane_; d < dv_; d += 32) sum += dout(d) * out(d);
      row.d = warp_sum(sum);
    }
    if (row.lse == infinity()) {
      own_query(place, head);
      sync_warp();
      const ScoredQuery<float> query(in_, place.s, head, place.i);
      float infinite = 0;
      for_keys(place.s, query, [&](int64_t j, bool visible) {
        infinite += key_pair(place.s, query, row, j, visible).infinite ? 1.0f : 0.0f;
      });
      infinite = warp_sum(infinite);
      row.share = infinite == 0 ? 0.0f : 1 / infinite;
      row.kept_share = sink == infinity() ? 0.0f : row.share;
    }
    if (lane_ == 0) statistics(place.query, place.s, head) = row;
  }

  // The warp's own rows: q, and the gradient of the ungated output.
  __device__ void own_query(const Place &place, int64_t head) {
    load_row(p_.q, place.query, head, dqk_, w_.row_a, lane_);
    load_row(p_.gated, place.query, head, dv_, w_.row_b, lane_);
  }

  // Calls fn(j, visible) with all lanes, j being this lane's key, for all keys of the query's band.
  template <class Fn>
  __device__ void for_keys(const Sequence &s, const ScoredQuery<float> &query, const Fn &fn) {
    const Band &band = query.band();
    ListedBlocks blocks(in_, s, query.head(), query.index(), w_.blocks, lane_);
    for (int span = 0; span < 2; span++) {
      const int64_t begin =
          span == 0 ? 0 : (band.begin > band.sink_end ? band.begin : band.sink_end);
      const int64_t end = span == 0 ? band.sink_end : band.end;
      for (int64_t first = begin / 32 * 32; first < end; first += 32) {
        blocks.reach(first);
        const int64_t j = first + lane_;
        fn(j, j >= begin && j < end && blocks.contains(j));
      }
    }
  }

  struct KeyPair : Pair {
    bool infinite = false;  // the score is
  };

  // This lane's key beside the warp's query; leaves the keys' rows in at_a and at_b, by lane.
  __device__ KeyPair key_pair(const Sequence &s, const ScoredQuery<float> &query,
                              const BackwardRow &row, int64_t j, bool visible) {
    KeyPair result = {};
    TokenPlace place = {0, 0};
    float bias = 0;
    visible = visible && query.unmasked(j);
    if (visible) {
      place = s.key(j);
      bias = query.bias(j);
      visible = !place.skipped() && bias != -infinity();
    }
    const int64_t kv_head = query.head() / p_.group;
    const unsigned lanes = list(visible, visible ? p_.k.offset(place, kv_head) : 0,
                                visible ? p_.v.offset(place, kv_head) : 0);
    if (lanes == 0) return result;
    const float qk = dots(p_.k, w_.row_a, dqk_, w_.at_a, lanes);
    const float dov = dots(p_.v, w_.row_b, dv_, w_.at_b, lanes);
    if (!visible) return result;
    const float logit = query.logit(qk);
    const float score = query.score(j, logit, bias);
    result.infinite = score == infinity();
    static_cast<Pair &>(result) = pair(query, s, row, j, logit, score, dov);
    return result;
  }

  __device__ float bias_gradient(const Sequence &s, int64_t head, int64_t i, int64_t j) {
    const Place place = {s, s.query(i), i, true};
    sync_warp();
    own_query(place, head);
    sync_warp();
    const ScoredQuery<float> query(in_, s, head, i);
    ListedBlocks blocks(in_, s, head, i, w_.blocks, lane_);
    blocks.reach(j - lane_);
    const bool visible = j < s.seqlen_k && query.band().contains(j) && blocks.contains(j);
    return key_pair(s, query, statistics(place.query, s, head), j, visible).ds;
  }

  // --- keys ------------------------------------------------------------------------------------

  // Adds what key j of a sequence gets from all queries of its heads.
  __device__ void add_queries(const Sequence &s, int64_t kv_head, TokenPlace place, int64_t j) {
    if (j >= s.seqlen_k) return;
    if (!loaded_) {
      load_row(p_.k, place, kv_head, dqk_, w_.row_a, lane_);
      load_row(p_.v, place, kv_head, dv_, w_.row_b, lane_);
      sync_warp();
      loaded_ = true;
    }
    for (int64_t head = kv_head * p_.group; head < (kv_head + 1) * p_.group; head++) {
      for (int64_t first = 0; first < s.seqlen_q; first += 32) {
        const int64_t i = first + lane_;
        const bool exists = i < s.seqlen_q;
        const ScoredQuery<float> query(in_, s, head, exists ? i : s.seqlen_q - 1);
        bool visible =
            exists && query.band().contains(j) && query.unmasked(j) && listed(s, head, i, j);
        float bias = 0;
        if (visible) {
          bias = query.bias(j);
          visible = bias != -infinity();
        }
        const TokenPlace at = s.query(query.index());
        const unsigned lanes = list(visible, p_.q.offset(at, head), p_.gated.offset(at, head));
        if (lanes == 0) continue;
        const float qk = dots(p_.q, w_.row_a, dqk_, w_.at_a, lanes);
        const float dov = dots(p_.gated, w_.row_b, dv_, w_.at_b, lanes);
        Pair result = {0, 0, 0};
        if (visible) {
          const float logit = query.logit(qk);
          result =
              pair(query, s, statistics(at, s, head), j, logit, query.score(j, logit, bias), dov);
        }
        add(p_.q, dqk_, w_.at_a, w_.factor_a, result.dqk, w_.sum_a);
        add(p_.gated, dv_, w_.at_b, w_.factor_b, result.weight, w_.sum_b);
      }
    }
  }

  // Whether key j is in a block of query i's list.
  __device__ bool listed(const Sequence &s, int64_t head, int64_t i, int64_t j) const {
    if (!in_.has(ATTN_SDPA_BLOCK_SPARSE)) return true;
    const int64_t row = i / in_.d.block_size_q, block = j / in_.d.block_size_k;
    const int64_t count = in_.blocks.count(s.index, head, row);
    const int32_t *list = in_.blocks.list(s.index, head, row);
    for (int64_t n = 0; n < count; n++) {
      if (list[n * in_.blocks.indices_entry] == block) return true;
    }
    return false;
  }

  // --- pairs -----------------------------------------------------------------------------------

  __device__ Pair pair(const ScoredQuery<float> &query, const Sequence &s, const BackwardRow &row,
                       int64_t j, float logit, float score, float dov) const {
    Pair result = {0, 0, 0};
    if (score == -infinity()) return result;
    float kept = 1;
    if (in_.has(ATTN_SDPA_DROPOUT)) {
      const int64_t bh = s.index * in_.d.num_q_heads + query.head();
      kept = dropout_.keeps(bh, query.index(), j) ? static_cast<float>(dropout_.keep_scale) : 0.0f;
    }
    if (in_.d.activation == ATTN_ACTIVATION_SOFTMAX) {
      const float weight = weight_of(score, row.total, row.kept_share);
      if (weight != 0) {
        result.weight = kept == 0 ? 0.0f : weight * kept;
        result.ds = weight * ((kept == 0 ? 0.0f : kept * dov) - row.d);
      }
      if (row.dlse != 0) {
        const float in_lse =
            in_.has(ATTN_SDPA_LSE_INCLUDES_SINK) ? weight : weight_of(score, row.lse, row.share);
        if (in_lse != 0) result.ds += row.dlse * in_lse;
      }
    } else {
      if (kept == 0) return result;
      const float factor = kept / in_.d.silu_divisor;
      result.weight = silu(score) * factor;
      result.ds = dov * silu_derivative(score) * factor;
    }
    result.dqk = result.ds == 0 ? 0.0f : result.ds * query.logit_derivative(logit);
    return result;
  }

  // Puts the rows of the partners that count into the list, and gives their lanes.
  __device__ unsigned list(bool counts, int64_t a, int64_t b) {
    const unsigned lanes = ballot(counts);
    slot_ = rank_in(lanes, lane_);
    listed_ = counts;
    sync_warp();  // the last list has been read
    if (counts) {
      w_.at_a[slot_] = a;
      w_.at_b[slot_] = b;
    }
    sync_warp();
    return lanes;
  }

  // The product of `row` with this lane's partner's.
  __device__ float dots(const TokenView &t, const float *row, int n, const int64_t *at,
                        unsigned lanes) const {
    const int count = population(lanes);
    float mine = 0;
    for (int first = 0; first < count; first += 4) {
      float sums[4];
      partial_dots(t, row, n, at, first, count, lane_, sums);
      const float sum = warp_sum_of_four(sums, lane_);
      const float x = shuffle(sum, (slot_ & 3) * 8);
      if (slot_ >= first && slot_ < first + 4) mine = x;
    }
    return mine;
  }

  // sum += the listed rows, each times what its lane says.
  __device__ void add(const TokenView &t, int n, const int64_t *at, float *factors, float factor,
                      float *sum) const {
    const unsigned lanes = ballot(listed_);
    if (!any(listed_ && factor != 0)) return;
    if (listed_) factors[slot_] = factor;
    sync_warp();
    add_rows(t, n, at, factors, population(lanes), sum, lane_);
    sync_warp();
  }

  const SdpaBackwardParams &p_;
  const ScoreInputs &in_;
  const BackwardMemory &w_;
  int dqk_, dv_, lane_;
  Dropout dropout_ = {};
  int slot_ = 0;         // of this lane's partner in the list
  bool listed_ = false;  // it is there
  bool loaded_ = false;  // the warp's own rows, of a key
};

// All that one block does; `memory` is its dynamic shared memory.
__device__ inline void sdpa_backward(const SdpaBackwardParams &p, unsigned char *memory) {
  const int lane = static_cast<int>(thread_index() % 32);
  const unsigned warp = thread_index() / 32;
  const BackwardMemory w = carve_backward(memory + warp * static_cast<unsigned>(p.warp_bytes),
                                          p.in.d.head_dim_qk, p.in.d.head_dim_v);
  Backward backward(p, w, lane);
  for (int64_t task = static_cast<int64_t>(block_index()) * p.warps + warp; task < p.tasks;
       task += static_cast<int64_t>(grid_size()) * p.warps) {
    backward.run(task);
  }
}

}  // namespace
}  // namespace attn::gpu
