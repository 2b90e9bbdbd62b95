// The forward kernel on matrix instructions, kernels/hip/any/sdpa/forward.hip.
#pragma once

#include "ops/sdpa/problem.hpp"

namespace attn::hip {

Verdict forward_serves(const sdpa::Problem &problem, const Device &device);
size_t forward_workspace(const sdpa::Problem &problem, const Device &device);
int32_t forward_prepare(const sdpa::Problem &problem, const Device &device, const ErrorSink &error);
int32_t forward_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                       const Resources &resources, const ErrorSink &error);

}  // namespace attn::hip
