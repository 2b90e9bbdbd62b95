#include "core/plan.hpp"

#include "api/boundary.hpp"
#include "core/struct_copy.hpp"
#include "core/workspace.hpp"

extern "C" int32_t attn_plan_query(const attn_plan *plan, attn_plan_info *info, attn_error *error) {
  const attn::ErrorSink sink(error);
  const int32_t status = attn::require("plan", plan, sink);
  if (status != ATTN_OK) return status;
  attn_plan_info value = ATTN_PLAN_INFO_INIT;
  value.deterministic = plan->deterministic;
  value.capturable = plan->capturable;
  value.asynchronous = plan->asynchronous;
  value.workspace_bytes = plan->workspace_bytes;
  value.workspace_alignment = attn::kWorkspaceAlignment;
  value.tune_workspace_bytes = plan->tune_workspace_bytes;
  value.num_implementations = static_cast<int32_t>(plan->implementations.size());
  value.implementation = plan->implementation;
  return attn::copy_out(value, info, "info", sink);
}

extern "C" int32_t attn_plan_implementation(const attn_plan *plan, int32_t index, const char **name,
                                            attn_error *error) {
  const attn::ErrorSink sink(error);
  int32_t status = attn::require("plan", plan, sink);
  if (status == ATTN_OK) status = attn::require("name", name, sink);
  if (status != ATTN_OK) return status;
  const auto count = static_cast<int32_t>(plan->implementations.size());
  if (index < 0 || index >= count) {
    return sink.fail(ATTN_ERROR_INVALID_ARGUMENT, "index", "index is %d; the plan has %d, 0 .. %d",
                     index, count, count - 1);
  }
  *name = plan->implementations[static_cast<size_t>(index)];
  return ATTN_OK;
}

extern "C" int32_t attn_plan_prepare(const attn_plan *plan, attn_error *error) {
  const attn::ErrorSink sink(error);
  return attn::guarded(sink, [&] {
    const int32_t status = attn::require("plan", plan, sink);
    return status == ATTN_OK ? plan->prepare(sink) : status;
  });
}

extern "C" int32_t attn_plan_export(const attn_plan *plan, char *text, size_t capacity,
                                    size_t *length, attn_error *error) {
  const attn::ErrorSink sink(error);
  return attn::guarded(sink, [&] {
    int32_t status = attn::require("plan", plan, sink);
    if (status == ATTN_OK) status = attn::require("length", length, sink);
    if (status == ATTN_OK && capacity > 0) status = attn::require("text", text, sink);
    if (status != ATTN_OK) return status;
    const std::string line = plan->key.line(plan->implementation, plan->tuned_us);
    *length = line.size();
    if (capacity == 0) return status;
    if (capacity <= line.size()) {
      return sink.fail(ATTN_ERROR_INVALID_ARGUMENT, "capacity",
                       "capacity is %zu; the line needs %zu bytes and a NUL", capacity,
                       line.size());
    }
    std::memcpy(text, line.c_str(), line.size() + 1);
    return status;
  });
}

extern "C" void attn_plan_destroy(attn_plan *plan) {
  delete plan;
}
