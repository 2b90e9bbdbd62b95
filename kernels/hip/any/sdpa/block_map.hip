// Lists of visible key blocks to bits: kernels/common/gpu/block_map.hpp.
#include "kernels/common/gpu/block_map.hpp"

extern "C" __global__ void __attribute__((amdgpu_flat_work_group_size(attn::gpu::kBlockMapThreads,
                                                                      attn::gpu::kBlockMapThreads)))
ATTN_ENTRY(attn::gpu::BlockMapParams) {
  __shared__ static uint32_t window[attn::gpu::kBlockMapWindow];
  attn::gpu::write_block_map(attn::gpu::parameters<attn::gpu::BlockMapParams>(), window);
}
