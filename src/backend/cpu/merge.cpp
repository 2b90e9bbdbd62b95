// The CPU's implementations of merge.
#include "kernels/cpu/merge/merge.hpp"

#include "backend/cpu/lists.hpp"

namespace attn::cpu {
namespace {

// Name, deterministic, capturable, asynchronous, serves, cost, workspace, launch.
constexpr merge::Row merge_rows[] = {
    {"cpu/merge/reference", true, false, false, merge_serves, nullptr, merge_workspace,
     merge_launch},
};

}  // namespace

merge::List merge_list() {
  return merge_rows;
}

}  // namespace attn::cpu
