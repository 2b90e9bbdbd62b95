// The CUDA backend's builds of the merge kernel.
#pragma once

#include "backend/cuda/device.hpp"
#include "backend/gpu/merge.hpp"

namespace attn::cuda {

const Kernel &merge_kernel(int32_t element, gpu::MergePath path);

// For attention whose keys are split among blocks.
inline int32_t load_combine(const CudaDevice &device, const ErrorSink &error) {
  return gpu::load_combine(device, merge_kernel, error);
}

}  // namespace attn::cuda
