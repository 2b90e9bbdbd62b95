// The tasks of the tuned forward kernel, compiled once for each SIMD target (forward.hpp describes
// the algorithm).
#include "kernels/cpu/sdpa/tuned/simd_target.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sdpa/tuned/forward_simd.cpp"
#include <attn/sdpa.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/common/visibility.hpp"
#include "kernels/cpu/sdpa/tuned/convert-inl.hpp"
#include "kernels/cpu/sdpa/tuned/exp-inl.hpp"
#include "kernels/cpu/sdpa/tuned/forward_call.hpp"
#include "kernels/cpu/sdpa/tuned/gemm-inl.hpp"
#include "kernels/cpu/sdpa/tuned/transpose-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::cpu::tuned::HWY_NAMESPACE {
namespace {

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// ---- Tiles -------------------------------------------------------------------------------------

// s[i][row] = scores of M keys; top[row] rises to their maximum.
template <size_t M>
void score_tile(const float *k, ptrdiff_t stride, const float *q, size_t dims, float *s,
                float *top) {
  const DF d;
  VF acc[M][kVecs];
  tile_product<M, false>(k, stride, q, dims, acc);
  VF high[kVecs];
  unroll<kVecs>([&](auto v) ATTN_INLINE_LAMBDA { high[v] = hn::Load(d, top + v * kLanes); });
  unroll<M>([&](auto i) ATTN_INLINE_LAMBDA {
    unroll<kVecs>([&](auto v) ATTN_INLINE_LAMBDA {
      hn::Store(acc[i][v], d, s + i * kPanel + v * kLanes);
      high[v] = hn::Max(high[v], acc[i][v]);
    });
  });
  unroll<kVecs>([&](auto v) ATTN_INLINE_LAMBDA { hn::Store(high[v], d, top + v * kLanes); });
}

// o[i][row] = o[i][row] * shrink[row] + sum over keys of v[key][i] * p[key][row]; without shrink, o
// is not read.
template <size_t M>
void output_tile(const float *v, ptrdiff_t stride, const float *p, size_t keys, float *o,
                 const float *shrink) {
  const DF d;
  VF acc[M][kVecs];
  tile_product<M, true>(v, stride, p, keys, acc);
  if (shrink != nullptr) {
    unroll<kVecs>([&](auto j) ATTN_INLINE_LAMBDA {
      const VF factor = hn::Load(d, shrink + j * kLanes);
      unroll<M>([&](auto i) ATTN_INLINE_LAMBDA {
        acc[i][j] = hn::MulAdd(hn::Load(d, o + i * kPanel + j * kLanes), factor, acc[i][j]);
      });
    });
  }
  unroll<M>([&](auto i) ATTN_INLINE_LAMBDA {
    unroll<kVecs>([&](auto j)
                      ATTN_INLINE_LAMBDA { hn::Store(acc[i][j], d, o + i * kPanel + j * kLanes); });
  });
}

using ScoreTile = void (*)(const float *, ptrdiff_t, const float *, size_t, float *, float *);
using OutputTile = void (*)(const float *, ptrdiff_t, const float *, size_t, float *,
                            const float *);

template <size_t... M>
constexpr std::array<ScoreTile, sizeof...(M)> score_tiles(std::index_sequence<M...>) {
  return {score_tile<M + 1>...};
}
template <size_t... M>
constexpr std::array<OutputTile, sizeof...(M)> output_tiles(std::index_sequence<M...>) {
  return {output_tile<M + 1>...};
}
// [height - 1]
constexpr auto kScoreTiles = score_tiles(std::make_index_sequence<kScoreTileRows>());
constexpr auto kOutputTiles = output_tiles(std::make_index_sequence<kTileRows>());

// ---- Data --------------------------------------------------------------------------------------

// What a task keeps of each panel, besides q and o.
struct alignas(64) PanelState {
  float m[kPanel];         // running maximum, base-2 units
  float l[kPanel];         // running sum
  float top[kPanel];       // maximum of the block at hand
  float shrink[kPanel];    // factor of the block at hand for what came before
  float position[kPanel];  // p_i, for ALiBi
  float slope[kPanel];     // ALiBi slope in base-2 units
  // Visible keys j: begin <= j < end, and j < sink_end (Band).
  int32_t begin[kPanel], end[kPanel], sink_end[kPanel];
  int32_t segment[kPanel];
  int32_t query[kPanel];  // index in the sequence
  int32_t head[kPanel];
  // Smallest and largest of the above over the rows.
  int32_t begin_min, begin_max, end_min, end_max, sink_end_min, sink_end_max;
  int32_t rows;  // rows in use; the lanes after them repeat the last
  bool started;  // o, m and l hold something
};

// The sequence and key head that a task works on.
struct Task {
  const ForwardCall &call;
  const attn_sdpa_desc &d;
  const attn_sdpa_args &a;
  int64_t b;  // sequence
  int kv_head;
  int64_t q_token;   // row of the first query in a ragged q; 0 in a dense one
  int64_t q_extent;  // queries that are written
  int64_t seqlen_q;  // queries in use
  int64_t seqlen_k;
  int64_t k_token;  // row of the first key in a ragged k
  PositionRules rules;
  float *scratch;
  float *s, *k_wide, *v_wide, *stage, *bias;
  PanelState *panels;
  uint8_t *hidden;

  bool has(uint64_t flag) const { return (d.flags & flag) != 0; }
};

// A run of keys in fp32: row i is key first + i.
struct KeyBlock {
  int64_t first;
  const float *k, *v;
  ptrdiff_t k_stride, v_stride;  // floats
  bool any_hidden;               // task.hidden says which
};

template <class T>
const T *element(const attn_tensor &t, int64_t offset) {
  return static_cast<const T *>(t.data) + offset;
}

int64_t offset_of(const attn_tensor &t, int64_t i0, int64_t i1, int64_t i2) {
  return i0 * t.stride[0] + i1 * t.stride[1] + i2 * t.stride[2];
}

// Element offset of (query, head, 0) in a tensor of shape [B, Sq, H, D] or [total, H, D].
int64_t query_offset(const Task &t, const attn_tensor &x, int64_t query, int64_t head) {
  return x.rank == 4 ? offset_of(x, t.b, query, head)
                     : (t.q_token + query) * x.stride[0] + head * x.stride[1];
}

// Of a [B, H, Sq] or [H, total] tensor.
int64_t lse_offset(const Task &t, const attn_tensor &x, int64_t query, int64_t head) {
  return x.rank == 3 ? offset_of(x, t.b, head, query)
                     : head * x.stride[0] + (t.q_token + query) * x.stride[1];
}

// Of a tensor [1|B, 1|H, 1|Sq, n], ragged [1|H, total, n]: extents of 1 are shared.
int64_t score_offset(const Task &t, const attn_tensor &x, int64_t query, int64_t head) {
  const auto at = [&](int dim, int64_t i) { return x.shape[dim] == 1 ? 0 : i * x.stride[dim]; };
  if (x.rank == 4) return at(0, t.b) + at(1, head) + at(2, query);
  return at(0, head) + (t.q_token + query) * x.stride[1];
}

// ---- Rows in and out ---------------------------------------------------------------------------

// Whether fp32 rows `stride` elements apart may be worked on where they lie. Rows far apart (heads
// side by side in a token) share few cache sets and many pages: at 4 KiB, an L1 holds 8 to 12 of
// them. Copying them first is faster even if they are used by one panel only (measured: 107 against
// 200 GFLOP/s for 64 tokens of 8 heads of 128).
bool close_rows(const attn_tensor &x, int64_t stride, size_t dims) {
  return x.dtype == ATTN_DTYPE_FP32 && x.stride[x.rank - 1] == 1 && stride > 0 &&
         stride <= static_cast<int64_t>(2 * dims);
}

void load_queries(const Task &t, const PanelState &p, float *q) {
  const attn_tensor &x = t.a.q;
  const size_t dims = static_cast<size_t>(t.d.head_dim_qk);
  const float scale =
      t.d.softcap > 0 ? t.d.softmax_scale / t.d.softcap : t.d.softmax_scale * kLog2e;
  const int64_t stride = x.stride[x.rank - 1];
  const float *rows[kPanel];
  if (t.call.group == 1 && close_rows(x, x.stride[x.rank - 3], dims)) {
    for (size_t r = 0; r < kPanel; ++r) {
      rows[r] = element<float>(x, query_offset(t, x, p.query[r], p.head[r]));
    }
    rows_to_panel(rows, dims, scale, q);
    return;
  }
  for (size_t c = 0; c < dims; c += kStageColumns) {
    const size_t count = std::min<size_t>(kStageColumns, dims - c);
    for (size_t r = 0; r < kPanel; ++r) {
      float *row = t.stage + r * kStageColumns;
      rows[r] = row;
      const int64_t at =
          query_offset(t, x, p.query[r], p.head[r]) + static_cast<int64_t>(c) * stride;
      with_dtype(x.dtype, [&](auto type) ATTN_INLINE_LAMBDA {
        widen_row(element<decltype(type)>(x, at), stride, count, row);
      });
    }
    rows_to_panel(rows, count, scale, q + c * kPanel);
  }
}

void store_output(const Task &t, const PanelState &p, const float *o, const float *factor) {
  const attn_tensor &x = t.a.out;
  const size_t dims = static_cast<size_t>(t.d.head_dim_v);
  const int64_t stride = x.stride[x.rank - 1];
  float *rows[kPanel];
  if (t.call.group == 1 && p.rows == kPanel && close_rows(x, x.stride[x.rank - 3], dims)) {
    for (size_t r = 0; r < kPanel; ++r) {
      rows[r] = static_cast<float *>(x.data) + query_offset(t, x, p.query[r], p.head[r]);
    }
    panel_to_rows(o, dims, factor, rows);
    return;
  }
  for (size_t r = 0; r < kPanel; ++r) rows[r] = t.stage + r * kStageColumns;
  for (size_t c = 0; c < dims; c += kStageColumns) {
    const size_t count = std::min<size_t>(kStageColumns, dims - c);
    panel_to_rows(o + c * kPanel, count, factor, rows);
    for (int32_t r = 0; r < p.rows; ++r) {
      const int64_t at =
          query_offset(t, x, p.query[r], p.head[r]) + static_cast<int64_t>(c) * stride;
      with_dtype(x.dtype, [&](auto type) ATTN_INLINE_LAMBDA {
        narrow_row(rows[r], count, stride, static_cast<decltype(type) *>(x.data) + at);
      });
    }
  }
}

// to[i][0 .. dims) = rows of `count` keys that lie `token` elements apart.
void widen_rows(const attn_tensor &x, int64_t at, int64_t token, int64_t count, size_t dims,
                float *to) {
  const int64_t stride = x.stride[x.rank - 1];
  with_dtype(x.dtype, [&](auto type) ATTN_INLINE_LAMBDA {
    const auto *from = element<decltype(type)>(x, at);
    const size_t line = 64 / sizeof(type);
    for (int64_t i = 0; i < count; ++i) {
      // The hardware does not see across the pages that rows lie in.
      if (stride == 1 && i + 8 < count) {
        for (size_t c = 0; c < dims; c += line) hwy::Prefetch(from + (i + 8) * token + c);
      }
      widen_row(from + i * token, stride, dims, to + static_cast<size_t>(i) * dims);
    }
  });
}

// The page of block `index` of the task's sequence, negative if its keys are to be skipped.
int64_t page_of(const Task &t, int64_t index) {
  if (t.d.kv_layout == ATTN_LAYOUT_PAGED_CSR) {
    return t.a.kv_page_indices[t.a.kv_page_indptr[t.b] + index];
  }
  const attn_tensor &x = t.a.block_table;
  return *element<int32_t>(x, t.b * x.stride[0] + index * x.stride[1]);
}

// Makes keys [first, last) readable as fp32: in place if they are, else widened into scratch.
KeyBlock load_keys(const Task &t, int64_t first, int64_t last) {
  const attn_tensor &k = t.a.k, &v = t.a.v;
  const size_t dqk = static_cast<size_t>(t.d.head_dim_qk);
  const size_t dv = static_cast<size_t>(t.d.head_dim_v);
  KeyBlock block{first, t.k_wide, t.v_wide, static_cast<ptrdiff_t>(dqk), static_cast<ptrdiff_t>(dv),
                 false};
  // V as a part of K (latent) is widened once.
  const bool shared = t.has(ATTN_SDPA_LATENT_KV);
  if (t.d.kv_layout == ATTN_LAYOUT_DENSE || t.d.kv_layout == ATTN_LAYOUT_RAGGED) {
    const int token = k.rank - 3;
    const auto at = [&](const attn_tensor &x) {
      return (x.rank == 4 ? t.b * x.stride[0] : 0) + (t.k_token + first) * x.stride[token] +
             t.kv_head * x.stride[token + 1];
    };
    if (close_rows(k, k.stride[token], dqk)) {
      block.k = element<float>(k, at(k));
      block.k_stride = k.stride[token];
    } else {
      widen_rows(k, at(k), k.stride[token], last - first, dqk, t.k_wide);
    }
    if (close_rows(v, v.stride[token], dv)) {
      block.v = element<float>(v, at(v));
      block.v_stride = v.stride[token];
    } else if (shared) {
      block.v = block.k;
      block.v_stride = block.k_stride;
    } else {
      widen_rows(v, at(v), v.stride[token], last - first, dv, t.v_wide);
    }
    return block;
  }
  const int64_t size = t.d.page_size;
  for (int64_t j = first; j < last;) {
    const int64_t slot = j % size;
    const int64_t count = std::min(size - slot, last - j);
    const int64_t page = page_of(t, j / size);
    const size_t row = static_cast<size_t>(j - first);
    std::memset(t.hidden + row, page < 0, static_cast<size_t>(count));
    if (page < 0) {
      block.any_hidden = true;
      std::memset(t.k_wide + row * dqk, 0, static_cast<size_t>(count) * dqk * sizeof(float));
      std::memset(t.v_wide + row * dv, 0, static_cast<size_t>(count) * dv * sizeof(float));
    } else {
      widen_rows(k, offset_of(k, page, slot, t.kv_head), k.stride[1], count, dqk,
                 t.k_wide + row * dqk);
      widen_rows(v, offset_of(v, page, slot, t.kv_head), v.stride[1], count, dv,
                 t.v_wide + row * dv);
    }
    j += count;
  }
  return block;
}

// Asks for keys [first, last) that load_keys will widen later: from memory into L2, while the tiles
// keep the multipliers busy. Pages are left to the prefetch in widen_rows.
void prefetch_keys(const Task &t, int64_t first, int64_t last) {
  if (t.d.kv_layout != ATTN_LAYOUT_DENSE && t.d.kv_layout != ATTN_LAYOUT_RAGGED) return;
  const auto fetch = [&](const attn_tensor &x, int64_t dims) {
    const int token = x.rank - 3;
    if (x.stride[x.rank - 1] != 1 || close_rows(x, x.stride[token], static_cast<size_t>(dims))) {
      return;
    }
    const int64_t size = x.dtype == ATTN_DTYPE_FP32 ? 4 : 2;
    const char *row =
        static_cast<const char *>(x.data) +
        size * ((x.rank == 4 ? t.b * x.stride[0] : 0) + (t.k_token + first) * x.stride[token] +
                t.kv_head * x.stride[token + 1]);
    for (int64_t j = first; j < last; ++j, row += size * x.stride[token]) {
      for (int64_t c = 0; c < size * dims; c += 64) __builtin_prefetch(row + c, 0, 2);
    }
  };
  fetch(t.a.k, t.d.head_dim_qk);
  if (!t.has(ATTN_SDPA_LATENT_KV)) fetch(t.a.v, t.d.head_dim_v);
}

// ---- Scores ------------------------------------------------------------------------------------

void score_rows(const KeyBlock &block, int64_t from, int64_t to, const float *q, size_t dims,
                float *s, float *top) {
  const float *k = block.k + (from - block.first) * block.k_stride;
  for (size_t left = static_cast<size_t>(to - from); left > 0;) {
    const size_t height = tile_split(left, kScoreTileRows);
    kScoreTiles[height - 1](k, block.k_stride, q, dims, s, top);
    k += static_cast<ptrdiff_t>(height) * block.k_stride;
    s += height * kPanel;
    left -= height;
  }
}

// 32 mask bits of a row, from bit `first` (may be negative) on; bits outside [0, limit) read as
// `outside`. stride: of the bytes.
uint32_t load_bits(const uint8_t *row, int64_t stride, int64_t first, int64_t limit, bool outside) {
  const int64_t from = std::max<int64_t>(first, 0), to = std::min(first + 32, limit);
  if (from >= to) return outside ? ~uint32_t{0} : 0;
  uint64_t bits = 0;
  for (int64_t byte = from / 8; byte <= (to - 1) / 8; ++byte) {
    bits |= uint64_t{row[byte * stride]} << ((byte - from / 8) * 8);
  }
  bits >>= from % 8;
  uint64_t valid = (uint64_t{1} << (to - from)) - 1;
  bits &= valid;
  bits <<= from - first;
  valid <<= from - first;
  return static_cast<uint32_t>(outside ? bits | ~valid : bits);
}

// Applies what the problem asks for to the scores of keys [from, to), at most kMaskGroup, and
// raises top. `in_range`: every lane sees the whole range as far as its bounds go.
void modify_group(const Task &t, PanelState &p, const KeyBlock &block, int64_t from, int64_t to,
                  bool in_range, float *s) {
  const DF d;
  const DI di;
  const int count = static_cast<int>(to - from);

  const bool bias = t.has(ATTN_SDPA_BIAS);
  if (bias) {
    const attn_tensor &x = t.a.bias;
    const int64_t stride = x.stride[x.rank - 1];
    const float *rows[kPanel];
    for (size_t r = 0; r < kPanel; ++r) {
      float *row = t.stage + r * kMaskGroup;
      rows[r] = row;
      if (p.query[r] >= t.q_extent) continue;
      with_dtype(x.dtype, [&](auto type) ATTN_INLINE_LAMBDA {
        const auto *at = element<decltype(type)>(x, score_offset(t, x, p.query[r], p.head[r]));
        widen_row(at + from * stride, stride, static_cast<size_t>(count), row);
      });
    }
    rows_to_panel(rows, static_cast<size_t>(count), kLog2e, t.bias);
  }

  const bool full = t.has(ATTN_SDPA_MASK), tail = t.has(ATTN_SDPA_TAIL_MASK);
  alignas(64) int32_t words[kPanel];
  if (full || tail) {
    for (size_t r = 0; r < kPanel; ++r) {
      uint32_t bits = ~uint32_t{0};
      if (full) {
        const attn_tensor &x = t.a.mask;
        bits &= load_bits(element<uint8_t>(x, score_offset(t, x, p.query[r], p.head[r])),
                          x.stride[x.rank - 1], from, t.seqlen_k, false);
      }
      if (tail) {
        const attn_tensor &x = t.a.tail_mask;
        bits &= load_bits(element<uint8_t>(x, score_offset(t, x, p.query[r], p.head[r])),
                          x.stride[x.rank - 1], from - (t.seqlen_k - t.seqlen_q), t.seqlen_q, true);
      }
      words[r] = static_cast<int32_t>(bits);
    }
  }

  const bool segments = t.has(ATTN_SDPA_SEGMENT_IDS);
  const int32_t *segment = nullptr;
  int64_t segment_stride = 0;
  if (segments) {
    const attn_tensor &x = t.a.kv_segment_ids;
    segment_stride = x.stride[x.rank - 1];
    segment = element<int32_t>(x, x.rank == 2 ? t.b * x.stride[0] + from * segment_stride
                                              : (t.k_token + from) * segment_stride);
  }

  const bool alibi = t.has(ATTN_SDPA_ALIBI);
  const bool sinks = from < t.d.sink_tokens;
  const VF minus_infinity = hn::Set(d, -kInfinity);
  for (size_t v = 0; v < kVecs; ++v) {
    const VF cap = hn::Set(d, t.d.softcap * kLog2e);
    const VF position = hn::Load(d, p.position + v * kLanes);
    const VF slope = hn::Load(d, p.slope + v * kLanes);
    const VI begin = sinks ? hn::Zero(di) : hn::Load(di, p.begin + v * kLanes);
    const VI end = hn::Load(di, (sinks ? p.sink_end : p.end) + v * kLanes);
    const VI word = full || tail ? hn::Load(di, words + v * kLanes) : hn::Zero(di);
    const VI own_segment = hn::Load(di, p.segment + v * kLanes);
    VF top = hn::Load(d, p.top + v * kLanes);
    for (int i = 0; i < count; ++i) {
      float *at = s + static_cast<size_t>(i) * kPanel + v * kLanes;
      VF x = hn::Load(d, at);
      if (t.d.softcap > 0) x = hn::Mul(cap, tanh(d, x));
      if (bias) {
        // -inf hides the key, NaN in it included.
        const VF add = hn::Load(d, t.bias + static_cast<size_t>(i) * kPanel + v * kLanes);
        x = hn::IfThenElse(hn::Eq(add, minus_infinity), add, hn::Add(x, add));
      }
      if (alibi) {
        const VF distance = hn::Abs(hn::Sub(position, hn::Set(d, static_cast<float>(from + i))));
        x = hn::NegMulAdd(slope, distance, x);
      }
      const VI key = hn::Set(di, static_cast<int32_t>(from + i));
      if (!in_range) {
        const auto seen = hn::AndNot(hn::Lt(key, begin), hn::Lt(key, end));
        x = hn::IfThenElse(hn::RebindMask(d, seen), x, minus_infinity);
      }
      if (full || tail) {
        const auto seen = hn::TestBit(word, hn::Set(di, static_cast<int32_t>(uint32_t{1} << i)));
        x = hn::IfThenElse(hn::RebindMask(d, seen), x, minus_infinity);
      }
      if (segments) {
        // A negative id of a query matches nothing: it was replaced by one that no key has.
        const auto seen = hn::Eq(own_segment, hn::Set(di, segment[i * segment_stride]));
        x = hn::IfThenElse(hn::RebindMask(d, seen), x, minus_infinity);
      }
      if (block.any_hidden && t.hidden[from + i - block.first]) x = minus_infinity;
      hn::Store(x, d, at);
      top = hn::Max(top, x);
    }
    hn::Store(top, d, p.top + v * kLanes);
  }
}

// ---- Softmax and output ------------------------------------------------------------------------

// Rows whose maximum is +inf: the scores of +inf share all the weight. They become 0, the rest
// -inf, and the maximum to subtract 0.
HWY_NOINLINE void split_infinite(PanelState &p, size_t keys, float *s, VF (&base)[kVecs]) {
  const DF d;
  const VF infinity = hn::Set(d, kInfinity), minus_infinity = hn::Set(d, -kInfinity);
  for (size_t v = 0; v < kVecs; ++v) {
    const auto rows = hn::Eq(base[v], infinity);
    for (size_t i = 0; i < keys; ++i) {
      float *at = s + i * kPanel + v * kLanes;
      const VF x = hn::Load(d, at);
      const VF split = hn::IfThenZeroElse(hn::Eq(x, infinity), minus_infinity);
      // NaN stays.
      hn::Store(hn::IfThenElse(hn::And(rows, hn::Eq(x, x)), split, x), d, at);
    }
    // The sum so far counts if it was of +inf too, which leaves shrink NaN: inf - inf.
    const VF shrink = hn::Load(d, p.shrink + v * kLanes);
    hn::Store(hn::IfThenElse(hn::And(rows, hn::IsNaN(shrink)), hn::Set(d, 1.0f), shrink), d,
              p.shrink + v * kLanes);
    base[v] = hn::IfThenZeroElse(rows, base[v]);
  }
}

// s = 2^(s - maximum) for `keys` rows; updates m, l and shrink.
void exponentiate(PanelState &p, size_t keys, float *s) {
  const DF d;
  const VF minus_infinity = hn::Set(d, -kInfinity);
  const VF infinity = hn::Set(d, kInfinity);
  VF base[kVecs], sum[kVecs];
  bool infinite = false;
  for (size_t v = 0; v < kVecs; ++v) {
    const VF old = hn::Load(d, p.m + v * kLanes);
    const VF m = hn::Max(old, hn::Load(d, p.top + v * kLanes));
    // A row that has seen nothing yet: any finite base gives weights of 0.
    base[v] = hn::IfThenZeroElse(hn::Eq(m, minus_infinity), m);
    hn::Store(m, d, p.m + v * kLanes);
    hn::Store(exp2(d, hn::Sub(old, base[v])), d, p.shrink + v * kLanes);
    sum[v] = hn::Zero(d);
    infinite = infinite || !hn::AllFalse(d, hn::Eq(m, infinity));
  }
  if (infinite) split_infinite(p, keys, s, base);
  for (size_t i = 0; i < keys; ++i) {
    for (size_t v = 0; v < kVecs; ++v) {
      float *at = s + i * kPanel + v * kLanes;
      const VF w = exp2(d, hn::Sub(hn::Load(d, at), base[v]));
      hn::Store(w, d, at);
      sum[v] = hn::Add(sum[v], w);
    }
  }
  for (size_t v = 0; v < kVecs; ++v) {
    float *l = p.l + v * kLanes;
    hn::Store(hn::MulAdd(hn::Load(d, l), hn::Load(d, p.shrink + v * kLanes), sum[v]), d, l);
  }
}

// Whether a key in [from, to) has a value that is NaN or infinite.
bool has_nonfinite(const KeyBlock &block, int64_t from, int64_t to, size_t dims) {
  const DF d;
  const float *v = block.v + (from - block.first) * block.v_stride;
  VF zero = hn::Zero(d);  // x * 0 is 0, or NaN if x is not finite
  float rest = 0;
  for (int64_t j = from; j < to; ++j, v += block.v_stride) {
    size_t i = 0;
    for (; i + kLanes <= dims; i += kLanes) {
      zero = hn::MulAdd(hn::LoadU(d, v + i), hn::Zero(d), zero);
    }
    for (; i < dims; ++i) rest += v[i] * 0.0f;
  }
  return !hn::AllFalse(d, hn::IsNaN(zero)) || std::isnan(rest);
}

void output_rows(const KeyBlock &block, int64_t from, int64_t to, const float *p, size_t dims,
                 float *o, const float *shrink) {
  const float *v = block.v + (from - block.first) * block.v_stride;
  for (size_t left = dims; left > 0;) {
    const size_t height = tile_split(left, kTileRows);
    kOutputTiles[height - 1](v, block.v_stride, p, static_cast<size_t>(to - from), o, shrink);
    v += height;
    o += height * kPanel;
    left -= height;
  }
}

// The same where masked keys have values that are not finite: a weight of 0 must not read them.
HWY_NOINLINE void output_rows_careful(const KeyBlock &block, int64_t from, int64_t to,
                                      const float *p, size_t dims, float *o, const float *shrink) {
  const DF d;
  for (size_t i = 0; i < dims; ++i) {
    for (size_t j = 0; j < kVecs; ++j) {
      float *at = o + i * kPanel + j * kLanes;
      VF sum = hn::Zero(d);
      const float *v = block.v + (from - block.first) * block.v_stride + i;
      for (int64_t key = from; key < to; ++key, v += block.v_stride) {
        const VF w = hn::Load(d, p + static_cast<size_t>(key - from) * kPanel + j * kLanes);
        const auto seen = hn::Not(hn::Eq(w, hn::Zero(d)));  // a NaN weight counts
        sum = hn::IfThenElse(seen, hn::MulAdd(w, hn::Set(d, *v), sum), sum);
      }
      if (shrink != nullptr) {
        sum = hn::MulAdd(hn::Load(d, at), hn::Load(d, shrink + j * kLanes), sum);
      }
      hn::Store(sum, d, at);
    }
  }
}

// ---- A panel -----------------------------------------------------------------------------------

void set_row(const Task &t, PanelState &p, size_t r, int64_t query, int64_t head) {
  const bool padding = query >= t.seqlen_q;
  const Band band = padding ? Band{0, 0, 0} : band_of(t.rules, query);
  p.query[r] = static_cast<int32_t>(query);
  p.head[r] = static_cast<int32_t>(head);
  p.begin[r] = static_cast<int32_t>(band.begin);
  p.end[r] = static_cast<int32_t>(band.end);
  p.sink_end[r] = static_cast<int32_t>(band.sink_end);
  p.position[r] = static_cast<float>(query + t.rules.offset);
  p.slope[r] = 0;
  p.segment[r] = 0;
  if (padding) return;  // no sequence's slopes and ids are its own
  if (t.has(ATTN_SDPA_ALIBI)) {
    const attn_tensor &x = t.a.alibi_slopes;
    const int64_t i = x.rank == 2 ? t.b * x.stride[0] + head * x.stride[1] : head * x.stride[0];
    p.slope[r] = *element<float>(x, i) * kLog2e;
  }
  if (t.has(ATTN_SDPA_SEGMENT_IDS)) {
    const attn_tensor &x = t.a.q_segment_ids;
    const int64_t i =
        x.rank == 2 ? t.b * x.stride[0] + query * x.stride[1] : (t.q_token + query) * x.stride[0];
    const int32_t id = *element<int32_t>(x, i);
    p.segment[r] = id;
    // Keys with a negative id would match a negative query.
    if (id < 0) p.end[r] = p.sink_end[r] = p.begin[r] = 0;
  }
}

void set_panel(const Task &t, PanelState &p, int64_t row, int64_t rows) {
  p.rows = static_cast<int32_t>(std::min<int64_t>(rows - row, kPanel));
  const int64_t first_head = int64_t{t.kv_head} * t.call.group;
  int64_t query = row / t.call.group, member = row % t.call.group;
  for (int32_t r = 0; r < static_cast<int32_t>(kPanel); ++r) {
    set_row(t, p, static_cast<size_t>(r), query, first_head + member);
    if (r + 1 < p.rows && ++member == t.call.group) {
      member = 0;
      ++query;
    }
  }
  const auto [begin_min, begin_max] = std::minmax_element(p.begin, p.begin + kPanel);
  const auto [end_min, end_max] = std::minmax_element(p.end, p.end + kPanel);
  const auto [sink_min, sink_max] = std::minmax_element(p.sink_end, p.sink_end + kPanel);
  p.begin_min = *begin_min;
  p.begin_max = *begin_max;
  p.end_min = *end_min;
  p.end_max = *end_max;
  p.sink_end_min = *sink_min;
  p.sink_end_max = *sink_max;
  std::fill(p.m, p.m + kPanel, -kInfinity);
  std::fill(p.l, p.l + kPanel, 0.0f);
  p.started = false;
}

// One panel and the keys [from, to) of a block, to which at least one lane's bounds reach. All
// lanes' bounds admit [sure_from, sure_to).
void step(const Task &t, PanelState &p, const KeyBlock &block, int64_t from, int64_t to,
          int64_t sure_from, int64_t sure_to, const float *q, float *o) {
  const size_t dqk = static_cast<size_t>(t.d.head_dim_qk);
  const size_t dv = static_cast<size_t>(t.d.head_dim_v);
  constexpr uint64_t kPerScore = ATTN_SDPA_MASK | ATTN_SDPA_TAIL_MASK | ATTN_SDPA_SEGMENT_IDS |
                                 ATTN_SDPA_BIAS | ATTN_SDPA_ALIBI;
  const bool modified = t.has(kPerScore) || t.d.softcap > 0 || block.any_hidden;
  const bool hiding = t.has(kPerScore & ~ATTN_SDPA_ALIBI) || block.any_hidden;
  sure_from = std::clamp(sure_from, from, to);
  sure_to = std::clamp(sure_to, sure_from, to);
  const DF d;
  for (size_t v = 0; v < kVecs; ++v) hn::Store(hn::Set(d, -kInfinity), d, p.top + v * kLanes);
  alignas(64) float unused[kPanel];
  if (modified || sure_from == sure_to) {
    std::memset(unused, 0, sizeof unused);
    score_rows(block, from, to, q, dqk, t.s, unused);
    for (int64_t j = from; j < to; j += kMaskGroup) {
      const int64_t last = std::min(j + kMaskGroup, to);
      modify_group(t, p, block, j, last, sure_from <= j && last <= sure_to,
                   t.s + (j - from) * static_cast<int64_t>(kPanel));
    }
  } else {
    std::memset(unused, 0, sizeof unused);
    const auto edge = [&](int64_t first, int64_t last) {
      if (first == last) return;
      float *s = t.s + (first - from) * static_cast<int64_t>(kPanel);
      score_rows(block, first, last, q, dqk, s, unused);
      for (int64_t j = first; j < last; j += kMaskGroup) {
        modify_group(t, p, block, j, std::min(j + kMaskGroup, last), false,
                     t.s + (j - from) * static_cast<int64_t>(kPanel));
      }
    };
    edge(from, sure_from);
    score_rows(block, sure_from, sure_to, q, dqk,
               t.s + (sure_from - from) * static_cast<int64_t>(kPanel), p.top);
    edge(sure_to, to);
  }
  exponentiate(p, static_cast<size_t>(to - from), t.s);
  const float *shrink = p.started ? p.shrink : nullptr;
  p.started = true;
  const bool careful =
      hiding ? has_nonfinite(block, from, to, dv)
             : has_nonfinite(block, from, sure_from, dv) || has_nonfinite(block, sure_to, to, dv);
  (careful ? output_rows_careful : output_rows)(block, from, to, t.s, dv, o, shrink);
}

void finish(const Task &t, PanelState &p, float *o) {
  alignas(64) float factor[kPanel];
  const size_t dv = static_cast<size_t>(t.d.head_dim_v);
  const bool sink = t.has(ATTN_SDPA_SINK);
  for (size_t r = 0; r < kPanel; ++r) factor[r] = p.l[r] > 0 ? 1.0f / p.l[r] : p.l[r];
  if (sink) {
    for (size_t r = 0; r < kPanel; ++r) {
      const float logit = *element<float>(t.a.sink, p.head[r] * t.a.sink.stride[0]) * kLog2e;
      if (logit == kInfinity) {
        factor[r] = 0;
      } else if (p.l[r] > 0 && p.m[r] != kInfinity) {
        const float top = std::max(p.m[r], logit);
        const float own = std::exp2(p.m[r] - top);
        factor[r] = own / (p.l[r] * own + std::exp2(logit - top));
      }
    }
  }
  if (!p.started) {
    std::memset(o, 0, dv * kPanel * sizeof(float));
  }
  store_output(t, p, o, factor);
  if (t.has(ATTN_SDPA_RETURN_LSE)) {
    const attn_tensor &x = t.a.lse;
    const float unit = t.d.lse_base == ATTN_LSE_BASE_2 ? 1.0f : kLn2;
    for (int32_t r = 0; r < p.rows; ++r) {
      // log2 of a sum >= 1 (its largest term is 1), or -inf.
      float lse = p.l[r] > 0 ? p.m[r] + std::log2(p.l[r]) : (p.l[r] == 0 ? -kInfinity : p.l[r]);
      if (sink && t.has(ATTN_SDPA_LSE_INCLUDES_SINK) && p.query[r] < t.seqlen_q) {
        const float logit = *element<float>(t.a.sink, p.head[r] * t.a.sink.stride[0]) * kLog2e;
        const float top = std::max(lse, logit);
        if (lse == -kInfinity || logit == kInfinity) {
          lse = logit;
        } else if (lse != kInfinity) {
          lse = top + std::log2(std::exp2(lse - top) + std::exp2(logit - top));
        }
      }
      static_cast<float *>(x.data)[lse_offset(t, x, p.query[r], p.head[r])] = lse * unit;
    }
  }
  if (t.has(ATTN_SDPA_RETURN_ROW_MAX)) {
    const attn_tensor &x = t.a.row_max;
    for (int32_t r = 0; r < p.rows; ++r) {
      static_cast<float *>(x.data)[lse_offset(t, x, p.query[r], p.head[r])] =
          p.l[r] >= 0 ? p.m[r] * kLn2 : p.l[r];
    }
  }
}

// ---- A task ------------------------------------------------------------------------------------

// Keys [from, to) for all panels of the task. `sinks`: the keys before sink_tokens.
void attend(const Task &t, int64_t panels, int64_t from, int64_t to, bool sinks) {
  const int64_t step_keys = t.call.key_block;
  const auto reach = [&](const PanelState &p) {
    return sinks ? std::pair<int64_t, int64_t>(0, p.sink_end_max)
                 : std::pair<int64_t, int64_t>(p.begin_min, p.end_max);
  };
  int64_t first = to, last = from;
  for (int64_t i = 0; i < panels; ++i) {
    const auto [a, b] = reach(t.panels[i]);
    first = std::min(first, a);
    last = std::max(last, b);
  }
  from = std::max(from, first);
  to = std::min(to, last);
  for (int64_t base = from / step_keys * step_keys; base < to; base += step_keys) {
    const int64_t block_from = std::max(base, from), block_to = std::min(base + step_keys, to);
    const KeyBlock block = load_keys(t, block_from, block_to);
    const int64_t ahead = std::min(block_to + step_keys, to) - block_to;
    for (int64_t i = 0; i < panels; ++i) {
      prefetch_keys(t, block_to + ahead * i / panels, block_to + ahead * (i + 1) / panels);
      PanelState &p = t.panels[i];
      const auto [a, b] = reach(p);
      const int64_t j0 = std::max(block_from, a), j1 = std::min(block_to, b);
      if (j0 >= j1) continue;
      step(t, p, block, j0, j1, sinks ? 0 : p.begin_max, sinks ? p.sink_end_min : p.end_min,
           t.scratch + t.call.scratch.q +
               static_cast<size_t>(i) * kPanel * static_cast<size_t>(t.d.head_dim_qk),
           t.scratch + t.call.scratch.o +
               static_cast<size_t>(i) * kPanel * static_cast<size_t>(t.d.head_dim_v));
    }
  }
}

int64_t length_of(const attn_sdpa_args &a, const attn_sdpa_desc &d, int64_t b,
                  int64_t dense_extent) {
  int64_t length = dense_extent;
  if (d.kv_layout == ATTN_LAYOUT_RAGGED) {
    length = int64_t{a.cu_seqlens_k[b + 1]} - a.cu_seqlens_k[b];
  } else if (d.kv_layout == ATTN_LAYOUT_PAGED_CSR) {
    const int64_t pages = int64_t{a.kv_page_indptr[b + 1]} - a.kv_page_indptr[b];
    return pages == 0 ? 0 : (pages - 1) * d.page_size + a.kv_last_page_len[b];
  } else if (d.kv_layout == ATTN_LAYOUT_PAGED_TABLE) {
    return a.seqused_k[b];
  }
  return (d.flags & ATTN_SDPA_SEQUSED_K) != 0 ? std::min<int64_t>(a.seqused_k[b], length) : length;
}

}  // namespace

void forward_task(const ForwardCall &call, int64_t number, int thread) {
  const attn_sdpa_desc &d = *call.desc;
  const attn_sdpa_args &a = *call.args;
  // The last rows of every sequence first: under a causal mask they are the longest.
  const int64_t heads = call.batch * d.num_kv_heads;
  const bool rest = number >= heads * call.levels;
  const int64_t level = rest ? (number - heads * call.levels) / d.num_kv_heads : number / heads;
  const int64_t b = rest ? call.batch : number % heads / d.num_kv_heads;
  float *scratch = call.thread_scratch + static_cast<size_t>(thread) * call.scratch.floats;
  const ForwardScratch &at = call.scratch;

  int64_t q_token = 0, q_extent = call.seqlen_q, seqlen_q = 0, seqlen_k = 0;
  if (rest) {
    q_token = call.rest;
    q_extent = call.rest_tokens;
  } else {
    if (d.q_layout == ATTN_LAYOUT_RAGGED) {
      q_token = a.cu_seqlens_q[b];
      q_extent = a.cu_seqlens_q[b + 1] - q_token;
    }
    seqlen_q = (d.flags & ATTN_SDPA_SEQUSED_Q) != 0 ? std::min<int64_t>(a.seqused_q[b], q_extent)
                                                    : q_extent;
    seqlen_k = length_of(a, d, b, call.seqlen_k);
  }
  const Task t{
      call,
      d,
      a,
      b,
      static_cast<int>(number % d.num_kv_heads),
      q_token,
      q_extent,
      seqlen_q,
      seqlen_k,
      !rest && d.kv_layout == ATTN_LAYOUT_RAGGED ? a.cu_seqlens_k[b] : 0,
      position_rules(d, seqlen_q, seqlen_k),
      scratch,
      scratch + at.s,
      scratch + at.k,
      scratch + at.v,
      scratch + at.stage,
      scratch + at.bias,
      reinterpret_cast<PanelState *>(scratch + at.panels),
      reinterpret_cast<uint8_t *>(scratch + at.hidden),
  };
  const int64_t rows = q_extent * call.group;
  const int64_t levels = (rows + call.rows_per_task - 1) / call.rows_per_task;
  if (level >= levels) return;
  const int64_t row = (levels - 1 - level) * call.rows_per_task;
  const int64_t panels =
      (std::min(call.rows_per_task, rows - row) + static_cast<int64_t>(kPanel) - 1) /
      static_cast<int64_t>(kPanel);
  for (int64_t i = 0; i < panels; ++i) {
    set_panel(t, t.panels[i], row + i * static_cast<int64_t>(kPanel), rows);
    load_queries(
        t, t.panels[i],
        scratch + at.q + static_cast<size_t>(i) * kPanel * static_cast<size_t>(d.head_dim_qk));
  }
  const int64_t sinks = std::min<int64_t>(d.sink_tokens, t.seqlen_k);
  if (sinks > 0) attend(t, panels, 0, sinks, true);
  attend(t, panels, sinks, t.seqlen_k, false);
  for (int64_t i = 0; i < panels; ++i) {
    finish(t, t.panels[i],
           scratch + at.o + static_cast<size_t>(i) * kPanel * static_cast<size_t>(d.head_dim_v));
  }
}

const ForwardTarget *forward_target_here() {
  static constexpr ForwardTarget target{static_cast<int>(kPanel), sizeof(PanelState), forward_task};
  return &target;
}

}  // namespace attn::cpu::tuned::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::cpu::tuned {

const ForwardTarget &forward_target() {
  static const ForwardTarget &target = *ATTN_SIMD_DISPATCH(forward_target_here)();
  return target;
}

}  // namespace attn::cpu::tuned
#endif
