// The consumers: a warpgroup computes 64 rows of a block of queries.
#pragma once

#include "kernels/cuda/sm90a/sdpa/forward/softmax.cuh"
#include "kernels/cuda/sm90a/sdpa/forward/store.cuh"

namespace attn::cuda::sm90 {

struct Consumer {
  const ForwardParams &p;
  int group;  // which warpgroup
  Place<kQStages> q;
  Place<kKvStages> k;
  Place<ForwardConfig::kWorks> work;

  // The first row of this thread within the block.
  __device__ static int local_row() { return (tid() - 128) / 32 * 16 + tid() % 32 / 4; }

  // Asked for anew each time: a predicate kept for it from block to block costs a register.
  __device__ static bool first_lane() {
    uint32_t lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane == 0;
  }
  __device__ static void release(Ring ring, int stage) {
    if (first_lane()) barrier_arrive(barrier(ring, false, stage));
  }
  // Turns at the tensor cores: while one warpgroup's products run, the others' exponentials do.
  __device__ static int turn_of(int group) { return 1 + group; }
  __device__ void take_turn() const { named_wait(turn_of(group), 256); }
  __device__ void end_turn() const {
    named_arrive(turn_of(group + 1 == kConsumers ? 0 : group + 1), 256);
  }

  // Clears the rows of a tile from `from` on, by all threads of a warpgroup: memory behind a
  // sequence may hold anything, and must not change results, not even by a NaN times 0. (Several
  // warpgroups may write the same zeros.)
  template <int kBlock, int kGroup, int kColumns>
  __device__ void clear_rows(uint32_t tile, int from, int to) const {
    constexpr int kChunks = kConfig.blocks(kColumns) * 8;
    for (int i = tid() % 128; i < (to - from) * kChunks; i += 128) {
      const int row = from + i / kChunks, chunk = i % kChunks;
      store_shared_128(
          tile + chunk / 8 * kBlock + row / 8 * kGroup + row % 8 * 128 + chunk % 8 * 16,
          make_uint4(0, 0, 0, 0));
    }
    async_fence();
    named_wait(turn_of(kConsumers) + group, 128);
  }
  __device__ void clear_q(const Work &w) const {
    const int from = max(w.used - w.row0 - group * 64, 0);
    if ((p.options & kForwardWholeQ) == 0 && from < 64) {
      clear_rows<64 * 128, 1024, kDqk>(q_tile(q.stage(), group), from, 64);
    }
  }
  __device__ void clear_v(const Work &w) const {
    const int top = w.own_top[group];
    if ((p.options & kForwardWholeKv) == 0 && w.seqlen_k < top + kBlockN) {
      clear_rows<KvTile<kDv>::kBlock, KvTile<kDv>::kGroup, kDv>(v_tile(v().stage()),
                                                                w.seqlen_k - top, kBlockN);
    }
  }

  // Operands in shared memory, of the next products.
  __device__ WgmmaOperand q_operand() const {
    // (Of one stage: as if it moved with blocks, lest descriptors be kept all the time.)
    const uint32_t moves = kQStages == 1 ? q.count & static_cast<uint32_t>(p.zero) : 0;
    return wgmma_rows(q_tile(q.stage(), group) + moves);
  }
  __device__ WgmmaOperand k_operand() const {
    return wgmma_rows(k_tile(k.stage()), KvTile<kDqk>::kGroup);
  }
  __device__ WgmmaOperand v_operand() const {
    return wgmma_columns(v_tile(v().stage()), KvTile<kDv>::kBlock, KvTile<kDv>::kGroup);
  }
  // s = Q K^T.
  __device__ static void issue_scores(float (&s)[kScores], const WgmmaOperand &q_rows,
                                      const WgmmaOperand &k_rows) {
#pragma unroll
    for (int step = 0; step < kDqk / 16; step++) {
      const int block = step / 4, inner = step % 4 * 32;
      Wgmma<kBlockN>::template shared<Element, 0, 0>(
          s, q_rows.at(block * 64 * 128 + inner), k_rows.at(block * KvTile<kDqk>::kBlock + inner),
          step > 0);
    }
    wgmma_commit();
  }
  // out = weights V, added to out if `add` is 1.
  __device__ static void issue_values(float (&out)[kOut], const uint32_t (&weights)[kScores / 2],
                                      const WgmmaOperand &v_columns, int add) {
#pragma unroll
    for (int step = 0; step < kBlockN / 16; step++) {
      Wgmma<kDv>::template registers<Element, 1>(out, weights + step * 4,
                                                 v_columns.at(step * 2 * KvTile<kDv>::kGroup),
                                                 step > 0 || !kStartsAnew ? 1 : add);
    }
    wgmma_commit();
  }

  // Groups of eight keys that nobody sees, a bit each. Not to be read when the tile is released.
  __device__ uint32_t skipped() const {
    if constexpr (!kPages) return 0;
    uint32_t groups = 0;
    if (threadIdx.x % 32 == 0) groups = load_shared_32(skipped_groups(k.stage()));
    return __shfl_sync(~0u, groups, 0);
  }
  // Hides what the rows of `w` do not see of a tile (`masked`: not all see all of it), and turns
  // scores into weights. `between`: see Softmax.
  template <bool kPositive, class Between>
  __device__ void weigh(float (&s)[kScores], Softmax &softmax, const Work &w, int first,
                        bool masked, uint32_t skipped, const Between &between) const {
    if constexpr (kKind == ForwardKind::softcap) {
      if (!softmax.weigh_tiny_products(s, masked, between)) {
        float high[2];
        softmax.highest_product(s, high);
        const bool small = softmax.small_products(s, high);
        if (!small || masked) {
          if (!small) Softmax::cap_all_large(s, p);
          if (masked) Softmax::mask(s, p, w, w.row0 + local_row(), first);
          softmax.highest_product(s, high);
        }
        softmax.weigh_products(s, high, small, between);
      }
      return;
    }
    if (kSoftcap && (p.options & kForwardSoftcap) != 0) Softmax::cap(s, p);
    if (kAlibi && (p.options & kForwardAlibi) != 0) {
      Softmax::slope(s, w, w.row0 + local_row(), first);
    }
    if (kPages && skipped != 0) Softmax::hide(s, skipped);
    if (masked) Softmax::mask(s, p, w, w.row0 + local_row(), first);
    softmax.weigh<kPositive>(s, between);
  }
  __device__ void next_k() {
    release(Ring::k, k.stage());
    k.next();
  }
  // Values are a tile behind keys.
  __device__ Place<kKvStages> v(uint32_t behind = 1) const {
    return {k.count - behind};
  }
  __device__ void next_q() {
    if (!kThroughQ) release(Ring::q, q_stage(q.stage(), group));
    q.next();
  }
  __device__ void next_work() {
    __syncwarp();
    release(Ring::work, work.stage());
    work.next();
  }
  __device__ const Work &wait_work() const {
    barrier_wait(barrier(Ring::work, true, work.stage()), work.phase());
    return work_slot(work.stage());
  }
  // Whether none of this warpgroup's rows sees any of a block's first tile.
  __device__ bool skips_first(const Work &w) const {
    return uniform(w.own_top[group]) < uniform(w.top);
  }
  // Waits for what the first products of `w` need.
  __device__ void wait_first(const Work &w) {
    if (skips_first(w)) {
      barrier_wait(barrier(Ring::k, true, k.stage()), k.phase());
      next_k();
      barrier_wait(barrier(Ring::v, true, v().stage()), v().phase());
      release(Ring::v, v().stage());
    }
    barrier_wait(barrier(Ring::q, true, q_stage(q.stage(), group)), q.phase());
    clear_q(w);
    barrier_wait(barrier(Ring::k, true, k.stage()), k.phase());
  }

  // The tiles of a block that a warpgroup has yet to score. Of the first ones, not all rows see the
  // last keys; of the last ones, not all see the first keys.
  struct Tiles {
    int first;  // the next one's first key
    int lead, whole, tail;

    __device__ Tiles(const Work &w, int group)
        : first(uniform(w.own_top[group])),
          lead(uniform(w.lead[group])),
          whole((first - uniform(w.bottom)) / kBlockN + 1 - lead - uniform(w.tail[group])),
          tail(uniform(w.tail[group])) {}
    __device__ int left() const { return lead + whole + tail; }
    __device__ bool masked() const { return lead > 0 || whole == 0; }
    __device__ void drop() { (lead > 0 ? lead : whole > 0 ? whole : tail)--; }
  };

  // Behind a block's first products.
  __device__ void first_weights(float (&s)[kScores], uint32_t (&weights)[kScores / 2],
                                Softmax &softmax, const Work &w) {
    own_registers(s);
    const uint32_t skips = skipped();
    next_k();
    const Tiles tiles(w, group);
    if (tiles.left() == 1) next_q();
    softmax.begin();
    weigh<false>(s, softmax, w, tiles.first, tiles.masked(), skips, [](int) {});
    Softmax::pack(weights, s);
    own_registers(weights);
  }

  // Blocks of queries with keys, one after the other: a block's first products come right beside
  // the last ones of the block before. Ends behind the last of a row of such blocks.
  __device__ void walk() {
    float s[kScores], out[kOut];
    uint32_t weights[kScores / 2];
    Softmax softmax(p);
    {
      const Work &w = work_slot(work.stage());
      wait_first(w);
      wgmma_fence();
      issue_scores(s, q_operand(), k_operand());
      wgmma_wait<0>();
      first_weights(s, weights, softmax, w);
    }
#pragma unroll 1
    for (;;) {
      const Work &w = work_slot(work.stage());
      Tiles tiles(w, group);
      tiles.drop();
      barrier_wait(barrier(Ring::v, true, v().stage()), v().phase());
      clear_v(w);
      if (skips_first(w)) {  // all warpgroups take as many turns
        take_turn();
        end_turn();
      }
      int add = 0;  // 1: there are results of this block
      if constexpr (!kStartsAnew) {
#pragma unroll
        for (int i = 0; i < kOut; i++) out[i] = 0;
      }
      // Scores of the next tile, and values of the one before beside them: from weights to the next
      // ones. `masked`: not all rows see all of the tile; `last`: of the block. (One body with few
      // branches: what has none between products and the next ones, the compiler mixes best.)
      const auto step = [&](auto positive, bool masked, bool last) {
        tiles.first -= kBlockN;
        barrier_wait(barrier(Ring::k, true, k.stage()), k.phase());
        take_turn();
        own_registers(s);
        own_registers(out);
        wgmma_fence();
        issue_scores(s, q_operand(), k_operand());
        barrier_wait(barrier(Ring::v, true, v().stage()), v().phase());
        wgmma_fence();
        issue_values(out, weights, v_operand(), add);
        add = 1;
        end_turn();
        const uint32_t skips = skipped();
        wgmma_wait<1>();
        own_registers(s);
        const uint32_t k_done = barrier(Ring::k, false, k.stage());
        k.next();
        // The wait for values stays behind the release of keys, and so is in the middle of the
        // exponentials: the rest of these and of what follows is done beside one another.
        weigh<decltype(positive)::value>(s, softmax, w, tiles.first, masked, skips, [&](int zero) {
          if (threadIdx.x % 32 == 0) barrier_arrive(k_done + zero);
        });
        wgmma_wait<0>();
        own_registers(out);
        own_registers(weights);
        release(Ring::v, v(2).stage());
        if (!kThroughQ && threadIdx.x % 32 == 0 && last) {
          barrier_arrive(barrier(Ring::q, false, q_stage(q.stage(), group)));
        }
        q.count += last ? 1 : 0;
        Softmax::pack(weights, s);
        softmax.rescale(out);
      };
      const auto any_step = [&] {
        const bool masked = tiles.masked();
        tiles.drop();
        step(std::false_type{}, masked, tiles.left() == 0);
      };
      if constexpr (kComparesBits) {
#pragma unroll 1
        for (;;) {
#pragma unroll 1
          while (tiles.lead > 0 || (tiles.whole > 0 && !softmax.positive())) any_step();
#pragma unroll 1
          while (tiles.whole > 0) {
            tiles.whole--;
            step(std::true_type{}, false, tiles.left() == 0);
          }
          if (tiles.tail == 0) break;
          tiles.lead = tiles.tail;
          tiles.tail = 0;
        }
      } else {
#pragma unroll 1
        while (tiles.left() > 0) any_step();
      }
      work.next();
      const Work &next = wait_work();
      const bool goes_on = uniform(next.tiles) > 0;
      const int last_v = v().stage();
      barrier_wait(barrier(Ring::v, true, v().stage()), v().phase());
      if (!goes_on) {
        own_registers(out);
        wgmma_fence();
        issue_values(out, weights, v_operand(), add);
        wgmma_wait<0>();
      } else {
        take_turn();
        own_registers(s);
        own_registers(out);
        wgmma_fence();
        issue_values(out, weights, v_operand(), add);
        wait_first(next);
        wgmma_fence();
        issue_scores(s, q_operand(), k_operand());
        end_turn();
        wgmma_wait<0>();
        own_registers(s);
      }
      own_registers(out);
      own_registers(weights);
      release(Ring::v, last_v);
      // (Not in turn, another warp's products might still read the tile.)
      if (kThroughQ && !goes_on) named_wait(turn_of(kConsumers) + group, 128);
      const int stage = Place<kQStages>{q.count - 1}.stage();
      Store{p, w, tid() / 32 - 4, tid() % 32}.run(out, softmax, q_tile(stage, group));
      if (kThroughQ && first_lane()) {
        async_fence();  // the copy engine writes there next
        barrier_arrive(barrier(Ring::q, false, q_stage(stage, group)));
      }
      release(Ring::work, Place<ForwardConfig::kWorks>{work.count - 1}.stage());
      if (!goes_on) return;
      first_weights(s, weights, softmax, next);
    }
  }

  __device__ void run() {
    if (group == kConsumers - 1) named_arrive(turn_of(0), 256);
#pragma unroll 1
    for (;;) {
      const Work &w = wait_work();
      if (uniform(w.rows) == 0) return;
      if (uniform(w.tiles) > 0) {
        walk();
      } else {
        Store{p, w, tid() / 32 - 4, tid() % 32}.store_without_keys();
        next_work();
      }
    }
  }
};

}  // namespace attn::cuda::sm90
