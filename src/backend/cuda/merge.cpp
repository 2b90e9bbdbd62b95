// The CUDA backend's implementations of merge.
#include "backend/cuda/merge.hpp"

#include "backend/cuda/lists.hpp"

namespace attn::cuda {

#define ATTN_VARIANT(entry, begin, end, element, path) ATTN_GPU_IMAGE(entry, begin, end)
#include "kernels/cuda/sm80/merge/merge_table.inc"
#undef ATTN_VARIANT

namespace {

using gpu::MergePath;

constexpr int32_t fp32 = ATTN_DTYPE_FP32, fp16 = ATTN_DTYPE_FP16, bf16 = ATTN_DTYPE_BF16;

constexpr gpu::MergeVariant kVariants[] = {
#define ATTN_VARIANT(entry, begin, end, element, path) \
  {ATTN_GPU_KERNEL(entry), element, MergePath::path},
#include "kernels/cuda/sm80/merge/merge_table.inc"
#undef ATTN_VARIANT
};

using Merge = gpu::Merge<merge_kernel>;

// Name, deterministic, capturable, asynchronous, serves, cost, workspace, launch, prepare.
constexpr merge::Row merge_rows[] = {
    {"cuda/merge/reference", true, true, true, Merge::serves, nullptr, Merge::workspace,
     Merge::launch, Merge::prepare},
};

}  // namespace

const gpu::Kernel &merge_kernel(int32_t element, MergePath path) {
  return gpu::find_merge(kVariants, element, path);
}

merge::List merge_list() {
  return merge_rows;
}

}  // namespace attn::cuda
