// sdpa backward on matrix instructions: 16-bit elements, softmax, position masks, sinks; dense and
// ragged. What a query's keys have in common (its lse and <dout, out>) another kernel has computed:
// BackwardRow of kernels/common/gpu/sdpa_backward_params.hpp.
//
// A wave owns 16 rows of a gradient, queries for dq or keys for dk and dv, and walks the others,
// the keys of its queries or the queries of its keys, 16 at a time:
//
//   S = X a^T, dP = Y b^T                  X, Y: the others' rows, a, b: its own; (q, dout) or (k,
//   v) W = exp(scale S - lse), dS = W (dP - D) A^T += X^T dS, B^T += Y^T W            dq = scale A;
//   or dk = scale A, dv = B
//
// S and dP have a column for each of its own rows, so that W and dS lie where the instruction wants
// them next (tile.hpp), and no two waves add to one gradient: results are deterministic. The
// others' rows lie in LDS, which X^T and Y^T are read across.
//
// Head dims above 64 are shared out among the waves of a block, 64 to each: the sums of all waves'
// products meet in LDS, and every wave goes on with the same W and dS for its own part.
//
// What is hidden or has no weight takes part in nothing, NaN and infinity included: see staged.hpp.
#include "kernels/hip/any/sdpa/backward_matrix_params.hpp"
#include "kernels/hip/common/staged.hpp"
#include "kernels/hip/common/tile.hpp"

namespace attn::hip {
namespace {

using gpu::BackwardRow;

[[maybe_unused]] constexpr int32_t fp16 = ATTN_DTYPE_FP16, bf16 = ATTN_DTYPE_BF16;
constexpr int32_t kElement = ATTN_ELEMENT;
constexpr int kHeadDim = ATTN_HEAD_DIM;
enum Step { dq, keys };
constexpr bool kOfKeys = ATTN_STEP == keys;
constexpr int kWaveDim = kStagedDim;  // of a head, that one wave takes
constexpr int kWaves = kHeadDim / kWaveDim;
static_assert(kHeadDim % kWaveDim == 0);
constexpr int kChunks = kWaveDim / 16;
constexpr int kRows = 16;  // of a tile
// A wave's own rows stay in registers where there is room for them.
constexpr bool kHoldOwn = gpu::kWave == 64 || (kElements < 16 && !(kOfKeys && kWaves == 4));
// So do the next tile's.
constexpr bool kAhead = kHoldOwn || !kOfKeys;
// fp16 weights are this much larger, which the end takes out: those that would be subnormal keep
// their bits, and matrix units that take subnormals as 0 (gfx90a's) lose nothing.
constexpr bool kLifts = kElement == ATTN_DTYPE_FP16;
constexpr float kLift = kLifts ? 1024 : 1;

// Every wave's sums of products, where there are several.
using Products = float[kWaves > 1 ? kWaves : 0][kResults * gpu::kWave];
struct Shared {
  alignas(16) Staged x[kWaves];
  alignas(16) Staged y[kWaves];
  Products s, dp;
};

using Rules = PositionRulesOf<int32_t>;

// Whether query i sees key j, and whether all of 16 queries see all of 16 keys.
struct Visible {
  Rules rules;
  int32_t seqlen_q;

  __device__ bool operator()(int32_t i, int32_t j) const {
    return i < seqlen_q && j < rules.seqlen_k && band_of(rules, i).contains(j);
  }
  __device__ bool all(int32_t i, int32_t j) const {
    const int32_t last_i = i + kRows - 1, last_j = j + kRows - 1;
    if (last_i >= seqlen_q || last_j >= rules.seqlen_k) return false;
    if (rules.chunk_size > 0 || rules.sink_tokens > 0) return false;
    if (rules.causal && last_j > i + rules.offset) return false;
    if (rules.window_left >= 0 && j < last_i + rules.offset - rules.window_left) return false;
    return rules.window_right < 0 || last_j <= i + rules.offset + rules.window_right;
  }
};

// A run of others' tiles.
struct Span {
  int32_t first = 0, end = 0;
};

// Tiles of keys that some query of i0 .. i1 sees: with sink tokens, and the others.
struct Spans {
  Span sinks, band;

  __device__ int32_t count() const { return sinks.end + (band.end - band.first); }
  __device__ int32_t tile(int32_t n) const {
    return n < sinks.end ? n : band.first + (n - sinks.end);
  }
};
__device__ inline int32_t tiles_of(int32_t rows) {
  return (rows + kRows - 1) / kRows;
}
__device__ inline int32_t larger(int32_t a, int32_t b) {
  return a > b ? a : b;
}
__device__ inline int32_t smaller(int32_t a, int32_t b) {
  return a < b ? a : b;
}
__device__ inline Spans keys_seen(const Rules &rules, int32_t i0, int32_t i1) {
  const BandOf<int32_t> low = band_of(rules, i0), high = band_of(rules, i1);
  Spans s;
  s.sinks.end = tiles_of(high.sink_end);
  s.band.first = larger(low.begin / kRows, s.sinks.end);
  s.band.end = larger(tiles_of(high.end), s.band.first);
  return s;
}

// Tiles of queries that may see some key of j0 .. j1.
__device__ inline Spans seen_by(const Rules &rules, int32_t seqlen_q, int32_t j0, int32_t j1) {
  const bool sinks = j0 < rules.sink_tokens;  // windows and chunks do not hide those
  int32_t from = 0, to = seqlen_q;
  if (rules.causal) from = larger(from, j0 - rules.offset);
  if (!sinks) {
    if (rules.window_right >= 0) from = larger(from, j0 - rules.window_right - rules.offset);
    if (rules.window_left >= 0) to = smaller(to, j1 + 1 + rules.window_left - rules.offset);
    if (rules.chunk_size > 0) {
      from = larger(from, j0 / rules.chunk_size * rules.chunk_size - rules.offset);
      to = smaller(to, (j1 / rules.chunk_size + 1) * rules.chunk_size - rules.offset);
    }
  }
  Spans s;
  s.band.first = from / kRows;
  s.band.end = larger(tiles_of(larger(to, 0)), s.band.first);
  return s;
}

struct Wave {
  int32_t lane, number;
  int32_t first_d;  // of its part of the head dims
};

// Operand B of one of the wave's own rows, that of this lane: elements of chunk c. `n`: of a row, a
// multiple of 8.
__device__ inline Operand load_own(const uint16_t *row, int d, int n) {
  constexpr int kPart = kElements < 8 ? kElements : 8;
  Operand o = {};
#pragma unroll
  for (int e = 0; e < kElements; e += kPart) {
    if (row == nullptr || d + e >= n) continue;
    const uint32_t *from = reinterpret_cast<const uint32_t *>(row + d + e);
#pragma unroll
    for (int k = 0; k < kPart / 2; k++) o.word[e / 2 + k] = from[k];
  }
  return o;
}

// This lane's part of another's row, on its way to LDS.
__device__ inline StagedWords load_other(const Wave &w, const uint16_t *row, int n) {
  StagedWords v;
  if (row == nullptr) return v;
  const int first = w.first_d + w.lane / kRows * kStagedPart;
#pragma unroll
  for (int e = 0; e < kStagedPart; e += 8) {
    if (first + e >= n) continue;
    const uint32_t *from = reinterpret_cast<const uint32_t *>(row + first + e);
#pragma unroll
    for (int k = 0; k < 4; k++) v.word[e / 2 + k] = from[k];
  }
  return v;
}

__device__ inline const uint16_t *row_at(const TokenView &t, TokenPlace place, int64_t head) {
  return static_cast<const uint16_t *>(t.data) + t.offset(place, head);
}

struct Sums {
  Results a[kChunks], b[kChunks];
  // dS is this much larger in its 16 bits, 2^n, so that they hold it; 0: none has come yet.
  float lift = 0;
};

template <class All>
__device__ inline void store_products(const Results &mine, const Wave &w, All &all) {
#pragma unroll
  for (int r = 0; r < kResults; r++) all[w.number][r * gpu::kWave + w.lane] = mine[r];
}
// The sum of all waves' products.
template <class All>
__device__ inline Results sum_of(const All &all, const Wave &w) {
  Results sum = {};
#pragma unroll
  for (int wave = 0; wave < kWaves; wave++) {
    const float *others = all[wave] + w.lane;
#pragma unroll
    for (int r = 0; r < kResults; r++) sum[r] += others[r * gpu::kWave];
  }
  return sum;
}

template <class Real>
__device__ inline Real wave_max(Real x) {
#pragma unroll 1
  for (int step = 1; step < static_cast<int>(gpu::kWave); step *= 2) {
    x = fmaxf(x, gpu::shuffle_xor(x, step));
  }
  return x;
}

// Makes room in fp16 for values up to the largest of `ds`: from the first ones on 11 bits are left
// above, and if a later one needs more, sums so far follow.
template <class Changes>
__device__ inline void lift_for(const Changes &ds, Sums &sums) {
  float most = 0;
#pragma unroll
  for (int r = 0; r < kResults; r++) {
    const float size = fabsf(ds[r]);
    if (size < infinity()) most = fmaxf(most, size);
  }
  if (!wave_any(sums.lift == 0 ? most > 0 : most * sums.lift > 32768)) return;
  const uint32_t exponent = __builtin_bit_cast(uint32_t, wave_max(most)) >> 23;
  // The largest becomes 2^4 to 2^5, if 2^60 suffices.
  const uint32_t field = 258 - exponent;
  const float lift = __builtin_bit_cast(float, (field > 187 ? 187 : field) << 23);
  const float factor = sums.lift == 0 ? 1.0f : lift / sums.lift;
  sums.lift = lift;
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    for (int r = 0; r < kResults; r++) sums.a[c][r] *= factor;
  }
}

// What 16 others add. `other` is the first of them, `own` this lane's own row.
template <class LoadA, class LoadB, class RowOf>
__device__ inline void add_tile(const SdpaBackwardMatrixParams &p, const Wave &w,
                                const Visible &visible, int32_t own0, int32_t other, bool finite_x,
                                bool finite_y, const LoadA &load_a, const LoadB &load_b,
                                const RowOf &row_of_query, Shared &shared, Sums &sums) {
  const attn_sdpa_desc &d = p.call.in.d;
  const Staged &x = shared.x[w.number], &y = shared.y[w.number];
  Results s = {}, dp = {};
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (w.first_d + 16 * c >= d.head_dim_qk) break;
    s = multiply_add<kElement>(rows_of(x, c, w.lane), load_a(c), s);
  }
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (w.first_d + 16 * c >= d.head_dim_v) break;
    dp = multiply_add<kElement>(rows_of(y, c, w.lane), load_b(c), dp);
  }
  if constexpr (kWaves > 1) {
    gpu::sync_block();  // the last tile's have been read
    store_products(s, w, shared.s);
    store_products(dp, w, shared.dp);
    gpu::sync_block();
    s = sum_of(shared.s, w);
    dp = sum_of(shared.dp, w);
  }
  constexpr float kLog2EF = static_cast<float>(kLog2E), kLog2Lift = kLifts ? 10 : 0;
  const int32_t own = own0 + w.lane % kRows;
  const bool inside = kOfKeys ? visible.all(other, own0) : visible.all(own0, other);
  float weight[kResults], ds[kResults];
#pragma unroll
  for (int r = 0; r < kResults; r++) {
    const int32_t there = other + row_of(r, w.lane);
    const int32_t i = kOfKeys ? there : own, j = kOfKeys ? own : there;
    const BackwardRow row = row_of_query(i);
    const float score = d.softmax_scale * s[r];
    float x = __builtin_amdgcn_exp2f(__builtin_fmaf(score - row.total, kLog2EF, kLog2Lift));
    if (x != x) {  // a NaN, or infinities
      x = score != score || row.total != row.total         ? quiet_nan()
          : score == infinity() && row.total == infinity() ? row.kept_share * kLift
                                                           : 0.0f;
    }
    if (!inside && !visible(i, j)) x = 0;
    weight[r] = x;
    ds[r] = x == 0 ? 0.0f : x * (dp[r] - (row.d - row.dlse));
  }
  if constexpr (kLifts) lift_for(ds, sums);
  const float lift = kLifts ? sums.lift : 1.0f;
  uint32_t bits[kResults];
#pragma unroll
  for (int r = 0; r < kResults; r++) bits[r] = to_element<kElement>(ds[r] * lift);
  const Operand changes = to_operand(bits, w.lane);
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (w.first_d + 16 * c >= d.head_dim_qk) break;
    __builtin_amdgcn_sched_barrier(0);  // or all chunks' rows would be in registers at once
    sums.a[c] = add_transposed<kElement, true>(x, c, changes, finite_x, true, w.lane, sums.a[c]);
  }
  if constexpr (!kOfKeys) return;
#pragma unroll
  for (int r = 0; r < kResults; r++) bits[r] = to_element<kElement>(weight[r]);
  const Operand weights = to_operand(bits, w.lane);
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    if (w.first_d + 16 * c >= d.head_dim_v) break;
    __builtin_amdgcn_sched_barrier(0);
    sums.b[c] = add_transposed<kElement, false>(y, c, weights, finite_y, true, w.lane, sums.b[c]);
  }
}

// One row of a gradient: this lane's elements of it.
__device__ inline void store_gradient(const TokenView &t, TokenPlace place, int64_t head,
                                      const Wave &w, int n, float factor,
                                      const Results (&sums)[kChunks]) {
  if (t.data == nullptr) return;
  uint16_t *row = static_cast<uint16_t *>(t.data) + t.offset(place, head);
#pragma unroll
  for (int c = 0; c < kChunks; c++) {
    for (int r = 0; r < kResults; r++) {
      const int d = w.first_d + 16 * c + row_of(r, w.lane);
      if (d < n) row[d * t.dim] = static_cast<uint16_t>(to_element<kElement>(sums[c][r] * factor));
    }
  }
}

__device__ inline void backward(const SdpaBackwardMatrixParams &p, Shared &shared) {
  const gpu::SdpaBackwardParams &call = p.call;
  const attn_sdpa_desc &d = call.in.d;
  const SequenceTable &sequences = call.in.sequences;
  Wave w;
  w.lane = static_cast<int>(gpu::thread_index() % gpu::kWave);
  w.number = __builtin_amdgcn_readfirstlane(static_cast<int>(gpu::thread_index() / gpu::kWave));
  w.first_d = w.number * kWaveDim;
  const unsigned heads = static_cast<unsigned>(kOfKeys ? d.num_kv_heads : d.num_q_heads);
  unsigned rest = gpu::block_index();
  const int64_t own_head = rest % heads;
  rest /= heads;
  const int32_t tile = static_cast<int32_t>(rest % static_cast<unsigned>(p.tiles));
  const int64_t b = rest / static_cast<unsigned>(p.tiles);
  Sums sums;
#pragma unroll
  for (int c = 0; c < kChunks; c++) sums.a[c] = sums.b[c] = Results{};

  const auto store = [&](TokenPlace place, float of_a, float of_b) {
    if constexpr (kOfKeys) {
      store_gradient(call.dk, place, own_head, w, d.head_dim_qk, of_a, sums.a);
      store_gradient(call.dv, place, own_head, w, d.head_dim_v, of_b, sums.b);
    } else {
      store_gradient(call.dq, place, own_head, w, d.head_dim_qk, of_a, sums.a);
    }
  };
  if (b == call.batch) {  // keys after the last sequence; such queries another step has dealt with
    if (!kOfKeys || sequences.cu_seqlens_k == nullptr) return;
    const int64_t first = sequences.cu_seqlens_k[call.batch] + w.lane % kRows;
    for (int64_t t = first + int64_t{tile} * kRows; t < call.key_inner;
         t += int64_t{p.tiles} * kRows) {
      store({0, t}, 0, 0);
    }
    return;
  }
  const Sequence s = sequences.sequence(b);
  Visible visible = {p.rules, static_cast<int32_t>(s.seqlen_q)};
  visible.rules.seqlen_k = static_cast<int32_t>(s.seqlen_k);
  visible.rules.offset =
      d.alignment == ATTN_ALIGN_BOTTOM_RIGHT ? static_cast<int32_t>(s.seqlen_k - s.seqlen_q) : 0;
  // Rows that there are, and those that count.
  int32_t places = static_cast<int32_t>(s.seqlen_q), used = places;
  if (kOfKeys) {
    used = static_cast<int32_t>(s.seqlen_k);
    places = static_cast<int32_t>(sequences.cu_seqlens_k == nullptr
                                      ? sequences.dense_seqlen_k
                                      : int64_t{sequences.cu_seqlens_k[b + 1]} -
                                            sequences.cu_seqlens_k[b]);
  }
  const int32_t own0 = tile * kRows;
  if (own0 >= places) return;
  const int32_t own = own0 + w.lane % kRows;
  const TokenPlace own_place = kOfKeys ? s.key(own) : s.query(own);
  const int32_t last_own = smaller(own0 + kRows, used) - 1;
  Spans spans;
  if (own0 < used) {
    spans = kOfKeys ? seen_by(visible.rules, visible.seqlen_q, own0, last_own)
                    : keys_seen(visible.rules, own0, last_own);
  }
  const uint16_t *a_row = nullptr, *b_row = nullptr;
  if (own < used) {
    a_row = row_at(kOfKeys ? call.k : call.q, own_place, own_head);
    b_row = row_at(kOfKeys ? call.v : call.dout, own_place, own_head);
  }
  const auto read_a = [&](int c) {
    return load_own(a_row, w.first_d + 16 * c + first_of(w.lane), d.head_dim_qk);
  };
  const auto read_b = [&](int c) {
    return load_own(b_row, w.first_d + 16 * c + first_of(w.lane), d.head_dim_v);
  };
  Operand held_a[kHoldOwn ? kChunks : 1], held_b[kHoldOwn ? kChunks : 1];
  if constexpr (kHoldOwn) {
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      held_a[c] = read_a(c);
      held_b[c] = read_b(c);
    }
  }
  const auto load_a = [&](int c) {
    if constexpr (kHoldOwn) {
      return held_a[c];
    } else {
      return read_a(c);
    }
  };
  const auto load_b = [&](int c) {
    if constexpr (kHoldOwn) {
      return held_b[c];
    } else {
      return read_b(c);
    }
  };

  const int64_t first_row =
      sequences.cu_seqlens_q != nullptr ? s.first_q.inner : s.index * sequences.dense_seqlen_q;
  const int32_t members = kOfKeys ? call.group : 1;
  for (int32_t member = 0; member < members; member++) {
    const int64_t head = kOfKeys ? own_head * call.group + member : own_head;
    const int64_t other_head = kOfKeys ? head : own_head / call.group;
    const int32_t others = kOfKeys ? visible.seqlen_q : visible.rules.seqlen_k;
    const BackwardRow *rows = call.rows + first_row * d.num_q_heads + head;
    const auto row_of_query = [&](int32_t i) {
      return rows[int64_t{smaller(i, visible.seqlen_q - 1)} * d.num_q_heads];
    };
    const auto load = [&](int32_t n, StagedWords &x, StagedWords &y) {
      const int32_t other = spans.tile(n) * kRows + w.lane % kRows;
      const uint16_t *x_row = nullptr, *y_row = nullptr;
      if (n < spans.count() && other < others) {
        const TokenPlace place = kOfKeys ? s.query(other) : s.key(other);
        x_row = row_at(kOfKeys ? call.q : call.k, place, other_head);
        y_row = row_at(kOfKeys ? call.dout : call.v, place, other_head);
      }
      x = load_other(w, x_row, d.head_dim_qk);
      y = load_other(w, y_row, d.head_dim_v);
    };
    StagedWords x, y;
    if constexpr (kAhead) load(0, x, y);
    for (int32_t n = 0; n < spans.count(); n++) {
      if constexpr (!kAhead) load(n, x, y);
      const bool finite_x = stage<kElement>(x, w.lane, shared.x[w.number]);
      const bool finite_y = stage<kElement>(y, w.lane, shared.y[w.number]);
      if constexpr (kAhead) load(n + 1, x, y);  // while this one is computed
      add_tile(p, w, visible, own0, spans.tile(n) * kRows, finite_x, finite_y, load_a, load_b,
               row_of_query, shared, sums);
    }
  }
  if (own >= places) return;
  const float lift = kLifts && sums.lift != 0 ? sums.lift : 1.0f;
  store(own_place, d.softmax_scale / kLift / lift, 1 / kLift);
}

}  // namespace
}  // namespace attn::hip

extern "C" __global__ void
    __attribute__((amdgpu_flat_work_group_size(attn::hip::kWaves * attn::gpu::kWave,
                                               attn::hip::kWaves *attn::gpu::kWave)))
    ATTN_ENTRY(attn::hip::SdpaBackwardMatrixParams) {
  __shared__ static attn::hip::Shared shared;
  attn::hip::backward(attn::gpu::parameters<attn::hip::SdpaBackwardMatrixParams>(), shared);
}
