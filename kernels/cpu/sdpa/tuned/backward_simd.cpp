// The tasks of the tuned backward pass, compiled once for each SIMD target (backward.hpp describes
// the algorithm).
#include "kernels/cpu/sdpa/tuned/simd_target.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sdpa/tuned/backward_simd.cpp"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/sdpa/tuned/backward_call.hpp"
#include "kernels/cpu/sdpa/tuned/convert-inl.hpp"
#include "kernels/cpu/sdpa/tuned/exp-inl.hpp"
#include "kernels/cpu/sdpa/tuned/gemm-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::cpu::tuned::HWY_NAMESPACE {
namespace {

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Multiples of a tile's rows and of a panel: 224 x 112 with 32 registers, 192 x 96 with 16.
constexpr int64_t kRowBlock = kTileRows == 14 ? 224 : 192;
constexpr int64_t kKeyBlock = kTileRows == 14 ? 112 : 96;
constexpr int64_t kLanePanel = static_cast<int64_t>(kPanel);
constexpr int64_t kTile = static_cast<int64_t>(kTileRows);
constexpr int64_t kMaxPanels = kRowBlock / kLanePanel;
constexpr int64_t kMaxTiles = kKeyBlock / kTile;
static_assert(kRowBlock <= kBackwardRows && kKeyBlock <= kBackwardKeys);
static_assert(kRowBlock % kLanePanel == 0 && kRowBlock % kTile == 0 && kKeyBlock % kTile == 0);

int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Calls f with the compile-time constant m, 1 <= m <= kTileRows.
template <size_t M = kTileRows, class F>
HWY_INLINE void with_rows(size_t m, F &&f) {
  if constexpr (M == 1) {
    f(std::integral_constant<size_t, 1>{});
  } else {
    if (m == M) return f(std::integral_constant<size_t, M>{});
    with_rows<M - 1>(m, f);
  }
}

// ---- Tiles -------------------------------------------------------------------------------------

template <size_t M>
HWY_NOINLINE void store_product(const float *a, ptrdiff_t stride, const float *b, size_t depth,
                                float *to, ptrdiff_t to_stride) {
  const DF d;
  VF acc[M][kVecs];
  tile_product<M, false>(a, stride, b, depth, acc);
  unroll<M>([&](auto i) ATTN_INLINE_LAMBDA {
    unroll<kVecs>([&](auto v) ATTN_INLINE_LAMBDA {
      hn::Store(acc[i][v], d, to + static_cast<ptrdiff_t>(i) * to_stride + v * kLanes);
    });
  });
}

// to[i] += the product; `to` is a panel.
template <size_t M, bool kColumns>
HWY_NOINLINE void add_product(const float *a, ptrdiff_t stride, const float *b, size_t depth,
                              float *to) {
  const DF d;
  VF acc[M][kVecs];
  tile_product<M, kColumns>(a, stride, b, depth, acc);
  unroll<M>([&](auto i) ATTN_INLINE_LAMBDA {
    unroll<kVecs>([&](auto v) ATTN_INLINE_LAMBDA {
      float *at = to + i * kPanel + v * kLanes;
      hn::Store(hn::Add(hn::Load(d, at), acc[i][v]), d, at);
    });
  });
}

// ds = p * (V dO^T - D), times what ds holds already if kScaled; 0 where p is.
template <size_t M, bool kScaled>
HWY_NOINLINE void store_ds(const float *v_rows, ptrdiff_t stride, const float *dout, size_t depth,
                           const float *p, const float *d_rows, float *ds, ptrdiff_t block_stride) {
  const DF d;
  VF acc[M][kVecs];
  tile_product<M, false>(v_rows, stride, dout, depth, acc);
  unroll<M>([&](auto i) ATTN_INLINE_LAMBDA {
    unroll<kVecs>([&](auto v) ATTN_INLINE_LAMBDA {
      const ptrdiff_t at = static_cast<ptrdiff_t>(i) * block_stride + v * kLanes;
      const VF weight = hn::Load(d, p + at);
      VF result = hn::Mul(weight, hn::Sub(acc[i][v], hn::Load(d, d_rows + v * kLanes)));
      if constexpr (kScaled) result = hn::Mul(result, hn::Load(d, ds + at));
      result = hn::IfThenZeroElse(hn::Eq(weight, hn::Zero(d)), result);
      hn::Store(result, d, ds + at);
    });
  });
}

// ---- A task ------------------------------------------------------------------------------------

struct Task {
  Task(const BackwardExec &exec, int64_t number, int thread)
      : e(exec),
        p(*exec.problem),
        d(p.d),
        a(exec.call->args),
        g(exec.call->grads),
        seq(exec.sequences.sequence(number / exec.tasks_a_head() / d.num_kv_heads)),
        kv_head(number / exec.tasks_a_head() % d.num_kv_heads),
        dqk(d.head_dim_qk),
        dv(d.head_dim_v),
        dqk_pad(round_up(dqk, kLanePanel)),
        dv_pad(round_up(dv, kLanePanel)),
        rows(round_up(std::max<int64_t>(seq.seqlen_q, 0), kLanePanel)),
        keys(std::max<int64_t>(seq.seqlen_k, 0)),
        base(exec.thread_scratch + thread * exec.scratch.floats),
        row_end(rows),
        key_end(keys) {
    if (exec.pieces == 1) return;
    const int64_t piece = number % exec.tasks_a_head();
    const auto cut = [&exec](int64_t i, int64_t n, int64_t block) {
      return std::min((n + block - 1) / block * i / exec.pieces * block, n);
    };
    of_queries = piece < exec.pieces;
    of_keys = !of_queries;
    first_of_queries = piece == 0;
    first_of_keys = piece == exec.pieces;
    if (of_queries) {
      row_begin = cut(piece, rows, kRowBlock);
      row_end = cut(piece + 1, rows, kRowBlock);
    } else {
      key_begin = cut(piece - exec.pieces, keys, kKeyBlock);
      key_end = cut(piece - exec.pieces + 1, keys, kKeyBlock);
    }
  }

  bool wants_q() const { return of_queries && p.wants(ATTN_SDPA_GRAD_Q); }
  bool wants_k() const { return of_keys && p.wants(ATTN_SDPA_GRAD_K); }
  bool wants_v() const { return of_keys && p.wants(ATTN_SDPA_GRAD_V); }

  float *at(int64_t offset) const { return base + offset; }
  int32_t *ints(int64_t offset) const { return reinterpret_cast<int32_t *>(base + offset); }

  const BackwardExec &e;
  const sdpa::Problem &p;
  const attn_sdpa_desc &d;
  const attn_sdpa_args &a;
  const attn_sdpa_backward_args &g;
  Sequence seq;
  int64_t kv_head;
  int64_t dqk, dv, dqk_pad, dv_pad;
  int64_t rows;  // queries, rounded up to panels
  int64_t keys;
  float *base;
  // What this task is a piece of, and its rows and keys.
  bool of_queries = true, of_keys = true;
  bool first_of_queries = true, first_of_keys = true;
  int64_t row_begin = 0, row_end, key_begin = 0, key_end;
  bool odd_keys = false;  // some key holds NaN or Inf
  bool holes = false;     // some key has no page
};

void read_row(const TokenView &t, TokenPlace place, int64_t head, int64_t n, float *to) {
  with_dtype(t.dtype, [&](auto type) ATTN_INLINE_LAMBDA {
    using T = decltype(type);
    widen_row(static_cast<const T *>(t.data) + t.offset(place, head), t.dim, static_cast<size_t>(n),
              to);
  });
}

void write_row(const TokenView &t, TokenPlace place, int64_t head, int64_t n, const float *from) {
  with_dtype(t.dtype, [&](auto type) ATTN_INLINE_LAMBDA {
    using T = decltype(type);
    narrow_row(from, static_cast<size_t>(n), t.dim,
               static_cast<T *>(t.data) + t.offset(place, head));
  });
}

void write_zeros(const TokenView &t, TokenPlace place, int64_t head, int64_t n) {
  with_dtype(t.dtype, [&](auto type) ATTN_INLINE_LAMBDA {
    using T = decltype(type);
    T *to = static_cast<T *>(t.data) + t.offset(place, head);
    for (int64_t i = 0; i < n; i++) narrow(0.0f, to + i * t.dim);
  });
}

float read_element(const void *data, int32_t dtype, int64_t offset) {
  float value = 0;
  with_dtype(dtype, [&](auto type) ATTN_INLINE_LAMBDA {
    value = widen(static_cast<const decltype(type) *>(data) + offset);
  });
  return value;
}

// One row of n columns into panels of `rows` rows, zeros after it.
void to_panels(const float *row, int64_t n, int64_t index, int64_t rows, float *panels) {
  for (int64_t c = 0; c < n; c += kLanePanel) {
    float *to = panels + (c * rows + index * kLanePanel);
    const int64_t count = std::min(kLanePanel, n - c);
    std::copy_n(row + c, count, to);
    std::fill(to + count, to + kLanePanel, 0.0f);
  }
}
void from_panels(const float *panels, int64_t n, int64_t index, int64_t rows, float scale,
                 float *row) {
  for (int64_t c = 0; c < n; c += kLanePanel) {
    const float *from = panels + (c * rows + index * kLanePanel);
    for (int64_t i = 0; i < std::min(kLanePanel, n - c); i++) row[c + i] = from[i] * scale;
  }
}
// One row into column `index` of transposed row panels.
void to_transposed(const float *row, int64_t n, int64_t index, float *panels) {
  float *to = panels + index / kLanePanel * kLanePanel * n + index % kLanePanel;
  for (int64_t c = 0; c < n; c++) to[c * kLanePanel] = row[c];
}

void pack_keys(Task &t) {
  const BackwardScratch &s = t.e.scratch;
  const TokenView k = token_view(t.a.k), v = token_view(t.a.v);
  float odd = 0;
  for (int64_t j = t.key_begin; j < t.key_end; j++) {
    float *row = t.at(s.k) + j * t.dqk, *value = t.at(s.v) + j * t.dv;
    const TokenPlace place = t.seq.key(j);
    if (place.skipped()) {
      t.holes = true;
      std::fill_n(row, t.dqk, 0.0f);
      std::fill_n(value, t.dv, 0.0f);
    } else {
      read_row(k, place, t.kv_head, t.dqk, row);
      read_row(v, place, t.kv_head, t.dv, value);
    }
    for (int64_t c = 0; c < t.dqk; c++) odd += row[c] * 0.0f;
    if (t.wants_q()) to_panels(row, t.dqk, j, t.keys, t.at(s.k_columns));
  }
  t.odd_keys = odd != 0;  // NaN
  if (t.wants_k()) std::fill_n(t.at(s.dk), t.keys * t.dqk_pad, 0.0f);
  if (t.wants_v()) std::fill_n(t.at(s.dv), t.keys * t.dv_pad, 0.0f);
}

// <a, b> in the order and with the roundings of a tile's product: where out is one row of v, dP - D
// is then 0, as it must be, and not what two ways of rounding leave.
float dot_as_tile(const float *a, const float *b, int64_t n) {
  const hn::CappedTag<float, 1> d;
  auto sum = hn::Zero(d);
  for (int64_t i = 0; i < n; i++) sum = hn::MulAdd(hn::Set(d, b[i]), hn::Set(d, a[i]), sum);
  return hn::GetLane(sum);
}

// The queries of one head, and what each needs: lse with the sink, D, its keys. Also dgate and the
// head's part of dsink.
void pack_queries(const Task &t, int64_t head) {
  const BackwardScratch &s = t.e.scratch;
  const attn_sdpa_args &a = t.a;
  const TokenView q = token_view(a.q), out = token_view(a.out), dout = token_view(t.g.dout);
  const QueryView lse = query_view(a.lse, false);
  const bool gated = t.p.has(ATTN_SDPA_GATE), with_sink = t.p.has(ATTN_SDPA_SINK);
  const bool base2 = t.d.lse_base == ATTN_LSE_BASE_2;
  const TokenView gate = gated ? token_view(a.gate) : TokenView{};
  const float sink =
      with_sink ? static_cast<const float *>(a.sink.data)[head * a.sink.stride[0]] : -kInfinity;
  const PositionRules rules = position_rules(t.d, t.seq.seqlen_q, t.seq.seqlen_k);
  float *row = t.at(s.stage), *gradient = row + backward_pad(std::max(t.dqk, t.dv));
  float *output = gradient + backward_pad(t.dv);
  double dsink = 0;
  for (int64_t i = 0; i < t.rows; i++) {
    // The first piece looks at all rows, for dgate and dsink.
    if (!(t.of_queries && t.first_of_queries) && (i < t.row_begin || i >= t.row_end)) continue;
    const bool used = i < t.seq.seqlen_q;
    float total = kInfinity, delta = 0;  // exp(s - inf) = 0
    Band band = band_of(rules, std::min(i, t.seq.seqlen_q - 1));
    std::fill_n(row, t.dqk, 0.0f);
    std::fill_n(gradient, t.dv, 0.0f);
    if (used) {
      const TokenPlace place = t.seq.query(i);
      float given = read_element(lse.data, lse.dtype, lse.offset(place, head));
      if (base2) given *= kLn2;
      total = given;
      if (with_sink && !t.p.has(ATTN_SDPA_LSE_INCLUDES_SINK) && sink > -kInfinity) {
        const float larger = std::max(given, sink);
        total = std::isinf(larger)
                    ? larger
                    : larger + std::log(std::exp(given - larger) + std::exp(sink - larger));
      }
      read_row(q, place, head, t.dqk, row);
      for (int64_t c = 0; c < t.dqk; c++) row[c] *= t.d.softmax_scale;
      read_row(dout, place, head, t.dv, gradient);
      read_row(out, place, head, t.dv, output);
      double d = 0;
      if (total != -kInfinity) {
        d = dot_as_tile(gradient, output, t.dv);
      }
      if (gated) {
        const int64_t shared = a.gate.shape[a.gate.rank - 1] == 1 && t.dv > 1;
        const int64_t gate_at = gate.offset(place, head);
        const bool wanted = t.of_queries && t.first_of_queries && t.p.wants(ATTN_SDPA_GRAD_GATE);
        const TokenView dgate = wanted ? token_view(t.g.dgate) : TokenView{};
        double sum = 0;
        for (int64_t c = 0; c < t.dv; c++) {
          const float x = read_element(gate.data, gate.dtype, gate_at + c * gate.dim);
          const float open = 1 / (1 + std::exp(-x));
          // 1 - open without cancellation.
          const double dx = double{gradient[c]} * double{output[c]} / (1 + std::exp(double{x}));
          gradient[c] *= open;
          sum += dx;
          output[c] = static_cast<float>(dx);
        }
        if (wanted) {
          if (shared) output[0] = static_cast<float>(sum);
          write_row(dgate, place, head, shared ? 1 : t.dv, output);
        }
      }
      double dlse = 0;
      if (t.p.wants(ATTN_SDPA_GRAD_LSE_IN) && total != -kInfinity) {
        const QueryView view = query_view(t.g.dlse, false);
        dlse = read_element(view.data, view.dtype, view.offset(place, head));
        if (base2) dlse *= double{kLog2e};
      }
      d -= dlse;
      if (with_sink && sink > -kInfinity && total != -kInfinity) {
        const double weight =
            total == kInfinity ? (sink == kInfinity) : std::exp(double{sink} - double{total});
        if (weight != 0) dsink -= weight * d;
      }
      delta = static_cast<float>(d);
      if (total == -kInfinity) {  // no key
        total = kInfinity;
        std::fill_n(gradient, t.dv, 0.0f);
      }
    }
    to_transposed(row, t.dqk, i, t.at(s.q_rows));
    to_transposed(gradient, t.dv, i, t.at(s.dout_rows));
    to_panels(row, t.dqk, i, t.rows, t.at(s.q_columns));
    to_panels(gradient, t.dv, i, t.rows, t.at(s.dout_columns));
    t.at(s.lse)[i] = total * kLog2e;
    t.at(s.d)[i] = delta;
    t.ints(s.begin)[i] = static_cast<int32_t>(band.begin);
    t.ints(s.end)[i] = static_cast<int32_t>(band.end);
    t.ints(s.sink)[i] = static_cast<int32_t>(band.sink_end);
  }
  if (t.wants_q()) std::fill_n(t.at(s.dq), t.rows * t.dqk_pad, 0.0f);
  if (t.of_queries && t.first_of_queries && t.p.wants(ATTN_SDPA_GRAD_SINK)) {
    t.e.sink_parts[t.seq.index * t.d.num_q_heads + head] = dsink;
  }
}

// Bounds of what the rows of a panel see.
struct PanelSpan {
  int32_t begin, end, sink;              // union
  int32_t all_begin, all_end, all_sink;  // intersection

  bool sees(int64_t first, int64_t last) const {  // some key of [first, last)
    return (first < end && last > begin) || first < sink;
  }
  bool sees_all(int64_t first, int64_t last) const {
    return (first >= all_begin && last <= all_end) || last <= all_sink;
  }
};

PanelSpan span_of(const Task &t, int64_t row) {
  const BackwardScratch &s = t.e.scratch;
  const int32_t *begin = t.ints(s.begin) + row, *end = t.ints(s.end) + row;
  const int32_t *sink = t.ints(s.sink) + row;
  PanelSpan span = {begin[0], end[0], sink[0], begin[0], end[0], sink[0]};
  for (int64_t i = 1; i < kLanePanel; i++) {
    if (begin[i] < end[i]) {
      span.begin = span.begin < span.end ? std::min(span.begin, begin[i]) : begin[i];
    }
    span.end = std::max(span.end, end[i]);
    span.sink = std::max(span.sink, sink[i]);
    span.all_begin = std::max(span.all_begin, begin[i]);
    span.all_end = std::min(span.all_end, end[i]);
    span.all_sink = std::min(span.all_sink, sink[i]);
  }
  return span;
}

bool elementwise(const Task &t) {
  return t.holes ||
         t.p.has(ATTN_SDPA_MASK | ATTN_SDPA_TAIL_MASK | ATTN_SDPA_SEGMENT_IDS | ATTN_SDPA_BIAS);
}

// What bias and the masks of single keys add to the scores: [key of the tile][row of the panel].
void fill_extra(const Task &t, int64_t head, int64_t row, int64_t first, int64_t keys,
                float *extra) {
  const attn_sdpa_args &a = t.a;
  const QueryView mask = t.p.has(ATTN_SDPA_MASK) ? query_view(a.mask, true) : QueryView{};
  const QueryView tail = t.p.has(ATTN_SDPA_TAIL_MASK) ? query_view(a.tail_mask, true) : QueryView{};
  const QueryView bias = t.p.has(ATTN_SDPA_BIAS) ? query_view(a.bias, true) : QueryView{};
  const bool segments = t.p.has(ATTN_SDPA_SEGMENT_IDS);
  for (int64_t r = 0; r < kLanePanel; r++) {
    const int64_t i = row + r;
    if (i >= t.seq.seqlen_q) {  // else a hidden key's NaN would reach its dk through padding
      for (int64_t j = 0; j < keys; j++) extra[j * kLanePanel + r] = -kInfinity;
      continue;
    }
    const TokenPlace place = t.seq.query(i);
    int32_t q_id = 0;
    const int32_t *ids = nullptr;
    int64_t id_stride = 0;
    if (segments) {
      const attn_tensor &qs = a.q_segment_ids, &ks = a.kv_segment_ids;
      q_id = static_cast<const int32_t *>(
          qs.data)[qs.rank == 1 ? place.inner * qs.stride[0]
                                : place.outer * qs.stride[0] + place.inner * qs.stride[1]];
      ids = static_cast<const int32_t *>(ks.data) +
            (ks.rank == 1 ? t.seq.first_k.inner : t.seq.index) * ks.stride[0];
      id_stride = ks.stride[ks.rank - 1];
    }
    for (int64_t j = 0; j < keys; j++) {
      const int64_t key = first + j;
      float value = 0;
      bool seen = !t.holes || !t.seq.key(key).skipped();
      if (seen && mask.data != nullptr) {
        seen = packed_bit(static_cast<const uint8_t *>(mask.data) + mask.offset(place, head),
                          mask.last, key);
      }
      if (seen && tail.data != nullptr) {
        seen = tail_bit(static_cast<const uint8_t *>(tail.data) + tail.offset(place, head),
                        tail.last, t.seq.seqlen_q, t.seq.seqlen_k, key);
      }
      if (seen && segments) seen = same_segment(q_id, ids[key * id_stride]);
      if (seen && bias.data != nullptr) {
        value = read_element(bias.data, bias.dtype, bias.offset(place, head) + key * bias.last);
      }
      extra[j * kLanePanel + r] = seen ? value : -kInfinity;
    }
  }
}

// Scores to weights, in place, for a tile of keys and a panel of rows; with softcap `derivative`
// gets that of the scores after <q, k>, without the scale.
template <bool kAdjusted>
HWY_NOINLINE void weigh(const Task &t, int64_t head, int64_t row, int64_t first, int64_t keys,
                        bool all_seen, const float *extra, float *p, float *derivative) {
  const BackwardScratch &s = t.e.scratch;
  const DF d;
  const DI di;
  const VF log2e = hn::Set(d, kLog2e);
  const float cap = t.d.softcap;
  float slope = 0;
  if (kAdjusted && t.p.has(ATTN_SDPA_ALIBI)) {
    const attn_tensor &slopes = t.a.alibi_slopes;
    slope = static_cast<const float *>(
        slopes.data)[slopes.rank == 2 ? t.seq.index * slopes.stride[0] + head * slopes.stride[1]
                                      : head * slopes.stride[0]];
  }
  const int64_t offset = t.p.diagonal_offset(t.seq.seqlen_q, t.seq.seqlen_k);
  for (size_t v = 0; v < kVecs; v++) {
    const int64_t lane = row + static_cast<int64_t>(v * kLanes);
    const VF lse = hn::Load(d, t.at(s.lse) + lane);
    const VI begin = hn::Load(di, t.ints(s.begin) + lane), end = hn::Load(di, t.ints(s.end) + lane);
    const VI sink = hn::Load(di, t.ints(s.sink) + lane);
    const VI position = hn::Add(hn::Iota(di, 0), hn::Set(di, static_cast<int32_t>(lane + offset)));
    for (int64_t j = 0; j < keys; j++) {
      float *at = p + j * kRowBlock + v * kLanes;
      VF score = hn::Load(d, at);
      auto hidden = hn::Eq(score, hn::Set(d, -kInfinity));
      if constexpr (kAdjusted) {
        if (cap > 0) {
          const VF th = tanh(d, hn::Mul(score, hn::Set(d, 1 / cap)));
          score = hn::Mul(th, hn::Set(d, cap));
          hn::Store(hn::NegMulAdd(th, th, hn::Set(d, 1.0f)), d,
                    derivative + j * kRowBlock + v * kLanes);
        }
        if (extra != nullptr) {
          const VF add = hn::Load(d, extra + j * kLanePanel + v * kLanes);
          hidden = hn::Or(hidden, hn::Eq(add, hn::Set(d, -kInfinity)));
          // Nor does a row of padding see a key that a mask hides from all others: it may hold NaN.
          hidden = hn::Or(hidden, hn::Eq(lse, hn::Set(d, kInfinity)));
          score = hn::Add(score, add);
        }
        if (slope != 0) {
          const VI distance =
              hn::Abs(hn::Sub(position, hn::Set(di, static_cast<int32_t>(first + j))));
          score = hn::NegMulAdd(hn::Set(d, slope), hn::ConvertTo(d, distance), score);
        }
      }
      VF weight = exp2(d, hn::MulSub(score, log2e, lse));
      if (!all_seen) {
        const VI key = hn::Set(di, static_cast<int32_t>(first + j));
        const auto in_band = hn::AndNot(hn::Lt(key, begin), hn::Lt(key, end));
        const auto seen = hn::Or(in_band, hn::Lt(key, sink));
        weight = hn::IfThenElseZero(hn::RebindMask(d, seen), weight);
      }
      hn::Store(hn::IfThenZeroElse(hidden, weight), d, at);
    }
  }
}

// dq of a block by single weights: where keys hold NaN or Inf, which 0 times would spread to rows
// that do not see them.
void add_dq_sparsely(const Task &t, int64_t row, int64_t rows, int64_t first, int64_t keys) {
  const BackwardScratch &s = t.e.scratch;
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < keys; j++) {
      const float ds = t.at(s.ds)[j * kRowBlock + i];
      if (ds == 0) continue;
      const float *key = t.at(s.k) + (first + j) * t.dqk;
      for (int64_t c = 0; c < t.dqk; c++) {
        t.at(
            s.dq)[c / kLanePanel * kLanePanel * t.rows + (row + i) * kLanePanel + c % kLanePanel] +=
            ds * key[c];
      }
    }
  }
}

// One block of keys [first, first + keys) and rows [row, row + rows); rows a multiple of a panel.
void block(const Task &t, int64_t head, int64_t row, int64_t rows, int64_t first, int64_t keys,
           const PanelSpan *spans) {
  const BackwardScratch &s = t.e.scratch;
  const int64_t panels = rows / kLanePanel;
  const int64_t tile = static_cast<int64_t>(tile_split(static_cast<size_t>(keys), kTileRows));
  const int64_t tiles = (keys + tile - 1) / tile;
  const bool adjusted = t.d.softcap > 0 || elementwise(t) || t.p.has(ATTN_SDPA_ALIBI);
  float *p = t.at(s.p), *ds = t.at(s.ds);
  // Panels that each tile of keys needs, and tiles that each panel needs: [from, to).
  int64_t panel_from[kMaxTiles + 1], panel_to[kMaxTiles + 1];
  int64_t tile_from[kMaxPanels], tile_to[kMaxPanels];
  std::fill_n(tile_from, panels, tiles);
  std::fill_n(tile_to, panels, int64_t{0});
  for (int64_t kt = 0; kt < tiles; kt++) {
    panel_from[kt] = panels;
    panel_to[kt] = 0;
    const int64_t key = first + kt * tile, last = std::min(key + tile, first + keys);
    for (int64_t n = 0; n < panels; n++) {
      if (!spans[n].sees(key, last)) continue;
      panel_from[kt] = std::min(panel_from[kt], n);
      panel_to[kt] = n + 1;
      tile_from[n] = std::min(tile_from[n], kt);
      tile_to[n] = kt + 1;
    }
  }
  alignas(64) float extra[kTileRows * kPanel];
  for (int64_t n = 0; n < panels; n++) {
    const int64_t lane = row + n * kLanePanel;
    for (int64_t kt = 0; kt < tiles; kt++) {
      const int64_t key = first + kt * tile, count = std::min(tile, first + keys - key);
      float *p_tile = p + kt * tile * kRowBlock + n * kLanePanel;
      float *ds_tile = ds + kt * tile * kRowBlock + n * kLanePanel;
      if (!spans[n].sees(key, key + count)) {
        // Other tiles' products may run over it.
        for (int64_t j = 0; j < count; j++) {
          std::fill_n(p_tile + j * kRowBlock, kLanePanel, 0.0f);
          std::fill_n(ds_tile + j * kRowBlock, kLanePanel, 0.0f);
        }
        continue;
      }
      with_rows(static_cast<size_t>(count), [&](auto m) ATTN_INLINE_LAMBDA {
        store_product<m>(t.at(s.k) + key * t.dqk, t.dqk, t.at(s.q_rows) + lane * t.dqk,
                         static_cast<size_t>(t.dqk), p_tile, kRowBlock);
      });
      const bool all_seen = spans[n].sees_all(key, key + count);
      if (adjusted) {
        const bool single = elementwise(t);
        if (single) fill_extra(t, head, lane, key, count, extra);
        weigh<true>(t, head, lane, key, count, all_seen, single ? extra : nullptr, p_tile, ds_tile);
      } else {
        weigh<false>(t, head, lane, key, count, all_seen, nullptr, p_tile, ds_tile);
      }
      with_rows(static_cast<size_t>(count), [&](auto m) ATTN_INLINE_LAMBDA {
        const auto run = t.d.softcap > 0 ? store_ds<m, true> : store_ds<m, false>;
        run(t.at(s.v) + key * t.dv, t.dv, t.at(s.dout_rows) + lane * t.dv,
            static_cast<size_t>(t.dv), p_tile, t.at(s.d) + lane, ds_tile, kRowBlock);
      });
    }
  }

  for (int64_t kt = 0; kt < tiles; kt++) {
    if (panel_from[kt] >= panel_to[kt]) continue;
    const int64_t key = first + kt * tile, count = std::min(tile, first + keys - key);
    const int64_t from = panel_from[kt] * kLanePanel;
    const size_t depth = static_cast<size_t>((panel_to[kt] - panel_from[kt]) * kLanePanel);
    const int64_t in_block = kt * tile * kRowBlock + from;
    with_rows(static_cast<size_t>(count), [&](auto m) ATTN_INLINE_LAMBDA {
      if (t.wants_v()) {
        for (int64_t c = 0; c < t.dv; c += kLanePanel) {
          add_product<m, false>(p + in_block, kRowBlock,
                                t.at(s.dout_columns) + c * t.rows + (row + from) * kLanePanel,
                                depth, t.at(s.dv) + c * t.keys + key * kLanePanel);
        }
      }
      if (t.wants_k()) {
        for (int64_t c = 0; c < t.dqk; c += kLanePanel) {
          add_product<m, false>(ds + in_block, kRowBlock,
                                t.at(s.q_columns) + c * t.rows + (row + from) * kLanePanel, depth,
                                t.at(s.dk) + c * t.keys + key * kLanePanel);
        }
      }
    });
  }

  if (!t.wants_q()) return;
  if (t.odd_keys) return add_dq_sparsely(t, row, rows, first, keys);
  const int64_t step = static_cast<int64_t>(tile_split(static_cast<size_t>(rows), kTileRows));
  for (int64_t r = 0; r < rows; r += step) {
    const int64_t count = std::min(step, rows - r);
    int64_t from = tiles, to = 0;
    for (int64_t n = r / kLanePanel; n <= (r + count - 1) / kLanePanel; n++) {
      from = std::min(from, tile_from[n]);
      to = std::max(to, tile_to[n]);
    }
    if (from >= to) continue;
    const int64_t key = from * tile;
    const size_t depth = static_cast<size_t>(std::min(to * tile, keys) - key);
    with_rows(static_cast<size_t>(count), [&](auto m) ATTN_INLINE_LAMBDA {
      for (int64_t c = 0; c < t.dqk; c += kLanePanel) {
        add_product<m, true>(ds + key * kRowBlock + r, kRowBlock,
                             t.at(s.k_columns) + c * t.keys + (first + key) * kLanePanel, depth,
                             t.at(s.dq) + c * t.rows + (row + r) * kLanePanel);
      }
    });
  }
}

// Places [begin, end) of queries or keys; zeros from `count` on.
void store_gradients(const Task &t, const attn_tensor &tensor, int64_t head, bool queries,
                     int64_t begin, int64_t end, int64_t count, int64_t dim, const float *panels,
                     int64_t panel_rows, float scale) {
  const TokenView view = token_view(tensor);
  float *row = t.at(t.e.scratch.stage);
  for (int64_t i = begin; i < end; i++) {
    const TokenPlace place = queries ? t.seq.query(i) : t.seq.key(i);
    if (i >= count) {
      write_zeros(view, place, head, dim);
      continue;
    }
    from_panels(panels, dim, i, panel_rows, scale, row);
    write_row(view, place, head, dim, row);
  }
}

// Paged keys: the gradients as they are, for sum_page.
void store_parts(const Task &t) {
  const BackwardScratch &s = t.e.scratch;
  const auto store = [&t](float *parts, int64_t dim, const float *panels) {
    for (int64_t j = t.key_begin; j < t.key_end; j++) {
      from_panels(panels, dim, j, t.keys, 1, t.e.part(parts, t.seq.index, t.kv_head, j, dim));
    }
  };
  if (t.wants_k()) store(t.e.dk_parts, t.dqk, t.at(s.dk));
  if (t.wants_v()) store(t.e.dv_parts, t.dv, t.at(s.dv));
}

void clear_one_page(const BackwardExec &e, int64_t page) {
  const auto clear = [&](uint32_t gradient, const attn_tensor &tensor) {
    if (!e.problem->wants(gradient)) return;
    const TokenView view = token_view(tensor);
    for (int64_t slot = 0; slot < tensor.shape[1]; slot++) {
      for (int64_t h = 0; h < tensor.shape[2]; h++) {
        write_zeros(view, {page, slot}, h, tensor.shape[3]);
      }
    }
  };
  clear(ATTN_SDPA_GRAD_K, e.call->grads.dk);
  clear(ATTN_SDPA_GRAD_V, e.call->grads.dv);
}

// In ascending order of sequences and of their keys, so that the bits are always the same.
void sum_one_page(const BackwardExec &e, int64_t group) {
  const PageUse *begin = e.page_uses + e.page_groups[group];
  const PageUse *end = e.page_uses + e.page_groups[group + 1];
  const attn_sdpa_desc &d = e.problem->d;
  const auto sum = [&](uint32_t gradient, const attn_tensor &tensor, float *parts, int64_t dim) {
    if (!e.problem->wants(gradient)) return;
    const TokenView view = token_view(tensor);
    for (int64_t slot = 0; slot < d.page_size; slot++) {
      for (int64_t h = 0; h < d.num_kv_heads; h++) {
        float *total = nullptr;  // the first part collects the sum
        for (const PageUse *use = begin; use != end; use++) {
          const int64_t key = use->ordinal * d.page_size + slot;
          if (key >= e.sequences.sequence(use->sequence).seqlen_k) continue;
          float *own = e.part(parts, use->sequence, h, key, dim);
          for (int64_t c = 0; total != nullptr && c < dim; c++) total[c] += own[c];
          if (total == nullptr) total = own;
        }
        if (total != nullptr) write_row(view, {begin->page, slot}, h, dim, total);
      }
    }
  };
  sum(ATTN_SDPA_GRAD_K, e.call->grads.dk, e.dk_parts, d.head_dim_qk);
  sum(ATTN_SDPA_GRAD_V, e.call->grads.dv, e.dv_parts, d.head_dim_v);
}

void backward_task(const BackwardExec &e, int64_t number, int thread) {
  Task t(e, number, thread);
  const BackwardScratch &s = e.scratch;
  pack_keys(t);
  for (int64_t h = 0; h < t.p.group; h++) {
    const int64_t head = t.kv_head * t.p.group + h;
    pack_queries(t, head);
    const bool wanted = t.wants_q() || t.wants_k() || t.wants_v();
    for (int64_t first = t.key_begin; wanted && first < t.key_end; first += kKeyBlock) {
      const int64_t keys = std::min(kKeyBlock, t.key_end - first);
      for (int64_t row = t.row_begin; row < t.row_end; row += kRowBlock) {
        const int64_t rows = std::min(kRowBlock, t.row_end - row);
        PanelSpan spans[kMaxPanels];
        bool any = false;
        for (int64_t n = 0; n < rows / kLanePanel; n++) {
          spans[n] = span_of(t, row + n * kLanePanel);
          any = any || spans[n].sees(first, first + keys);
        }
        if (any) block(t, head, row, rows, first, keys, spans);
      }
    }
    const int64_t queries = std::max<int64_t>(t.seq.seqlen_q, 0);
    const bool pads = t.of_queries && t.first_of_queries;  // this task sees to unused places
    if (t.wants_q()) {
      const auto store = [&](int64_t begin, int64_t end) {
        store_gradients(t, t.g.dq, head, true, begin, end, queries, t.dqk, t.at(s.dq), t.rows,
                        t.d.softmax_scale);
      };
      store(t.row_begin, std::min(t.row_end, queries));
      if (pads) store(queries, t.seq.rows_q);
    }
    if (pads && t.p.wants(ATTN_SDPA_GRAD_GATE)) {
      for (int64_t i = queries; i < t.seq.rows_q; i++) {
        write_zeros(token_view(t.g.dgate), t.seq.query(i), head,
                    t.g.dgate.shape[t.g.dgate.rank - 1]);
      }
    }
  }
  if (t.p.paged()) return store_parts(t);
  const int64_t places =
      t.p.ragged_k() ? int64_t{t.a.cu_seqlens_k[t.seq.index + 1]} - t.a.cu_seqlens_k[t.seq.index]
                     : e.call->seqlen_k;
  const auto store = [&](const attn_tensor &tensor, int64_t dim, const float *panels) {
    store_gradients(t, tensor, t.kv_head, false, t.key_begin, t.key_end, t.keys, dim, panels,
                    t.keys, 1);
    if (!t.first_of_keys) return;
    store_gradients(t, tensor, t.kv_head, false, t.keys, places, t.keys, dim, panels, t.keys, 1);
  };
  if (t.wants_k()) store(t.g.dk, t.dqk, t.at(s.dk));
  if (t.wants_v()) store(t.g.dv, t.dv, t.at(s.dv));
}

void clear_rest(const BackwardExec &e, int64_t head) {
  const sdpa::Problem &p = *e.problem;
  const attn_sdpa_backward_args &g = e.call->grads;
  const int64_t batch = e.call->batch;
  const auto clear = [&](const attn_tensor &tensor, const int32_t *cu) {
    const TokenView view = token_view(tensor);
    for (int64_t i = batch == 0 ? 0 : cu[batch]; i < tensor.shape[0]; i++) {
      write_zeros(view, {0, i}, head, tensor.shape[2]);
    }
  };
  if (p.ragged_q()) {
    if (p.wants(ATTN_SDPA_GRAD_Q)) clear(g.dq, e.call->args.cu_seqlens_q);
    if (p.wants(ATTN_SDPA_GRAD_GATE)) clear(g.dgate, e.call->args.cu_seqlens_q);
  }
  if (p.ragged_k() && head < p.d.num_kv_heads) {
    if (p.wants(ATTN_SDPA_GRAD_K)) clear(g.dk, e.call->args.cu_seqlens_k);
    if (p.wants(ATTN_SDPA_GRAD_V)) clear(g.dv, e.call->args.cu_seqlens_k);
  }
}

}  // namespace
}  // namespace attn::cpu::tuned::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::cpu::tuned {
void run_backward(const BackwardExec &exec, int64_t task, int thread) {
  static const auto function = ATTN_SIMD_DISPATCH(backward_task);
  function(exec, task, thread);
}
void clear_page(const BackwardExec &exec, int64_t page) {
  static const auto function = ATTN_SIMD_DISPATCH(clear_one_page);
  function(exec, page);
}
void sum_page(const BackwardExec &exec, int64_t group) {
  static const auto function = ATTN_SIMD_DISPATCH(sum_one_page);
  function(exec, group);
}
void clear_ragged_rest(const BackwardExec &exec, int64_t head) {
  static const auto function = ATTN_SIMD_DISPATCH(clear_rest);
  function(exec, head);
}
}  // namespace attn::cpu::tuned
#endif
