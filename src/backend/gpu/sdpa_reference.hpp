// The forward kernel that serves every option, kernels/common/gpu/sdpa_reference.hpp.
#pragma once

#include "backend/gpu/device.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::gpu {

// `kernel` is the backend's own build of it.
int32_t prepare_reference(const sdpa::Problem &problem, const GpuDevice &device,
                          const Kernel &kernel, const ErrorSink &error);
int32_t launch_reference(const sdpa::Problem &problem, const sdpa::Call &call,
                         const GpuDevice &device, const Kernel &kernel, attn_stream stream,
                         const ErrorSink &error);

// The functions of a row in a backend's list, which needs no workspace. kKernel is static data.
template <const Kernel &kKernel>
struct Reference {
  static Verdict serves(const sdpa::Problem &, const Device &) { return Verdict::serves(); }
  static size_t workspace(const sdpa::Problem &, const Device &) { return 0; }
  static int32_t prepare(const sdpa::Problem &problem, const Device &device,
                         const ErrorSink &error) {
    return prepare_reference(problem, gpu_of(device), kKernel, error);
  }
  static int32_t launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                        const Resources &resources, const ErrorSink &error) {
    return launch_reference(problem, call, gpu_of(device), kKernel, resources.stream, error);
  }
};

}  // namespace attn::gpu
