// The forward kernel that serves every option, kernels/cuda/sm80/sdpa/reference.cu.
#pragma once

#include "ops/sdpa/problem.hpp"

namespace attn::cuda {

Verdict reference_serves(const sdpa::Problem &problem, const Device &device);
size_t reference_workspace(const sdpa::Problem &problem, const Device &device);
int32_t reference_prepare(const sdpa::Problem &problem, const Device &device,
                          const ErrorSink &error);
int32_t reference_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                         const Resources &resources, const ErrorSink &error);

}  // namespace attn::cuda
