// The Hopper forward kernels: which problems they serve, and their launch.
#pragma once

#include "ops/sdpa/problem.hpp"

namespace attn::cuda {

// Queries and keys of a tile; 0 by 0: whatever is estimated to take least time.
struct ForwardTile {
  int32_t block_m = 0, block_n = 0;
  bool operator==(const ForwardTile &) const = default;
};

// With a tile, only problems are served for which the estimate takes another.
Verdict forward_sm90a_serves(const sdpa::Problem &problem, const Device &device, ForwardTile tile);
size_t forward_sm90a_workspace(const sdpa::Problem &problem, const Device &device);
int32_t forward_sm90a_prepare(const sdpa::Problem &problem, const Device &device, ForwardTile tile,
                              const ErrorSink &error);
int32_t forward_sm90a_launch(const sdpa::Problem &problem, const sdpa::Call &call,
                             const Device &device, ForwardTile tile, const Resources &resources,
                             const ErrorSink &error);

}  // namespace attn::cuda
