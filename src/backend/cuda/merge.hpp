// The CUDA backend's builds of the merge kernel.
#pragma once

#include "backend/cuda/device.hpp"
#include "backend/gpu/merge.hpp"

namespace attn::cuda {

using gpu::MergedResults;
using gpu::PartialResults;

const Kernel &merge_kernel(int32_t element, gpu::MergePath path);

// Puts the pieces of an attention together whose keys were split among blocks.
inline int32_t load_combine(const CudaDevice &device, const ErrorSink &error) {
  return gpu::load_combine(device, merge_kernel, error);
}
inline int32_t combine(const CudaDevice &device, const PartialResults &partial,
                       const MergedResults &merged, attn_stream stream, const ErrorSink &error) {
  return gpu::combine(device, merge_kernel, partial, merged, stream, error);
}

}  // namespace attn::cuda
