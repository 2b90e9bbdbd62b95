// Decode on the CPU: few queries against many keys. The keys of a sequence are split among threads;
// each piece gives a partial (maximum, sum, output), which are merged in a fixed order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/device.hpp"
#include "core/implementation.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::cpu {

Verdict decode_serves(const sdpa::Problem &problem, const Device &device);
size_t decode_workspace_bytes(const sdpa::Problem &problem, const Device &device);
int32_t decode_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                      const Resources &resources, const ErrorSink &error);

}  // namespace attn::cpu
