// Runs sdpa cases on every implementation that serves them.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string_view>
#include <thread>

#include "allocations.hpp"
#include "compare.hpp"
#include "harness.hpp"
#include "sdpa_call.hpp"

namespace check {
namespace {

constexpr uint64_t kPatterns[] = {~UINT64_C(0), 0x5a5a5a5a5a5a5a5a, 0};

PlanPtr make_plan(const attn_context *context, const attn_sdpa_desc &desc,
                  const char *implementation, std::string &failure) {
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  options.implementation = implementation;
  attn_error error = ATTN_ERROR_INIT;
  attn_plan *plan = nullptr;
  const int32_t status = attn_sdpa_plan_create(context, &desc, &options, &plan, &error);
  attn_error probe_error = ATTN_ERROR_INIT;
  const int32_t probe = attn_sdpa_supported(context, &desc, &options, &probe_error);
  if (probe != status) {
    failure = "attn_sdpa_supported says " + std::string(attn_status_name(probe)) +
              ", attn_sdpa_plan_create " + attn_status_name(status);
  } else if (status != ATTN_OK) {
    failure = describe(error);
  }
  return PlanPtr(plan);
}

// One plan of one call, run as often as the checks below ask.
class Runner {
 public:
  Runner(const Session &session, SdpaCall &call, const attn_context *context,
         const char *implementation)
      : session_(session), call_(call) {
    plan_ = make_plan(context, call.desc, implementation, failure);
    if (!failure.empty()) return;
    attn_error error = ATTN_ERROR_INIT;
    if (attn_plan_query(plan_.get(), &info, &error) != ATTN_OK ||
        attn_plan_prepare(plan_.get(), &error) != ATTN_OK) {
      failure = describe(error);
      return;
    }
    if (std::string(info.implementation) != implementation) {
      failure = std::string("the plan says it is ") + info.implementation;
      return;
    }
    workspace_ = std::make_unique<Workspace>(info);
  }

  int32_t execute(const attn_sdpa_args &args, attn_error *error) {
    if (call_.c.pass == ATTN_SDPA_FORWARD) {
      return call_forward(session_, plan_.get(), args, *workspace_, error);
    }
    attn_sdpa_backward_args grads = call_.grads;
    grads.forward = &args;
    return call_backward(session_, plan_.get(), grads, *workspace_, error);
  }

  // Runs once on poisoned memory; true if nothing but the outputs' elements changed.
  bool run(uint64_t pattern) {
    poison(pattern);
    if (DeviceMemory *device = session_.device()) device->upload();
    attn_error error = ATTN_ERROR_INIT;
    const uint64_t before = allocations();
    const int32_t status = execute(call_.args, &error);
    const uint64_t allocated = allocations() - before;
    if (status != ATTN_OK) {
      failure = describe(error);
    } else if (allocated != 0) {
      failure = std::to_string(allocated) + " heap allocations in execute";
    }
    if (DeviceMemory *device = session_.device()) device->download();
    return failure.empty() && nothing_else_changed();
  }

  // Captures one execute into a graph, for replay().
  bool capture() {
    try {
      graph_ = session_.device()->capture([this] { status_ = execute(call_.args, &error_); });
    } catch (const DeviceError &e) {
      if (e.lost) throw;
      failure = std::string("capture into a graph: ") + e.what();
    }
    if (status_ != ATTN_OK) failure = "capture into a graph: " + describe(error_);
    return failure.empty();
  }
  bool captured() const { return graph_ != nullptr; }
  bool replay(uint64_t pattern) {
    poison(pattern);
    session_.device()->upload();
    graph_->launch();
    session_.device()->download();
    if (nothing_else_changed()) return true;
    failure = "replay of a graph: " + failure;
    return false;
  }

  bool right(double *worst = nullptr) {
    for (const SdpaCall::Output &o : call_.outputs) {
      const Comparison c = compare(o.name, o.tensor, o.truth, o.slack, naive(o), o.scale);
      if (worst != nullptr) *worst = std::max(*worst, c.worst);
      if (!c.ok && failure.empty()) failure = c.detail;
    }
    return failure.empty();
  }

  // The computation that the implementation's error is measured by: its tolerance is for the
  // operands that its kind of arithmetic has.
  const Array<float> &naive(const SdpaCall::Output &o) const {
    const std::string name = info.implementation;
    const bool matrix_unit =
        session_.backend() != "cpu" && name.substr(name.rfind('/') + 1) != "reference";
    return matrix_unit && o.naive_of_rounded_weights.present() ? o.naive_of_rounded_weights
                                                               : o.naive;
  }

  std::vector<std::vector<uint8_t>> bits() const {
    std::vector<std::vector<uint8_t>> result;
    for (const SdpaCall::Output &o : call_.outputs) result.push_back(o.tensor.element_bytes());
    return result;
  }

  const attn_plan *plan() const { return plan_.get(); }

  std::string failure;
  attn_plan_info info = ATTN_PLAN_INFO_INIT;

 private:
  void poison(uint64_t pattern) {
    call_.poison_outputs(pattern);
    workspace_->poison(static_cast<uint8_t>(pattern));
  }

  bool nothing_else_changed() {
    if (!workspace_->guards_untouched()) failure = "wrote outside the workspace";
    for (const SdpaCall::Output &o : call_.outputs) {
      if (failure.empty() && !o.tensor.gaps_untouched()) {
        failure = std::string("wrote outside the elements of ") + o.name;
      }
    }
    const struct {
      const char *name;
      const HostTensor &tensor;
    } inputs[] = {{"q", call_.q},           {"k", call_.k},
                  {"v", call_.v},           {"bias", call_.bias},
                  {"gate", call_.gate},     {"mask", call_.mask},
                  {"out", call_.given_out}, {"lse", call_.given_lse},
                  {"dout", call_.dout},     {"block_table", call_.block_table}};
    for (const auto &input : inputs) {
      if (failure.empty() && !input.tensor.untouched()) {
        failure = std::string("changed its input ") + input.name;
      }
    }
    return failure.empty();
  }

  const Session &session_;
  SdpaCall &call_;
  PlanPtr plan_;
  std::unique_ptr<Workspace> workspace_;
  std::unique_ptr<Graph> graph_;
  attn_error error_ = ATTN_ERROR_INIT;  // of what was captured
  int32_t status_ = ATTN_OK;
};

// Each sequence by itself must give the bits that it gives in the batch.
std::string alone_failure(const Session &session, SdpaCall &call, Runner &runner,
                          const std::vector<std::vector<uint8_t>> &together) {
  call.poison_outputs(kPatterns[1]);
  for (int64_t b = 0; b < call.inputs.batch; b++) {
    const attn_sdpa_args args = call.alone(b);
    if (DeviceMemory *device = session.device()) device->upload();
    attn_error error = ATTN_ERROR_INIT;
    if (runner.execute(args, &error) != ATTN_OK) {
      return "sequence " + std::to_string(b) + " alone: " + describe(error);
    }
    if (DeviceMemory *device = session.device()) device->download();
  }
  if (runner.bits() != together) {
    return "BATCH_INVARIANT: a sequence alone gives other bits than in its batch";
  }
  return {};
}

// Several threads execute one plan at once, each with a workspace and outputs of its own, and on a
// device each on its own stream.
std::string concurrent_failure(const Session &session, const SdpaCase &c, uint64_t seed,
                               const Runner &runner,
                               const std::vector<std::vector<uint8_t>> &expected) {
  constexpr int kThreads = 3;
  static_assert(kThreads < DeviceMemory::kStreams);
  std::vector<std::string> failures(kThreads);
  std::vector<std::unique_ptr<SdpaCall>> calls;
  std::vector<std::unique_ptr<Workspace>> workspaces;
  for (int t = 0; t < kThreads; t++) {
    calls.push_back(std::make_unique<SdpaCall>(c, seed));
    calls.back()->compute_truth();  // the backward pass reads the forward's results
    calls.back()->poison_outputs(kPatterns[t % 3]);
    workspaces.push_back(std::make_unique<Workspace>(runner.info));
  }
  if (DeviceMemory *device = session.device()) device->upload();
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      SdpaCall &call = *calls[t];
      const int rounds = session.options.brief ? 1 : 3;
      for (int n = 0; n < rounds && failures[t].empty(); n++) {
        attn_error error = ATTN_ERROR_INIT;
        const int stream = static_cast<int>(t) + 1;
        const int32_t status =
            c.pass == ATTN_SDPA_FORWARD
                ? call_forward(session, runner.plan(), call.args, *workspaces[t], &error, stream)
                : call_backward(session, runner.plan(), call.grads, *workspaces[t], &error, stream);
        if (status != ATTN_OK) failures[t] = describe(error);
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  if (DeviceMemory *device = session.device()) device->download();
  for (size_t t = 0; t < kThreads; t++) {
    if (!failures[t].empty()) return "from several threads: " + failures[t];
    const bool same = runner.info.deterministic != 0;
    for (size_t o = 0; o < expected.size(); o++) {
      const SdpaCall::Output &output = calls[t]->outputs[o];
      if (same ? output.tensor.element_bytes() != expected[o]
               : !compare(output.name, output.tensor, output.truth, output.slack,
                          runner.naive(output), output.scale)
                      .ok) {
        return "executes of one plan from several threads at once disturb each other";
      }
    }
  }
  return {};
}

// Everything that is asked of one implementation for one case.
std::string verdict(Session &session, const SdpaCase &c, uint64_t seed, SdpaCall &call,
                    const char *implementation, Runner &runner, nlohmann::json &extra) {
  double worst = 0;
  struct AtTheEnd {
    nlohmann::json &extra;
    double &worst;
    ~AtTheEnd() { extra["worst"] = worst; }  // the largest error over what is allowed
  } const at_the_end{extra, worst};
  if (!runner.failure.empty()) return runner.failure;
  if (!runner.run(kPatterns[0]) || !runner.right(&worst)) return runner.failure;
  const auto bits = runner.bits();
  if (!runner.run(kPatterns[1])) return runner.failure;
  const bool deterministic = runner.info.deterministic != 0;
  if (deterministic && runner.bits() != bits) {
    return "the second run gives other bits, though the plan says it is deterministic";
  }
  if (c.determinism != ATTN_DETERMINISM_FAST && !deterministic) {
    return "the plan is not deterministic, though the descriptor asks for it";
  }
  if (session.options.brief && !c.quick) {
    runner.right(&worst);
    return runner.failure;
  }
  if (!runner.run(kPatterns[2]) || !runner.right(&worst)) return runner.failure;
  const bool invariant = c.determinism == ATTN_DETERMINISM_BATCH_INVARIANT;
  for (int threads : {1, 4}) {
    if (session.backend() != "cpu" || (!invariant && threads != 1)) continue;
    Runner other(session, call, session.context(threads), implementation);
    const std::string with = " (with " + std::to_string(threads) + " threads)";
    if (!other.failure.empty() || !other.run(kPatterns[2]) || !other.right(&worst)) {
      return other.failure + with;
    }
    if (invariant && other.bits() != bits) {
      return "BATCH_INVARIANT: other bits than with the default number of threads" + with;
    }
  }
  // What dropout draws depends on a sequence's place in the batch, by definition.
  if (invariant && c.pass == ATTN_SDPA_FORWARD && !(c.flags & ATTN_SDPA_DROPOUT)) {
    const std::string failure = alone_failure(session, call, runner, bits);
    if (!failure.empty()) return failure;
  }
  if (c.quick) {
    const std::string failure = concurrent_failure(session, c, seed, runner, bits);
    if (!failure.empty()) return failure;
  }
  if (!session.on_host() && session.device()->stable()) {
    if (session.backend() != "cpu" &&
        (runner.info.capturable == 0 || runner.info.asynchronous == 0)) {
      return "the plan says that it cannot be captured, or that it waits";
    }
    if (!runner.capture()) return runner.failure;
    for (int n = 0; n < 2; n++) {
      if (!runner.replay(kPatterns[n]) || !runner.right(&worst)) return runner.failure;
      if (deterministic && runner.bits() != bits) return "a replayed graph gives other bits";
    }
  }
  if (session.options.bench) {
    const auto once = [&] { runner.execute(call.args, nullptr); };
    const double us = session.on_host() ? time_us(once) : session.device()->time_us(once);
    extra["us"] = us;
    std::printf("%10.1f us  %s  %s\n", us, c.name.c_str(), implementation);
    std::fflush(stdout);
  }
  return {};
}

// Replays what was captured with other lengths, offsets and page lists in the same memory.
void check_changed_lengths(Session &session, const SdpaCase &c, SdpaCall &call,
                           std::vector<std::pair<const char *, std::unique_ptr<Runner>>> &runners) {
  const std::string name = c.name + "/changed-lengths";
  if (runners.empty() || !call.change_lengths()) return;
  call.compute_truth();
  for (auto &[implementation, runner] : runners) {
    if (!session.begin(name, implementation)) continue;
    try {
      double worst = 0;
      if (runner->replay(kPatterns[1])) runner->right(&worst);
      session.report(name, implementation, runner->failure, {{"worst", worst}});
    } catch (const DeviceError &e) {
      session.report(name, implementation, e);
    }
  }
}

// The CPU serves everything; the other backends' gaps are counted, by their reasons.
bool may_be_missing(const Session &session, const SdpaCase &c, int32_t status) {
  return session.backend() != "cpu" && c.pass == ATTN_SDPA_BACKWARD &&
         status == ATTN_ERROR_UNSUPPORTED;
}

// Multiplications of a case.
double work_of(const SdpaCase &c) {
  if (c.sq.empty() || c.sk.empty()) return 0;
  double pairs = 0;
  for (size_t b = 0; b < c.sq.size(); b++) {
    pairs += static_cast<double>(c.sq[b]) * static_cast<double>(c.sk[std::min(b, c.sk.size() - 1)]);
  }
  return pairs * c.hq * (c.dqk + (c.dv == 0 ? c.dqk : c.dv));
}

// Whether a case is larger than --work allows. References multiply one by one; others take at most
// a fifth of the time for it on an interpreter. Of the quick subset as much is allowed.
constexpr double kQuicker = 5;
bool too_large(const Session &session, const SdpaCase &c, std::string_view implementation) {
  const double most = session.options.work;
  if (most == 0) return false;
  const bool one_by_one = implementation.ends_with("/reference") && !c.quick;
  return work_of(c) > (one_by_one ? most : kQuicker * most);
}

void check_case(Session &session, const SdpaCase &c, int round) {
  const uint64_t seed = session.seed_of(c.name, round);
  SdpaCall call(c, seed);
  std::string failure;
  PlanPtr plan;
  {
    attn_error error = ATTN_ERROR_INIT;
    attn_plan *made = nullptr;
    const int32_t status =
        attn_sdpa_plan_create(session.context(), &call.desc, nullptr, &made, &error);
    if (may_be_missing(session, c, status)) {
      session.not_served(c.name, session.backend() + " has no backward pass: " + describe(error));
      return;
    }
    if (status != ATTN_OK) {
      session.report(c.name, "", "not served: " + describe(error));
      return;
    }
    plan.reset(made);
  }
  call.compute_truth();
  for (HostTensor *input : {&call.q, &call.k, &call.v, &call.bias, &call.gate, &call.mask,
                            &call.given_out, &call.given_lse, &call.dout, &call.block_table}) {
    input->remember();
  }
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_plan_query(plan.get(), &info, nullptr);
  bool any = false;
  std::vector<std::pair<const char *, std::unique_ptr<Runner>>> captured;
  for (int32_t i = 0; i < info.num_implementations; i++) {
    const char *name = nullptr;
    attn_plan_implementation(plan.get(), i, &name, nullptr);
    if (!session.options.implementation.empty() && session.options.implementation != name) continue;
    any = true;
    if (too_large(session, c, name)) {
      session.not_served(c.name, "larger than --work says, for a reference");
      continue;
    }
    if (!session.begin(c.name, name)) continue;
    nlohmann::json extra = nlohmann::json::object();
    const auto start = std::chrono::steady_clock::now();
    try {
      auto runner = std::make_unique<Runner>(session, call, session.context(), name);
      const std::string result = verdict(session, c, seed, call, name, *runner, extra);
      const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
      extra["seconds"] = spent.count();
      session.report(c.name, name, result, std::move(extra));
      if (result.empty() && runner->captured()) captured.emplace_back(name, std::move(runner));
    } catch (const DeviceError &e) {
      session.report(c.name, name, e);
    }
  }
  check_changed_lengths(session, c, call, captured);
  if (!any) {
    make_plan(session.context(), call.desc, session.options.implementation.c_str(), failure);
    session.not_served(c.name, failure);
  }
  // The oracle's own gradients: once is enough, and that is with the CPU.
  if (c.finite && session.backend() == "cpu") {
    session.report(c.name + "/finite-differences", "", finite_difference_failure(call));
  }
}

}  // namespace

void run_sdpa(Session &session) {
  std::vector<SdpaCase> rows = sdpa_named_cases();
  const auto add = [&](std::vector<SdpaCase> more) {
    std::move(more.begin(), more.end(), std::back_inserter(rows));
  };
  add(sdpa_dim_cases());
  add(sdpa_pair_cases());
  add(sdpa_fresh_cases(session.options.seed, session.options.fresh));
  int number = 0;
  std::erase_if(rows, [&](const SdpaCase &c) {
    if (number++ % session.options.parts != session.options.part) return true;
    if (session.options.quick && !c.quick) return true;
    if (session.options.bench && session.options.filters.empty() && !c.bench) return true;
    return !session.wanted(c.name) &&
           !(c.finite && session.wanted(c.name + "/finite-differences")) &&
           !session.wanted(c.name + "/changed-lengths");
  });
  std::erase_if(rows, [&](const SdpaCase &c) {
    if (!too_large(session, c, "any")) return false;
    if (!session.options.list) session.not_served(c.name, "larger than --work says");
    return true;
  });
  if (session.options.list) {
    for (const SdpaCase &c : rows) std::printf("%s\n", c.name.c_str());
    return;
  }
  session.expect(rows.size() * static_cast<size_t>(session.options.repeat));
  for (int round = 0; round < session.options.repeat; round++) {
    session.round = round;
    for (const SdpaCase &c : rows) {
      if (session.is_finished(c.name)) continue;
      session.step(c.name);
      check_case(session, c, round);
      session.finished(c.name);
    }
  }
}

}  // namespace check
