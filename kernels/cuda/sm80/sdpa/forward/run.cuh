// The kernel: the steps through a block's keys.
#pragma once

#include "kernels/cuda/sm80/sdpa/forward/bias.cuh"
#include "kernels/cuda/sm80/sdpa/forward/load.cuh"
#include "kernels/cuda/sm80/sdpa/forward/plan.cuh"
#include "kernels/cuda/sm80/sdpa/forward/repeat.cuh"
#include "kernels/cuda/sm80/sdpa/forward/scores.cuh"
#include "kernels/cuda/sm80/sdpa/forward/softmax.cuh"
#include "kernels/cuda/sm80/sdpa/forward/store.cuh"
#include "kernels/cuda/sm80/sdpa/forward/visible.cuh"

namespace attn::cuda {

using Product = Gemm<Element, kPrecise>;

// There is one tile of k and one of v in shared memory: v arrives during q k, the next k during the
// rest. (Two of each, so that the next scores could be computed beside these weights, leave room
// for tiles half as long, and are slower.)
__device__ inline void Forward::walk(Running &r) {
  HeldQ<kHeldSteps> held;
  bool skips_next = false;
  int step = next_step(block().first_step, 0);
  if (step >= block().steps_end) {
    // What follows uses q's tile, where q may still be arriving.
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    return;
  }
  if constexpr (!kLoadsEarly) {
    if (paged()) skips_next = __syncthreads_or(find_slots(key_of(block(), step), 0));
    load_k(block(), key_of(block(), step), 0);
    if (has(kForwardSegments)) load_segments(key_of(block(), step), 0);
    copy_async_commit();
  }
  if constexpr (kHeldSteps > 0) {
    copy_async_wait<0>();
    __syncthreads();
    Product::hold(held, own_q(), lane());
  }
#pragma unroll 1
  for (int turn = 0; step < block().steps_end; turn++) {
    const int buffer = turn & 1;
    const int next = next_step(step + 1, buffer ^ 1);
    Scores s;
    Ahead ahead;
    if constexpr (kKind == ForwardKind::mask) read_masks(ahead, key_of(block(), step));
    copy_async_wait<0>();
    __syncthreads();  // k is here; v's tile is free
    load_v(key_of(block(), step), buffer);
    const bool skips = skips_next;
    bool met = false;
    if (next < block().steps_end) {
      met = find_slots(key_of(block(), next), buffer ^ 1);
      if (has(kForwardSegments)) load_segments(key_of(block(), next), buffer ^ 1);
    }
    copy_async_commit();

    begin_scores(s);
    Product::scores(s, held, own_q(), k_tile(), lane());
    copy_async_wait<0>();
    // v is here; k's tile is free
    if (paged()) {
      skips_next = __syncthreads_or(met);
    } else {
      __syncthreads();
    }
    if (next < block().steps_end) load_k(block(), key_of(block(), next), buffer ^ 1);
    copy_async_commit();

    const int j0 = key_of(block(), step);
    finish_scores(s, ahead, j0, skips, buffer);
    if (has(kForwardSilu)) {
      each_row([&](int tile, int half) {
        each(s[tile], half, [&](float &x, int) { x = x == -infinity() ? 0 : silu_weight(x); });
      });
    } else {
      rescale(s, r);
      weigh(s, r);
    }
    if (has(kForwardDropout)) drop(s, j0);
    Product::values<kSumsAreProducts>(r.out, r.sums, s, v_tile(), lane(), p.p_terms);
    step = next;
  }
}

__device__ inline void Forward::run() {
  if (!describe()) return;

  Running r;
#pragma unroll
  for (int e = 0; e < 4; e++) r.sums[e] = 0;
#pragma unroll
  for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
    for (int n = 0; n < kDv / 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) r.out[tile][n][e] = 0;
    }
    r.max[tile][0] = r.max[tile][1] = -infinity();
    r.sum[tile][0] = r.sum[tile][1] = 0;
  }

  walk(r);

  // A row that is not finite is computed once more, carefully. All rows side by side: their sums
  // are long chains.
  Finish done[kTiles][2];
  float total[kTiles][2], check[kTiles][2];
  each_row([&](int tile, int half) {
    total[tile][half] = r.sums[half * 2 + tile];
    if (!kSumsAreProducts) {
      total[tile][half] = r.sum[tile][half];
      total[tile][half] += __shfl_xor_sync(~0u, total[tile][half], 1);
      total[tile][half] += __shfl_xor_sync(~0u, total[tile][half], 2);
    }
    check[tile][half] = total[tile][half] * 0;
  });
#pragma unroll
  for (int n = 0; n < kDv / 8; n++) {
#pragma unroll
    for (int e = 0; e < 2; e++) {
      each_row([&](int tile, int half) {
        check[tile][half] = fmaf(r.out[tile][n][half * 2 + e], 0.0f, check[tile][half]);
      });
    }
  }
  uint32_t odd = 0;  // a bit for each of the thread's rows
  each_row([&](int tile, int half) {
    const int local = local_row(tile, half);
    done[tile][half] = {0, 0};
    if (!in_use(local)) return;
    odd |= static_cast<uint32_t>(check[tile][half] != 0) << (tile * 2 + half);
    float high = r.max[tile][half];
    if (kBare && high != -infinity()) high *= p.scale_log2;
    done[tile][half] = finish(local, high, total[tile][half]);
    if (tells() && (lane() & 3) == 0) {
      store_statistics(row_of(local), done[tile][half].lse, high * kLn2F);
    }
  });
  store_rows(r, done);
  if (!__any_sync(~0u, odd != 0)) return;
  // A copy, so that only it need lie in memory.
  const Forward self = *this;
  self.repeat_rows(odd);
}

}  // namespace attn::cuda
