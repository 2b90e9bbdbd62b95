// The contents of a call's host arrays: lengths, offsets, page tables, block lists. On a device
// they live where the host cannot look; on the CPU they are checked before anything is written.
#pragma once

#include "ops/sdpa/problem.hpp"

namespace attn::cpu {

// The CPU has no streams: a call's must be NULL.
inline int32_t check_stream(const Resources &resources, const ErrorSink &error) {
  if (resources.stream == nullptr) return ATTN_OK;
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "stream",
                    "stream is %p; on the CPU backend it must be NULL: work is done when the call "
                    "returns",
                    resources.stream);
}

// `error` names args.<field>[i].
int32_t check_contents(const sdpa::Problem &problem, const sdpa::Call &call,
                       const ErrorSink &error);

}  // namespace attn::cpu
