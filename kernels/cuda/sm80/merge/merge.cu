// Merging parts by their log-sum-exp: kernels/common/gpu/merge.hpp.
#include "kernels/common/gpu/merge.hpp"

extern "C" __global__ void __launch_bounds__(256, attn::gpu::kStream ? 4 : 3)
    ATTN_ENTRY(const __grid_constant__ attn::gpu::MergeParams p) {
  extern __shared__ __align__(16) unsigned char memory[];
  attn::gpu::merge(p, memory);
}
