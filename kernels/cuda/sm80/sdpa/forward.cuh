// Attention forward on mma.sync tensor cores (Ampere and newer), after FlashAttention-2 (Dao, 2023):
// a block of queries stays in shared memory, keys and values stream through it in tiles, the
// softmax is online, and scores never leave the registers.
//
// Every variant comes in kinds. The plain one serves what most calls are: rows that can be copied
// 16 bytes at a time, and keys whose visibility is an interval of each query. Some have one thing
// more, known to the compiler. The general one serves every option and combination, chosen at run
// time by branches that all threads of a block take together.
#pragma once

#include "kernels/common/activation.hpp"
#include "kernels/common/philox.hpp"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/tile.cuh"
#include "kernels/cuda/sm80/merge/merge_params.hpp"
#include "kernels/cuda/sm80/sdpa/forward_gemm.cuh"
#include "kernels/cuda/sm80/sdpa/forward_params.hpp"

namespace attn::cuda {

__device__ inline float infinity() { return __int_as_float(0x7f800000); }
inline constexpr float kLog2EF = 1.4426950408889634f;
inline constexpr float kLn2F = 0.6931471805599453f;

// An element of a floating-point tensor, whatever its type.
__device__ inline float load_float(const void *data, int32_t dtype, int64_t i) {
  if (dtype == ATTN_DTYPE_FP32) return static_cast<const float *>(data)[i];
  const uint32_t code = static_cast<const uint16_t *>(data)[i];
  return dtype == ATTN_DTYPE_BF16 ? Bf16::unpack(code) : Fp16::unpack(code);
}
__device__ inline void store_float(void *data, int32_t dtype, int64_t i, float value) {
  if (dtype == ATTN_DTYPE_FP32) {
    static_cast<float *>(data)[i] = value;
  } else {
    const uint32_t code = dtype == ATTN_DTYPE_BF16 ? Bf16::pack(value, 0) : Fp16::pack(value, 0);
    static_cast<uint16_t *>(data)[i] = static_cast<uint16_t>(code);
  }
}

enum class ForwardKind { plain, paged, mask, alibi, bias, softcap, general };

template <class Element, int kDqk, int kDv, int kBlockM, int kBlockN, int kWarps,
          ForwardKind kKind, bool kPrecise>
struct Forward {
  static constexpr ForwardConfig kConfig = {Element::kBytes, kDqk,    kDv,
                                            kBlockM,         kBlockN, kWarps};
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kTiles = kBlockM / (16 * kWarps);  // 16-row tiles of a warp
  static constexpr int kBytes = Element::kBytes;
  static constexpr int kDtype = kBytes == 4 ? 0 : 1;
  // Until a score exceeds the reference maximum by this much (in powers of 2), sums and
  // accumulators need not be rescaled: weights stay below 2^8 and the final division uses the same
  // reference. (FlashAttention-4 does so on Blackwell.)
  static constexpr float kRescaleAt = 8;
  static constexpr int kRepeat = 1;
  using Product = Gemm<Element, kPrecise>;

  static constexpr bool kGeneral = kKind == ForwardKind::general;
  // Options that change scores: those that a kind always has, and those it may have.
  static constexpr uint32_t kAlways = kKind == ForwardKind::alibi     ? kForwardAlibi
                                      : kKind == ForwardKind::bias    ? kForwardBias
                                      : kKind == ForwardKind::softcap ? kForwardSoftcap
                                                                      : 0u;
  static constexpr uint32_t kMaybe =
      kKind == ForwardKind::mask ? kForwardMask | kForwardTailMask | kForwardSegments
      : kGeneral                 ? ~0u
                                 : 0u;
  // Scores are bare products until the exponential, which scale_log2 then turns into units of
  // log 2; else they are in these units.
  static constexpr bool kBare = kAlways == 0 && !kGeneral;

  // What a block of queries is, the same in all its threads; kept in shared memory, because
  // registers are what this kernel is short of.
  struct Block {
    Sequence sequence;
    int64_t k_base, v_base;  // offsets of key 0, unless paged: of the head
    int32_t seqlen_q, seqlen_k;
    int32_t head0;     // first query head
    int32_t kv_head;
    int32_t row0;      // first row: query row / pack, head head0 + row % pack
    int32_t used;      // rows in use, of the sequence
    int32_t split;
    int32_t v_offset;  // first column of v and out
    int32_t v_columns;
    int32_t origin;    // where tiles of keys begin
    int32_t key_end;   // keys from here on are out of the sequence, or another piece's
    int32_t all_begin, all_end;  // keys that all rows see, as far as positions say
    // The steps through the tiles of keys: first those of the band, from its last tile down, then
    // those of sink tokens before it.
    int32_t band_tiles, band_last, sink_tiles, steps_end;
    int2 band_keys, sink_keys;  // what these steps cover
  };

  const ForwardParams &p;

  // Read anew at each use: registers are worth more than a few cycles here.
  __device__ static int tid() {
    int value;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(value));
    return value;
  }
  __device__ static int lane() { return tid() & 31; }
  __device__ static int warp() { return tid() >> 5; }

  // Shared memory. Functions, not members: the addresses are constants.
  __device__ static char *smem() {
    extern __shared__ __align__(1024) char memory[];
    return memory;
  }
  __device__ static uint32_t q_tile() { return shared_address(smem()); }
  __device__ static uint32_t k_tile() { return q_tile() + kConfig.q_bytes(); }
  __device__ static uint32_t v_tile() { return k_tile() + kConfig.k_bytes(); }
  __device__ static Block &block() {
    static_assert(sizeof(Block) <= 256);
    return *reinterpret_cast<Block *>(smem() + kConfig.block_at());
  }
  // Of each row: {begin, end, sink_end} of its keys, and kRepeat or 0.
  __device__ static int4 *rows() { return reinterpret_cast<int4 *>(smem() + kConfig.rows_at()); }
  // Paged: {page, slot} of each key of two tiles.
  __device__ static int2 *slots() { return reinterpret_cast<int2 *>(smem() + kConfig.slots_at()); }

  __device__ bool option(uint32_t bit) const { return (p.options & bit) != 0; }
  // The same for what only some kinds know.
  __device__ bool has(uint32_t bit) const {
    return (kAlways & bit) != 0 || ((kMaybe & bit) != 0 && option(bit));
  }
  __device__ bool paged() const {
    return kKind == ForwardKind::paged || (kGeneral && p.sequences.page_size != 0);
  }

  // --- memory in ------------------------------------------------------------------------------

  // Sixteen bytes of a row from element `d` on, element by element; zeros from `columns` on.
  __device__ static uint4 gather(const TokenView &view, int64_t offset, int d, int columns) {
    uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
    for (int e = 0; e < 16 / kBytes; e++) {
      if (d + e < columns) {
        const int64_t at = offset + (d + e) * view.dim;
        if (kBytes == 4) {
          words[e] = static_cast<const uint32_t *>(view.data)[at];
        } else {
          words[e / 2] |= static_cast<uint32_t>(static_cast<const uint16_t *>(view.data)[at])
                          << (e % 2 * 16);
        }
      }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }

  // Fills a tile of kRows rows. place(row) gives {offset of the row in elements, whether it
  // exists}.
  template <int kRows, int kDim, class Place>
  __device__ void load_tile(uint32_t tile, const TokenView &view, int columns, bool vector,
                            const Place &place) {
    using Rows = Tile<kDim * kBytes>;
    constexpr int kPerChunk = 16 / kBytes;
    static_assert(kRows * Rows::kChunks % kThreads == 0);
    if (!kGeneral || vector) {
#pragma unroll
      for (int n = 0; n < kRows * Rows::kChunks / kThreads; n++) {
        const int index = n * kThreads + tid();
        const int row = index / Rows::kChunks, chunk = index % Rows::kChunks;
        const auto [offset, exists] = place(row);
        const char *source = static_cast<const char *>(view.data) + offset * kBytes + chunk * 16;
        copy_async_16(tile + Rows::at(row, chunk), source,
                      exists && chunk * kPerChunk < columns);
      }
    } else {
#pragma unroll 1
      for (int index = tid(); index < kRows * Rows::kChunks; index += kThreads) {
        const int row = index / Rows::kChunks, chunk = index % Rows::kChunks;
        const auto [offset, exists] = place(row);
        const uint4 value = exists ? gather(view, offset, chunk * kPerChunk, columns)
                                   : make_uint4(0, 0, 0, 0);
        *reinterpret_cast<uint4 *>(smem() + (tile - q_tile()) + Rows::at(row, chunk)) = value;
      }
    }
  }

  struct Found {
    int64_t offset;
    bool exists;
  };

  __device__ void load_q() {
    const TokenPlace first = block().sequence.first_q;
    load_tile<kBlockM, kDqk>(q_tile(), p.q, p.head_dim_qk, option(kForwardVectorQ), [&](int r) {
      const Row row = row_of(r);
      return Found{p.q.offset({first.outer, first.inner + row.i}, row.head),
                   block().row0 + r < block().used};
    });
  }

  // Keys j0 .. j0 + kBlockN - 1 of k or v.
  template <int kDim>
  __device__ void load_keys(uint32_t tile, const TokenView &view, int64_t first, int columns,
                            int j0, int buffer) {
    const bool vector = option(kForwardVectorKv);
    if (paged()) {
      const int2 *slot = slots() + buffer * kBlockN;
      load_tile<kBlockN, kDim>(tile, view, columns, vector, [&](int row) {
        const int2 at = slot[row];
        return Found{first + at.x * view.outer + at.y * view.inner, at.x >= 0};
      });
    } else {
      const int64_t base = first + j0 * view.inner;
      if constexpr (kDim * kBytes % 128 == 0) {
        if (!kGeneral || vector) {
          // Eight threads take 128 bytes of a row, so that one pointer walks down the rows and the
          // swizzle stays as it is: scores fill the registers while the next tile is asked for.
          using Rows = Tile<kDim * kBytes>;
          constexpr int kPass = kThreads / 8;
          const int row = tid() >> 3, chunk = tid() & 7;
          const char *source = static_cast<const char *>(view.data) +
                               (base + row * view.inner) * kBytes + chunk * 16;
          const int64_t pass = kPass * view.inner * kBytes;
          const int count = block().key_end - j0 - row;
          const uint32_t to = tile + Rows::at(row, chunk);
#pragma unroll
          for (int n = 0; n < kBlockN / kPass; n++) {
#pragma unroll
            for (int part = 0; part < Rows::kChunks / 8; part++) {
              const bool exists =
                  n * kPass < count && (part * 8 + chunk) * (16 / kBytes) < columns;
              copy_async_16(to + Rows::rows(n * kPass) + part * 128, source + part * 128, exists);
            }
            source += pass;
          }
          return;
        }
      }
      load_tile<kBlockN, kDim>(tile, view, columns, vector, [&](int row) {
        return Found{base + row * view.inner, j0 + row < block().key_end};
      });
    }
  }
  __device__ void load_k(int j0, int buffer) {
    load_keys<kDqk>(k_tile(), p.k, block().k_base, p.head_dim_qk, j0, buffer);
    copy_async_commit();
  }
  __device__ void load_v(int j0, int buffer) {
    load_keys<kDv>(v_tile(), p.v, block().v_base, block().v_columns, j0, buffer);
    copy_async_commit();
  }

  // Looks up the pages of a tile's keys; true if this thread met one to skip.
  __device__ bool find_slots(int j0, int buffer) {
    bool skips = false;
    if (!paged()) return skips;
    for (int n = tid(); n < kBlockN; n += kThreads) {
      const int j = j0 + n;
      int2 slot = make_int2(-1, 0);
      if (j < block().key_end) {
        const TokenPlace at = block().sequence.key(j);
        slot = make_int2(static_cast<int>(at.outer), static_cast<int>(at.inner));
        skips = skips || slot.x < 0;
      }
      slots()[buffer * kBlockN + n] = slot;
    }
    return skips;
  }

  // --- which keys a query sees -----------------------------------------------------------------

  // A row of a warp: `tile`, and the upper or lower half of its 16 rows.
  __device__ int local_row(int tile, int half) const {
    return (warp() * kTiles + tile) * 16 + half * 8 + (lane() >> 2);
  }
  // A row of the sequence: query row / pack of head head0 + row % pack.
  struct Row {
    int i, head;
  };
  __device__ Row row_at(int row) const {
    uint32_t rest = static_cast<uint32_t>(row);
    const int i = static_cast<int>(p.pack.divide(rest));
    return {i, block().head0 + static_cast<int>(rest)};
  }
  __device__ Row row_of(int local) const {  // of this block
    return row_at(block().row0 + local);
  }
  __device__ TokenPlace query_place(int i) const {
    const TokenPlace first = block().sequence.first_q;
    return {first.outer, first.inner + i};
  }

  // 32 bits from bit `start` on of a row of `bits` packed bits; what lies beyond is 0.
  __device__ static uint32_t bits_from(const uint8_t *row, int64_t stride, int start, int bits) {
    uint64_t gathered = 0;
#pragma unroll
    for (int n = 0; n < 5; n++) {
      const int byte = (start >> 3) + n;
      if (byte * 8 < bits) gathered |= static_cast<uint64_t>(row[byte * stride]) << (8 * n);
    }
    return static_cast<uint32_t>(gathered >> (start & 7));
  }
  // Of 32 columns' bits, this thread's: two in each eight, at bit 2 n for columns 8 n + 2 t.
  __device__ uint32_t own_bits(uint32_t word) const {
    const int t = (lane() & 3) * 2;
    return (word >> t & 3) | (word >> (t + 8) & 3) << 2 | (word >> (t + 16) & 3) << 4 |
           (word >> (t + 24) & 3) << 6;
  }
  __device__ static int column(int n, int e, int lane) { return n * 8 + (lane & 3) * 2 + e; }

  __device__ const uint32_t *block_bits_of(Row row) const {
    return p.block_bits + block().sequence.index * p.block_batch + row.head * p.block_head +
           row.i / p.block_size_q * p.block_row;
  }
  __device__ const int32_t *kv_segments() const {
    return p.kv_segment_ids + block().sequence.index * p.kv_segment_outer +
           block().sequence.first_k.inner * p.kv_segment_inner;
  }
  __device__ int32_t q_segment(int i) const {
    const TokenPlace at = query_place(i);
    return p.q_segment_ids[at.outer * p.q_segment_outer + at.inner * p.q_segment_inner];
  }

  // The same for one key, as the formula reads.
  __device__ bool sees(Row row, const int4 &info, int j) const {
    const bool in_band = (j >= info.x && j < info.y) || j < info.z;
    if (!in_band) return false;
    const TokenPlace at = query_place(row.i);
    if (paged() && block().sequence.key(j).skipped()) return false;
    if (has(kForwardMask) &&
        !packed_bit(static_cast<const uint8_t *>(p.mask.data) + p.mask.offset(at, row.head),
                    p.mask.last, j)) {
      return false;
    }
    if (has(kForwardTailMask) &&
        !tail_bit(
            static_cast<const uint8_t *>(p.tail_mask.data) + p.tail_mask.offset(at, row.head),
            p.tail_mask.last, block().seqlen_q, block().seqlen_k, j)) {
      return false;
    }
    if (has(kForwardSegments) &&
        !same_segment(q_segment(row.i), kv_segments()[j * p.kv_segment_inner])) {
      return false;
    }
    if (has(kForwardBlocks)) {
      const int n = j / p.block_size_k;
      if ((block_bits_of(row)[n >> 5] >> (n & 31) & 1) == 0) return false;
    }
    return true;
  }

  // Whether any row of the block sees a key block of this tile.
  __device__ bool tile_has_blocks(int j0) const {
    bool any = false;
    const int last = (min(j0 + kBlockN, block().key_end) - 1) / p.block_size_k;
    for (int r = tid(); r < kBlockM; r += kThreads) {
      if (block().row0 + r >= block().used) continue;
      const uint32_t *bits = block_bits_of(row_of(r));
      for (int n = j0 / p.block_size_k; n <= last; n++) {
        any = any || (bits[n >> 5] >> (n & 31) & 1) != 0;
      }
    }
    return __syncthreads_or(any);
  }

  // --- scores ------------------------------------------------------------------------------------

  // tanh(y) for |y| < kTanhSmall, to fp32 precision: an odd polynomial, least squares on Chebyshev
  // points; relative error below 1e-7.
  static constexpr float kTanhSmall = 0.6f;
  __device__ static float tanh_small(float y) {
    const float z = y * y;
    float c = -0.006276160944253206f;
    c = fmaf(c, z, 0.021116070449352264f);
    c = fmaf(c, z, -0.05387511104345322f);
    c = fmaf(c, z, 0.13332924246788025f);
    c = fmaf(c, z, -0.3333333134651184f);
    return fmaf(c * z, y, y);
  }
  __device__ static float tanh_any(float y) {
    const float a = fabsf(y);
    const float e = exp2_fast(-2 * kLog2EF * a);
    return a < kTanhSmall ? tanh_small(y) : copysignf(__fdividef(1 - e, 1 + e), y);
  }
  __device__ float softcapped(float x) const {
    return p.softcap * tanh_any(x * p.softcap_inverse);
  }
  __device__ float slope(Row row) const {
    return p.alibi_slopes[block().sequence.index * p.alibi_batch + row.head * p.alibi_head];
  }
  __device__ int diagonal() const {
    return p.bottom_right != 0 ? block().seqlen_k - block().seqlen_q : 0;
  }
  __device__ int64_t bias_row(Row row) const {
    return p.bias.offset(query_place(row.i), row.head);
  }
  // s_j of a visible key from <q, k_j>, as the formula reads. -inf: the bias hides it.
  __device__ float score(Row row, int j, float qk) const {
    float s = qk * p.softmax_scale;
    if (has(kForwardSoftcap)) s = softcapped(s);
    if (has(kForwardBias)) {
      const float bias = load_float(p.bias.data, p.bias.dtype, bias_row(row) + j * p.bias.last);
      s = bias == -infinity() ? bias : s + bias;
    }
    if (has(kForwardAlibi)) s -= slope(row) * fabsf(static_cast<float>(row.i + diagonal() - j));
    return s;
  }
  __device__ float silu_weight(float s) const {
    return s * (1 / (1 + exp2_fast(-kLog2EF * s))) / p.silu_divisor;
  }

  // Calls change(x, n, e) on a row's scores; x is of column(n, e).
  template <class Change>
  __device__ static void each(float (&s)[kBlockN / 8][4], int half, const Change &change) {
#pragma unroll
    for (int n = 0; n < kBlockN / 8; n++) {
#pragma unroll
      for (int e = 0; e < 2; e++) change(s[n][half * 2 + e], n, e);
    }
  }

  // Hides the keys whose bit, 2 n + e for column(n, e), is 0.
  __device__ static void hide(float (&s)[kBlockN / 8][4], int half, uint32_t bits) {
    each(s, half, [&](float &x, int n, int e) {
      x = (bits >> (2 * n + e) & 1) != 0 ? x : -infinity();
    });
  }

  // Of a row of packed bits, those of this thread's columns: bits `start` .. of the row are the
  // tile's keys; keys before bit 0 are visible.
  __device__ uint32_t mask_bits(const QueryView &mask, Row row, int start, int bits) const {
    const uint8_t *first =
        static_cast<const uint8_t *>(mask.data) + mask.offset(query_place(row.i), row.head);
    uint32_t own = 0;
#pragma unroll
    for (int w = 0; w < (kBlockN + 31) / 32; w++) {
      const int from = start + 32 * w;
      uint32_t word = ~0u;
      if (option(kForwardWordMasks) && from >= 0 && (from & 31) == 0 && from + 32 <= bits) {
        word = *reinterpret_cast<const uint32_t *>(first + (from >> 3));
      } else if (from >= 0) {
        word = bits_from(first, mask.last, from, bits);
      } else if (from > -32) {
        word = bits_from(first, mask.last, 0, bits) << -from | ((1u << -from) - 1);
      }
      own |= own_bits(word) << (8 * w);
    }
    return own;
  }

  // Turns a row's <q, k> into scores, -inf where hidden (SiLU: into weights, 0). Row by row, so that
  // few registers are needed beside the scores.
  __device__ void row_scores(float (&s)[kBlockN / 8][4], int half, int local, int j0,
                             bool interior, bool skips, int buffer) const {
    if (kBare && kMaybe == 0 && interior && !skips) return;
    const int own = (tid() & 3) * 2;  // this thread's first column
    const Row row = row_of(local);
    const float unit = has(kForwardSilu) ? 1 : kLog2EF;
    if (has(kForwardSoftcap)) {
      const float cap = p.softcap * unit, inverse = p.softmax_scale * p.softcap_inverse;
      float high = 0;
      each(s, half, [&](float &x, int, int) {
        x *= inverse;
        high = fmaxf(high, fabsf(x));
      });
      // Scores far below the cap, the usual case, need no exponential.
      if (__all_sync(~0u, high < kTanhSmall)) {
        each(s, half, [&](float &x, int, int) { x = cap * tanh_small(x); });
      } else {
        each(s, half, [&](float &x, int, int) { x = cap * tanh_any(x); });
      }
    } else if (!kBare && kKind != ForwardKind::alibi) {
      const float factor = p.softmax_scale * unit;
      each(s, half, [&](float &x, int, int) { x *= factor; });
    }
    if (has(kForwardBias)) add_bias(s, half, row, j0 + own, unit);
    if (has(kForwardAlibi)) {
      const float minus = -slope(row) * unit;
      const float from = static_cast<float>(row.i + diagonal() - j0 - own);
      const float factor = kKind == ForwardKind::alibi ? p.scale_log2 : 1;
      each(s, half, [&](float &x, int n, int e) {
        x = fmaf(minus, fabsf(from - static_cast<float>(n * 8 + e)), x * factor);
      });
    }
    if (!interior) {
      const int4 info = rows()[local];
      const int from = info.x - j0 - own;
      const uint32_t count = static_cast<uint32_t>(max(info.y - info.x, 0));
      const int sinks = kGeneral ? info.z - j0 - own : 0;
      each(s, half, [&](float &x, int n, int e) {
        bool sees = static_cast<uint32_t>(n * 8 + e - from) < count;
        if (kGeneral) sees = sees || n * 8 + e < sinks;
        x = sees ? x : -infinity();
      });
    }
    if (has(kForwardMask)) hide(s, half, mask_bits(p.mask, row, j0, block().seqlen_k));
    if (has(kForwardTailMask)) {
      const int start = j0 - (block().seqlen_k - block().seqlen_q);
      if (start + kBlockN > 0) hide(s, half, mask_bits(p.tail_mask, row, start, block().seqlen_q));
    }
    if (has(kForwardSegments)) {
      const int32_t id = q_segment(row.i);
      const int32_t *kv = kv_segments();
      each(s, half, [&](float &x, int n, int e) {
        const int j = min(j0 + own + n * 8 + e, block().key_end - 1);
        x = same_segment(id, kv[j * p.kv_segment_inner]) ? x : -infinity();
      });
    }
    if (has(kForwardBlocks)) {
      const uint32_t *blocks = block_bits_of(row);
      uint32_t bits = 0;
#pragma unroll 1
      for (int c = 0; c < kBlockN / 4; c++) {
        const int j = min(j0 + own + (c >> 1) * 8 + (c & 1), block().key_end - 1);
        const int n = j / p.block_size_k;
        bits |= (blocks[n >> 5] >> (n & 31) & 1) << c;
      }
      hide(s, half, bits);
    }
    if (paged() && skips) {
      each(s, half, [&](float &x, int n, int e) {
        x = slots()[buffer * kBlockN + own + n * 8 + e].x >= 0 ? x : -infinity();
      });
    }
    if (has(kForwardSilu)) {
      each(s, half, [&](float &x, int, int) { x = x == -infinity() ? 0 : silu_weight(x); });
    }
  }

  // A key that a bias of -inf hides may be NaN, and so becomes the score; then the row is computed
  // again.
  __device__ void add_bias(float (&s)[kBlockN / 8][4], int half, Row row, int j, float unit) const {
    const int64_t at = bias_row(row) + j * p.bias.last;
    const int left = block().key_end - j;  // keys from this thread's first column on
    const void *data = p.bias.data;
    if (option(kForwardPairBias)) {
#pragma unroll
      for (int n = 0; n < kBlockN / 8; n++) {
        float2 pair = make_float2(0, 0);
        if (n * 8 < left) {
          if (p.bias.dtype == ATTN_DTYPE_FP32) {
            pair = *reinterpret_cast<const float2 *>(static_cast<const float *>(data) + at + n * 8);
          } else {
            const uint32_t both = *reinterpret_cast<const uint32_t *>(
                static_cast<const uint16_t *>(data) + at + n * 8);
            pair = p.bias.dtype == ATTN_DTYPE_BF16
                       ? make_float2(Bf16::unpack(both & 0xffff), Bf16::unpack(both >> 16))
                       : make_float2(Fp16::unpack(both & 0xffff), Fp16::unpack(both >> 16));
          }
        }
        s[n][half * 2] = fmaf(pair.x, unit, s[n][half * 2]);
        s[n][half * 2 + 1] = fmaf(pair.y, unit, s[n][half * 2 + 1]);
      }
    } else {
      each(s, half, [&](float &x, int n, int e) {
        const int64_t i = at + (n * 8 + e) * p.bias.last;
        if (n * 8 + e < left) x = fmaf(load_float(data, p.bias.dtype, i), unit, x);
      });
    }
  }

  __device__ int64_t dropout_row(Row row) const {
    return block().sequence.index * p.num_q_heads + row.head;
  }
  __device__ void drop(float (&s)[kTiles][kBlockN / 8][4], int j0) const {
    const Dropout dropout = make_dropout(p.rng_state, p.dropout_p);
    const int lane = tid() & 31;
    const float kept = static_cast<float>(dropout.keep_scale);
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int local = local_row(tile, half);
        const Row row = row_of(local);
        const int64_t bh = dropout_row(row);
        uint32_t bits = 0;
#pragma unroll 1
        for (int c = 0; c < kBlockN / 4; c++) {
          const int j = j0 + column(c >> 1, c & 1, lane);
          bits |= static_cast<uint32_t>(dropout.keeps(bh, row.i, static_cast<int64_t>(j))) << c;
        }
#pragma unroll
        for (int n = 0; n < kBlockN / 8; n++) {
#pragma unroll
          for (int e = 0; e < 2; e++) {
            s[tile][n][half * 2 + e] *= (bits >> (2 * n + e) & 1) != 0 ? kept : 0;
          }
        }
      }
    }
  }

  // --- memory out --------------------------------------------------------------------------------

  // A row's factor of its weighted sum, and its two log-sum-exps, from the maximum m (in log 2) and
  // the sum of 2^(s - m).
  struct Finish {
    float factor;
    float lse;  // natural, with the sink if it is to be included
  };
  __device__ Finish finish(Row row, float m, float sum) const {
    if (has(kForwardSilu)) return {1, 0};
    Finish f;
    const bool none = m == -infinity();
    f.lse = none ? m : fmaf(m, kLn2F, logf(sum));
    float total = sum;
    if (option(kForwardSink) && p.num_splits == 1) {
      const float sink = p.sink[row.head * p.sink_head];
      const float weight = exp2f(fmaf(sink, kLog2EF, -m));
      if (!none) total += weight;
      if (option(kForwardLseIncludesSink)) {
        const float high = fmaxf(f.lse, sink), low = fminf(f.lse, sink);
        f.lse = high == -infinity() || high == infinity() ? high : high + log1pf(expf(low - high));
      }
    }
    f.factor = none ? 0 : 1 / total;
    return f;
  }

  __device__ int64_t partial_row(Row row) const {
    const int64_t place = p.sequences.cu_seqlens_q != nullptr
                              ? block().sequence.first_q.inner + row.i
                              : block().sequence.index * p.sequences.dense_seqlen_q + row.i;
    return (block().split * p.total_q + place) * p.num_q_heads + row.head;
  }

  __device__ void store_statistics(Row row, float lse, float row_max) const {
    if (p.num_splits > 1) {
      p.partial_lse[partial_row(row)] = lse;
      if (p.partial_max != nullptr) p.partial_max[partial_row(row)] = row_max;
      return;
    }
    if (block().v_offset != 0) return;
    const TokenPlace at = query_place(row.i);
    if (option(kForwardLse)) {
      static_cast<float *>(p.lse.data)[p.lse.offset(at, row.head)] =
          option(kForwardLseBase2) ? lse * kLog2EF : lse;
    }
    if (option(kForwardRowMax)) {
      static_cast<float *>(p.row_max.data)[p.row_max.offset(at, row.head)] = row_max;
    }
  }

  // One element of the result, finished but for the gate.
  __device__ void store_value(Row row, int d, float value) const {
    if (d >= block().v_columns) return;
    if (p.num_splits > 1) {
      p.partial_out[partial_row(row) * p.head_dim_v + block().v_offset + d] = value;
      return;
    }
    const TokenPlace at = query_place(row.i);
    const int64_t column = block().v_offset + d;
    if (has(kForwardGate)) {
      const float gate = load_float(p.gate.data, p.gate.dtype,
                                    p.gate.offset(at, row.head) + column * p.gate.dim);
      value *= 1 / (1 + expf(-gate));
    }
    store_float(p.out.data, p.out.dtype, p.out.offset(at, row.head) + column * p.out.dim,
                value);
  }

  // Queries without a place among the sequence's: 0 and -inf.
  __device__ void store_padding(int begin, int end) const {
    for (int r = begin + warp(); r < end; r += kWarps) {
      const Row row = row_at(r);
      if (lane() == 0) {
        const bool marked = p.num_splits > 1 && block().split == 0;
        store_statistics(row, marked ? __uint_as_float(kPaddingLse) : -infinity(), -infinity());
      }
      if (p.num_splits > 1) continue;  // parts with lse = -inf are not read
      const TokenPlace at = query_place(row.i);
      const int64_t offset = p.out.offset(at, row.head);
      for (int d = lane(); d < block().v_columns; d += 32) {
        store_float(p.out.data, p.out.dtype, offset + (block().v_offset + d) * p.out.dim, 0);
      }
    }
  }

  __device__ void store_rows(float (&o)[kTiles][kDv / 8][4], const Finish (&done)[kTiles][2]) {
    // Through the warp's own rows of the q tile, so that rows leave with neighbouring lanes writing
    // neighbouring elements.
    char *own = smem() + warp() * kTiles * 16 * kDqk * kBytes;
    const bool vector = kBytes == 2 && option(kForwardVectorOut) && p.num_splits == 1;
    if (!vector) {
      float *values = reinterpret_cast<float *>(own);  // 8 rows at a time
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          __syncwarp();
          const float factor = done[tile][half].factor;
#pragma unroll
          for (int n = 0; n < kDv / 8; n++) {
            const float *x = &o[tile][n][half * 2];
            *reinterpret_cast<float2 *>(&values[(lane() >> 2) * kDv + column(n, 0, lane())]) =
                make_float2(x[0] * factor, x[1] * factor);
          }
          __syncwarp();
          const int first = (warp() * kTiles + tile) * 16 + half * 8;
#pragma unroll 1
          for (int index = lane(); index < 8 * kDv; index += 32) {
            const int local = first + index / kDv;
            if (block().row0 + local < block().used) {
              store_value(row_of(local), index % kDv, values[index]);
            }
          }
        }
      }
      return;
    }
    using Rows = Tile<kDqk * 2>;
    if constexpr (kBytes == 2) {
      __syncwarp();
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const uint32_t local = tile * 16 + half * 8 + (lane() >> 2);
          const float factor = done[tile][half].factor;
#pragma unroll
          for (int n = 0; n < kDv / 8; n++) {
            const float *x = &o[tile][n][half * 2];
            *reinterpret_cast<uint32_t *>(own + Rows::at(local, n) + (lane() & 3) * 4) =
                Element::pack(x[0] * factor, x[1] * factor);
          }
        }
      }
      __syncwarp();
      constexpr int kChunks = kDv / 8;
#pragma unroll 1
      for (int index = lane(); index < kTiles * 16 * kChunks; index += 32) {
        const int local = index / kChunks, chunk = index % kChunks;
        const int r = warp() * kTiles * 16 + local;
        if (block().row0 + r >= block().used || chunk * 8 >= block().v_columns) continue;
        const Row row = row_of(r);
        const int64_t offset = p.out.offset(query_place(row.i), row.head);
        uint16_t *out = static_cast<uint16_t *>(p.out.data) + offset + block().v_offset + chunk * 8;
        *reinterpret_cast<uint4 *>(out) =
            *reinterpret_cast<const uint4 *>(own + Rows::at(local, chunk));
      }
    }
  }

  // --- a row by hand -------------------------------------------------------------------------------

  // The tensor cores multiply hidden keys' values by 0, so one NaN or infinity among these spoils
  // rows that do not see it. Such rows are computed again, key by key, from visible keys only.
  __device__ __noinline__ void repeat_row(int local) const {
    const Row row = row_of(local);
    const int4 info = rows()[local];
    const int64_t q_at = p.q.offset(query_place(row.i), row.head);
    constexpr int kOwn = (kDv + 31) / 32;
    float o[kOwn] = {};
    float m = -infinity(), sum = 0;
    const bool silu = has(kForwardSilu);
    for (int pass = 0; pass < 2; pass++) {
      const int2 keys = pass == 0 ? block().sink_keys : block().band_keys;
      for (int base = keys.x; base < keys.y; base += 32) {
        const int j = base + lane();
        const bool visible = j < keys.y && sees(row, info, j);
        float s = silu ? 0 : -infinity();
        if (visible) {
          const TokenPlace key = block().sequence.key(j);
          const int64_t k_at = p.k.offset(key, block().kv_head);
          float qk = 0;
          for (int d = 0; d < p.head_dim_qk; d++) {
            qk = fmaf(load_element(p.q, q_at + d * p.q.dim), load_element(p.k, k_at + d * p.k.dim),
                      qk);
          }
          s = score(row, j, qk);
        }
        float weight;
        if (silu) {
          weight = visible && s != -infinity() ? silu_weight(s) : 0;
        } else {
          s *= kLog2EF;
          float high = s;
          bool nan = s != s;
          for (int step = 16; step > 0; step /= 2) {
            high = fmaxf(high, __shfl_xor_sync(~0u, high, step));
          }
          const float next = fmaxf(m, high);
          const float alpha = next == -infinity() || m == next ? 1 : exp2f(m - next);
          weight = s == next && visible ? 1 : s == -infinity() ? 0 : exp2f(s - next);
          if (nan) weight = s;
          float total = weight;
          for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(~0u, total, step);
          if (s == -infinity()) weight = 0;
          m = next;
          sum = sum * alpha + (next == -infinity() ? 0 : total);
#pragma unroll
          for (int n = 0; n < kOwn; n++) o[n] *= alpha;
        }
        const bool counts = visible && s != -infinity();
        if (has(kForwardDropout) && counts) {
          const Dropout dropout = make_dropout(p.rng_state, p.dropout_p);
          weight *= dropout.keeps(dropout_row(row), row.i, static_cast<int64_t>(j))
                        ? static_cast<float>(dropout.keep_scale)
                        : 0;
        }
        for (uint32_t rest = __ballot_sync(~0u, counts); rest != 0; rest &= rest - 1) {
          const int n = __ffs(static_cast<int>(rest)) - 1;
          const float w = __shfl_sync(~0u, weight, n);
          const int64_t v_at = p.v.offset(block().sequence.key(base + n), block().kv_head);
#pragma unroll
          for (int c = 0; c < kOwn; c++) {
            const int d = c * 32 + lane();
            // A weight of 0 (underflow, dropout) takes nothing, not even a NaN.
            if (d < block().v_columns && w != 0) {
              o[c] = fmaf(w, load_element(p.v, v_at + (block().v_offset + d) * p.v.dim), o[c]);
            }
          }
        }
      }
    }
    const Finish done = finish(row, m, sum);
    if (lane() == 0) store_statistics(row, done.lse, m * kLn2F);
#pragma unroll
    for (int c = 0; c < kOwn; c++) store_value(row, c * 32 + lane(), o[c] * done.factor);
  }
  __device__ static float load_element(const TokenView &view, int64_t at) {
    if constexpr (kBytes == 4) return static_cast<const float *>(view.data)[at];
    else return Element::unpack(static_cast<const uint16_t *>(view.data)[at]);
  }

  // --- the kernel --------------------------------------------------------------------------------

  __device__ explicit Forward(const ForwardParams &params) : p(params) {}

  __device__ static int key_of(const Block &b, int step) {  // first key of a step's tile
    const int tile = step < b.band_tiles ? b.band_last - 1 - step
                                         : b.sink_tiles - 1 - (step - b.band_tiles);
    return b.origin + tile * kBlockN;
  }
  __device__ static int key_of(int step) { return key_of(block(), step); }

  // Finds out what this block is to do and plans the steps through its keys, from the one returned
  // to steps_end. -1: nothing is left to do.
  __device__ int describe() {
    Block mine;
    uint32_t index = blockIdx.x;
    mine.split = 0;
    mine.v_offset = 0;
    if (p.num_splits > 1) {
      uint32_t rest = index;
      index = p.splits.divide(rest);
      mine.split = static_cast<int>(rest);
    }
    if (p.v_chunks > 1) {
      uint32_t rest = index;
      index = p.chunks.divide(rest);
      mine.v_offset = static_cast<int>(rest) * kDv;
    }
    mine.v_columns = min(kDv, p.head_dim_v - mine.v_offset);
    const uint32_t section = p.section_blocks.divide(index);
    const uint32_t first = section * p.section.divisor;
    const uint32_t width = min(p.section.divisor, static_cast<uint32_t>(p.pairs) - first);
    // The last section may be narrower.
    uint32_t m_block = width == p.section.divisor ? p.section.quotient(index) : index / width;
    uint32_t head = first + index - m_block * width;
    if (option(kForwardHeavyLast)) m_block = static_cast<uint32_t>(p.m_blocks) - 1 - m_block;
    const int b = static_cast<int>(p.heads.divide(head));
    mine.head0 = static_cast<int>(head * p.pack.divisor);
    mine.kv_head = static_cast<int>(p.group.quotient(static_cast<uint32_t>(mine.head0)));
    mine.row0 = static_cast<int>(m_block) * kBlockM;
    const int pack = static_cast<int>(p.pack.divisor);
    int places;
    if (b == p.batch) {
      // Ragged: the tokens after the last sequence are padding, as if of one more sequence.
      const int64_t begin = p.sequences.cu_seqlens_q[b];
      mine.sequence = {};
      mine.sequence.first_q = {0, begin};
      places = static_cast<int>(p.total_q - begin) * pack;
    } else {
      mine.sequence = p.sequences.sequence(b);
      places = static_cast<int>(mine.sequence.rows_q) * pack;
    }
    if (mine.row0 >= places) return -1;
    mine.seqlen_q = static_cast<int>(mine.sequence.seqlen_q);
    mine.seqlen_k = static_cast<int>(mine.sequence.seqlen_k);
    mine.used = mine.seqlen_q * pack;
    mine.k_base = mine.kv_head * p.k.head;
    mine.v_base = mine.kv_head * p.v.head + mine.v_offset * p.v.dim;
    if (!paged()) {
      mine.k_base += p.k.offset(mine.sequence.first_k, 0);
      mine.v_base += p.v.offset(mine.sequence.first_k, 0);
    }
    PositionRulesOf<int32_t> rules = p.rules;
    rules.seqlen_k = mine.seqlen_k;
    rules.offset = p.bottom_right != 0 ? mine.seqlen_k - mine.seqlen_q : 0;
    mine.origin = 0;
    mine.key_end = mine.seqlen_k;
    if (option(kForwardFixedSplit)) {
      mine.origin = mine.split * p.split_size;
      mine.key_end = min(mine.seqlen_k, mine.origin + p.split_size);
    }
    // Keys of a row of this block; rows that are not in use see what the last one does.
    const auto keys_of = [&](int local) {
      const int row = max(min(mine.row0 + local, mine.used - 1), 0);
      const int i = static_cast<int>(p.pack.quotient(static_cast<uint32_t>(row)));
      const BandOf<int32_t> band = band_of(rules, i);
      return make_int4(band.begin, min(band.end, mine.key_end), min(band.sink_end, mine.key_end),
                       0);
    };
    for (int r = tid(); r < kBlockM; r += kThreads) rows()[r] = keys_of(r);
    // Bands move on with the query, so the first and the last row bound the block's keys.
    const int4 low = keys_of(0), high = keys_of(kBlockM - 1);
    mine.all_begin = high.x;
    mine.all_end = low.y;
    const int begin = max(low.x, mine.origin), end = max(begin, high.y);
    const int band_first = (begin - mine.origin) / kBlockN;
    mine.band_last = (end - mine.origin + kBlockN - 1) / kBlockN;
    mine.band_tiles = end > begin ? mine.band_last - band_first : 0;
    mine.sink_tiles = 0;
    if (kGeneral && high.z > mine.origin) {
      mine.sink_tiles = (high.z - mine.origin + kBlockN - 1) / kBlockN;
      if (mine.band_tiles > 0) mine.sink_tiles = min(mine.sink_tiles, band_first);
    }
    int step = 0;
    mine.steps_end = mine.band_tiles + mine.sink_tiles;
    if (!option(kForwardFixedSplit) && p.num_splits > 1) {
      const int64_t all = mine.steps_end;
      step = static_cast<int>(p.splits.quotient(static_cast<uint32_t>(all * mine.split)));
      mine.steps_end =
          static_cast<int>(p.splits.quotient(static_cast<uint32_t>(all * (mine.split + 1))));
    }
    mine.band_keys = mine.sink_keys = make_int2(0, 0);
    const int band_end = min(mine.steps_end, mine.band_tiles);
    if (step < band_end) {
      mine.band_keys = make_int2(key_of(mine, band_end - 1), min(key_of(mine, step) + kBlockN, end));
    }
    const int sink_begin = max(step, mine.band_tiles);
    if (kGeneral && sink_begin < mine.steps_end) {
      mine.sink_keys = make_int2(key_of(mine, mine.steps_end - 1),
                                 min(key_of(mine, sink_begin) + kBlockN, mine.key_end));
    }
    if (tid() == 0) block() = mine;
    __syncthreads();
    if (mine.used < mine.row0 + kBlockM) {
      // The tail may be longer than the longest sequence that the grid was made for.
      const int stride = b == p.batch ? p.m_blocks * kBlockM : places;
      for (int row = mine.row0; row < places; row += stride) {
        store_padding(max(row, mine.used), min(row + kBlockM, places));
      }
    }
    return mine.row0 < mine.used ? step : -1;
  }

  __device__ void run() {
    int step = describe();
    if (step < 0) return;

    float o[kTiles][kDv / 8][4];
    float m[kTiles][2], sum[kTiles][2];
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
      for (int n = 0; n < kDv / 8; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) o[tile][n][e] = 0;
      }
      m[tile][0] = m[tile][1] = -infinity();
      sum[tile][0] = sum[tile][1] = 0;
    }

    const bool by_blocks = has(kForwardBlocks);
    if (by_blocks) {
      while (step < block().steps_end && !tile_has_blocks(key_of(step))) step++;
    }
    int buffer = 0;
    bool skips_next = false;
    if (step < block().steps_end) {
      load_q();
      if (paged()) skips_next = __syncthreads_or(find_slots(key_of(step), 0));
      load_k(key_of(step), 0);
    }
#pragma unroll 1
    while (step < block().steps_end) {
      int next = step + 1;
      if (by_blocks) {
        while (next < block().steps_end && !tile_has_blocks(key_of(next))) next++;
      }
      copy_async_wait<0>();
      __syncthreads();  // k is here; v's tile is free
      load_v(key_of(step), buffer);
      const bool skips = skips_next;
      bool met = false;
      if (next < block().steps_end) met = find_slots(key_of(next), buffer ^ 1);

      float s[kTiles][kBlockN / 8][4];
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
        for (int n = 0; n < kBlockN / 8; n++) {
#pragma unroll
          for (int e = 0; e < 4; e++) s[tile][n][e] = 0;
        }
      }
      Product::template scores<kTiles, kBlockN, kDqk>(
          s, q_tile() + warp() * kTiles * 16 * kDqk * kBytes, k_tile(), lane());
      copy_async_wait<0>();
      // v is here; k's tile is free
      if (paged()) {
        skips_next = __syncthreads_or(met);
      } else {
        __syncthreads();
      }
      if (next < block().steps_end) load_k(key_of(next), buffer ^ 1);

      const int j0 = key_of(step);
      // All rows see all keys of the tile, as far as positions say.
      const bool interior = j0 >= block().all_begin && j0 + kBlockN <= block().all_end;
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          row_scores(s[tile], half, local_row(tile, half), j0, interior, skips, buffer);
        }
      }
      if (!has(kForwardSilu)) softmax(s, o, m, sum);
      if (has(kForwardDropout)) drop(s, j0);
      // A number that the compiler does not know keeps it from mixing softmax and product, for which
      // some kinds have no registers.
      constexpr bool kMixes =
          kKind == ForwardKind::plain || kKind == ForwardKind::alibi || kKind == ForwardKind::bias;
      const int terms = kMixes ? 1 : p.p_terms;
      Product::template values<kTiles, kBlockN, kDv, kGeneral>(o, s, v_tile(), lane(), terms);
      step = next;
      if (paged()) buffer ^= 1;
    }

    // Sums over the four threads of a row; rows that are not finite are marked.
    Finish done[kTiles][2];
    bool again = false;
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int local = local_row(tile, half);
        float total = sum[tile][half];
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        float check = total * 0;
#pragma unroll
        for (int n = 0; n < kDv / 8; n++) {
          check = fmaf(o[tile][n][half * 2], 0.0f, check);
          check = fmaf(o[tile][n][half * 2 + 1], 0.0f, check);
        }
        done[tile][half] = {0, 0};
        if (block().row0 + local < block().used) {
          const Row row = row_of(local);
          float high = m[tile][half];
          if (kBare && high != -infinity()) high *= p.scale_log2;
          done[tile][half] = finish(row, high, total);
          if ((lane() & 3) == 0) store_statistics(row, done[tile][half].lse, high * kLn2F);
          if (check != 0) {
            rows()[local].w = kRepeat;
            again = true;
          }
        }
      }
    }
    store_rows(o, done);
    if (__any_sync(~0u, again)) {
      __syncwarp();
#pragma unroll 1
      for (int r = 0; r < kTiles * 16; r++) {
        const int local = warp() * kTiles * 16 + r;
        if (rows()[local].w != kRepeat) continue;
        // A copy, so that only it need lie in memory.
        const Forward self = *this;
        self.repeat_row(local);
      }
    }
  }

  // Scores to weights, with running maximum and sum. The general kind's maximum is exact, because it
  // may be asked for; that of the others may lag behind by kRescaleAt.
  __device__ void softmax(float (&s)[kTiles][kBlockN / 8][4], float (&o)[kTiles][kDv / 8][4],
                          float (&m)[kTiles][2], float (&sum)[kTiles][2]) {
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
      float high[2];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float top = fmaxf(s[tile][0][half * 2], s[tile][0][half * 2 + 1]);
#pragma unroll
        for (int n = 1; n < kBlockN / 8; n++) {
          top = fmaxf(top, fmaxf(s[tile][n][half * 2], s[tile][n][half * 2 + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        high[half] = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      }
      bool move;
      if constexpr (kGeneral) {
        move = high[0] > m[tile][0] || high[1] > m[tile][1];
      } else {
        const float unit = kBare ? p.scale_log2 : 1;
        move = (high[0] - m[tile][0]) * unit > kRescaleAt ||
               (high[1] - m[tile][1]) * unit > kRescaleAt;
      }
      if (__any_sync(~0u, move)) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const float next = fmaxf(m[tile][half], high[half]);
          float alpha = m[tile][half] - next;
          if (kBare) alpha *= p.scale_log2;
          alpha = m[tile][half] == -infinity() ? 0 : exp2_fast(alpha);
          m[tile][half] = next;
          sum[tile][half] *= alpha;
#pragma unroll
          for (int n = 0; n < kDv / 8; n++) {
            o[tile][n][half * 2] *= alpha;
            o[tile][n][half * 2 + 1] *= alpha;
          }
        }
      }
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float offset = m[tile][half] == -infinity() ? 0 : m[tile][half];
        if (kBare) offset *= p.scale_log2;
        float total = 0;
#pragma unroll
        for (int n = 0; n < kBlockN / 8; n++) {
#pragma unroll
          for (int e = 0; e < 2; e++) {
            float &x = s[tile][n][half * 2 + e];
            x = exp2_fast(!kBare ? x - offset : fmaf(x, p.scale_log2, -offset));
            total += x;
          }
        }
        sum[tile][half] += total;
      }
    }
  }
};

}  // namespace attn::cuda
