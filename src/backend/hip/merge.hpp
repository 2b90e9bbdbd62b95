// The HIP backend's builds of the merge kernel.
#pragma once

#include "backend/gpu/merge.hpp"

namespace attn::hip {

const gpu::Kernel &merge_kernel(int32_t element, gpu::MergePath path);

}  // namespace attn::hip
