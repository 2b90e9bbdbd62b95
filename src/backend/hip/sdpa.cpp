// The HIP backend's implementations of sdpa, best first.
#include "attn/sdpa.h"

#include "backend/gpu/sdpa_backward.hpp"
#include "backend/gpu/sdpa_reference.hpp"
#include "backend/hip/lists.hpp"
#include "backend/hip/sdpa_backward.hpp"
#include "backend/hip/sdpa_forward.hpp"

namespace attn::hip {

#define ATTN_VARIANT(entry, begin, end, element) ATTN_GPU_IMAGE(entry, begin, end)
#include "kernels/hip/any/sdpa/backward_table.inc"
#include "kernels/hip/any/sdpa/reference_table.inc"
#undef ATTN_VARIANT

namespace {

#define ATTN_VARIANT(entry, begin, end, element) \
  constexpr gpu::Kernel kReference = ATTN_GPU_KERNEL(entry);
#include "kernels/hip/any/sdpa/reference_table.inc"
#undef ATTN_VARIANT
using Reference = gpu::Reference<kReference>;

#define ATTN_VARIANT(entry, begin, end, element) \
  constexpr gpu::Kernel kBackward = ATTN_GPU_KERNEL(entry);
#include "kernels/hip/any/sdpa/backward_table.inc"
#undef ATTN_VARIANT
using Backward = gpu::BackwardReference<kBackward>;
using Matrix = BackwardMatrix<kBackward>;

// Name, deterministic, capturable, asynchronous, serves, cost, workspace, launch, prepare.
constexpr sdpa::Row sdpa_forward_list[] = {
    {"hip/sdpa/forward/matrix", true, true, true, forward_serves, nullptr, forward_workspace,
     forward_launch, forward_prepare},
    {"hip/sdpa/forward/reference", true, true, true, Reference::serves, nullptr,
     Reference::workspace, Reference::launch, Reference::prepare},
};
constexpr sdpa::Row sdpa_backward_list[] = {
    {"hip/sdpa/backward/matrix", true, true, true, backward_serves, nullptr,
     gpu::backward_workspace, Matrix::launch, Matrix::prepare},
    {"hip/sdpa/backward/reference", true, true, true, gpu::backward_serves, nullptr,
     gpu::backward_workspace, Backward::launch, Backward::prepare},
};

}  // namespace

sdpa::List sdpa_list(int32_t pass) {
  return pass == ATTN_SDPA_FORWARD ? sdpa::List(sdpa_forward_list) : sdpa::List(sdpa_backward_list);
}

}  // namespace attn::hip
