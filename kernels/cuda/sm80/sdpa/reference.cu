// sdpa forward for every option: kernels/common/gpu/sdpa_reference.hpp.
#include "kernels/common/gpu/sdpa_reference.hpp"

extern "C" __global__ void __launch_bounds__(256, 2)
    ATTN_ENTRY(const __grid_constant__ attn::gpu::SdpaReferenceParams p) {
  extern __shared__ __align__(16) unsigned char memory[];
  attn::gpu::sdpa_reference(p, memory);
}
