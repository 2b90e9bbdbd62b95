// Which keys a query sees, apart from positions: masks, segments, blocks, skipped pages.
#pragma once

#include "kernels/cuda/sm80/sdpa/forward/kernel.cuh"

namespace attn::cuda {

__device__ inline const uint32_t *Forward::block_bits_of(Row row) const {
  return p.block_bits + block().sequence.index * p.block_batch + row.head * p.block_head +
         row.i / p.block_size_q * p.block_row;
}
__device__ inline const int32_t *Forward::kv_segments() const {
  return p.kv_segment_ids + block().sequence.index * p.kv_segment_outer +
         block().sequence.first_k.inner * p.kv_segment_inner;
}
__device__ inline int32_t Forward::q_segment(int i) const {
  const TokenPlace at = query_place(i);
  return p.q_segment_ids[at.outer * p.q_segment_outer + at.inner * p.q_segment_inner];
}

// Whether any row of the block may see a key of this tile.
__device__ inline bool Forward::tile_counts(int j0, int buffer) const {
  const int end = min(j0 + kBlockN, block().key_end);
  if (has(kForwardSegments)) {
    static_assert(kThreads >= kBlockN);
    const int low = block().segment_low, high = block().segment_high, j = j0 + tid();
    bool matches = false;
    if (j < end) {
      const int32_t id = kv_segments()[j * p.kv_segment_inner];
      matches = id >= low && id <= high;
    }
    const int count = __syncthreads_count(matches);
    if (tid() == 0) block().one_segment[buffer] = low == high && count == end - j0;
    if (count == 0 || !has(kForwardBlocks)) return count != 0;
  }
  bool any = false;
  const int last = (end - 1) / p.block_size_k;
  for (int r = tid(); r < kBlockM && in_use(r); r += kThreads) {
    const uint32_t *bits = block_bits_of(row_of(r));
    for (int n = j0 / p.block_size_k; n <= last; n++) {
      any = any || (bits[n >> 5] >> (n & 31) & 1) != 0;
    }
  }
  return __syncthreads_or(any);
}

// All that decides about one key but its position, as the formula reads.
__device__ inline bool Forward::sees(Row row, int j) const {
  const TokenPlace at = query_place(row.i);
  if (paged() && block().sequence.key(j).skipped()) return false;
  if (has(kForwardMask) &&
      !packed_bit(static_cast<const uint8_t *>(p.mask.data) + p.mask.offset(at, row.head),
                  p.mask.last, j)) {
    return false;
  }
  if (has(kForwardTailMask) &&
      !tail_bit(static_cast<const uint8_t *>(p.tail_mask.data) + p.tail_mask.offset(at, row.head),
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

// The word of bits from bit `start` on of a row of `bits` bits, whose bytes lie `stride` apart;
// what lies beyond is 0.
__device__ inline uint32_t bits_from(const uint8_t *row, int64_t stride, int start, int bits) {
  uint64_t gathered = 0;
#pragma unroll 1
  for (int n = 0; n < 5; n++) {
    const int byte = (start >> 3) + n;
    if (byte * 8 < bits) gathered |= static_cast<uint64_t>(row[byte * stride]) << (8 * n);
  }
  return static_cast<uint32_t>(gathered >> (start & 7));
}

// This thread's own keys' bits in a mask, of which bit `start` is the tile's first key. Keys before
// bit 0 are visible.
__device__ inline uint32_t Forward::mask_bits(const QueryView &mask, Row row, int start,
                                              int bits) const {
  static_assert(kOwnKeys <= 32);
  const uint8_t *first =
      static_cast<const uint8_t *>(mask.data) + mask.offset(query_place(row.i), row.head);
  const int from = start + own_key();
  const int word = from >> 5, shift = from & 31;
  if (option(kForwardWordMasks) && from >= 0 && shift + kOwnKeys <= 32 && word * 32 + 32 <= bits) {
    return reinterpret_cast<const uint32_t *>(first)[word] >> shift;
  }
  if (from >= 0) return bits_from(first, mask.last, from, bits);
  if (from <= -32) return ~0u;
  return bits_from(first, mask.last, 0, bits) << -from | ((1u << -from) - 1);
}

// Bit by bit, whether masks let a row see this thread's own keys.
__device__ inline uint32_t Forward::visible_bits(Row row, int j0) const {
  uint32_t visible = ~0u;
  if (has(kForwardMask)) visible &= mask_bits(p.mask, row, j0, block().seqlen_k);
  if (has(kForwardTailMask)) {
    const int start = j0 - (block().seqlen_k - block().seqlen_q);
    if (start + kBlockN > 0) visible &= mask_bits(p.tail_mask, row, start, block().seqlen_q);
  }
  return visible;
}

// Fills known().
__device__ inline void Forward::know_rows() const {
  if (!has(kForwardSegments) && kKind != ForwardKind::mask) return;
  for (int r = tid(); r < kBlockM; r += kThreads) {
    const Row row = used_row_of(r);
    Known mine = {0, 0};
    if (kKind == ForwardKind::mask) {
      const QueryView &view = option(kForwardMask) ? p.mask : p.tail_mask;
      mine.mask = view.offset(query_place(row.i), row.head);
    }
    if (has(kForwardSegments)) {
      mine.segment = q_segment(row.i);
      atomicMin(&block().segment_low, mine.segment);
      atomicMax(&block().segment_high, mine.segment);
    }
    known(r) = mine;
  }
  __syncthreads();
}

// Where a thread's keys begin in the words that read_masks() reads; -1 if it must read otherwise.
__device__ inline int Forward::mask_shift(int j0) const {
  const uint32_t which = p.options & (kForwardMask | kForwardTailMask);
  const bool tail = which == kForwardTailMask;
  const int start = tail ? j0 - (block().seqlen_k - block().seqlen_q) : j0;
  const int bits = tail ? block().seqlen_q : block().seqlen_k;
  const bool words = option(kForwardWordMasks) && start >= 0 && start % kOwnKeys == 0 &&
                     start + kBlockN + 31 <= bits && (tail || which == kForwardMask);
  return words && 32 % kOwnKeys == 0 ? start + own_key() : -1;
}

// Reads the masks of the tile at j0. Words where possible: they need no more than a shift, later,
// and so nothing waits for them here.
__device__ inline void Forward::read_masks(Ahead &ahead, int j0) const {
  if (!option(kForwardMask | kForwardTailMask)) return;
  const int from = mask_shift(j0);
  if (from >= 0) {
    const void *data = option(kForwardMask) ? p.mask.data : p.tail_mask.data;
    each_row([&](int tile, int half) {
      const char *row = static_cast<const char *>(data) + known(local_row(tile, half)).mask;
      ahead.mask[tile][half] = reinterpret_cast<const uint32_t *>(row)[from >> 5];
    });
  } else {
    each_row([&](int tile, int half) {
      ahead.mask[tile][half] = visible_bits(used_row_of(local_row(tile, half)), j0);
      one_by_one();
    });
  }
}

// Hides a row's keys of other segments.
__device__ inline void Forward::hide_segments(float (&s)[kBlockN / 8][4], int half, int local,
                                              int buffer) const {
  const int4 *own = reinterpret_cast<const int4 *>(segments(buffer) + own_key());
  const int32_t id = known(local).segment;
  const auto hide = [&](float &x, int32_t key) { x = same_segment(id, key) ? x : -infinity(); };
#pragma unroll
  for (int n = 0; n < kBlockN / 8; n += 2) {
    const int4 four = own[n / 2];
    hide(s[n][half * 2], four.x);
    hide(s[n][half * 2 + 1], four.y);
    hide(s[n + 1][half * 2], four.z);
    hide(s[n + 1][half * 2 + 1], four.w);
  }
}

}  // namespace attn::cuda
