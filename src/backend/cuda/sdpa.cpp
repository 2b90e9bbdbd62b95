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

// The Hopper kernel; with a tile, as one more candidate for attn_sdpa_plan_tune.
template <ForwardTile kTile>
constexpr sdpa::Row sm90a_row(const char *name) {
  return {name,
          true,
          true,
          true,
          [](const sdpa::Problem &p, const Device &device) {
            return forward_sm90a_serves(p, device, kTile);
          },
          nullptr,
          forward_sm90a_workspace,
          [](const sdpa::Problem &p, const sdpa::Call &call, const Device &device,
             const Resources &resources, const ErrorSink &error) {
            return forward_sm90a_launch(p, call, device, kTile, resources, error);
          },
          [](const sdpa::Problem &p, const Device &device, const ErrorSink &error) {
            return forward_sm90a_prepare(p, device, kTile, error);
          }};
}

// Name, deterministic, capturable, asynchronous, serves, cost, workspace, launch, prepare.
constexpr sdpa::Row sdpa_forward_list[] = {
    sm90a_row<ForwardTile{}>("cuda/sdpa/forward/sm90a"),
    sm90a_row<ForwardTile{128, 128}>("cuda/sdpa/forward/sm90a/128x128"),
    sm90a_row<ForwardTile{192, 128}>("cuda/sdpa/forward/sm90a/192x128"),
    sm90a_row<ForwardTile{128, 80}>("cuda/sdpa/forward/sm90a/128x80"),
    sm90a_row<ForwardTile{128, 64}>("cuda/sdpa/forward/sm90a/128x64"),
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
