// Merging parts by their log-sum-exp: kernels/common/gpu/merge.hpp.
#include "kernels/common/gpu/merge.hpp"

extern "C" __global__ void __attribute__((amdgpu_flat_work_group_size(1, 256)))
ATTN_ENTRY(attn::gpu::MergeParams) {
  extern __shared__ __attribute__((aligned(16))) unsigned char memory[];
  attn::gpu::merge(attn::gpu::parameters<attn::gpu::MergeParams>(), memory);
}
