#include "scenario.hpp"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace scenario {
namespace {

int passed, failed;
bool fine;  // the scenario of this process

// Addresses on the device, which nothing here reads.
void *device_address(int n) {
  return reinterpret_cast<void *>(uintptr_t{0x7f0000000000} + (static_cast<uintptr_t>(n) << 32));
}

attn_tensor tensor(void *data, int32_t dtype, std::vector<int64_t> shape) {
  attn_tensor result = ATTN_TENSOR_INIT;
  attn_tensor_contiguous(&result, data, dtype, static_cast<int32_t>(shape.size()), shape.data(),
                         nullptr);
  return result;
}

constexpr size_t workspace_bytes = size_t{1} << 30;

attn_sdpa_desc small_desc() {
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.q_dtype = ATTN_DTYPE_FP16;
  desc.num_q_heads = 2;
  desc.head_dim_qk = 64;
  desc.max_batch = 1;
  desc.max_seqlen_q = 32;
  desc.max_seqlen_k = 32;
  desc.softmax_scale = 0.125f;
  return desc;
}

attn_sdpa_args small_args(const std::function<void *(int)> &address) {
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  args.q = tensor(address(0), ATTN_DTYPE_FP16, {1, 32, 2, 64});
  args.k = tensor(address(1), ATTN_DTYPE_FP16, {1, 32, 2, 64});
  args.v = tensor(address(2), ATTN_DTYPE_FP16, {1, 32, 2, 64});
  args.out = tensor(address(3), ATTN_DTYPE_FP16, {1, 32, 2, 64});
  return args;
}

}  // namespace

void run(const std::string &name, const std::function<void()> &body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    fine = true;
    body();
    std::fflush(nullptr);
    _exit(fine ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  const bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (WIFSIGNALED(status)) std::printf("  killed by signal %d\n", WTERMSIG(status));
  if (!good) std::printf("FAILED: %s\n", name.c_str());
  (good ? passed : failed)++;
}

int finish() {
  std::printf("%d passed, %d failed\n", passed, failed);
  return all_passed() ? 0 : 1;
}

bool all_passed() {
  return failed == 0 && passed > 0;
}

void expect(bool condition, const char *text, const std::string &detail, int line) {
  if (condition) return;
  fine = false;
  std::printf("  line %d: not so: %s%s%s\n", line, text,
              detail.empty() ? "" : " in: ", detail.c_str());
}

void *fake_function(const char *name) {
  static void *const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  void *function = library == nullptr ? nullptr : dlsym(library, name);
  if (function == nullptr) {
    std::fprintf(stderr, "the fake libcuda.so.1 must be first in LD_LIBRARY_PATH\n");
    std::exit(2);
  }
  return function;
}

fake::State &driver() {
  static fake::State *const state = fake_call<fake::State *>("fake_state");
  return *state;
}

void expect_balanced() {
  const fake::State &s = driver();
  EXPECT_IN(std::to_string(s.contexts), s.contexts == 0);
  EXPECT_IN(std::to_string(s.modules), s.modules == 0);
  EXPECT_IN(std::to_string(s.events), s.events == 0);
  EXPECT_IN(std::to_string(s.abandoned), s.abandoned == 0);
  EXPECT(stack_depth() == 0);
  EXPECT(fake_call<int>("fake_capture_mode") == 0);
  for (const std::string &text : s.violations) EXPECT_IN(text, false);
}

Life live(int32_t backend, void *stream) {
  Life life;
  attn_context *contexts[2] = {};
  attn_plan *plan = nullptr, *tuned = nullptr;
  void *const workspace = device_address(9);
  const auto step = [&](const char *name, const std::function<int32_t()> &body) {
    if (life.status != ATTN_OK) return;
    life.step = name;
    life.status = body();
  };
  int32_t count = -1;
  step("count", [&] { return attn_device_count(backend, &count, &life.error); });
  step("query", [&] {
    attn_device_info info = ATTN_DEVICE_INFO_INIT;
    return attn_device_query(backend, 0, &info, &life.error);
  });
  attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
  desc.backend = backend;
  for (attn_context *&context : contexts) {
    step("context", [&] { return attn_context_create(&desc, &context, &life.error); });
  }
  const attn_sdpa_desc problem = small_desc();
  const attn_sdpa_args args = small_args(device_address);
  step("plan",
       [&] { return attn_sdpa_plan_create(contexts[0], &problem, nullptr, &plan, &life.error); });
  step("prepare", [&] { return attn_plan_prepare(plan, &life.error); });
  step("execute", [&] {
    attn_plan_info info = ATTN_PLAN_INFO_INIT;
    attn_plan_query(plan, &info, nullptr);
    life.implementation = info.implementation;
    const size_t before = driver().launches.size();
    const int32_t status =
        attn_sdpa_forward(plan, &args, workspace, workspace_bytes, stream, &life.error);
    life.launches_of_execute = static_cast<int>(driver().launches.size() - before);
    return status;
  });
  step("tune", [&] {
    return attn_sdpa_plan_tune(plan, &args, nullptr, workspace, workspace_bytes, stream, &tuned,
                               &life.error);
  });
  if (life.status == ATTN_OK) life.step = "";
  attn_plan_destroy(tuned);
  attn_plan_destroy(plan);
  for (attn_context *context : contexts) attn_context_destroy(context);
  return life;
}

void expect_prepared_execute_only_launches() {
  attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
  desc.backend = ATTN_BACKEND_CUDA;
  attn_context *context = nullptr;
  EXPECT(attn_context_create(&desc, &context, nullptr) == ATTN_OK);
  attn_sdpa_desc problem = small_desc();
  attn_sdpa_args args = small_args(device_address);
  // Few queries and many keys: what splits does so.
  problem.max_seqlen_q = 1;
  problem.max_seqlen_k = 1 << 16;
  args.q.shape[1] = args.out.shape[1] = 1;
  args.k.shape[1] = args.v.shape[1] = 1 << 16;
  std::vector<std::string> names;
  for (size_t i = 0; i == 0 || i < names.size(); i++) {
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    if (!names.empty()) options.implementation = names[i].c_str();
    attn_plan *plan = nullptr;
    attn_error error = ATTN_ERROR_INIT;
    EXPECT(attn_sdpa_plan_create(context, &problem, &options, &plan, &error) == ATTN_OK);
    attn_plan_info info = ATTN_PLAN_INFO_INIT;
    EXPECT(attn_plan_query(plan, &info, nullptr) == ATTN_OK);
    EXPECT_IN(info.implementation, info.capturable == 1 && info.asynchronous == 1);
    const char *name = nullptr;
    for (int32_t n = 0; i == 0 && n < info.num_implementations; n++) {
      EXPECT(attn_plan_implementation(plan, n, &name, nullptr) == ATTN_OK);
      names.emplace_back(name);
    }
    EXPECT(attn_plan_prepare(plan, nullptr) == ATTN_OK);
    driver().calls.clear();
    EXPECT_IN(info.implementation, attn_sdpa_forward(plan, &args, device_address(9),
                                                     workspace_bytes, nullptr, nullptr) == ATTN_OK);
    EXPECT_IN(info.implementation, driver().calls["cuLaunchKernel"] > 0);
    for (const auto &[call, count] : driver().calls) {
      EXPECT_IN(std::string(info.implementation) + " called " + call,
                call == "cuLaunchKernel" || call.starts_with("cuCtx"));
    }
    attn_plan_destroy(plan);
  }
  attn_context_destroy(context);
}

double cost_of_execute() {
  attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
  desc.backend = ATTN_BACKEND_CUDA;
  attn_context *context = nullptr;
  attn_plan *plan = nullptr;
  const attn_sdpa_desc problem = small_desc();
  const attn_sdpa_args args = small_args(device_address);
  EXPECT(attn_context_create(&desc, &context, nullptr) == ATTN_OK);
  EXPECT(attn_sdpa_plan_create(context, &problem, nullptr, &plan, nullptr) == ATTN_OK);
  EXPECT(attn_plan_prepare(plan, nullptr) == ATTN_OK);
  double best = 1e9;
  for (int round = 0; round < 20; round++) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 1000; i++) {
      EXPECT(attn_sdpa_forward(plan, &args, device_address(9), workspace_bytes, nullptr, nullptr) ==
             ATTN_OK);
    }
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count() / 1000);
    driver().launches.clear();
  }
  attn_plan_destroy(plan);
  attn_context_destroy(context);
  return best;
}

void expect_cpu_works() {
  attn_error error = ATTN_ERROR_INIT;
  attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
  desc.backend = ATTN_BACKEND_CPU;
  desc.num_threads = 1;
  attn_context *context = nullptr;
  attn_plan *plan = nullptr;
  const attn_sdpa_desc problem = small_desc();
  static uint16_t data[4][32 * 2 * 64];  // zeros, but for v: then out is v
  for (uint16_t &x : data[2]) x = 0x3c00;
  const attn_sdpa_args args = small_args([](int n) { return data[n]; });
  int32_t status = attn_context_create(&desc, &context, &error);
  if (status == ATTN_OK) status = attn_sdpa_plan_create(context, &problem, nullptr, &plan, &error);
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  if (status == ATTN_OK) status = attn_plan_query(plan, &info, &error);
  std::vector<char> memory(info.workspace_bytes + 64);
  if (status == ATTN_OK) {
    status = attn_sdpa_forward(
        plan, &args, memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64,
        info.workspace_bytes, nullptr, &error);
  }
  EXPECT_IN(error.message, status == ATTN_OK);
  EXPECT(data[3][0] == 0x3c00 && data[3][32 * 2 * 64 - 1] == 0x3c00);
  attn_plan_destroy(plan);
  attn_context_destroy(context);
}

}  // namespace scenario
