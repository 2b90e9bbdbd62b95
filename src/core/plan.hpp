// The plan behind the opaque handle, and the planner that every family uses.
#pragma once

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/context.hpp"
#include "core/implementation.hpp"
#include "core/tuning.hpp"

// What the functions of attn/plan.h need, whatever the family.
struct attn_plan {
  explicit attn_plan(const attn_context &owner) : context(owner) {}
  virtual ~attn_plan() = default;
  virtual int32_t prepare(const attn::ErrorSink &error) const = 0;

  const attn_context &context;
  std::vector<const char *> implementations;  // names of all that serve, best first
  size_t workspace_bytes = 0;
  size_t tune_workspace_bytes = 0;
  const char *implementation = nullptr;
  bool deterministic = false;
  bool capturable = false;
  bool asynchronous = false;
  attn::TuningKey key;
  double tuned_us = 0;  // 0: not tuned
};

namespace attn {

template <class Problem, class Call>
class Plan final : public attn_plan {
 public:
  using Row = Implementation<Problem, Call>;

  Plan(const attn_context &owner, const Problem &p) : attn_plan(owner), problem(p) {}

  void choose(size_t candidate) {
    chosen = candidates[candidate];
    implementation = chosen->name;
    deterministic = chosen->deterministic;
    capturable = chosen->capturable;
    asynchronous = chosen->asynchronous;
    workspace_bytes = chosen->workspace_bytes(problem, *context.device);
  }

  int32_t prepare(const ErrorSink &error) const override {
    return chosen->prepare == nullptr ? ATTN_OK : chosen->prepare(problem, *context.device, error);
  }

  Problem problem;
  std::vector<const Row *> candidates;  // beside `implementations`
  const Row *chosen = nullptr;
};

// Plans `problem` on `context`: gathers the rows that serve it, best first, and chooses. The only
// place where an implementation is picked, for the probe (plan == null) as for the run.
template <class Problem, class Call>
int32_t make_plan(const attn_context &context, const char *family, const Problem &problem,
                  ImplementationList<Problem, Call> list, const attn_plan_options &options,
                  std::unique_ptr<Plan<Problem, Call>> *plan, const ErrorSink &error) {
  using Row = Implementation<Problem, Call>;
  auto result = std::make_unique<Plan<Problem, Call>>(context, problem);
  std::vector<std::pair<double, const Row *>> ranked;
  const char *reason = "the backend has no implementation of this operation";
  for (const Row &row : list) {
    const Verdict verdict = row.serves(problem, *context.device);
    const bool asked_for =
        options.implementation != nullptr && std::strcmp(options.implementation, row.name) == 0;
    if (!verdict) {
      reason = verdict.reason();  // the last row is the most general: its word counts
      context.log.write(ATTN_LOG_INFO, "%s: %s cannot serve: %s", family, row.name, reason);
      if (asked_for) {
        return error.fail(ATTN_ERROR_UNSUPPORTED, "options.implementation",
                          "%s: %s was asked for, but cannot serve this problem: %s", family,
                          row.name, reason);
      }
      continue;
    }
    const double cost = row.cost == nullptr ? 0 : row.cost(problem, *context.device);
    auto place = ranked.begin();
    while (place != ranked.end() && place->first <= cost) ++place;
    ranked.insert(place, {cost, &row});
  }
  if (ranked.empty()) {
    return error.fail(ATTN_ERROR_UNSUPPORTED, "desc", "%s: %s", family, reason);
  }
  for (const auto &[cost, row] : ranked) {
    result->candidates.push_back(row);
    result->implementations.push_back(row->name);
    result->tune_workspace_bytes =
        std::max(result->tune_workspace_bytes, row->workspace_bytes(problem, *context.device));
  }
  result->key = TuningKey::make(context, family, &result->problem.d, sizeof result->problem.d);

  size_t choice = 0;
  if (options.implementation != nullptr) {
    while (choice < ranked.size() &&
           std::strcmp(options.implementation, result->implementations[choice]) != 0) {
      choice++;
    }
    if (choice == ranked.size()) {
      return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "options.implementation",
                        "options.implementation is \"%.80s\"; %s has no implementation of that "
                        "name (attn_plan_implementation lists them)",
                        options.implementation, family);
    }
  } else if (options.tuning != nullptr) {
    choice = result->key.find(options.tuning, result->implementations, result->tuned_us);
  }
  result->choose(choice);
  context.log.write(ATTN_LOG_INFO, "%s: %s, workspace %zu bytes", family, result->implementation,
                    result->workspace_bytes);
  if (plan != nullptr) *plan = std::move(result);
  return ATTN_OK;
}

// Checks the workspace that the caller brought.
int32_t check_workspace(const void *workspace, size_t bytes, size_t needed, const ErrorSink &error);

// Times every candidate on the caller's buffers and gives a new plan with the fastest.
template <class Problem, class Call>
int32_t tune_plan(const Plan<Problem, Call> &plan, const Call &call, const Resources &resources,
                  std::unique_ptr<attn_plan> &tuned, const ErrorSink &error) {
  auto result = std::make_unique<Plan<Problem, Call>>(plan);
  size_t best = 0;
  for (size_t i = 0; i < plan.candidates.size(); i++) {
    double us = 0;
    const int32_t status = plan.context.device->time(
        [&] {
          return plan.candidates[i]->launch(plan.problem, call, *plan.context.device, resources,
                                            error);
        },
        resources.stream, us, error);
    if (status != ATTN_OK) return status;
    plan.context.log.write(ATTN_LOG_INFO, "tune: %s %.1f us", plan.implementations[i], us);
    if (i == 0 || us < result->tuned_us) {
      result->tuned_us = us;
      best = i;
    }
  }
  result->choose(best);
  // Leave behind what the chosen implementation computes, as an execute of the new plan would.
  const int32_t status =
      result->chosen->launch(result->problem, call, *plan.context.device, resources, error);
  if (status == ATTN_OK) tuned = std::move(result);
  return status;
}

}  // namespace attn
