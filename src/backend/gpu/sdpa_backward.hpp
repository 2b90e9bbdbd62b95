// The backward kernel that serves every option, kernels/common/gpu/sdpa_backward.hpp.
#pragma once

#include "backend/gpu/device.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::gpu {

Verdict backward_serves(const sdpa::Problem &problem, const Device &device);
size_t backward_workspace(const sdpa::Problem &problem, const Device &device);
// `kernel` is the backend's own build of it.
int32_t prepare_backward(const sdpa::Problem &problem, const GpuDevice &device,
                         const Kernel &kernel, const ErrorSink &error);
int32_t launch_backward(const sdpa::Problem &problem, const sdpa::Call &call,
                        const GpuDevice &device, const Kernel &kernel, const Resources &resources,
                        const ErrorSink &error);

// The functions of a row in a backend's list. kKernel is static data.
template <const Kernel &kKernel>
struct BackwardReference {
  static int32_t prepare(const sdpa::Problem &problem, const Device &device,
                         const ErrorSink &error) {
    return prepare_backward(problem, gpu_of(device), kKernel, error);
  }
  static int32_t launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                        const Resources &resources, const ErrorSink &error) {
    return launch_backward(problem, call, gpu_of(device), kKernel, resources, error);
  }
};

}  // namespace attn::gpu
