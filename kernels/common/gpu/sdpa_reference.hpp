// sdpa forward for every option: any dtype, scale, stride, layout, mask and head dim.
//
// A warp computes one query of one head. It takes the keys 32 at a time: a lane a key to find out
// which are visible, then all lanes along the head dim for the scores of the visible ones, a lane a
// key again for an online softmax in fp32, and all lanes along the head dim for the values. Nothing
// of a key that the query does not see is read. What a row gives depends on nothing but its own
// inputs, so results are deterministic and independent of the batch.
//
// What the headers leave open is settled as in the CPU's reference (kernels/cpu/sdpa/reference/
// forward.hpp), with fp32's range for a weight that is too small to count.
#pragma once

#include "kernels/common/gpu/sdpa_reference_params.hpp"
#include "kernels/common/gpu/sdpa_warp.hpp"
#include "kernels/common/gpu/threads.hpp"

namespace attn::gpu {
namespace {

constexpr int kKeys = ReferenceLayout::kKeys;

// One warp's shared memory. The arrays by key hold the visible keys of 32, one after the other;
// those of v only the keys with a weight.
struct WarpMemory {
  int64_t *k_at, *k_scale_at, *v_at, *v_scale_at;  // offsets of element 0, and of its scale
  float *k_scale, *v_scale;                        // of keys with one scale; 1 without
  float *weight;
  uint32_t *blocks;  // bits of listed key blocks, of a window of all
  float *q;          // dequantised
  float *sum;        // of weighted values
};

ATTN_HD inline WarpMemory carve(unsigned char *memory, int32_t head_dim_qk) {
  WarpMemory w;
  w.k_at = reinterpret_cast<int64_t *>(memory);
  w.k_scale_at = w.k_at + kKeys;
  w.v_at = w.k_scale_at + kKeys;
  w.v_scale_at = w.v_at + kKeys;
  w.k_scale = reinterpret_cast<float *>(w.v_scale_at + kKeys);
  w.v_scale = w.k_scale + kKeys;
  w.weight = w.v_scale + kKeys;
  w.blocks = reinterpret_cast<uint32_t *>(w.weight + kKeys);
  w.q = reinterpret_cast<float *>(w.blocks + kBlockWords);
  w.sum = w.q + ReferenceLayout::row_bytes(head_dim_qk) / 4;
  return w;
}

// --- along the head dim: each function does the elements of one lane ---------------------------

ATTN_HD inline bool scale_by_block(const ScaledView &t) {
  return t.scaled != 0 && t.block < t.n;
}

ATTN_HD inline float scale_at(const ScaledView &t, int64_t first, int d) {
  return static_cast<float>(
      load_scalar(t.scales.data, t.scales.dtype, first + d / t.block * t.scales.dim));
}

ATTN_HD inline void load_query(const ScaledView &q, TokenPlace place, int64_t head, float *row,
                               int lane) {
  const int n = static_cast<int>(q.n);
  const int64_t at = q.values.offset(place, head);
  const int64_t scale = q.scaled != 0 ? q.scales.offset(place, head) : 0;
  with_codec(q.values.dtype, [&](auto codec) {
#pragma unroll 1
    for (int d = lane; d < n; d += 32) {
      float x = static_cast<float>(codec.load(q.values.data, at + d * q.values.dim));
      if (q.scaled != 0) x *= scale_at(q, scale, d);
      row[d] = x;
    }
  });
}

// This lane's part of the products of q with keys first .. first + 3 of the list; keys after the
// last are the last again.
template <bool kScaleByBlock>
ATTN_HD inline void partial_dots(const ScaledView &k, const WarpMemory &w, int first, int count,
                                 int lane, float (&sums)[4]) {
  int64_t at[4], scales[4];
  float scale[4];
  for (int r = 0; r < 4; r++) {
    const int n = first + r < count ? first + r : count - 1;
    at[r] = w.k_at[n];
    scale[r] = kScaleByBlock ? 1.0f : w.k_scale[n];
    scales[r] = kScaleByBlock ? w.k_scale_at[n] : 0;
    sums[r] = 0;
  }
  const int n = static_cast<int>(k.n);
  with_codec(k.values.dtype, [&](auto codec) {
#pragma unroll(kScaleByBlock ? 1 : 2)
    for (int d = lane; d < n; d += 32) {
      const float q = w.q[d];
      const int64_t step = d * k.values.dim;
      for (int r = 0; r < 4; r++) {
        const float x = static_cast<float>(codec.load(k.values.data, at[r] + step));
        sums[r] += q * (x * (kScaleByBlock ? scale_at(k, scales[r], d) : scale[r]));
      }
    }
  });
}

// sum = sum * correction + the weighted values of the list. Each 32 keys are summed by themselves,
// so that rounding errors do not grow with the number of keys.
template <bool kScaleByBlock>
ATTN_HD inline void add_values(const ScaledView &v, const WarpMemory &w, int count,
                               float correction, int lane) {
  const int n = static_cast<int>(v.n);
  with_codec(v.values.dtype, [&](auto codec) {
#pragma unroll 1
    for (int first = lane; first < n; first += 128) {
      float sums[4] = {0, 0, 0, 0};
#pragma unroll(kScaleByBlock ? 1 : 4)
      for (int key = 0; key < count; key++) {
        const float weight = w.weight[key];
        const int64_t at = w.v_at[key];
        for (int r = 0; r < 4; r++) {
          const int d = first + 32 * r;
          if (d >= n) continue;
          const float x = static_cast<float>(codec.load(v.values.data, at + d * v.values.dim));
          const float scale = kScaleByBlock ? scale_at(v, w.v_scale_at[key], d) : w.v_scale[key];
          sums[r] += weight * (x * scale);
        }
      }
      for (int r = 0; r < 4; r++) {
        const int d = first + 32 * r;
        if (d >= n) continue;
        // A correction of 0 forgets what has no weight any more, NaN and infinity too.
        w.sum[d] = correction == 0 ? sums[r] : w.sum[d] * correction + sums[r];
      }
    }
  });
}

// Calls fn with the elements that a lane stores. Two elements of four bits share a byte, which one
// lane must write.
template <class Fn>
ATTN_HD inline void for_stored(int32_t dtype, int n, int lane, const Fn &fn) {
  if (dtype == ATTN_DTYPE_INT4 || dtype == ATTN_DTYPE_FP4_E2M1) {
#pragma unroll 1
    for (int d = 2 * lane; d < n; d += 64) {
      fn(d);
      if (d + 1 < n) fn(d + 1);
    }
  } else {
#pragma unroll 1
    for (int d = lane; d < n; d += 32) fn(d);
  }
}

ATTN_HD inline void store_zeros(const ScaledView &out, TokenPlace place, int64_t head, int lane) {
  const int64_t at = out.values.offset(place, head);
  with_codec(out.values.dtype, [&](auto codec) {
    for_stored(out.values.dtype, static_cast<int>(out.n), lane,
               [&](int d) { codec.store(out.values.data, at + d * out.values.dim, 0.0); });
  });
}

// sum * factor, through the gate and the output's scale. A factor of 0 gives 0 whatever the sum.
ATTN_HD inline void store_row(const ScoreInputs &in, const ScaledView &out, TokenPlace place,
                              int64_t head, const float *sum, float factor, int lane) {
  const int64_t at = out.values.offset(place, head);
  const int64_t scale = out.scaled != 0 ? out.scales.offset(place, head) : 0;
  const bool gate = in.has(ATTN_SDPA_GATE);
  with_codec(out.values.dtype, [&](auto codec) {
    for_stored(out.values.dtype, static_cast<int>(out.n), lane, [&](int d) {
      float x = factor == 0 ? 0.0f : sum[d] * factor;
      if (gate) x *= in.gate_factor<float>(place, head, d);
      if (out.scaled != 0) x /= scale_at(out, scale, d);
      codec.store(out.values.data, at + d * out.values.dim, static_cast<double>(x));
    });
  });
}

// What the keys so far come to; the same in all lanes, but for `sum`.
struct RowState {
  float max;  // of the visible scores; NaN counts in `nan` only
  float sum;  // of this lane's keys, relative to max
  bool nan;   // some visible score is
  bool any;   // softmax: some score above -inf kept by dropout; SiLU: some visible
};

class Row {
 public:
  __device__ Row(const SdpaReferenceParams &p, const WarpMemory &w, const Sequence &s, int64_t head,
                 int64_t i, int lane)
      : p_(p), in_(p.in), w_(w), s_(s), head_(head), i_(i), lane_(lane), query_(p.in, s, head, i) {
    if (in_.has(ATTN_SDPA_DROPOUT)) dropout_ = make_dropout(in_.rng_state, in_.d.dropout_p);
  }

  __device__ void compute() {
    load_query(p_.q, s_.query(i_), head_, w_.q, lane_);
    for (int d = lane_; d < static_cast<int>(p_.v.n); d += 32) w_.sum[d] = 0;
    sync_warp();
    const Band &band = query_.band();
    ListedBlocks blocks(in_, s_, head_, i_, w_.blocks, lane_);
    // The sink tokens, then the rest of the band.
    for (int span = 0; span < 2; span++) {
      const int64_t begin =
          span == 0 ? 0 : (band.begin > band.sink_end ? band.begin : band.sink_end);
      const int64_t end = span == 0 ? band.sink_end : band.end;
      for (int64_t first = begin / 32 * 32; first < end; first += 32) {
        blocks.reach(first);
        const int64_t j = first + lane_;
        keys(j, j >= begin && j < end && blocks.contains(j));
      }
    }
    sync_warp();
    if (in_.d.activation == ATTN_ACTIVATION_SILU) {
      store(state_.any, keep_scale());
    } else {
      finish();
    }
    sync_warp();  // before the next row uses the memory
  }

 private:
  __device__ float keep_scale() const {
    return in_.has(ATTN_SDPA_DROPOUT) ? static_cast<float>(dropout_.keep_scale) : 1.0f;
  }

  // 32 keys, j being this lane's.
  __device__ __forceinline__ void keys(int64_t j, bool visible) {
    visible = visible && query_.unmasked(j);
    TokenPlace place = {0, 0};
    float bias = 0;
    if (visible) {
      place = s_.key(j);
      bias = query_.bias(j);
      visible = !place.skipped() && bias != -infinity();
    }
    const unsigned lanes = ballot(visible);
    if (lanes == 0) return;
    const float qk = product(place, visible, lanes);
    const float score = visible ? query_.score(j, query_.logit(qk), bias) : -infinity();
    const bool keep =
        score != -infinity() && (!in_.has(ATTN_SDPA_DROPOUT) ||
                                 dropout_.keeps(s_.index * in_.d.num_q_heads + head_, i_, j));
    float weight = 0, correction = 1;
    if (in_.d.activation == ATTN_ACTIVATION_SILU) {
      state_.any = state_.any || any(score != -infinity());
      if (keep) weight = silu(score) / in_.d.silu_divisor;
    } else {
      state_.nan = state_.nan || any(score != score);
      state_.any = state_.any || any(keep);
      const float max = fmaxf(state_.max, warp_max(score));
      if (max == -infinity()) return;
      if (score == -infinity()) {
        weight = 0;
      } else if (max == infinity()) {
        weight = score == infinity() ? 1.0f : 0.0f;
      } else {
        weight = expf(score - max);
      }
      if (max != state_.max) correction = max == infinity() ? 0.0f : expf(state_.max - max);
      state_.max = max;
      state_.sum = (correction == 0 ? 0.0f : state_.sum * correction) + weight;
      if (!keep) weight = 0;
    }
    values(place, weight, correction);
  }

  // <q, k_j> of this lane's key, if it is visible.
  __device__ float product(TokenPlace place, bool visible, unsigned lanes) {
    const int count = population(lanes), slot = rank_in(lanes, lane_);
    const bool by_block = scale_by_block(p_.k);
    const int64_t kv_head = head_ / p_.group;
    sync_warp();
    if (visible) {
      w_.k_at[slot] = p_.k.values.offset(place, kv_head);
      if (by_block) {
        w_.k_scale_at[slot] = p_.k.scales.offset(place, kv_head);
      } else {
        w_.k_scale[slot] =
            p_.k.scaled != 0 ? static_cast<float>(p_.k.scale(place, kv_head, 0)) : 1.0f;
      }
    }
    sync_warp();
    float qk = 0;
    for (int first = 0; first < count; first += 4) {
      float sums[4];
      if (by_block) {
        partial_dots<true>(p_.k, w_, first, count, lane_, sums);
      } else {
        partial_dots<false>(p_.k, w_, first, count, lane_, sums);
      }
      const float sum = warp_sum_of_four(sums, lane_);
      const float mine = shuffle(sum, (slot & 3) * 8);
      if (slot >= first && slot < first + 4) qk = mine;
    }
    return qk;
  }

  // Adds the values of this warp's keys, those without a weight left out.
  __device__ void values(TokenPlace place, float weight, float correction) {
    const bool counts = weight != 0;
    const unsigned lanes = ballot(counts);
    if (lanes == 0 && correction == 1) return;
    const int count = population(lanes), slot = rank_in(lanes, lane_);
    const bool by_block = scale_by_block(p_.v);
    const int64_t kv_head = head_ / p_.group;
    if (counts) {
      w_.weight[slot] = weight;
      w_.v_at[slot] = p_.v.values.offset(place, kv_head);
      if (by_block) {
        w_.v_scale_at[slot] = p_.v.scales.offset(place, kv_head);
      } else {
        w_.v_scale[slot] =
            p_.v.scaled != 0 ? static_cast<float>(p_.v.scale(place, kv_head, 0)) : 1.0f;
      }
    }
    sync_warp();
    if (by_block) {
      add_values<true>(p_.v, w_, count, correction, lane_);
    } else {
      add_values<false>(p_.v, w_, count, correction, lane_);
    }
    sync_warp();
  }

  __device__ void finish() {
    const float sum = warp_sum(state_.sum);
    const float max = state_.nan ? quiet_nan() : state_.max;
    const bool has_sink = in_.has(ATTN_SDPA_SINK);
    const float sink = has_sink ? static_cast<float>(in_.sink(head_)) : -infinity();
    const bool in_lse = in_.has(ATTN_SDPA_LSE_INCLUDES_SINK);
    if (max == -infinity()) {  // no visible key
      statistics(max, in_lse ? sink : max);
      store(false, 0);
      return;
    }
    float lse = max == infinity() ? max : max + logf(sum);
    float share = 1 / sum;
    if (has_sink && sink != -infinity()) {
      float with_sink = infinity();
      if (sink == infinity()) {
        share = 0;
      } else if (max != infinity()) {  // the sink is one more score
        const float larger = fmaxf(max, sink), left = expf(max - larger);
        const float total = sum * left + expf(sink - larger);
        share = left / total;
        with_sink = larger + logf(total);
        if (state_.nan) with_sink = max;
      }
      if (sink != sink) with_sink = share = sink;
      if (in_lse) lse = with_sink;
    }
    statistics(max, lse);
    if (state_.nan) share = state_.any ? quiet_nan() : 0.0f;
    store(true, share * keep_scale());
  }

  __device__ void statistics(float max, float lse) const {
    if (lane_ != 0) return;
    const TokenPlace place = s_.query(i_);
    if (in_.has(ATTN_SDPA_RETURN_LSE)) {
      static_cast<float *>(p_.lse.data)[p_.lse.offset(place, head_)] =
          in_.d.lse_base == ATTN_LSE_BASE_2 ? lse * static_cast<float>(kLog2E) : lse;
    }
    if (in_.has(ATTN_SDPA_RETURN_ROW_MAX)) {
      static_cast<float *>(p_.row_max.data)[p_.row_max.offset(place, head_)] = max;
    }
  }

  __device__ void store(bool visible, float factor) const {
    if (visible) {
      store_row(in_, p_.out, s_.query(i_), head_, w_.sum, factor, lane_);
    } else {
      store_zeros(p_.out, s_.query(i_), head_, lane_);
    }
  }

  const SdpaReferenceParams &p_;
  const ScoreInputs &in_;
  const WarpMemory &w_;
  const Sequence &s_;
  int64_t head_, i_;
  int lane_;
  ScoredQuery<float> query_;
  Dropout dropout_ = {};
  RowState state_ = {-infinity(), 0, false, false};
};

// A place without a query: padding, or a token after the last sequence.
__device__ inline void store_padding(const SdpaReferenceParams &p, TokenPlace place, int64_t head,
                                     int lane) {
  store_zeros(p.out, place, head, lane);
  if (lane != 0) return;
  if (p.in.has(ATTN_SDPA_RETURN_LSE)) {
    static_cast<float *>(p.lse.data)[p.lse.offset(place, head)] = -infinity();
  }
  if (p.in.has(ATTN_SDPA_RETURN_ROW_MAX)) {
    static_cast<float *>(p.row_max.data)[p.row_max.offset(place, head)] = -infinity();
  }
}

// All that one block does; `memory` is its dynamic shared memory.
__device__ inline void sdpa_reference(const SdpaReferenceParams &p, unsigned char *memory) {
  const int lane = static_cast<int>(thread_index() % 32),
            warp = static_cast<int>(thread_index() / 32);
  const WarpMemory w = carve(memory + warp * p.warp_bytes, p.in.d.head_dim_qk);
  for (int64_t block = block_index(); block < p.blocks; block += grid_size()) {
    const int64_t t = block % p.tiles * p.places_per_block + warp / p.heads;
    const int64_t head = block / p.tiles * p.heads + warp % p.heads;
    if (t >= p.places) continue;
    const SequenceTable &sequences = p.in.sequences;
    const bool ragged = p.in.d.q_layout == ATTN_LAYOUT_RAGGED;
    const int64_t b =
        ragged ? sequence_of(sequences.cu_seqlens_q, p.batch, t) : t / sequences.dense_seqlen_q;
    if (b == p.batch) {
      store_padding(p, {0, t}, head, lane);
      continue;
    }
    const Sequence s = sequences.sequence(b);
    const int64_t i = ragged ? t - s.first_q.inner : t - b * sequences.dense_seqlen_q;
    if (i >= s.seqlen_q) {
      store_padding(p, s.query(i), head, lane);
      continue;
    }
    Row(p, w, s, head, i, lane).compute();
  }
}

}  // namespace
}  // namespace attn::gpu
