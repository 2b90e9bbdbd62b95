// The Hopper forward kernels: which problems they serve, and their launch.
#pragma once

#include "ops/sdpa/problem.hpp"

namespace attn::cuda {

Verdict forward_sm90a_serves(const sdpa::Problem &problem, const Device &device);
size_t forward_sm90a_workspace(const sdpa::Problem &problem, const Device &device);
int32_t forward_sm90a_prepare(const sdpa::Problem &problem, const Device &device,
                              const ErrorSink &error);
int32_t forward_sm90a_launch(const sdpa::Problem &problem, const sdpa::Call &call,
                             const Device &device, const Resources &resources,
                             const ErrorSink &error);

}  // namespace attn::cuda
