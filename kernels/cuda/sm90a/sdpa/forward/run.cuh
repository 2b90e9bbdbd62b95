// The kernel: barriers, then each warpgroup its role.
#pragma once

#include "kernels/cuda/sm90a/sdpa/forward/consume.cuh"
#include "kernels/cuda/sm90a/sdpa/forward/produce.cuh"

namespace attn::cuda::sm90 {

__device__ inline void run(const ForwardParams &p) {
  if (threadIdx.x == 0) {
    prefetch_tensor_map(p.q);
    prefetch_tensor_map(p.k);
    prefetch_tensor_map(p.v);
    const auto ring = [](Ring which, int stages, int done) {
      for (int stage = 0; stage < stages; stage++) {
        barrier_init(barrier(which, true, stage), 1);
        barrier_init(barrier(which, false, stage), done);
      }
    };
    constexpr int kWarps = kConsumers * 4;
    ring(Ring::q, kQStages * kConsumers, 4);
    ring(Ring::k, kKvStages, kWarps);
    ring(Ring::v, kKvStages, kWarps);
    ring(Ring::work, ForwardConfig::kWorks, kWarps + kProducers);
    barrier_init_fence();
    if constexpr (kPages) {
      for (int stage = 0; stage < kKvStages; stage++) store_shared_32(skipped_groups(stage), 0);
    }
  }
  __syncthreads();
  const int group = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);
  if (group == 0) {
    give_registers<kProducerRegisters>();
    const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
    if (warp == 1) {
      Planner{p}.run();
    } else if (warp == 0) {
      Producer<true, !kPages>{p}.run();
    } else if (kPages && warp == 2) {
      Producer<!kPages, true>{p}.run();
    }
  } else {
    take_registers<kConsumerRegisters>();
    Consumer{p, group - 1}.run();
  }
}

}  // namespace attn::cuda::sm90
