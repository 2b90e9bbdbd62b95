// Scenarios: each runs in a process of its own, because the library looks for the driver once a
// process.
#pragma once

#include <functional>
#include <string>

#include "attn/attn.h"
#include "fake_driver.hpp"

namespace scenario {

// Runs `body` in a child; what it expects and does not find is printed and fails the scenario.
void run(const std::string &name, const std::function<void()> &body);
// "N passed, M failed"; the exit status.
int finish();
bool all_passed();

void expect(bool condition, const char *text, const std::string &detail, int line);
#define EXPECT(condition) scenario::expect(condition, #condition, "", __LINE__)
#define EXPECT_IN(detail, condition) scenario::expect(condition, #condition, detail, __LINE__)

// The fake driver, loaded before the library asks for it.
fake::State &driver();
// A function that it exports.
void *fake_function(const char *name);
template <class Result, class... Arguments>
Result fake_call(const char *name, Arguments... arguments) {
  return reinterpret_cast<Result (*)(Arguments...)>(fake_function(name))(arguments...);
}
inline int stack_depth() {
  return fake_call<int>("fake_stack_depth");
}

// The books are balanced: nothing is held, no context was left current, no rule was broken.
void expect_balanced();

// A caller's whole use of the library on a CUDA device, with two contexts on device 0.
struct Life {
  int32_t status = ATTN_OK;
  const char *step = "";  // at which it ended
  attn_error error = ATTN_ERROR_INIT;
  std::string implementation;
  int launches_of_execute = 0;
};
Life live(int32_t backend = ATTN_BACKEND_CUDA, void *stream = nullptr);

// Once attn_plan_prepare has run, execute only launches: with each implementation.
void expect_prepared_execute_only_launches();

// What one execute costs the host, in microseconds: the best of many rounds.
double cost_of_execute();

// The CPU backend serves as ever.
void expect_cpu_works();

}  // namespace scenario
