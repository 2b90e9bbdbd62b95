// The CUDA backend's implementations of sdpa, best first.
#include "attn/sdpa.h"

#include "backend/cuda/lists.hpp"
#include "backend/cuda/sdpa_reference.hpp"

namespace attn::cuda {
namespace {

// Name, deterministic, capturable, asynchronous, serves, cost, workspace, launch.
constexpr sdpa::Row sdpa_forward_list[] = {
    {"cuda/sdpa/forward/reference", true, true, true, reference_serves, nullptr,
     reference_workspace, reference_launch},
};

}  // namespace

sdpa::List sdpa_list(int32_t pass) {
  return pass == ATTN_SDPA_FORWARD ? sdpa::List(sdpa_forward_list) : sdpa::List();
}

}  // namespace attn::cuda
