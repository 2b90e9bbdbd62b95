// The backward kernels on matrix instructions, kernels/hip/any/sdpa/backward_matrix.hip: dq, and dk
// with dv. The other steps are those of the kernel that serves every option, as are these two where
// rows cannot be read 16 bytes at a time or a gradient has another dtype than q.
#pragma once

#include "backend/gpu/device.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::hip {

Verdict backward_serves(const sdpa::Problem &problem, const Device &device);
// `portable`: the kernel that serves every option.
int32_t backward_prepare(const sdpa::Problem &problem, const Device &device,
                         const gpu::Kernel &portable, const ErrorSink &error);
int32_t backward_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                        const gpu::Kernel &portable, const Resources &resources,
                        const ErrorSink &error);

// The functions of a row. kPortable is static data.
template <const gpu::Kernel &kPortable>
struct BackwardMatrix {
  static int32_t prepare(const sdpa::Problem &problem, const Device &device,
                         const ErrorSink &error) {
    return backward_prepare(problem, device, kPortable, error);
  }
  static int32_t launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                        const Resources &resources, const ErrorSink &error) {
    return backward_launch(problem, call, device, kPortable, resources, error);
  }
};

}  // namespace attn::hip
