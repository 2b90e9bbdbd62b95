// Attention forward for Hopper, after FlashAttention-3 (Shah et al., 2024): one warpgroup asks the
// copy engine for tiles, the others multiply with wgmma and take exponentials, and the block stays
// on its multiprocessor for one block of queries after another.
//
// What is where in shared memory, and what warpgroups tell one another.
#pragma once

#include "kernels/cuda/sm90a/sdpa/forward/variant.cuh"

namespace attn::cuda::sm90 {

// A block of queries, as the producer tells the consumers.
struct Work {
  int32_t rows;     // 0: there is no more work
  int32_t index;    // the sequence's
  int32_t outer_q;  // where query 0 is
  int32_t inner_q;
  int32_t outer_k;  // where key 0 is
  int32_t inner_k;
  int32_t head, kv_head;
  int32_t row0;          // the first query
  int32_t used, places;  // queries of the sequence, and places for them, the rest being padding
  int32_t seqlen_k;
  int32_t diagonal;            // query i is at position i + diagonal
  int32_t top, bottom, tiles;  // first keys of the first and the last tile, and their number
  // Of a consumer's rows: where the first tile that they see anything of begins, the block's first
  // or second; and of how many tiles, from there on and up to the last, not all of them see the
  // last and the first keys.
  int32_t own_top[kConsumers], lead[kConsumers], tail[kConsumers];
  const int32_t *pages;  // where keys are in pages: the sequence's list of them
  float slope;           // ALiBi's, over softmax_scale
};
static_assert(sizeof(Work) <= ForwardConfig::kWorkBytes);

// Shared memory. Functions, so that addresses are constants.
__device__ inline char *memory() {
  extern __shared__ __align__(1024) char bytes[];
  return bytes;
}
__device__ inline uint32_t smem() {
  return shared_address(memory());
}
__device__ inline uint32_t q_tile(int stage, int group) {  // a consumer's own 64 rows
  return smem() + stage * kConfig.q_bytes() + group * (kConfig.q_bytes() / kConsumers);
}
__device__ inline uint32_t k_tile(int stage) {
  return smem() + kConfig.k_at() + stage * kConfig.k_bytes();
}
__device__ inline uint32_t v_tile(int stage) {
  return smem() + kConfig.v_at() + stage * kConfig.v_bytes();
}
// How a tile of keys lies there: bytes from 64 columns to the next 64, and from eight rows to the
// next eight.
template <int kColumns>
struct KvTile {
  static constexpr int kBlock = kGrouped ? 1024 : kBlockN * 128;
  static constexpr int kGroup = kGrouped ? 1024 * kConfig.blocks(kColumns) : 1024;
};
// In `full` phases copies (or a description of work) have arrived; in `empty` ones, all consumers
// are done with them.
enum class Ring { q, k, v, work };
inline constexpr int kMostStages = 6;
static_assert(kQStages * kConsumers <= kMostStages && kKvStages <= kMostStages);
__device__ inline int q_stage(int stage, int group) {  // of Ring::q: consumers have their own
  return stage * kConsumers + group;
}
__device__ inline uint32_t barrier(Ring ring, bool full, int stage) {
  return smem() + kConfig.barriers_at() +
         ((static_cast<int>(ring) * 2 + (full ? 0 : 1)) * kMostStages + stage) * 8;
}
// Of a tile of keys in pages, which groups of eight are on pages to skip: a word.
__device__ inline uint32_t skipped_groups(int stage) {
  return smem() + kConfig.barriers_at() + 8 * kMostStages * 8 + stage * 4;
}
static_assert(kMostStages * (8 * 8 + 4) <= ForwardConfig::kBarrierBytes);
static_assert(kBlockN <= 8 * 32);
__device__ inline Work &work_slot(int slot) {
  return reinterpret_cast<Work *>(memory() + kConfig.works_at())[slot];
}

// Read anew at each use, so that nothing derived from it occupies registers during the walk.
__device__ inline int tid() {
  int value;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(value));
  return value;
}

// What is the same in all threads of a warp, for the compiler to know: loops and branches then are,
// and addresses can stay where products take them from.
__device__ inline int uniform(int x) {
  return __shfl_sync(~0u, x, 0);
}

// Where a role is in a ring. One register.
template <int kStages>
struct Place {
  static_assert((kStages & (kStages - 1)) == 0);
  uint32_t count = 0;

  __device__ int stage() const { return static_cast<int>(count % kStages); }
  __device__ uint32_t phase() const { return count / kStages % 2; }
  __device__ void next() { count++; }
};

__device__ inline Sequence sequence_of(const ForwardParams &p, int index) {
  SequenceTable table = p.sequences;
  if constexpr (!kPages) {  // known to the compiler
    table.page_size = 0;
    table.page_indptr = nullptr;
  }
  return table.sequence(index);
}
// Where key j is.
__device__ inline TokenPlace key_place(const ForwardParams &p, const Work &w, int j) {
  if (kPages && p.box_groups != 0) {
    uint32_t slot = static_cast<uint32_t>(j);
    const uint32_t page = p.page_size.divide(slot);
    return {w.pages[page * p.page_step], slot};
  }
  return {w.outer_k, w.inner_k + j};
}

// The keys of query i.
__device__ inline BandOf<int32_t> keys_of(const ForwardParams &p, int seqlen_k, int diagonal,
                                          int i) {
  PositionRulesOf<int32_t> rules = p.rules;
  rules.seqlen_k = seqlen_k;
  rules.offset = diagonal;
  rules.chunk_size = 0;  // not served; known to the compiler
  return band_of(rules, i);
}

}  // namespace attn::cuda::sm90
