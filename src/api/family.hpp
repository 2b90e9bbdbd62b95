// What the supported and create functions of every family do, once.
#pragma once

#include <algorithm>

#include "api/boundary.hpp"
#include "core/plan.hpp"
#include "core/struct_copy.hpp"

namespace attn {

// One family's types and its two hooks into ops.
template <class FamilyProblem, class FamilyCall, class FamilyDesc>
struct Family {
  using Problem = FamilyProblem;
  using Call = FamilyCall;
  using Desc = FamilyDesc;

  const char *name;
  int32_t (*make_problem)(const Desc *desc, Problem &problem, const ErrorSink &error);
  ImplementationList<Problem, Call> (*list)(int32_t backend, const Problem &problem);

  // plan == null: only asks whether it would succeed.
  int32_t create(const attn_context *context, const Desc *desc, const attn_plan_options *options,
                 attn_plan **plan, const ErrorSink &error) const {
    return guarded(error, [&] {
      if (plan != nullptr) *plan = nullptr;
      int32_t status = require("context", context, error);
      attn_plan_options known = ATTN_PLAN_OPTIONS_INIT;
      if (status == ATTN_OK && options != nullptr) {
        status = copy_in(options, known, "options", error);
        if (status == ATTN_OK) status = check_reserved("options.reserved", known.reserved, error);
      }
      Problem problem{};
      if (status == ATTN_OK) status = make_problem(desc, problem, error);
      if (status != ATTN_OK) return status;
      std::unique_ptr<Plan<Problem, Call>> result;
      status = make_plan<Problem, Call>(*context, name, problem, list(context->backend, problem),
                                        known, plan == nullptr ? nullptr : &result, error);
      if (status == ATTN_OK && plan != nullptr) *plan = result.release();
      return status;
    });
  }

  // The plan as this family's, or null with an error if it is another's.
  const Plan<Problem, Call> *plan_of(const attn_plan *plan, int32_t &status,
                                     const ErrorSink &error) const {
    status = require("plan", plan, error);
    if (status != ATTN_OK) return nullptr;
    const auto *own = dynamic_cast<const Plan<Problem, Call> *>(plan);
    if (own == nullptr) {
      status = error.fail(ATTN_ERROR_INVALID_ARGUMENT, "plan", "plan was made for %s, not for %s",
                          plan->implementation, name);
    }
    return own;
  }
};

// Execute: the workspace is checked, then the chosen row launches.
template <class Problem, class Call>
int32_t launch(const Plan<Problem, Call> &plan, const Call &call, void *workspace,
               size_t workspace_bytes, attn_stream stream, const ErrorSink &error) {
  const int32_t status = check_workspace(workspace, workspace_bytes, plan.workspace_bytes, error);
  if (status != ATTN_OK) return status;
  return plan.chosen->launch(plan.problem, call, *plan.context.device, {workspace, stream}, error);
}

}  // namespace attn
