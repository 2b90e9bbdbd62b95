// Who decides what comes next, and who asks for its tiles.
#pragma once

#include "kernels/cuda/sm90a/sdpa/forward/kernel.cuh"

namespace attn::cuda::sm90 {

// Which rows of which sequence and head, and which keys they see. rows <= 0: there are none.
// (Written where it goes, since the planner has few registers.)
__device__ inline void make_work(Work &w, const ForwardParams &p, uint32_t item, int half) {
  const uint32_t pair = p.items_a_pair.quotient(item);
  int m_block = static_cast<int>(item - pair * p.items_a_pair.divisor);
  if (p.blocks_an_item == 2) {
    const int last = p.m_blocks - 1 - m_block;
    if (half == 0) {
      m_block = last;
    } else if (m_block == last) {  // the one in the middle
      w.rows = 0;
      return;
    }
  }
  uint32_t head = pair;
  w.index = static_cast<int>(p.heads.divide(head));
  w.head = static_cast<int>(head);
  w.kv_head = static_cast<int>(p.group.quotient(head));
  w.row0 = m_block * kBlockM;
  w.places_step = p.m_blocks * kBlockM;
  int seqlen_q;
  if (w.index == p.batch) {
    // Ragged: the tokens after the last sequence are padding, as if of one more sequence. They may
    // be more than the longest sequence that the blocks were counted for.
    const int64_t begin = p.sequences.cu_seqlens_q[w.index];
    w.outer_q = w.outer_k = w.inner_k = 0;
    w.inner_q = static_cast<int>(begin);
    w.places = static_cast<int>(p.total_q - begin);
    w.seqlen_k = seqlen_q = 0;
  } else {
    const Sequence s = p.sequences.sequence(w.index);
    w.outer_q = static_cast<int>(s.first_q.outer);
    w.inner_q = static_cast<int>(s.first_q.inner);
    w.outer_k = static_cast<int>(s.first_k.outer);
    w.inner_k = static_cast<int>(s.first_k.inner);
    w.places = static_cast<int>(s.rows_q);
    w.seqlen_k = static_cast<int>(s.seqlen_k);
    seqlen_q = static_cast<int>(s.seqlen_q);
    w.places_step = w.places;
  }
  w.used = seqlen_q;
  w.rows = min(w.places - w.row0, kBlockM);
  w.diagonal = p.bottom_right != 0 ? w.seqlen_k - seqlen_q : 0;
  w.top = w.bottom = w.tiles = w.all_begin = w.all_end = 0;
  if (w.row0 < w.used) {
    // Bands move on with the query, so the first and the last row bound the block's keys.
    const BandOf<int32_t> low = keys_of(p, w.seqlen_k, w.diagonal, w.row0);
    const BandOf<int32_t> high =
        keys_of(p, w.seqlen_k, w.diagonal, min(w.row0 + kBlockM, w.used) - 1);
    const int last = (high.end + kBlockN - 1) / kBlockN;
    if (high.end > low.begin) w.tiles = last - low.begin / kBlockN;
    w.top = (last - 1) * kBlockN;
    w.bottom = low.begin / kBlockN * kBlockN;
    w.all_begin = high.begin;
    w.all_end = low.end;
  }
}

// One thread decides what comes next, for all others.
struct Planner {
  const ForwardParams &p;
  Place<ForwardConfig::kWorks> work;

  __device__ void run() {
    int item = static_cast<int>(blockIdx.x), half = 0;
    int rows;
#pragma unroll 1
    do {
      barrier_wait(barrier(Ring::work, false, work.stage()), work.phase() ^ 1);
      Work &w = work_slot(work.stage());
      rows = 0;
#pragma unroll 1
      while (item < p.items && rows <= 0) {
        make_work(w, p, static_cast<uint32_t>(item), half);
        rows = w.rows;
        if (++half == p.blocks_an_item) {
          half = 0;
          item += static_cast<int>(gridDim.x);
        }
      }
      if (rows <= 0) w.rows = w.tiles = 0;
      barrier_arrive(barrier(Ring::work, true, work.stage()));
      work.next();
    } while (rows > 0);
  }
};

// One thread asks for tiles.
struct Producer {
  const ForwardParams &p;
  Place<kQStages> q;
  Place<kKvStages> k, v;
  Place<ForwardConfig::kWorks> work;

  template <int kRows, int kBlocks>
  __device__ static void load(const TensorMap &map, uint32_t tile, uint32_t full, int row, int head,
                              int outer) {
    barrier_expect(full, kRows * 128 * kBlocks);
#pragma unroll
    for (int block = 0; block < kBlocks; block++) {
      load_box(tile + block * kRows * 128, map, full, block * ForwardConfig::kColumns, row, head,
               outer);
    }
  }
  __device__ void load_q(const Work &w) {
#pragma unroll
    for (int group = 0; group < kConsumers; group++) {
      const int stage = q_stage(q.stage(), group);
      barrier_wait(barrier(Ring::q, false, stage), q.phase() ^ 1);
      load<64, kConfig.blocks(kDqk)>(p.q, q_tile(q.stage(), group), barrier(Ring::q, true, stage),
                                     w.inner_q + w.row0 + group * 64, w.head, w.outer_q);
    }
    q.next();
  }
  __device__ void load_k(const Work &w, int row) {
    barrier_wait(barrier(Ring::k, false, k.stage()), k.phase() ^ 1);
    load<kBlockN, kConfig.blocks(kDqk)>(p.k, k_tile(k.stage()), barrier(Ring::k, true, k.stage()),
                                        row, w.kv_head, w.outer_k);
    k.next();
  }
  __device__ void load_v(const Work &w, int row) {
    barrier_wait(barrier(Ring::v, false, v.stage()), v.phase() ^ 1);
    load<kBlockN, kConfig.blocks(kDv)>(p.v, v_tile(v.stage()), barrier(Ring::v, true, v.stage()),
                                       row, w.kv_head, w.outer_k);
    v.next();
  }

  __device__ void run() {
    prefetch_tensor_map(p.q);
    prefetch_tensor_map(p.k);
    prefetch_tensor_map(p.v);
#pragma unroll 1
    for (;; work.next()) {
      barrier_wait(barrier(Ring::work, true, work.stage()), work.phase());
      const Work &w = work_slot(work.stage());
      if (w.rows == 0) return;
      const int tiles = w.tiles;
      if (tiles > 0) {
        int row = w.inner_k + w.top;
        load_k(w, row);
        load_q(w);
#pragma unroll 1
        for (int tile = 1; tile < tiles; tile++) {
          load_k(w, row - kBlockN);
          load_v(w, row);
          row -= kBlockN;
        }
        load_v(w, row);
      }
      barrier_arrive(barrier(Ring::work, false, work.stage()));
    }
  }
};

}  // namespace attn::cuda::sm90
