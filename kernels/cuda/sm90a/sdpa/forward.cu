// One variant of the Hopper forward kernel; forward.toml lists them.
#include "kernels/cuda/sm90a/sdpa/forward/run.cuh"

extern "C" __global__ void __launch_bounds__(attn::cuda::sm90::kThreads, 1)
    ATTN_ENTRY(const __grid_constant__ attn::cuda::sm90::ForwardParams params) {
  attn::cuda::sm90::run(params);
}
