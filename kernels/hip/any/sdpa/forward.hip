// sdpa forward on matrix instructions: 16-bit elements, softmax, all masks, bias, ALiBi, softcap,
// sinks and the gate; dense, ragged and paged.
//
// A wave computes 16 queries of one head and walks their keys 16 at a time. It computes transposed:
// S^T = K Q^T, so that a lane has scores of one query, lane % 16, whose state it keeps in
// registers; then O^T += V^T P^T, for which the weights lie where the instruction wants them
// (tile.hpp). Nothing goes through LDS, and no wave waits for another. Results depend on nothing
// but the sequence's own inputs: they are deterministic and independent of the batch.
//
// What a query does not see must not matter, NaN and infinity included. Scores of hidden keys are
// replaced. Values of hidden keys have the weight 0, which does not silence them: of a tile with
// values that are not finite, these are added apart.
#include "kernels/hip/any/sdpa/forward_params.hpp"
#include "kernels/hip/any/sdpa/tile.hpp"

namespace attn::hip {
namespace {

constexpr int32_t fp16 = ATTN_DTYPE_FP16;
constexpr int32_t bf16 [[maybe_unused]] = ATTN_DTYPE_BF16;
constexpr int32_t kElement = ATTN_ELEMENT;
constexpr int kHeadDim = ATTN_HEAD_DIM;
constexpr int kChunks = kHeadDim / 16;
// Queries stay in registers where there is room for them.
constexpr bool kHoldQueries = gpu::kWave == 64 || kHeadDim * kElements <= 512;

// Elements d .. d + kElements - 1 of a row of `n` elements, 0 beyond its end.
__device__ inline Operand load_row(const TokenView &t, int64_t at, int d, int n, bool vector) {
  const uint16_t *row = static_cast<const uint16_t *>(t.data) + at;
  Operand o;
  if (vector && d + kElements <= n) {
    const uint32_t *words = reinterpret_cast<const uint32_t *>(row + d);
    for (int e = 0; e < kElements / 2; e++) o.word[e] = words[e];
    return o;
  }
  for (int e = 0; e < kElements / 2; e++) {
    const int first = d + 2 * e;
    const uint32_t low = first < n ? row[first * t.dim] : 0u;
    const uint32_t high = first + 1 < n ? row[(first + 1) * t.dim] : 0u;
    o.word[e] = low | high << 16;
  }
  return o;
}

__device__ inline int wave_min(int x) {
  for (int step = 1; step < static_cast<int>(gpu::kWave); step *= 2) {
    const int other = __builtin_bit_cast(int, gpu::shuffle_xor(__builtin_bit_cast(float, x), step));
    x = other < x ? other : x;
  }
  return x;
}
__device__ inline bool wave_any(bool x) {
#if defined(__GFX9__)
  return __builtin_amdgcn_ballot_w64(x) != 0;
#else
  return gpu::any(x);
#endif
}

struct Running {
  float max = 0, sum = 0, rounded_sum = 0;  // sums of this lane's keys
  bool nan = false;
  Results out[kChunks];
};

// A place without a query: padding, or a token after the last sequence. One lane writes it all.
__device__ inline void store_padding(const SdpaForwardParams &p, TokenPlace place, int64_t head) {
  const int64_t at = p.out.offset(place, head);
  for (int d = 0; d < p.head_dim_v; d++) {
    static_cast<uint16_t *>(p.out.data)[at + d * p.out.dim] = 0;
  }
  if (p.in.has(ATTN_SDPA_RETURN_LSE)) {
    static_cast<float *>(p.lse.data)[p.lse.offset(place, head)] = -infinity();
  }
  if (p.in.has(ATTN_SDPA_RETURN_ROW_MAX)) {
    static_cast<float *>(p.row_max.data)[p.row_max.offset(place, head)] = -infinity();
  }
}

// Adds the 16 keys from j0 on.
template <class LoadQuery>
__device__ inline void add_keys(const SdpaForwardParams &p, const Sequence &s,
                                const ScoredQuery<float> &query, bool valid, int64_t kv_head,
                                int64_t j0, int64_t from, int64_t to, int lane,
                                const LoadQuery &load_query, Running &run) {
  // Keys by row.
  const int64_t row_key = j0 + lane % 16;
  TokenPlace row_place = {-1, 0};
  if (row_key < s.seqlen_k) row_place = s.key(row_key);
  const int64_t row_at = row_place.skipped() ? 0 : p.k.offset(row_place, kv_head);
  Results scores = {};
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (16 * c >= p.head_dim_qk) break;
    if (c % 2 == 0) __builtin_amdgcn_sched_barrier(0);
    Operand keys = {};
    if (!row_place.skipped()) {
      keys = load_row(p.k, row_at, 16 * c + first_of(lane), p.head_dim_qk, p.vector != 0);
    }
    scores = multiply_add<kElement>(keys, load_query(c), scores);
  }
  // Scores of this lane's query.
  float top = -infinity(), score[kResults];
  bool nan = false;
#pragma unroll
  for (int r = 0; r < kResults; r++) {
    const int64_t j = j0 + row_of(r, lane);
    bool visible = valid && j >= from && j < to && query.band().contains(j) && query.unmasked(j);
    float bias = 0;
    if (visible) {
      bias = query.bias(j);
      visible = bias != -infinity() && !s.key(j).skipped();
    }
    score[r] = visible ? query.score(j, query.logit(scores[r]), bias) : -infinity();
    nan = nan || score[r] != score[r];
    top = fmaxf(top, score[r]);
  }
  run.nan = run.nan || nan;
  const float max = fmaxf(run.max, column_max(top));
  if (!wave_any(max != -infinity() || nan)) return;
  float correction = 1;
  if (max != run.max) correction = max == infinity() ? 0.0f : expf(run.max - max);
  run.max = max;
  float sum = 0, rounded_sum = 0;
  uint32_t weights[kResults];
#pragma unroll
  for (int r = 0; r < kResults; r++) {
    float w = 0;
    if (score[r] == -infinity() || score[r] != score[r]) {
      w = 0;  // a row with a NaN becomes one in the end
    } else if (max == infinity()) {
      w = score[r] == infinity() ? 1.0f : 0.0f;
    } else {
      w = expf(score[r] - max);
    }
    weights[r] = to_element<kElement>(w);
    sum += w;
    rounded_sum += from_element<kElement>(weights[r]);
  }
  run.sum = (correction == 0 ? 0.0f : run.sum * correction) + sum;
  run.rounded_sum = (correction == 0 ? 0.0f : run.rounded_sum * correction) + rounded_sum;
  const Operand by_key = to_operand(weights, lane);

  // Values by element: this lane's keys of the instruction's depth.
  int64_t value_at[kElements];
  bool there[kElements];
#pragma unroll
  for (int e = 0; e < kElements; e++) {
    const int64_t j = j0 + first_of(lane) + e;
    TokenPlace place = {-1, 0};
    if (j >= from && j < to) place = s.key(j);
    there[e] = !place.skipped();
    value_at[e] = there[e] ? p.v.offset(place, kv_head) : 0;
  }
  const uint16_t *values = static_cast<const uint16_t *>(p.v.data);
  constexpr uint32_t kExponent = kElement == fp16 ? 0x7c00 : 0x7f80;
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (16 * c >= p.head_dim_v) break;
    __builtin_amdgcn_sched_barrier(0);  // or all chunks' values would be in registers at once
    const int d = 16 * c + lane % 16;
    Operand v;
    bool finite = true;
#pragma unroll
    for (int e = 0; e < kElements; e++) {
      const uint32_t bits = there[e] && d < p.head_dim_v ? values[value_at[e] + d * p.v.dim] : 0u;
      finite = finite && (bits & kExponent) != kExponent;
      v.word[e / 2] = e % 2 == 0 ? bits : v.word[e / 2] | bits << 16;
    }
    Results out = run.out[c];
    // A correction of 0 forgets what has no weight any more, NaN and infinity too.
    for (int r = 0; r < kResults; r++) out[r] = correction == 0 ? 0.0f : out[r] * correction;
    if (!wave_any(!finite)) {
      run.out[c] = multiply_add<kElement>(v, by_key, out);
      continue;
    }
    // Infinities and NaNs apart: where a weight that is not 0 meets one, it is in the result.
    Operand finite_part = v;
    Operand special[3] = {};  // +inf, -inf, NaN
#pragma unroll
    for (int e = 0; e < kElements; e++) {
      constexpr uint32_t kOne = kElement == fp16 ? 0x3c00 : 0x3f80;
      const uint32_t shift = e % 2 * 16, bits = v.word[e / 2] >> shift & 0xffff;
      if ((bits & kExponent) != kExponent) continue;
      finite_part.word[e / 2] &= ~(0xffffu << shift);
      const int kind = (bits & 0x7fff) != kExponent ? 2 : bits >> 15 != 0 ? 1 : 0;
      special[0].word[e / 2] |= kind == 0 ? kOne << shift : 0;
      special[1].word[e / 2] |= kind == 1 ? kOne << shift : 0;
      special[2].word[e / 2] |= kind == 2 ? kOne << shift : 0;
    }
    out = multiply_add<kElement>(finite_part, by_key, out);
#pragma unroll
    for (int kind = 0; kind < 3; kind++) {
      const float what = kind == 0 ? infinity() : kind == 1 ? -infinity() : quiet_nan();
      const Results met = multiply_add<kElement>(special[kind], by_key, Results{});
      for (int r = 0; r < kResults; r++) out[r] += met[r] > 0 ? what : 0.0f;
    }
    run.out[c] = out;
  }
}

__device__ inline void finish(const SdpaForwardParams &p, const Sequence &s, int64_t head,
                              int64_t i, Running &run, int lane) {
  const ScoreInputs &in = p.in;
  const bool nan = column_max(run.nan ? 1.0f : 0.0f) != 0;
  const float sum = column_sum(run.sum), rounded_sum = column_sum(run.rounded_sum);
  const float max = nan ? quiet_nan() : run.max;
  const bool has_sink = in.has(ATTN_SDPA_SINK);
  const float sink = has_sink ? static_cast<float>(in.sink(head)) : -infinity();
  float lse = max, share = 0;
  if (max == -infinity()) {  // no visible key
    if (in.has(ATTN_SDPA_LSE_INCLUDES_SINK)) lse = sink;
  } else {
    lse = max == infinity() ? max : max + logf(sum);
    share = 1 / rounded_sum;
    if (has_sink && sink != -infinity()) {
      float with_sink = infinity();
      if (sink == infinity()) {
        share = 0;
      } else if (max != infinity()) {  // the sink is one more score
        const float larger = fmaxf(max, sink), left = expf(max - larger);
        const float other = expf(sink - larger);
        share = left / (rounded_sum * left + other);
        with_sink = larger + logf(sum * left + other);
        if (nan) with_sink = max;
      }
      if (sink != sink) with_sink = share = sink;
      if (in.has(ATTN_SDPA_LSE_INCLUDES_SINK)) lse = with_sink;
    }
    if (nan) share = quiet_nan();
  }
  const TokenPlace place = s.query(i);
  if (lane < 16) {
    if (in.has(ATTN_SDPA_RETURN_LSE)) {
      static_cast<float *>(p.lse.data)[p.lse.offset(place, head)] =
          in.d.lse_base == ATTN_LSE_BASE_2 ? lse * static_cast<float>(kLog2E) : lse;
    }
    if (in.has(ATTN_SDPA_RETURN_ROW_MAX)) {
      static_cast<float *>(p.row_max.data)[p.row_max.offset(place, head)] = max;
    }
  }
  const int64_t at = p.out.offset(place, head);
  const bool gate = in.has(ATTN_SDPA_GATE) && max != -infinity();
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    for (int r = 0; r < kResults; r++) {
      const int d = 16 * c + row_of(r, lane);
      if (d >= p.head_dim_v) continue;
      float x = share == 0 ? 0.0f : run.out[c][r] * share;
      if (gate) x *= in.gate_factor<float>(place, head, d);
      static_cast<uint16_t *>(p.out.data)[at + d * p.out.dim] =
          static_cast<uint16_t>(to_element<kElement>(x));
    }
  }
}

// Keys from `from` to `to` of all queries of the wave.
template <class LoadQuery>
__device__ inline void walk(const SdpaForwardParams &p, const Sequence &s,
                            const ScoredQuery<float> &query, bool valid, int64_t kv_head,
                            int64_t from, int64_t to, int lane, const LoadQuery &load_query,
                            Running &run) {
  for (int64_t j0 = from / 16 * 16; j0 < to; j0 += 16) {
    add_keys(p, s, query, valid, kv_head, j0, from, to, lane, load_query, run);
  }
}

__device__ inline void forward(const SdpaForwardParams &p) {
  const int lane = static_cast<int>(gpu::thread_index());
  const unsigned block = gpu::block_index();
  const int64_t head = block % static_cast<unsigned>(p.heads);
  const int64_t rest = block / static_cast<unsigned>(p.heads);
  const bool ragged = p.in.d.q_layout == ATTN_LAYOUT_RAGGED;
  const int64_t b = rest / p.tiles, tile = rest % p.tiles;
  if (b == p.batch) {  // tokens after the last sequence
    if (!ragged) return;
    const int64_t first = p.in.sequences.cu_seqlens_q[p.batch];
    for (int64_t t = first + tile * gpu::kWave + lane; t < p.places; t += p.tiles * gpu::kWave) {
      store_padding(p, {0, t}, head);
    }
    return;
  }
  const Sequence s = p.in.sequences.sequence(b);
  const int64_t i = tile * 16 + lane % 16;
  if (lane < 16 && i >= s.seqlen_q && i < s.rows_q) store_padding(p, s.query(i), head);
  if (tile * 16 >= s.seqlen_q) return;
  const bool valid = i < s.seqlen_q;
  const int64_t own = valid ? i : s.seqlen_q - 1;  // a query to compute with, if not to store
  const ScoredQuery<float> query(p.in, s, head, own);
  const int64_t q_at = p.q.offset(s.query(own), head);
  const auto read_query = [&](int c) {
    return load_row(p.q, q_at, 16 * c + first_of(lane), p.head_dim_qk, p.vector != 0);
  };
  Operand held[kHoldQueries ? kChunks : 1];
  if constexpr (kHoldQueries) {
#pragma unroll
    for (int c = 0; c < kChunks; c++) held[c] = read_query(c);
  }
  const auto load_query = [&](int c) {
    if constexpr (kHoldQueries) {
      return held[c];
    } else {
      return read_query(c);
    }
  };

  Running run;
  run.max = -infinity();
#pragma unroll
  for (int c = 0; c < kChunks; c++) run.out[c] = Results{};
  const Band &band = query.band();
  // The sink tokens that some query sees, then what bands there are.
  const int begin = wave_min(static_cast<int>(band.begin));
  const int end = -wave_min(-static_cast<int>(band.end));
  const int sink_end = -wave_min(-static_cast<int>(band.sink_end));
  const int64_t kv_head = head / p.group;
  walk(p, s, query, valid, kv_head, 0, sink_end, lane, load_query, run);
  walk(p, s, query, valid, kv_head, begin > sink_end ? begin : sink_end, end, lane, load_query,
       run);
  if (valid) finish(p, s, head, i, run, lane);
}

}  // namespace
}  // namespace attn::hip

extern "C" __global__ void __attribute__((amdgpu_flat_work_group_size(1, attn::gpu::kWave)))
ATTN_ENTRY(attn::hip::SdpaForwardParams) {
  attn::hip::forward(attn::gpu::parameters<attn::hip::SdpaForwardParams>());
}
