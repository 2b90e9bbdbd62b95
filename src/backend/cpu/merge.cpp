// The CPU's implementations of merge.
#include "kernels/cpu/merge/merge.hpp"

#include "backend/cpu/contents.hpp"
#include "backend/cpu/lists.hpp"

namespace attn::cpu {
namespace {

int32_t launch(const merge::Problem &problem, const merge::Call &call, const Device &device,
               const Resources &resources, const ErrorSink &error) {
  const int32_t status = check_stream(resources, error);
  return status == ATTN_OK ? merge_launch(problem, call, device, resources, error) : status;
}

// Name, deterministic, capturable, asynchronous, serves, cost, workspace, launch.
constexpr merge::Row merge_rows[] = {
    {"cpu/merge/reference", true, false, false, merge_serves, nullptr, merge_workspace, launch},
};

}  // namespace

merge::List merge_list() {
  return merge_rows;
}

}  // namespace attn::cpu
