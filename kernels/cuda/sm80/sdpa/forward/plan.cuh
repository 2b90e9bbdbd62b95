// What a block of queries is to do: which rows of which sequence, and the steps through its keys.
#pragma once

#include "kernels/cuda/sm80/sdpa/forward/kernel.cuh"

namespace attn::cuda {

// The keys of query i, within the block's.
__device__ inline BandOf<int32_t> Forward::keys_of(const Block &b, int i) const {
  PositionRulesOf<int32_t> rules = p.rules;
  rules.seqlen_k = b.seqlen_k;
  rules.offset = b.diagonal;
  BandOf<int32_t> band = band_of(rules, i);
  band.end = min(band.end, b.key_end);
  band.sink_end = min(band.sink_end, b.key_end);
  return band;
}

__device__ inline int Forward::key_of(const Block &b, int step) {
  if (kGeneral && step >= b.band_tiles) {
    return b.origin + (b.sink_tiles - 1 - (step - b.band_tiles)) * kBlockN;
  }
  return b.top - step * kBlockN;
}

// The first step from `step` on whose tile may have a visible key.
__device__ inline int Forward::next_step(int step, int buffer) const {
  if (has(kForwardBlocks | kForwardSegments)) {
    while (step < block().steps_end && !tile_counts(key_of(block(), step), buffer)) step++;
  }
  return step;
}

// Which rows of which sequence and head. False if there are none, not even padding.
__device__ inline bool Forward::find_work(Block &b) const {
  uint32_t index = blockIdx.x;
  b.split = 0;
  b.v_offset = 0;
  if (p.num_splits > 1) {
    uint32_t rest = index;
    index = p.splits.divide(rest);
    b.split = static_cast<int>(rest);
  }
  if (p.v_chunks > 1) {
    uint32_t rest = index;
    index = p.chunks.divide(rest);
    b.v_offset = static_cast<int>(rest) * kDv;
  }
  b.v_columns = min(kDv, p.head_dim_v - b.v_offset);
  const uint32_t section = p.section_blocks.divide(index);
  const uint32_t first = section * p.section.divisor;
  const uint32_t width = min(p.section.divisor, static_cast<uint32_t>(p.pairs) - first);
  // The last section may be narrower.
  uint32_t m_block = width == p.section.divisor ? p.section.quotient(index) : index / width;
  uint32_t head = first + index - m_block * width;
  if (option(kForwardHeavyLast)) m_block = static_cast<uint32_t>(p.m_blocks) - 1 - m_block;
  const int sequence = static_cast<int>(p.heads.divide(head));
  b.head0 = static_cast<int>(head * p.pack.divisor);
  b.kv_head = static_cast<int>(p.group.quotient(static_cast<uint32_t>(b.head0)));
  b.row0 = static_cast<int>(m_block) * kBlockM;
  const int pack = static_cast<int>(p.pack.divisor);
  if (sequence == p.batch) {
    // Ragged: the tokens after the last sequence are padding, as if of one more sequence.
    const int64_t begin = p.sequences.cu_seqlens_q[sequence];
    b.sequence = {};
    b.sequence.first_q = {0, begin};
    b.places = static_cast<int>(p.total_q - begin) * pack;
  } else {
    b.sequence = p.sequences.sequence(sequence);
    b.places = static_cast<int>(b.sequence.rows_q) * pack;
  }
  b.seqlen_q = static_cast<int>(b.sequence.seqlen_q);
  b.seqlen_k = static_cast<int>(b.sequence.seqlen_k);
  b.used = b.seqlen_q * pack;
  // The tail may be longer than the longest sequence that the grid was made for.
  b.places_step = sequence == p.batch ? p.m_blocks * kBlockM : b.places;
  return b.row0 < b.places;
}

// Which keys its rows see, and the steps through them.
__device__ inline void Forward::plan_steps(Block &b) const {
  b.diagonal = p.bottom_right != 0 ? b.seqlen_k - b.seqlen_q : 0;
  b.k_base = b.kv_head * p.k.head;
  b.v_base = b.kv_head * p.v.head + b.v_offset * p.v.dim;
  if (!paged()) {
    b.k_base += p.k.offset(b.sequence.first_k, 0);
    b.v_base += p.v.offset(b.sequence.first_k, 0);
  }
  b.bias_base = 0;
  if (kKind == ForwardKind::bias) b.bias_base = p.bias.offset(b.sequence.query(b.row0), b.head0);
  b.origin = 0;
  b.key_end = b.seqlen_k;
  if (option(kForwardFixedSplit)) {
    b.origin = b.split * p.split_size;
    b.key_end = min(b.seqlen_k, b.origin + p.split_size);
  }
  // Bands move on with the query, so the first and the last row bound the block's keys.
  const auto query = [&](int row) {
    return static_cast<int>(p.pack.quotient(static_cast<uint32_t>(max(row, 0))));
  };
  const BandOf<int32_t> low = keys_of(b, query(min(b.row0, b.used - 1)));
  const BandOf<int32_t> high = keys_of(b, query(min(b.row0 + kBlockM, b.used) - 1));
  b.all_begin = high.begin;
  b.all_end = low.end;
  const int begin = max(low.begin, b.origin), end = max(begin, high.end);
  const int band_first = (begin - b.origin) / kBlockN;
  const int band_last = (end - b.origin + kBlockN - 1) / kBlockN;
  b.top = b.origin + (band_last - 1) * kBlockN;
  b.band_tiles = end > begin ? band_last - band_first : 0;
  b.sink_tiles = 0;
  if (kGeneral && high.sink_end > b.origin) {
    b.sink_tiles = (high.sink_end - b.origin + kBlockN - 1) / kBlockN;
    if (b.band_tiles > 0) b.sink_tiles = min(b.sink_tiles, band_first);
  }
  b.first_step = 0;
  b.steps_end = b.band_tiles + b.sink_tiles;
  if (!option(kForwardFixedSplit) && p.num_splits > 1) {
    const int all = b.steps_end;
    const auto share = [&](int split) {
      return static_cast<int>(p.splits.quotient(static_cast<uint32_t>(all * split)));
    };
    b.first_step = share(b.split);
    b.steps_end = share(b.split + 1);
  }
  b.band_keys = b.sink_keys = make_int2(0, 0);
  const int band_end = min(b.steps_end, b.band_tiles);
  if (b.first_step < band_end) {
    b.band_keys = make_int2(key_of(b, band_end - 1), min(key_of(b, b.first_step) + kBlockN, end));
  }
  const int sink_begin = max(b.first_step, b.band_tiles);
  if (kGeneral && sink_begin < b.steps_end) {
    b.sink_keys =
        make_int2(key_of(b, b.steps_end - 1), min(key_of(b, sink_begin) + kBlockN, b.key_end));
  }
}

// Fills block(), asks for q (and more: kLoadsEarly), and stores rows that are padding. False if
// nothing else is to do.
__device__ inline bool Forward::describe() {
  Block mine;
  if (!find_work(mine)) return false;
  load_q(mine);
  plan_steps(mine);
  if constexpr (kLoadsEarly) {
    if (mine.first_step < mine.steps_end) load_k(mine, key_of(mine, mine.first_step), 0);
    copy_async_commit();
  }
  mine.segment_low = 0x7fffffff;
  mine.segment_high = -1;
  if (tid() == 0) block() = mine;
  __syncthreads();
  if (mine.used < mine.row0 + kBlockM) {
    for (int row = mine.row0; row < mine.places; row += mine.places_step) {
      store_padding(max(row, mine.used), min(row + kBlockM, mine.places));
    }
  }
  if (mine.row0 >= mine.used) return false;
  if (kMaybe != 0 || has(kForwardSegments)) know_rows();
  return true;
}

}  // namespace attn::cuda
