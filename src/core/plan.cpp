#include "core/plan.hpp"

#include "core/workspace.hpp"

namespace attn {

int32_t check_workspace(const void *workspace, size_t bytes, size_t needed,
                        const ErrorSink &error) {
  if (needed == 0) return ATTN_OK;
  if (workspace == nullptr) {
    return error.fail(ATTN_ERROR_WORKSPACE, "workspace",
                      "workspace is NULL; this plan needs %zu bytes (attn_plan_query)", needed);
  }
  if (bytes < needed) {
    return error.fail(ATTN_ERROR_WORKSPACE, "workspace_bytes",
                      "workspace_bytes is %zu; this plan needs %zu (attn_plan_query)", bytes,
                      needed);
  }
  if (reinterpret_cast<uintptr_t>(workspace) % kWorkspaceAlignment != 0) {
    return error.fail(ATTN_ERROR_WORKSPACE, "workspace",
                      "workspace is at %p; it must be aligned to %zu bytes (attn_plan_query)",
                      workspace, kWorkspaceAlignment);
  }
  return ATTN_OK;
}

}  // namespace attn
