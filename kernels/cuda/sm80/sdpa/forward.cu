// One variant of the forward kernel; forward.toml lists them.
#include "kernels/cuda/sm80/sdpa/forward.cuh"

namespace attn::cuda {
using fp16 = Fp16;
using bf16 = Bf16;
using fp32 = Fp32;  // on TF32 tensor cores, as exact as fp32
using tf32 = Fp32;
enum class Precision { fp16, bf16, fp32, tf32 };

using Kernel = Forward<ATTN_ELEMENT, ATTN_HEAD_DIM_QK, ATTN_HEAD_DIM_V, ATTN_BLOCK_M, ATTN_BLOCK_N,
                       ATTN_WARPS, ForwardKind::ATTN_KIND, Precision::ATTN_ELEMENT == Precision::fp32>;
}  // namespace attn::cuda

extern "C" __global__ void __launch_bounds__(ATTN_WARPS * 32, ATTN_BLOCKS_PER_SM)
    ATTN_ENTRY(const __grid_constant__ attn::cuda::ForwardParams params) {
  attn::cuda::Kernel(params).run();
}
