// Lists of visible key blocks to bits: kernels/common/gpu/block_map.hpp.
#include "kernels/common/gpu/block_map.hpp"

extern "C" __global__ void __launch_bounds__(attn::gpu::kBlockMapThreads)
    ATTN_ENTRY(const __grid_constant__ attn::gpu::BlockMapParams p) {
  __shared__ uint32_t window[attn::gpu::kBlockMapWindow];
  attn::gpu::write_block_map(p, window);
}
