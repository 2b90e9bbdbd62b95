// The contents of a call's host arrays: lengths, offsets, page tables, block lists. On a device
// they live where the host cannot look; on the CPU they are checked before anything is written.
#pragma once

#include "ops/sdpa/problem.hpp"

namespace attn::cpu {

// `error` names args.<field>[i].
int32_t check_contents(const sdpa::Problem &problem, const sdpa::Call &call,
                       const ErrorSink &error);

}  // namespace attn::cpu
