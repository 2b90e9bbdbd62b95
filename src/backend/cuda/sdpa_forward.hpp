// The tensor-core forward kernels: which problems they serve, and their launch.
#pragma once

#include "kernels/common/sequence.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::cuda {

Verdict forward_serves(const sdpa::Problem &problem, const Device &device);
size_t forward_workspace(const sdpa::Problem &problem, const Device &device);
int32_t forward_prepare(const sdpa::Problem &problem, const Device &device, const ErrorSink &error);
int32_t forward_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                       const Resources &resources, const ErrorSink &error);

// Whether rows of `columns` elements can be copied in pieces of 16 bytes.
bool copies_whole(const TokenView &view, int64_t columns, int64_t bytes);

}  // namespace attn::cuda
