#include "attn/merge.h"

#include "api/family.hpp"
#include "ops/merge/problem.hpp"

namespace {

using attn::ErrorSink;
using attn::merge::Call;
using attn::merge::Problem;

constexpr attn::Family<Problem, Call, attn_merge_desc> kFamily = {
    "merge", attn::merge::make_problem,
    [](int32_t backend, const Problem &) { return attn::merge::implementations(backend); }};

}  // namespace

extern "C" int32_t attn_merge_supported(const attn_context *context, const attn_merge_desc *desc,
                                        const attn_plan_options *options, attn_error *error) {
  return kFamily.create(context, desc, options, nullptr, ErrorSink(error));
}

extern "C" int32_t attn_merge_plan_create(const attn_context *context, const attn_merge_desc *desc,
                                          const attn_plan_options *options, attn_plan **plan,
                                          attn_error *error) {
  const ErrorSink sink(error);
  const int32_t status = attn::require("plan", plan, sink);
  return status == ATTN_OK ? kFamily.create(context, desc, options, plan, sink) : status;
}

extern "C" int32_t attn_merge(const attn_plan *plan, const attn_merge_args *args, void *workspace,
                              size_t workspace_bytes, attn_stream stream, attn_error *error) {
  const ErrorSink sink(error);
  return attn::guarded(sink, [&] {
    int32_t status;
    const auto *own = kFamily.plan_of(plan, status, sink);
    if (own == nullptr) return status;
    Call call;
    status = attn::merge::make_call(own->problem, args, call, sink);
    if (status != ATTN_OK) return status;
    return attn::launch(*own, call, workspace, workspace_bytes, stream, sink);
  });
}
