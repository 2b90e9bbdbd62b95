// The CUDA backend's implementations of sdpa, best first.
#include "attn/sdpa.h"

#include "backend/cuda/lists.hpp"
#include "backend/cuda/sdpa_forward.hpp"
#include "backend/cuda/sdpa_forward_sm90a.hpp"
#include "backend/gpu/sdpa_reference.hpp"

namespace attn::cuda {

#define ATTN_VARIANT(entry, begin, end, element) ATTN_GPU_IMAGE(entry, begin, end)
#include "kernels/cuda/sm80/sdpa/reference_table.inc"
#undef ATTN_VARIANT

namespace {

#define ATTN_VARIANT(entry, begin, end, element) \
  constexpr gpu::Kernel kReference = ATTN_GPU_KERNEL(entry);
#include "kernels/cuda/sm80/sdpa/reference_table.inc"
#undef ATTN_VARIANT
using Reference = gpu::Reference<kReference>;

// Name, deterministic, capturable, asynchronous, serves, cost, workspace, launch, prepare.
constexpr sdpa::Row sdpa_forward_list[] = {
    {"cuda/sdpa/forward/sm90a", true, true, true, forward_sm90a_serves, nullptr,
     forward_sm90a_workspace, forward_sm90a_launch, forward_sm90a_prepare},
    {"cuda/sdpa/forward/sm80", true, true, true, forward_serves, nullptr, forward_workspace,
     forward_launch, forward_prepare},
    {"cuda/sdpa/forward/reference", true, true, true, Reference::serves, nullptr,
     Reference::workspace, Reference::launch, Reference::prepare},
};

}  // namespace

sdpa::List sdpa_list(int32_t pass) {
  return pass == ATTN_SDPA_FORWARD ? sdpa::List(sdpa_forward_list) : sdpa::List();
}

}  // namespace attn::cuda
