// sdpa forward on matrix instructions: 16-bit elements, every option; dense, ragged and paged.
//
// A wave computes 16 rows, queries or queries times heads that share keys, and walks their keys 16
// at a time. It computes transposed: S^T = K Q^T, so that a lane has scores of one row, lane % 16,
// whose state it keeps in registers; then O^T += V^T P^T, for which the weights lie where the
// instruction wants them (tile.hpp).
//
// Head dims above 64 are shared out among the waves of a block, 64 to each, so that registers are
// the same for all: a wave multiplies its part of q and k, the sums of all waves' products meet in
// LDS, and every wave goes on with the same scores for its own part of the values.
//
// Where rows are few, blocks share out the keys of a row, and another kernel merges their results.
// What a row gives depends on nothing but the sequence's own inputs and the number of pieces.
//
// SiLU has no maximum to subtract, but weights of any size, which 16 bits do not hold: they are
// scaled by a power of two, the running maximum being that of their exponents.
//
// What a query does not see must not matter, NaN and infinity included. Scores of hidden keys are
// replaced. Values of hidden keys have the weight 0, which does not silence them: of a tile with
// values that are not finite, these are added apart.
#include "kernels/common/gpu/merge_params.hpp"
#include "kernels/hip/any/sdpa/forward_params.hpp"
#include "kernels/hip/common/staged.hpp"
#include "kernels/hip/common/tile.hpp"

namespace attn::hip {
namespace {

constexpr int32_t fp16 = ATTN_DTYPE_FP16;
constexpr int32_t bf16 = ATTN_DTYPE_BF16;
constexpr int32_t kElement = ATTN_ELEMENT;
constexpr int kHeadDim = ATTN_HEAD_DIM;
enum Kind { plain, general };
// Softmax without masks, block lists, bias, ALiBi, softcap, dropout or gate; out of q's type; rows
// that are read 16 bytes at a time.
constexpr bool kPlain = ATTN_KIND == plain;
constexpr int kWaveDim = kStagedDim;  // of a head, that one wave takes
constexpr int kWaves = kHeadDim / kWaveDim;
static_assert(kHeadDim % kWaveDim == 0);
constexpr int kChunks = kWaveDim / 16;
constexpr int kKeys = 16;  // of a tile
// Queries stay in registers where there is room for them.
constexpr bool kHoldQueries = gpu::kWave == 64 || kWaveDim * kElements <= 512;
// fp16 weights are this much larger, which the final division takes out: those that would be
// subnormal keep their bits, and matrix units that take subnormals as 0 (gfx90a's) lose nothing.
constexpr float kLog2Lift = kElement == fp16 ? 10 : 0;
constexpr float kLift = kElement == fp16 ? 1024 : 1;

// 2^x of x that is not a NaN, or is one; results below the normal range are 0.
__device__ inline float exp2_fast(float x) {
  return __builtin_amdgcn_exp2f(x);
}

// The power of two at or below x >= 0, none of the smallest; -inf of 0.
__device__ inline float exponent_of(float x) {
  if (x == 0 || x == infinity()) return x == 0 ? -infinity() : x;
  const int exponent = static_cast<int>(__builtin_bit_cast(uint32_t, x) >> 23) - 127;
  return exponent < -100 ? -100.0f : static_cast<float>(exponent);
}

// Elements d .. d + kElements - 1 of a row of `n` elements, 0 beyond its end.
__device__ inline Operand load_row(const TokenView &t, int64_t at, int d, int n, bool vector) {
  const uint16_t *row = static_cast<const uint16_t *>(t.data) + at;
  Operand o;
  if (kPlain || (vector && d + kElements <= n)) {
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

// Every wave's sums of products.
using Products = float[kWaves][kResults * gpu::kWave];
struct Shared {
  alignas(16) Staged values[kWaves];
  Products products[kWaves > 1 ? 2 : 0];  // for one tile and the next in turn
};

__device__ inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
__device__ inline int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

// The key that a lane loads, of 16: that of its row of A.
struct RowKey {
  TokenPlace place;
  bool there;        // it counts, and is in memory
  uint32_t present;  // the same of all 16, as bits
};
__device__ inline RowKey row_key(const Sequence &s, int64_t j0, int64_t from, int64_t to,
                                 int lane) {
  RowKey key = {{-1, 0}, false, 0};
  const int64_t j = j0 + lane % kKeys;
  if (j >= from && j < to) {
    if (s.page_size == 0) {
      key.place = s.key(j);
    } else {  // positions are below 2^30: a short division
      const uint32_t page = static_cast<uint32_t>(j) / static_cast<uint32_t>(s.page_size);
      key.place = {s.pages[page * s.page_stride], j - page * s.page_size};
    }
  }
  key.there = !key.place.skipped();
  key.present = gpu::ballot(key.there);
  return key;
}

// Which rows a wave has, and which of their keys.
struct Work {
  Sequence s;
  int64_t kv_head;
  int64_t head0;  // of the rows' heads the first
  int32_t split;
  int32_t lane, wave;
  int32_t first_d;  // of this wave's part of the head dims
};

struct Running {
  // The largest score; SiLU: the largest exponent of a weight. Sums of this lane's keys.
  float max = -infinity(), sum = 0, rounded_sum = 0;
  bool nan = false;
  Results out[kChunks];
};

// The listed key blocks of a lane's row.
class Listed {
 public:
  __device__ Listed(const SdpaForwardParams &p, int64_t b, int64_t head, int64_t i)
      : bits_(p.blocks.bits), size_(static_cast<uint32_t>(p.in.d.block_size_k)) {
    if (bits_ == nullptr) return;
    const uint32_t row = static_cast<uint32_t>(i) / static_cast<uint32_t>(p.in.d.block_size_q);
    bits_ += b * p.blocks.batch + head * p.blocks.head + row * p.blocks.row;
  }
  __device__ bool contains(int64_t j) const {
    return bits_ == nullptr || block(static_cast<uint32_t>(j) / size_);
  }
  // Whether any row of the wave has a key of [from, to); all lanes ask for the same keys.
  __device__ bool any(int64_t from, int64_t to) const {
    if (bits_ == nullptr) return true;
    bool some = false;
    const uint32_t last = static_cast<uint32_t>(to - 1) / size_;
    for (uint32_t n = static_cast<uint32_t>(from) / size_; n <= last; n++) some = some || block(n);
    return wave_any(some);
  }

 private:
  __device__ bool block(uint32_t n) const { return (bits_[n / 32] >> n % 32 & 1u) != 0; }

  const uint32_t *bits_;  // null: all are
  uint32_t size_;
};

// --- what goes to memory ------------------------------------------------------------------------

// Of the partial results, where those of a query and head are.
__device__ inline int64_t partial_row(const SdpaForwardParams &p, int split, int64_t place,
                                      int64_t head) {
  return (split * p.places + place) * p.heads + head;
}

__device__ inline void store_statistics(const SdpaForwardParams &p, const Work &w, TokenPlace query,
                                        int64_t place, int64_t head, float lse, float max) {
  if (p.splits > 1) {
    const int64_t row = partial_row(p, w.split, place, head);
    p.partial_lse[row] = lse;
    if (p.partial_max != nullptr) p.partial_max[row] = max;
    return;
  }
  if (p.in.has(ATTN_SDPA_RETURN_LSE)) {
    static_cast<float *>(p.lse.data)[p.lse.offset(query, head)] =
        p.in.d.lse_base == ATTN_LSE_BASE_2 ? lse * static_cast<float>(kLog2E) : lse;
  }
  if (p.in.has(ATTN_SDPA_RETURN_ROW_MAX)) {
    static_cast<float *>(p.row_max.data)[p.row_max.offset(query, head)] = max;
  }
}

__device__ inline void store_value(const TokenView &out, int64_t at, float x) {
  if (kPlain) {
    static_cast<uint16_t *>(out.data)[at] = static_cast<uint16_t>(to_element<kElement>(x));
  } else if (out.dtype == ATTN_DTYPE_FP32) {
    static_cast<float *>(out.data)[at] = x;
  } else {
    static_cast<uint16_t *>(out.data)[at] =
        static_cast<uint16_t>(out.dtype == fp16 ? to_element<fp16>(x) : to_element<bf16>(x));
  }
}

// A place without a query: padding, or a token after the last sequence. One lane writes it all.
__device__ inline void store_padding(const SdpaForwardParams &p, const Work &w, TokenPlace query,
                                     int64_t place, int64_t head) {
  const bool marked = p.splits > 1 && w.split == 0;
  store_statistics(p, w, query, place, head,
                   marked ? __builtin_bit_cast(float, gpu::kPaddingLse) : -infinity(), -infinity());
  if (p.splits > 1) return;  // parts with an lse of -inf are not read
  const int64_t at = p.out.offset(query, head);
  for (int d = 0; d < p.head_dim_v; d++) store_value(p.out, at + d * p.out.dim, 0);
}

// --- one tile of keys ---------------------------------------------------------------------------

// This wave's part of the products of its rows with 16 keys, then everyone's.
template <class LoadQuery>
__device__ inline Results products(const SdpaForwardParams &p, const Work &w, const RowKey &key,
                                   const LoadQuery &load_query, [[maybe_unused]] Shared &shared,
                                   [[maybe_unused]] int parity) {
  const int64_t at = key.there ? p.k.offset(key.place, w.kv_head) : 0;
  Results scores = {};
  if constexpr (kPlain) {  // ask for all at once
    Operand keys[kChunks] = {};
    if (key.there) {
#pragma unroll
      for (int c = 0; c < kChunks; c++) {
        const int d = w.first_d + 16 * c;
        if (d < p.head_dim_qk) keys[c] = load_row(p.k, at, d + first_of(w.lane), 0, true);
      }
    }
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      if (w.first_d + 16 * c >= p.head_dim_qk) break;
      scores = multiply_add<kElement>(keys[c], load_query(c), scores);
    }
  } else {
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      const int d = w.first_d + 16 * c;
      if (d >= p.head_dim_qk) break;
      if (c % 2 == 0) __builtin_amdgcn_sched_barrier(0);
      Operand keys = {};
      if (key.there) {
        keys = load_row(p.k, at, d + first_of(w.lane), p.head_dim_qk, p.vector != 0);
      }
      scores = multiply_add<kElement>(keys, load_query(c), scores);
    }
  }
  if constexpr (kWaves > 1) {
    Products &all = shared.products[parity];
    float *mine = all[w.wave] + w.lane;
#pragma unroll
    for (int r = 0; r < kResults; r++) mine[r * gpu::kWave] = scores[r];
    gpu::sync_block();
    scores = Results{};
#pragma unroll
    for (int wave = 0; wave < kWaves; wave++) {
      const float *others = all[wave] + w.lane;
      for (int r = 0; r < kResults; r++) scores[r] += others[r * gpu::kWave];
    }
  }
  return scores;
}

// Which of this lane's keys dropout keeps, as bits. Four neighbouring keys share a draw.
__device__ inline uint32_t kept_keys(const Dropout &dropout, int64_t bh, int64_t i, int64_t j0,
                                     int lane) {
  constexpr bool kEveryOther = kElements != kResults;  // rows of a lane's results
  constexpr int kOwn = kEveryOther ? 2 : 4;            // of four keys
  uint32_t bits = 0;
#pragma unroll 1
  for (int r = 0; r < kResults; r += kOwn) {
    const PhiloxWords words = dropout.words(bh, i, (j0 + row_of(r, lane)) / 4);
    const bool odd = kEveryOther && lane >= 16;
    bits |= static_cast<uint32_t>(dropout.keeps(odd ? words.word[1] : words.word[0])) << r;
    if constexpr (kEveryOther) {
      bits |= static_cast<uint32_t>(dropout.keeps(odd ? words.word[3] : words.word[2])) << (r + 1);
    } else {
      for (int k = 1; k < 4; k++) {
        bits |= static_cast<uint32_t>(dropout.keeps(words.word[k])) << (r + k);
      }
    }
  }
  return bits;
}

// This wave's part of the values of 16 keys: a lane has a part of one key's, zeros if the key does
// not count.
__device__ inline StagedWords load_values(const SdpaForwardParams &p, const Work &w,
                                          const RowKey &key) {
  StagedWords v;
  if (!key.there) return v;
  const int first = w.lane / kKeys * kStagedPart;
  const int n = p.head_dim_v - w.first_d;  // elements of this wave's part
  const uint16_t *row = static_cast<const uint16_t *>(p.v.data) + p.v.offset(key.place, w.kv_head) +
                        w.first_d * p.v.dim;
#pragma unroll
  for (int e = 0; e < kStagedPart; e += 8) {
    const int d = first + e;
    if (d >= n) continue;
    if (kPlain || (p.vector_values != 0 && d + 8 <= n)) {
      const uint32_t *from = reinterpret_cast<const uint32_t *>(row + d);
      for (int k = 0; k < 4; k++) v.word[e / 2 + k] = from[k];
    } else {
#pragma unroll
      for (int k = 0; k < 8; k++) {
        const uint32_t bits = d + k < n ? row[(d + k) * p.v.dim] : 0u;
        v.word[(e + k) / 2] |= bits << k % 2 * 16;
      }
    }
  }
  return v;
}

// out += values * weights, for this wave's part of the values. `first`: of a weight's terms, which
// alone can tell whether a value counts.
__device__ inline void add_values(const SdpaForwardParams &p, const Work &w, const Staged &values,
                                  bool finite, const Operand &weights, bool first, Running &run) {
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (w.first_d + 16 * c >= p.head_dim_v) break;
    __builtin_amdgcn_sched_barrier(0);  // or all chunks' values would be in registers at once
    run.out[c] =
        add_transposed<kElement, !kPlain>(values, c, weights, finite, first, w.lane, run.out[c]);
  }
}

// Adds those of the 16 keys from j0 on that lie in [from, to). Rows that are not to be stored
// compute what another row does.
template <class LoadQuery>
__device__ inline void add_keys(const SdpaForwardParams &p, const Work &w,
                                const ScoredQuery<float> &query, const Listed &listed,
                                const Dropout &dropout, int64_t j0, int64_t from, int64_t to,
                                const LoadQuery &load_query, Shared &shared, int parity,
                                Running &run) {
  const bool silu = !kPlain && p.in.d.activation == ATTN_ACTIVATION_SILU;
  const RowKey key = row_key(w.s, j0, from, to, w.lane);
  StagedWords words;
  if constexpr (kPlain) words = load_values(p, w, key);  // while the scores are computed
  const Results products_of_row = products(p, w, key, load_query, shared, parity);
  uint32_t kept = ~0u;
  if (!kPlain && p.in.has(ATTN_SDPA_DROPOUT)) {
    kept = kept_keys(dropout, w.s.index * p.heads + query.head(), query.index(), j0, w.lane);
  }
  float score[kResults];
  const Band &band = query.band();
  const bool inside =
      key.present == 0xffffffffu && !wave_any(j0 < band.begin || j0 + kKeys > band.end);
  if (kPlain && inside) {
#pragma unroll
    for (int r = 0; r < kResults; r++) score[r] = p.in.d.softmax_scale * products_of_row[r];
  } else {
#pragma unroll
    for (int r = 0; r < kResults; r++) {
      const int row = row_of(r, w.lane);
      const int64_t j = j0 + row;
      bool visible = (key.present >> row & 1u) != 0 && band.contains(j);
      if constexpr (kPlain) {
        score[r] = visible ? p.in.d.softmax_scale * products_of_row[r] : -infinity();
      } else {
        visible = visible && listed.contains(j) && query.unmasked(j);
        float bias = 0;
        if (visible) {
          bias = query.bias(j);
          visible = bias != -infinity();
        }
        score[r] = visible ? query.score(j, query.logit(products_of_row[r]), bias) : -infinity();
        if (silu) {  // from here on the score is a weight
          const bool counts = score[r] != -infinity() && (kept >> r & 1u) != 0;
          score[r] = counts ? attn::silu(score[r]) : 0.0f;
        }
      }
    }
  }
  float top = silu ? fabsf(score[0]) : score[0];
#pragma unroll
  for (int r = 1; r < kResults; r++) top = fmaxf(top, silu ? fabsf(score[r]) : score[r]);
  top = column_max(top);
  const float max = fmaxf(run.max, silu ? exponent_of(top) : top);
  const float base = max == -infinity() ? 0.0f : max;
  constexpr float kLog2EF = static_cast<float>(kLog2E);
  float sum = 0, weight[kResults];
#pragma unroll
  for (int r = 0; r < kResults; r++) {
    weight[r] = silu ? score[r] * exp2_fast(kLog2Lift - base)
                     : exp2_fast(__builtin_fmaf(score[r] - base, kLog2EF, kLog2Lift));
    sum += weight[r];
  }
  if (wave_any(sum != sum)) {  // a NaN, or a largest score of +inf
    sum = 0;
#pragma unroll
    for (int r = 0; r < kResults; r++) {
      run.nan = run.nan || score[r] != score[r];  // the row becomes one in the end
      if (score[r] != score[r]) {
        weight[r] = 0;
      } else if (max == infinity()) {
        weight[r] = score[r] == infinity() ? kLift : 0.0f;
      }
      sum += weight[r];
    }
  }
  if (!wave_any(max != -infinity())) return;
  if (wave_any(max != run.max)) {
    const float correction =
        max == run.max ? 1.0f : exp2_fast((run.max - base) * (silu ? 1.0f : kLog2EF));
    run.max = max;
    run.sum *= correction;
    run.rounded_sum *= correction;
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      // A correction of 0 forgets what has no weight any more, NaN and infinity too.
      for (int r = 0; r < kResults; r++) {
        run.out[c][r] = correction == 0 ? 0.0f : run.out[c][r] * correction;
      }
    }
  }
  run.sum += sum;
  if constexpr (!kPlain) words = load_values(p, w, key);
  Staged &values = shared.values[w.wave];
  const bool finite = stage<kElement>(words, w.lane, values);
  const int terms = kPlain ? 1 : p.terms;
#pragma unroll 1
  for (int term = 0; term < terms; term++) {
    uint32_t bits[kResults];
#pragma unroll
    for (int r = 0; r < kResults; r++) {
      const uint32_t rounded = weight_to_element<kElement>(weight[r]);
      const float real = from_element<kElement>(rounded);
      if (term == 0) run.rounded_sum += real;
      bits[r] = kPlain || (kept >> r & 1u) != 0 ? rounded : 0u;
      if (!kPlain) weight[r] -= real;  // what the next term is about
    }
    add_values(p, w, values, finite, to_operand(bits, w.lane), term == 0, run);
  }
}

// --- a wave's work ------------------------------------------------------------------------------

__device__ inline void finish(const SdpaForwardParams &p, const Work &w, int64_t head, int64_t i,
                              float keep_scale, Running &run) {
  const ScoreInputs &in = p.in;
  const bool nan = column_max(run.nan ? 1.0f : 0.0f) != 0;
  const float lifted_sum = column_sum(run.sum), rounded_sum = column_sum(run.rounded_sum);
  const float sum = lifted_sum / kLift;
  const float weights = p.terms > 1 ? lifted_sum : rounded_sum;
  const float max = nan ? quiet_nan() : run.max;
  const bool has_sink = in.has(ATTN_SDPA_SINK) && p.splits == 1;
  const float sink = has_sink ? static_cast<float>(in.sink(head)) : -infinity();
  float lse = max, share = 0;
  if (!kPlain && in.d.activation == ATTN_ACTIVATION_SILU) {
    share = exp2_fast(max - kLog2Lift) * keep_scale / in.d.silu_divisor;
    if (nan) share = quiet_nan();
  } else if (max == -infinity()) {  // no visible key
    if (has_sink && in.has(ATTN_SDPA_LSE_INCLUDES_SINK)) lse = sink;
  } else {
    lse = max == infinity() ? max : max + logf(sum);
    share = 1 / weights;
    if (has_sink && sink != -infinity()) {
      float with_sink = infinity();
      if (sink == infinity()) {
        share = 0;
      } else if (max != infinity()) {  // the sink is one more score
        const float larger = fmaxf(max, sink), left = expf(max - larger);
        const float other = expf(sink - larger);
        share = left / (weights * left + other * kLift);
        with_sink = larger + logf(sum * left + other);
        if (nan) with_sink = max;
      }
      if (sink != sink) with_sink = share = sink;
      if (in.has(ATTN_SDPA_LSE_INCLUDES_SINK)) lse = with_sink;
    }
    share *= keep_scale;
    if (nan) share = quiet_nan();
  }
  const TokenPlace query = w.s.query(i);
  const bool ragged = in.d.q_layout == ATTN_LAYOUT_RAGGED;
  const int64_t place =
      ragged ? query.inner : w.s.index * in.sequences.dense_seqlen_q + query.inner;
  if (w.wave == 0 && w.lane < 16) store_statistics(p, w, query, place, head, lse, max);
  const int64_t at = p.splits > 1 ? partial_row(p, w.split, place, head) * p.head_dim_v
                                  : p.out.offset(query, head);
  const bool gate = !kPlain && in.has(ATTN_SDPA_GATE) && p.splits == 1 && max != -infinity();
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    for (int r = 0; r < kResults; r++) {
      const int d = w.first_d + 16 * c + row_of(r, w.lane);
      if (d >= p.head_dim_v) continue;
      float x = share == 0 ? 0.0f : run.out[c][r] * share;
      if (p.splits > 1) {
        p.partial_out[at + d] = x;
        continue;
      }
      if (gate) x *= in.gate_factor<float>(query, head, d);
      store_value(p.out, at + d * p.out.dim, x);
    }
  }
}

// A run of keys, cut into tiles at multiples of their size.
struct Span {
  int64_t from, to;

  __device__ int tiles() const {
    return to > from ? static_cast<int>((to + kKeys - 1) / kKeys - from / kKeys) : 0;
  }
};

__device__ inline void forward(const SdpaForwardParams &p, Shared &shared) {
  Work w;
  w.lane = static_cast<int>(gpu::thread_index() % gpu::kWave);
  w.wave = __builtin_amdgcn_readfirstlane(static_cast<int>(gpu::thread_index() / gpu::kWave));
  w.first_d = w.wave * kWaveDim;
  unsigned rest = gpu::block_index();
  w.split = static_cast<int>(rest % static_cast<unsigned>(p.splits));
  rest /= static_cast<unsigned>(p.splits);
  w.head0 = static_cast<int64_t>(rest % static_cast<unsigned>(p.head_blocks)) * p.pack;
  rest /= static_cast<unsigned>(p.head_blocks);
  w.kv_head = w.head0 / p.group;
  const int64_t tile = rest % static_cast<unsigned>(p.tiles);
  const int64_t b = rest / static_cast<unsigned>(p.tiles);
  const bool ragged = p.in.d.q_layout == ATTN_LAYOUT_RAGGED;
  if (b == p.batch) {  // tokens after the last sequence
    if (!ragged || w.wave != 0) return;
    const int64_t first = p.in.sequences.cu_seqlens_q[p.batch];
    for (int64_t t = first + tile * gpu::kWave + w.lane; t < p.places; t += p.tiles * gpu::kWave) {
      for (int n = 0; n < p.pack; n++) store_padding(p, w, {0, t}, t, w.head0 + n);
    }
    return;
  }
  w.s = p.in.sequences.sequence(b);
  const int row = static_cast<int>(tile) * 16 + w.lane % 16;
  const int used = static_cast<int>(w.s.seqlen_q) * p.pack;
  if (w.wave == 0 && w.lane < 16 && row >= used && row < w.s.rows_q * p.pack) {
    const TokenPlace query = w.s.query(row / p.pack);
    store_padding(p, w, query,
                  ragged ? query.inner : b * p.in.sequences.dense_seqlen_q + query.inner,
                  w.head0 + row % p.pack);
  }
  if (tile * 16 >= used) return;
  const bool valid = row < used;
  const int own = valid ? row : used - 1;  // a row to compute with, if not to store
  const int64_t i = own / p.pack, head = w.head0 + own % p.pack;
  const ScoredQuery<float> query(p.in, w.s, head, i);
  const int64_t q_at = p.q.offset(w.s.query(i), head);
  const auto read_query = [&](int c) {
    return load_row(p.q, q_at, w.first_d + 16 * c + first_of(w.lane), p.head_dim_qk, p.vector != 0);
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
  const Listed listed(p, b, head, i);
  Dropout dropout = {};
  if (p.in.has(ATTN_SDPA_DROPOUT)) dropout = make_dropout(p.in.rng_state, p.in.d.dropout_p);

  Running run;
#pragma unroll
  for (int c = 0; c < kChunks; c++) run.out[c] = Results{};
  // The sink tokens that some row sees, then what bands there are; of these the piece's share.
  const Band &band = query.band();
  const int64_t begin = wave_min(static_cast<int>(band.begin));
  const int64_t end = -wave_min(-static_cast<int>(band.end));
  const int64_t sink_end = -wave_min(-static_cast<int>(band.sink_end));
  const bool fixed = p.split_size != 0;
  const int64_t origin = fixed ? int64_t{w.split} * p.split_size : 0;
  const int64_t limit = fixed ? smaller(origin + p.split_size, w.s.seqlen_k) : w.s.seqlen_k;
  const Span sinks = {origin, smaller(sink_end, limit)};
  const Span keys = {larger(larger(begin, sink_end), origin), smaller(end, limit)};
  const int sink_tiles = sinks.tiles(), tiles = sink_tiles + keys.tiles();
  const int first = fixed ? 0 : static_cast<int>(int64_t{tiles} * w.split / p.splits);
  const int last = fixed ? tiles : static_cast<int>(int64_t{tiles} * (w.split + 1) / p.splits);
  int parity = 0;
  for (int n = first; n < last; n++) {
    const bool sink = n < sink_tiles;
    const int64_t from = sink ? sinks.from : keys.from, to = sink ? sinks.to : keys.to;
    const int64_t j0 = from / kKeys * kKeys + int64_t{kKeys} * (sink ? n : n - sink_tiles);
    if (!kPlain && !listed.any(larger(j0, from), smaller(j0 + kKeys, to))) continue;
    add_keys(p, w, query, listed, dropout, j0, from, to, load_query, shared, parity, run);
    parity ^= 1;
  }
  const float keep_scale =
      p.in.has(ATTN_SDPA_DROPOUT) ? static_cast<float>(dropout.keep_scale) : 1.0f;
  if (valid) finish(p, w, head, i, keep_scale, run);
}

}  // namespace
}  // namespace attn::hip

extern "C" __global__ void
    __attribute__((amdgpu_flat_work_group_size(attn::hip::kWaves * attn::gpu::kWave,
                                               attn::hip::kWaves *attn::gpu::kWave)))
    ATTN_ENTRY(attn::hip::SdpaForwardParams) {
  __shared__ static attn::hip::Shared shared;
  attn::hip::forward(attn::gpu::parameters<attn::hip::SdpaForwardParams>(), shared);
}
