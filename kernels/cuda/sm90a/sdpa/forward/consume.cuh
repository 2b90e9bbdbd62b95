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

  __device__ static void release(Ring ring, int stage) {
    if (threadIdx.x % 32 == 0) barrier_arrive(barrier(ring, false, stage));
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
  template <int kRows, int kColumns>
  __device__ void clear_rows(uint32_t tile, int from, int to) const {
    constexpr int kChunks = kConfig.blocks(kColumns) * 8;
    for (int i = tid() % 128; i < (to - from) * kChunks; i += 128) {
      const int row = from + i / kChunks, chunk = i % kChunks;
      store_shared_128(tile + chunk / 8 * kRows * 128 + row * 128 + chunk % 8 * 16,
                       make_uint4(0, 0, 0, 0));
    }
    async_fence();
    named_wait(turn_of(kConsumers) + group, 128);
  }
  __device__ void clear_q(const Work &w) const {
    const int from = max(w.used - w.row0 - group * 64, 0);
    if ((p.options & kForwardWholeQ) == 0 && from < 64) {
      clear_rows<64, kDqk>(q_tile(q.stage(), group), from, 64);
    }
  }
  __device__ void clear_v(const Work &w) const {
    const int top = w.own_top[group];
    if ((p.options & kForwardWholeKv) == 0 && w.seqlen_k < top + kBlockN) {
      clear_rows<kBlockN, kDv>(v_tile(v().stage()), w.seqlen_k - top, kBlockN);
    }
  }

  // A branch that is never taken, where weights and sums are used: so the compiler cannot move
  // their computation to behind the wait for products that it is to run beside.
  template <class T, int kCount>
  __device__ void finish_here(const T (&weights)[kCount], const Softmax &softmax) const {
    if (p.head_dim_qk >= 0) return;
    uint32_t to = smem();
#pragma unroll
    for (int i = 0; i < kCount; i++, to += 4) {
      uint32_t bits;
      if constexpr (std::is_same_v<T, float>) {
        bits = __float_as_uint(weights[i]);
      } else {
        bits = weights[i];
      }
      store_shared_32(to, bits);
    }
    store_shared_32(to, __float_as_uint(softmax.sum[0]));
    store_shared_32(to + 4, __float_as_uint(softmax.sum[1]));
  }

  // Operands in shared memory, of the next products.
  __device__ WgmmaOperand q_operand() const {
    return wgmma_rows(uniform(q_tile(q.stage(), group)));
  }
  __device__ WgmmaOperand k_operand() const {
    return wgmma_rows(uniform(k_tile(k.stage())));
  }
  __device__ WgmmaOperand v_operand() const {
    return wgmma_columns(uniform(v_tile(v().stage())), kBlockN * 128);
  }
  // s = Q K^T.
  __device__ static void issue_scores(float (&s)[kScores], const WgmmaOperand &q_rows,
                                      const WgmmaOperand &k_rows) {
#pragma unroll
    for (int step = 0; step < kDqk / 16; step++) {
      const int block = step / 4, inner = step % 4 * 32;
      Wgmma<kBlockN>::template shared<Element, 0, 0>(s, q_rows.at(block * 64 * 128 + inner),
                                                     k_rows.at(block * kBlockN * 128 + inner),
                                                     step > 0);
    }
    wgmma_commit();
  }
  // out += weights V.
  __device__ static void issue_values(float (&out)[kOut], const uint32_t (&weights)[kScores / 2],
                                      const WgmmaOperand &v_columns) {
#pragma unroll
    for (int step = 0; step < kBlockN / 16; step++) {
      Wgmma<kDv>::template registers<Element, 1>(out, weights + step * 4, v_columns.at(step * 2048),
                                                 1);
    }
    wgmma_commit();
  }

  // Whether all rows see all keys of a tile.
  __device__ bool sees_all(const Work &w, int first) const {
    return first >= w.all_begin[group] && first + kBlockN <= w.all_end[group];
  }
  // Groups of eight keys that nobody sees, a bit each. Not to be read when the tile is released.
  __device__ uint32_t skipped() const {
    if constexpr (!kPages) return 0;
    uint32_t groups = 0;
    if (threadIdx.x % 32 == 0) groups = load_shared_32(skipped_groups(k.stage()));
    return __shfl_sync(~0u, groups, 0);
  }
  // Hides what the rows of `w` do not see of a tile, and turns scores into weights. True if results
  // so far must follow by softmax.alpha.
  __device__ bool weigh(float (&s)[kScores], Softmax &softmax, const Work &w, int first, bool whole,
                        uint32_t skipped) const {
    if (kScoreOptions && (p.options & kForwardSoftcap) != 0) Softmax::cap(s, p);
    if (kScoreOptions && (p.options & kForwardAlibi) != 0) {
      Softmax::slope(s, w, w.row0 + local_row(), first);
    }
    if (kPages && skipped != 0) Softmax::hide(s, skipped);
    if (!whole) Softmax::mask(s, p, w, w.row0 + local_row(), first);
    return softmax.weigh(s);
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
    release(Ring::q, q_stage(q.stage(), group));
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

  // Behind a block's first products.
  __device__ void first_weights(float (&s)[kScores], uint32_t (&weights)[kScores / 2],
                                Softmax &softmax, const Work &w) {
    own_registers(s);
    const uint32_t skips = skipped();
    next_k();
    const int first = uniform(w.own_top[group]);
    if (first == uniform(w.bottom)) next_q();
    softmax.begin();
    weigh(s, softmax, w, first, sees_all(w, first), skips);
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
      int first = w.own_top[group];
      barrier_wait(barrier(Ring::v, true, v().stage()), v().phase());
      clear_v(w);
      if (skips_first(w)) {  // all warpgroups take as many turns
        take_turn();
        end_turn();
      }
      bool more = first > w.bottom;
      if (more) barrier_wait(barrier(Ring::k, true, k.stage()), k.phase());
#pragma unroll
      for (int i = 0; i < kOut; i++) out[i] = 0;
      // Scores of the next tile, and values of this one beside it: from its weights to the next
      // ones.
      const auto step = [&](uint32_t(&from)[kScores / 2], uint32_t(&to)[kScores / 2]) {
        first -= kBlockN;
        const WgmmaOperand q_rows = q_operand(), k_rows = k_operand(), v_columns = v_operand();
        take_turn();
        own_registers(s);
        own_registers(out);
        wgmma_fence();
        issue_scores(s, q_rows, k_rows);
        barrier_wait(barrier(Ring::v, true, v().stage()), v().phase());
        wgmma_fence();
        issue_values(out, from, v_columns);
        // (Read from shared memory, where it does not cost registers, while products run.)
        const bool whole = sees_all(w, first);
        const uint32_t skips = skipped();
        more = first > w.bottom;
        wgmma_wait<1>();
        own_registers(s);
        // Only now, so that the other's scores come when these have become weights: softmaxes that
        // run at the same time are in each other's way.
        end_turn();
        next_k();
        if (!more) next_q();
        const bool moved = weigh(s, softmax, w, first, whole, skips);
        if constexpr (kTwoWeights) {
          Softmax::pack(to, s);
          finish_here(to, softmax);
        } else {
          finish_here(s, softmax);
        }
        if (more) barrier_wait(barrier(Ring::k, true, k.stage()), k.phase());
        wgmma_wait<0>();
        own_registers(out);
        own_registers(from);
        release(Ring::v, v(2).stage());
        if constexpr (!kTwoWeights) {
          Softmax::pack(to, s);
          own_registers(to);
        }
        if (moved) softmax.rescale(out);
      };
      if constexpr (kTwoWeights) {
        uint32_t others[kScores / 2];
#pragma unroll 1
        while (more) {
          step(weights, others);
          if (!more) {
#pragma unroll
            for (int i = 0; i < kScores / 2; i++) weights[i] = others[i];
            break;
          }
          step(others, weights);
        }
      } else {
#pragma unroll 1
        while (more) step(weights, weights);
      }
      work.next();
      const Work &next = wait_work();
      const bool goes_on = uniform(next.tiles) > 0;
      const int last_v = v().stage();
      barrier_wait(barrier(Ring::v, true, v().stage()), v().phase());
      if (!goes_on) {
        own_registers(out);
        wgmma_fence();
        issue_values(out, weights, v_operand());
        wgmma_wait<0>();
      } else {
        take_turn();
        own_registers(s);
        own_registers(out);
        wgmma_fence();
        issue_values(out, weights, v_operand());
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
      Store{p, w, tid() / 32 - 4, tid() % 32}.run(out, softmax);
      __syncwarp();
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
