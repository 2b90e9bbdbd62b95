// sdpa backward for every option: kernels/common/gpu/sdpa_backward.hpp.
#include "kernels/common/gpu/sdpa_backward.hpp"

extern "C" __global__ void __attribute__((amdgpu_flat_work_group_size(1, 256)))
ATTN_ENTRY(attn::gpu::SdpaBackwardParams) {
  extern __shared__ __attribute__((aligned(16))) unsigned char memory[];
  attn::gpu::sdpa_backward(attn::gpu::parameters<attn::gpu::SdpaBackwardParams>(), memory);
}
