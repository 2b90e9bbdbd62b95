// sdpa forward for every option: kernels/common/gpu/sdpa_reference.hpp.
#include "kernels/common/gpu/sdpa_reference.hpp"

extern "C" __global__ void __attribute__((amdgpu_flat_work_group_size(1, 256)))
ATTN_ENTRY(attn::gpu::SdpaReferenceParams) {
  extern __shared__ __attribute__((aligned(16))) unsigned char memory[];
  attn::gpu::sdpa_reference(attn::gpu::parameters<attn::gpu::SdpaReferenceParams>(), memory);
}
