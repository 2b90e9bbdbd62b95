#include "attn/sdpa.h"

#include "api/family.hpp"
#include "ops/sdpa/problem.hpp"

namespace {

using attn::ErrorSink;
using attn::sdpa::Call;
using attn::sdpa::Problem;
using SdpaPlan = attn::Plan<Problem, Call>;

constexpr attn::Family<Problem, Call, attn_sdpa_desc> kFamily = {
    "sdpa", attn::sdpa::make_problem, [](int32_t backend, const Problem &problem) {
      return attn::sdpa::implementations(backend, problem.d.pass);
    }};

int32_t wrong_pass(const SdpaPlan &plan, const char *expected, const ErrorSink &error) {
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "plan", "plan has pass %s; this call needs %s",
                    plan.problem.backward() ? "BACKWARD" : "FORWARD", expected);
}

}  // namespace

extern "C" int32_t attn_sdpa_supported(const attn_context *context, const attn_sdpa_desc *desc,
                                       const attn_plan_options *options, attn_error *error) {
  return kFamily.create(context, desc, options, nullptr, ErrorSink(error));
}

extern "C" int32_t attn_sdpa_plan_create(const attn_context *context, const attn_sdpa_desc *desc,
                                         const attn_plan_options *options, attn_plan **plan,
                                         attn_error *error) {
  const ErrorSink sink(error);
  const int32_t status = attn::require("plan", plan, sink);
  return status == ATTN_OK ? kFamily.create(context, desc, options, plan, sink) : status;
}

extern "C" int32_t attn_sdpa_forward(const attn_plan *plan, const attn_sdpa_args *args,
                                     void *workspace, size_t workspace_bytes, attn_stream stream,
                                     attn_error *error) {
  const ErrorSink sink(error);
  return attn::guarded(sink, [&] {
    int32_t status;
    const SdpaPlan *own = kFamily.plan_of(plan, status, sink);
    if (own == nullptr) return status;
    if (own->problem.backward()) return wrong_pass(*own, "FORWARD", sink);
    Call call;
    status = attn::sdpa::make_call(own->problem, args, call, sink);
    if (status != ATTN_OK) return status;
    return attn::launch(*own, call, workspace, workspace_bytes, stream, sink);
  });
}

extern "C" int32_t attn_sdpa_backward(const attn_plan *plan, const attn_sdpa_backward_args *args,
                                      void *workspace, size_t workspace_bytes, attn_stream stream,
                                      attn_error *error) {
  const ErrorSink sink(error);
  return attn::guarded(sink, [&] {
    int32_t status;
    const SdpaPlan *own = kFamily.plan_of(plan, status, sink);
    if (own == nullptr) return status;
    if (!own->problem.backward()) return wrong_pass(*own, "BACKWARD", sink);
    Call call;
    status = attn::sdpa::make_backward_call(own->problem, args, call, sink);
    if (status != ATTN_OK) return status;
    return attn::launch(*own, call, workspace, workspace_bytes, stream, sink);
  });
}

extern "C" int32_t attn_sdpa_plan_tune(const attn_plan *plan, const attn_sdpa_args *args,
                                       const attn_sdpa_backward_args *backward_args,
                                       void *workspace, size_t workspace_bytes, attn_stream stream,
                                       attn_plan **tuned, attn_error *error) {
  const ErrorSink sink(error);
  return attn::guarded(sink, [&] {
    int32_t status = attn::require("tuned", tuned, sink);
    if (status != ATTN_OK) return status;
    *tuned = nullptr;
    const SdpaPlan *own = kFamily.plan_of(plan, status, sink);
    if (own == nullptr) return status;
    Call call;
    if (own->problem.backward()) {
      if (args != nullptr) {
        return sink.fail(ATTN_ERROR_INVALID_ARGUMENT, "args",
                         "args is given, but the plan's pass is BACKWARD: give only backward_args");
      }
      status = attn::sdpa::make_backward_call(own->problem, backward_args, call, sink);
    } else {
      if (backward_args != nullptr) {
        return sink.fail(ATTN_ERROR_INVALID_ARGUMENT, "backward_args",
                         "backward_args is given, but the plan's pass is FORWARD: give only args");
      }
      status = attn::sdpa::make_call(own->problem, args, call, sink);
    }
    if (status == ATTN_OK) {
      status = attn::check_workspace(workspace, workspace_bytes, own->tune_workspace_bytes, sink);
    }
    std::unique_ptr<attn_plan> result;
    if (status == ATTN_OK) {
      status = attn::tune_plan(*own, call, {workspace, stream}, result, sink);
    }
    if (status == ATTN_OK) *tuned = result.release();
    return status;
  });
}
