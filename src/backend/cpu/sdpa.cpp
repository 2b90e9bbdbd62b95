// The CPU's implementations of sdpa, best first.
#include "attn/sdpa.h"

#include "backend/cpu/contents.hpp"
#include "backend/cpu/lists.hpp"
#include "kernels/cpu/sdpa/reference/backward.hpp"
#include "kernels/cpu/sdpa/reference/forward.hpp"
#include "kernels/cpu/sdpa/tuned/backward.hpp"
#include "kernels/cpu/sdpa/tuned/decode.hpp"
#include "kernels/cpu/sdpa/tuned/forward.hpp"

namespace attn::cpu {
namespace {

using Launch = decltype(sdpa::Row::launch);

// In front of every launch: the contents of host arrays, so that kernels may trust them.
template <Launch kLaunch>
int32_t checked(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                const Resources &resources, const ErrorSink &error) {
  int32_t status = check_stream(resources, error);
  if (status == ATTN_OK) status = check_contents(problem, call, error);
  return status == ATTN_OK ? kLaunch(problem, call, device, resources, error) : status;
}

// Name, deterministic, capturable, asynchronous, serves, cost, workspace, launch. What runs on the
// CPU is done when it returns, so it is never capturable or asynchronous.
constexpr sdpa::Row sdpa_forward_list[] = {
    {"cpu/sdpa/forward/decode", true, false, false, decode_serves, nullptr, decode_workspace_bytes,
     checked<decode_launch>},
    {"cpu/sdpa/forward/tuned", true, false, false, forward_serves, nullptr, forward_workspace_bytes,
     checked<forward_launch>},
    {"cpu/sdpa/forward/reference", true, false, false, reference::forward_serves, nullptr,
     reference::forward_workspace, checked<reference::forward_launch>},
};

constexpr sdpa::Row sdpa_backward_list[] = {
    {"cpu/sdpa/backward/tuned", true, false, false, backward_serves, nullptr,
     backward_workspace_bytes, checked<backward_launch>},
    {"cpu/sdpa/backward/reference", true, false, false, reference::backward_serves, nullptr,
     reference::backward_workspace, checked<reference::backward_launch>},
};

}  // namespace

sdpa::List sdpa_list(int32_t pass) {
  return pass == ATTN_SDPA_BACKWARD ? sdpa::List(sdpa_backward_list)
                                    : sdpa::List(sdpa_forward_list);
}

}  // namespace attn::cpu
