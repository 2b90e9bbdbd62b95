// Attention forward on mma.sync tensor cores (Ampere and newer), after FlashAttention-2 (Dao,
// 2023): a block of queries stays in shared memory, keys and values stream through it in tiles, the
// softmax is online, and scores never leave the registers.
//
// The files beside this one define the members, a part each.
#pragma once

#include "kernels/cuda/sm80/sdpa/forward/gemm.cuh"
#include "kernels/cuda/sm80/sdpa/forward/variant.cuh"

namespace attn::cuda {

struct Forward {
  const ForwardParams &p;

  // What a block of queries is, the same in all its threads; kept in shared memory, because
  // registers are what this kernel is short of.
  struct Block {
    Sequence sequence;
    int64_t k_base, v_base;  // offsets of key 0, unless paged: of the head
    int64_t bias_base;       // of row 0
    int32_t seqlen_q, seqlen_k;
    int32_t diagonal;  // query i is at position i + diagonal
    int32_t head0;     // first query head
    int32_t kv_head;
    int32_t row0;                 // first row: query row / pack, head head0 + row % pack
    int32_t used;                 // rows in use, of the sequence
    int32_t places, places_step;  // rows, and from one that is padding to the next of this block
    int32_t split;
    int32_t v_offset;  // first column of v and out
    int32_t v_columns;
    int32_t origin;              // where tiles of keys begin
    int32_t key_end;             // keys from here on are out of the sequence, or another piece's
    int32_t all_begin, all_end;  // keys that all rows see, as far as positions say
    int32_t segment_low, segment_high;  // of the queries; low is negative if one sees nothing
    int32_t one_segment[2];  // of a tile and the next: whether all keys and queries are of one
    // The steps through the tiles of keys: first those of the band, from the tile at `top` down,
    // then those of sink tokens before it.
    int32_t top, band_tiles, sink_tiles, first_step, steps_end;
    int2 band_keys, sink_keys;  // what these steps cover
  };

  // A row of the sequence.
  struct Row {
    int i, head;
  };

  // A fragment of scores, then of weights; see kOwnKeys.
  using Scores = float[kTiles][kBlockN / 8][4];

  // What rows have gathered so far. A thread has two rows of each tile, `half` 0 and 1. Either
  // sum[][] holds sums over the thread's own keys, or sums[2 half + tile] sums over all: a fragment
  // of which tile 0 has the even columns and tile 1 the odd ones.
  struct Running {
    float out[kTiles][kDv / 8][4];
    float max[kTiles][2];
    float sum[kTiles][2];
    float sums[4];
  };
  static_assert(kTiles <= 2);

  // Read ahead for a tile of keys, so that it arrives while others work.
  struct Ahead {
    uint32_t mask[kTiles][2];  // of a row, own keys, perhaps from mask_shift() on
  };

  // What is known of a row of this block beforehand.
  struct Known {
    int64_t mask;  // offset of its row of the mask, or of the tail mask
    int32_t segment;
  };

  // A row's factor of its weighted sum, and its log-sum-exp.
  struct Finish {
    float factor;
    float lse;  // natural, with the sink if it is to be included
  };

  __device__ void run();
  __device__ void walk(Running &r);

  // --- where this thread is
  // Read anew at each use: registers are worth more than a few cycles here.
  __device__ static int tid() {
    int value;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(value));
    return value;
  }
  __device__ static int lane() { return tid() & 31; }
  __device__ static int warp() { return tid() >> 5; }
  __device__ static int own_key() { return (tid() & 3) * kOwnKeys; }
  // A row of this thread.
  __device__ static int local_row(int tile, int half) {
    return (warp() * kTiles + tile) * 16 + half * 8 + (lane() >> 2);
  }
  __device__ Row row_at(int row) const {  // of the sequence
    uint32_t rest = static_cast<uint32_t>(row);
    const int i = static_cast<int>(p.pack.divide(rest));
    return {i, block().head0 + static_cast<int>(rest)};
  }
  __device__ Row row_of(int local) const {  // of this block
    return row_at(block().row0 + local);
  }
  // The same; rows that are not in use see what the last one does.
  __device__ Row used_row_of(int local) const {
    return row_of(min(local, block().used - 1 - block().row0));
  }
  __device__ static bool in_use(int local) { return block().row0 + local < block().used; }
  __device__ static TokenPlace query_place(int i) {
    const TokenPlace first = block().sequence.first_q;
    return {first.outer, first.inner + i};
  }

  // --- shared memory. Functions, not members: the addresses are constants.
  __device__ static char *smem() {
    extern __shared__ __align__(1024) char memory[];
    return memory;
  }
  __device__ static uint32_t q_tile() { return shared_address(smem()); }
  __device__ static uint32_t own_q() {  // the warp's rows
    return q_tile() + warp() * kTiles * 16 * kDqk * kBytes;
  }
  __device__ static uint32_t k_tile() { return q_tile() + kConfig.q_bytes(); }
  __device__ static uint32_t v_tile() { return k_tile() + kConfig.k_bytes(); }
  __device__ static Block &block() {
    static_assert(sizeof(Block) <= ForwardConfig::kBlockBytes);
    return *reinterpret_cast<Block *>(smem() + kConfig.block_at());
  }
  __device__ static Known &known(int local) {
    static_assert(sizeof(Known) == ForwardConfig::kRowBytes);
    return reinterpret_cast<Known *>(smem() + kConfig.rows_at())[local];
  }
  // Segments of the keys of two tiles.
  __device__ static int32_t *segments(int buffer) {
    return reinterpret_cast<int32_t *>(smem() + kConfig.segments_at()) + buffer * kBlockN;
  }
  // Paged: {page, slot} of each key of two tiles.
  __device__ static int2 *slots() { return reinterpret_cast<int2 *>(smem() + kConfig.slots_at()); }

  // --- options
  __device__ bool option(uint32_t bit) const { return (p.options & bit) != 0; }
  // The same for what only some kinds know.
  __device__ bool has(uint32_t bit) const {
    return (kAlways & bit) != 0 || ((kMaybe & bit) != 0 && option(bit));
  }
  __device__ bool paged() const {
    return kKind == ForwardKind::paged || (kGeneral && p.sequences.page_size != 0);
  }

  // --- plan.cuh: what a block is to do
  __device__ bool describe();
  __device__ bool find_work(Block &b) const;
  __device__ void plan_steps(Block &b) const;
  __device__ BandOf<int32_t> keys_of(const Block &b, int i) const;
  __device__ static int key_of(const Block &b, int step);  // first key of a step's tile
  __device__ int next_step(int step, int buffer) const;

  // --- visible.cuh: which keys a query sees, apart from positions
  __device__ const uint32_t *block_bits_of(Row row) const;
  __device__ const int32_t *kv_segments() const;
  __device__ int32_t q_segment(int i) const;
  __device__ bool tile_counts(int j0, int buffer) const;
  __device__ bool sees(Row row, int j) const;
  __device__ uint32_t mask_bits(const QueryView &mask, Row row, int start, int bits) const;
  __device__ uint32_t visible_bits(Row row, int j0) const;
  __device__ void know_rows() const;
  __device__ int mask_shift(int j0) const;
  __device__ void read_masks(Ahead &ahead, int j0) const;
  __device__ void hide_segments(float (&s)[kBlockN / 8][4], int half, int local, int buffer) const;

  // --- load.cuh: memory in
  __device__ void load_q(const Block &b);
  __device__ void load_k(const Block &b, int j0, int buffer);
  __device__ void load_v(int j0, int buffer);
  __device__ void load_segments(int j0, int buffer) const;
  __device__ bool find_slots(int j0, int buffer);

  // --- bias.cuh
  __device__ int64_t bias_row(Row row) const;
  __device__ void load_bias(const Block &b, int j0) const;
  __device__ void begin_with_bias(float (&s)[kBlockN / 8][4], int half, int local) const;
  __device__ void add_bias(float (&s)[kBlockN / 8][4], int half, Row row, int j0, float unit) const;

  // --- scores.cuh: from products to scores
  __device__ float score(Row row, int j, float qk) const;
  __device__ float silu_weight(float s) const;
  __device__ float slope(Row row) const;
  __device__ void begin_scores(Scores &s) const;
  __device__ void row_scores(float (&s)[kBlockN / 8][4], int half, int local, uint32_t visible,
                             int j0, bool interior, bool skips, int buffer) const;
  __device__ void finish_scores(Scores &s, const Ahead &ahead, int j0, bool skips,
                                int buffer) const;

  // --- softmax.cuh: from scores to weights
  __device__ void rescale(Scores &s, Running &r) const;
  __device__ void weigh(Scores &s, Running &r) const;
  __device__ void drop(Scores &s, int j0) const;
  __device__ int64_t dropout_row(Row row) const;

  // --- store.cuh: memory out
  __device__ bool tells() const;
  __device__ Finish finish(int local, float max, float sum) const;
  __device__ int64_t partial_row(Row row) const;
  __device__ void store_statistics(Row row, float lse, float row_max) const;
  __device__ void store_value(Row row, int d, float value) const;
  __device__ void store_padding(int begin, int end) const;
  __device__ void store_rows(const Running &r, const Finish (&done)[kTiles][2]) const;

  // --- repeat.cuh
  __device__ void repeat_row(int local) const;
  __device__ void repeat_rows(uint32_t odd) const;
};

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

// Calls change(x, key) on a row's scores; `key` counts the thread's own keys.
template <class Change>
__device__ inline void each(float (&s)[kBlockN / 8][4], int half, const Change &change) {
#pragma unroll
  for (int n = 0; n < kBlockN / 8; n++) {
#pragma unroll
    for (int e = 0; e < 2; e++) change(s[n][half * 2 + e], 2 * n + e);
  }
}
// Calls visit(tile, half) on the thread's rows.
template <class Visit>
__device__ inline void each_row(const Visit &visit) {
#pragma unroll
  for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
    for (int half = 0; half < 2; half++) visit(tile, half);
  }
}

// Keeps the compiler from reading for one row before it is done with another, which costs
// registers.
__device__ inline void one_by_one() {
  asm volatile("" ::: "memory");
}

}  // namespace attn::cuda
