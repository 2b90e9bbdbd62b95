// Who decides what comes next, and who asks for its tiles.
#pragma once

#include "kernels/cuda/sm90a/sdpa/forward/kernel.cuh"

namespace attn::cuda::sm90 {

// What the planner keeps in shared memory, since it has few registers.
struct Plan {
  // What comes next: a sequence, a head, a block of queries, and another that may follow it.
  int index, head, block, other;
  int round;  // of all multiprocessors, of which this one has an item each
  // RaggedOrder's.
  int left;        // classes, with this one
  int base;        // the first of 32 sequences
  int first;       // their first item
  int until[32];   // their items, those of earlier ones of the 32 included
  int blocks[32];  // of queries
};
static_assert(sizeof(Plan) <= ForwardConfig::kPlanBytes);
__device__ inline volatile Plan &plan() {
  return *reinterpret_cast<volatile Plan *>(memory() + kConfig.plan_at());
}

// Which rows the next block has, and which keys they see. (Written where it goes.)
__device__ inline void make_work(Work &w, const ForwardParams &p) {
  w.index = plan().index;
  w.head = plan().head;
  w.kv_head = static_cast<int>(p.group.quotient(static_cast<uint32_t>(w.head)));
  w.row0 = plan().block * kBlockM;
  int seqlen_q;
  if (w.index == p.batch) {
    // Ragged: the tokens after the last sequence are padding, as if of one more sequence.
    const int64_t begin = p.sequences.cu_seqlens_q[w.index];
    w.outer_q = w.outer_k = w.inner_k = 0;
    w.inner_q = static_cast<int>(begin);
    w.places = static_cast<int>(p.total_q - begin);
    w.seqlen_k = seqlen_q = 0;
  } else {
    const Sequence s = sequence_of(p, w.index);
    w.outer_q = static_cast<int>(s.first_q.outer);
    w.inner_q = static_cast<int>(s.first_q.inner);
    w.outer_k = static_cast<int>(s.first_k.outer);
    w.inner_k = static_cast<int>(s.first_k.inner);
    w.places = static_cast<int>(s.rows_q);
    w.seqlen_k = static_cast<int>(s.seqlen_k);
    seqlen_q = static_cast<int>(s.seqlen_q);
  }
  if (kPages && w.index < p.batch) {
    asm volatile("" ::: "memory");  // looked up by itself, since the planner has few registers
    w.pages = sequence_of(p, w.index).pages;
  }
  if (kAlibi && (p.options & kForwardAlibi) != 0) {
    w.slope = p.alibi_slopes[w.index * p.alibi_batch + w.head * p.alibi_head] * p.scale_inverse;
  }
  w.used = seqlen_q;
  w.rows = min(w.places - w.row0, kBlockM);
  w.diagonal = p.bottom_right != 0 ? w.seqlen_k - seqlen_q : 0;
  w.top = w.bottom = w.tiles = 0;
  if (w.row0 < w.used) {
    // Bands move on with the query, so the first and the last row bound the block's keys.
    const BandOf<int32_t> low = keys_of(p, w.seqlen_k, w.diagonal, w.row0);
    const BandOf<int32_t> high =
        keys_of(p, w.seqlen_k, w.diagonal, min(w.row0 + kBlockM, w.used) - 1);
    const int last = (high.end + kBlockN - 1) / kBlockN;
    if (high.end > low.begin) w.tiles = last - low.begin / kBlockN;
    w.top = (last - 1) * kBlockN;
    w.bottom = low.begin / kBlockN * kBlockN;
#pragma unroll 1
    for (int group = 0; group < kConsumers; group++) {
      const int row = w.row0 + group * 64, last_row = w.used - 1;
      const BandOf<int32_t> first = keys_of(p, w.seqlen_k, w.diagonal, min(row, last_row));
      const BandOf<int32_t> last = keys_of(p, w.seqlen_k, w.diagonal, min(row + 63, last_row));
      const int top = max((last.end - 1) / kBlockN * kBlockN, max(w.top - kBlockN, w.bottom));
      const int tiles = (top - w.bottom) / kBlockN + 1;
      const auto to_tiles = [](int keys) { return (max(keys, 0) + kBlockN - 1) / kBlockN; };
      w.own_top[group] = top;
      w.lead[group] = min(to_tiles(top + kBlockN - first.end), tiles);
      w.tail[group] = min(to_tiles(last.begin - w.bottom), tiles - w.lead[group]);
    }
  }
}

// The order of work where queries are ragged. Items are those of all sequences one after the other,
// of a sequence those of its heads, and of a head blocks of queries (causal: pairs of them, as
// ForwardParams has it), so that neighbours find the same keys in the L2. Long sequences come
// first, class by class: then items become cheaper from one to the next, and blocks that take turns
// at them have about the same to do, whatever the lengths. A warp walks, a lane a sequence of 32;
// it never goes back, so it looks at each sequence once a class.
struct RaggedOrder {
  const ForwardParams &p;

  __device__ static int lane() { return tid() % 32; }
  __device__ int items(int blocks) const {  // of a head
    return (blocks + p.blocks_an_item - 1) / p.blocks_an_item;
  }

  __device__ void begin() const {
    if (lane() == 0) {
      plan().left = p.classes;
      plan().base = 0;
      plan().first = 0;
    }
    __syncwarp();
    look();
  }
  __device__ void look() const {
    const int b = plan().base + lane();
    int blocks = 0;
    if (b <= p.batch) {
      const int32_t *begin = p.sequences.cu_seqlens_q + b;
      const int end = b < p.batch ? begin[1] : static_cast<int>(p.total_q);
      const int of = b < p.batch ? length_class(static_cast<int>(sequence_of(p, b).seqlen_k)) : 0;
      // (A sequence that is longer than it may be is in the first class.)
      if (min(of, p.classes - 1) == plan().left - 1) {
        blocks = (end - *begin + kBlockM - 1) / kBlockM;
      }
    }
    int until = items(blocks) * static_cast<int>(p.heads.divisor);
#pragma unroll 1
    for (int step = 1; step < 32; step *= 2) {
      const int before = __shfl_up_sync(~0u, until, step);
      if (lane() >= step) until += before;
    }
    plan().until[lane()] = until;
    plan().blocks[lane()] = blocks;
    __syncwarp();
  }

  // To item n of all. False: there are not so many.
  __device__ bool go(int item) const {
#pragma unroll 1
    while (item >= plan().first + plan().until[31]) {
      const int first = plan().first + plan().until[31], base = plan().base + 32;
      const int left = plan().left - (base > p.batch ? 1 : 0);
      __syncwarp();
      if (left == 0) return false;
      if (lane() == 0) {
        plan().left = left;
        plan().base = base > p.batch ? 0 : base;
        plan().first = first;
      }
      __syncwarp();
      look();
    }
    item -= plan().first;
    const int of = __ffs(static_cast<int>(__ballot_sync(~0u, item < plan().until[lane()]))) - 1;
    if (lane() == 0) {
      const int blocks = plan().blocks[of], each = items(blocks);
      if (of > 0) item -= plan().until[of - 1];
      const int head = item / each;
      plan().index = plan().base + of;
      plan().head = head;
      set_blocks(p, item - head * each, blocks);
    }
    return true;
  }

  // Item n of a head's. Causal: the n-th block of queries from the end and the n-th from the
  // beginning, if that is another.
  __device__ static void set_blocks(const ForwardParams &p, int n, int blocks) {
    const int last = blocks - 1 - n;
    plan().block = p.blocks_an_item == 2 ? last : n;
    plan().other = p.blocks_an_item == 2 && last != n ? n : -1;
  }
};

// One warp decides what comes next, for all others. The plan is its first lane's to write.
struct Planner {
  const ForwardParams &p;
  Place<ForwardConfig::kWorks> work;

  __device__ bool go_on() const {
    const bool first_lane = RaggedOrder::lane() == 0;
    const int other = plan().other, round = plan().round;
    __syncwarp();
    if (other >= 0) {
      if (first_lane) {
        plan().block = other;
        plan().other = -1;
      }
      return true;
    }
    if (first_lane) plan().round = round + 1;
    const int blocks = static_cast<int>(gridDim.x), own = static_cast<int>(blockIdx.x);
    int item = round * blocks;
    if (round < p.even_rounds) {
      // Moving on by one, lest items of one block, the middle ones, are always the same one's.
      item += (own + round) % blocks;
    } else {
      // To and fro, so that nobody always gets the longest of a round.
      item += (round - p.even_rounds) % 2 == 0 ? own : blocks - 1 - own;
    }
    if (p.classes != 0) return RaggedOrder{p}.go(item);
    uint32_t pair, rest;
    if (item < p.items) {
      rest = static_cast<uint32_t>(item);
      pair = p.items_a_pair.divide(rest);
      if (first_lane) RaggedOrder::set_blocks(p, static_cast<int>(rest), p.m_blocks);
    } else {
      if (item - p.items >= p.tail_blocks) return false;
      pair = static_cast<uint32_t>(item - p.items);
      rest = p.tail_pairs.divide(pair);
      pair += static_cast<uint32_t>(p.first_tail_pair);
      if (first_lane) {
        plan().block = p.m_blocks - 1 - static_cast<int>(rest);
        plan().other = -1;
      }
    }
    if (first_lane) {
      plan().index = static_cast<int>(p.heads.divide(pair));
      plan().head = static_cast<int>(pair);
    }
    return true;
  }
  __device__ void run() {
    if (p.classes != 0) RaggedOrder{p}.begin();
    if (RaggedOrder::lane() == 0) {
      plan().round = 0;
      plan().other = -1;
    }
    __syncwarp();
#pragma unroll 1
    for (bool more = true; more;) {
      more = go_on();
      __syncwarp();
      barrier_wait(barrier(Ring::work, false, work.stage()), work.phase() ^ 1);
      if (threadIdx.x % 32 == 0) {
        Work &w = work_slot(work.stage());
        w.rows = w.tiles = 0;
        if (more) make_work(w, p);
        barrier_arrive(barrier(Ring::work, true, work.stage()));
      }
      __syncwarp();
      work.next();
    }
  }
};

// Who asks for tiles: one thread for all, or, where keys are in pages, a warp for those of q and k
// and one for those of v: all threads look up pages, and one asks. (What the compiler can see to be
// one thread's needs few instructions, and leaves it sure that warps of the kernel stay together.)
template <bool kKeys, bool kValues>
struct Producer {
  static constexpr bool kWarp = !(kKeys && kValues);

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
  }
  // The tile that begins in row `row` of the tensor.
  __device__ void load_k(int row, int head, int outer) {
    barrier_wait(barrier(Ring::k, false, k.stage()), k.phase() ^ 1);
    load<kBlockN, kConfig.blocks(kDqk)>(p.k, k_tile(k.stage()), barrier(Ring::k, true, k.stage()),
                                        row, head, outer);
    k.next();
  }
  __device__ void load_v(int row, int head, int outer) {
    barrier_wait(barrier(Ring::v, false, v.stage()), v.phase() ^ 1);
    load<kBlockN, kConfig.blocks(kDv)>(p.v, v_tile(v.stage()), barrier(Ring::v, true, v.stage()),
                                       row, head, outer);
    v.next();
  }

  // All tiles of a block of queries; values are a tile behind keys.
  __device__ void load_dense(const Work &w) {
    const int head = w.kv_head, outer = w.outer_k;
    int row = w.inner_k + w.top;
    if constexpr (kKeys) {
      load_k(row, head, outer);
      load_q(w);
      q.next();
    }
#pragma unroll 1
    for (int tiles = w.tiles; tiles > 1; tiles--) {
      if constexpr (kKeys) load_k(row - kBlockN, head, outer);
      if constexpr (kValues) load_v(row, head, outer);
      row -= kBlockN;
    }
    if constexpr (kValues) load_v(row, head, outer);
  }

  // --- pages ---

  // A lane looks after eight keys, so that a warp looks up the pages of several tiles at once, and
  // those of the next ones beside the copies.
  static constexpr int kGroups = kBlockN / 8, kTilesAhead = 32 / kGroups;
  static constexpr int kKeysAhead = kTilesAhead * kBlockN;

  __device__ static int lane() {
    return tid() % 32;
  }
  // The page of this lane's keys, where the tiles begin with key `first`. Below 0: not to be read.
  __device__ int own_page(const Work &w, int first) const {
    const int j = first + lane() * 8;
    if (lane() >= kTilesAhead * kGroups || j < 0 || j >= w.seqlen_k) return -1;
    return w.pages[p.page_size.quotient(static_cast<uint32_t>(j)) * p.page_step];
  }
  // Where the keys are that a lane looks after, for the one that asks.
  __device__ static int2 &place(int lane) {
    return reinterpret_cast<int2 *>(memory() + kConfig.places_at())[(kKeys ? 0 : 32) + lane];
  }
  // The boxes of a tile, whose keys lanes from `from` on look after.
  template <int kBlocks>
  __device__ void load_boxes(const TensorMap &map, uint32_t tile, uint32_t full, int from,
                             int head) const {
    barrier_expect(full, kBlockN * 128 * kBlocks);
    if (kGrouped && p.box_whole != 0) {
      const int step = p.box_groups;
#pragma unroll 1
      for (int i = kGroups - step; i >= 0; i -= step) {
        load_box(tile + i * 1024 * kBlocks, map, full, 0, 0, 0, place(from + i).x, head);
      }
      return;
    }
#pragma unroll 1
    for (int i = 0; i < kGroups; i += p.box_groups) {
      const int2 at = place(from + i);
#pragma unroll
      for (int block = 0; block < kBlocks; block++) {
        const int column = block * ForwardConfig::kColumns;
        if constexpr (kGrouped) {
          load_box(tile + i * 1024 * kBlocks + block * 1024, map, full, column, 0, 0, at.x, head);
        } else {
          load_box(tile + block * kBlockN * 128 + i * 1024, map, full, column, at.x, head, at.y);
        }
      }
    }
  }
  // All tiles of a block of queries, those of keys or those of values.
  __device__ void load_paged(const Work &w) {
    int first = uniform(w.top) - (kKeysAhead - kBlockN);
    int page = own_page(w, first);
    Place<kKvStages> &ring = kKeys ? k : v;
#pragma unroll 1
    for (int left = uniform(w.tiles); left > 0; left -= kTilesAhead) {
      // What is before the pool arrives as 0.
      page = max(page, -1);
      uint32_t slot = static_cast<uint32_t>(max(first + lane() * 8, 0));
      p.page_size.divide(slot);
      place(lane()) =
          kGrouped ? make_int2(page * (kKeys ? p.k_page_groups : p.v_page_groups) + (slot >> 3), 0)
                   : make_int2(static_cast<int>(slot), page);
      const uint32_t skipped = __ballot_sync(~0u, page < 0);
      __syncwarp();
      first -= kKeysAhead;
      page = own_page(w, first);
      if (elect_one()) {
#pragma unroll 1
        for (int tile = 0; tile < min(left, kTilesAhead); tile++) {
          const int from = (kTilesAhead - 1 - tile) * kGroups;
          const Place<kKvStages> at = {ring.count + tile};
          if constexpr (kKeys) {
            barrier_wait(barrier(Ring::k, false, at.stage()), at.phase() ^ 1);
            constexpr uint32_t kOwn = kGroups == 32 ? ~0u : (1u << kGroups) - 1;
            store_shared_32(skipped_groups(at.stage()), skipped >> from & kOwn);
            load_boxes<kConfig.blocks(kDqk)>(p.k, k_tile(at.stage()),
                                             barrier(Ring::k, true, at.stage()), from, w.kv_head);
            if (tile == 0 && left == w.tiles) load_q(w);
          } else {
            barrier_wait(barrier(Ring::v, false, at.stage()), at.phase() ^ 1);
            load_boxes<kConfig.blocks(kDv)>(p.v, v_tile(at.stage()),
                                            barrier(Ring::v, true, at.stage()), from, w.kv_head);
          }
        }
      }
      __syncwarp();
      ring.count += min(left, kTilesAhead);
    }
    if constexpr (kKeys) q.next();
  }

  // Block of queries after block of queries.
  template <class Load>
  __device__ void each(bool arrives, const Load &load) {
#pragma unroll 1
    for (;; work.next()) {
      barrier_wait(barrier(Ring::work, true, work.stage()), work.phase());
      const Work &w = work_slot(work.stage());
      if (w.rows == 0) return;
      if (w.tiles > 0) load(w);
      if (arrives) barrier_arrive(barrier(Ring::work, false, work.stage()));
    }
  }
  __device__ void run() {
    if constexpr (kWarp) {
      if (kKind == ForwardKind::pages || p.box_groups != 0) {
        each(tid() % 32 == 0, [&](const Work &w) { load_paged(w); });
        return;
      }
    }
    if (elect_one()) each(true, [&](const Work &w) { load_dense(w); });
  }
};

}  // namespace attn::cuda::sm90
