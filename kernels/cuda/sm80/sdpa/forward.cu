// One variant of the forward kernel; forward.toml lists them.
#include "kernels/cuda/sm80/sdpa/forward/run.cuh"

extern "C" __global__ void __launch_bounds__(ATTN_WARPS * 32, ATTN_BLOCKS_PER_SM)
    ATTN_ENTRY(const __grid_constant__ attn::cuda::ForwardParams params) {
  attn::cuda::Forward{params}.run();
}
