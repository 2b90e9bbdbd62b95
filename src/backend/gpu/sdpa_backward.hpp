// The backward kernel that serves every option, kernels/common/gpu/sdpa_backward.hpp.
#pragma once

#include <array>
#include <cstdint>

#include "backend/gpu/device.hpp"
#include "kernels/common/gpu/sdpa_backward_params.hpp"
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

// The pieces of launch_backward, for backends with kernels of their own for some steps: what the
// kernel is given but for its step, how many tasks each step has, in their order (0: it is not
// wanted), and the launch of one.
struct BackwardTasks {
  BackwardStep step;
  int64_t count;
};
SdpaBackwardParams backward_params(const sdpa::Problem &problem, const sdpa::Call &call,
                                   void *workspace);
std::array<BackwardTasks, 5> backward_tasks(const sdpa::Problem &problem, const sdpa::Call &call,
                                            const SdpaBackwardParams &params);
int32_t launch_backward_step(SdpaBackwardParams params, const BackwardTasks &tasks,
                             const GpuDevice &device, const Kernel &kernel, attn_stream stream,
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
