// Each call of the driver fails in turn, the first time, the second time, and so on: the status
// says so, the message names the cause, and nothing is held afterwards.
#include <string>

#include "scenario.hpp"
#include "scenarios.hpp"

namespace scenario {
namespace {

// Calls whose failure is not the caller's business: they clean up, or form messages, or only make
// something more likely to work.
bool forgiven(const std::string &name) {
  for (const char *other : {"cuGetErrorName", "cuGetErrorString", "cuModuleUnload",
                            "cuEventDestroy", "cuDevicePrimaryCtxRelease", "cuCtxPopCurrent",
                            "cuThreadExchangeStreamCaptureMode", "cuTensorMapEncodeTiled"}) {
    if (name == other) return true;
  }
  return false;
}

void fail_in_turn(const std::string &name) {
  int hits = 0;
  for (int after = 0; after < 200; after++) {
    fake::State &s = driver();
    s.calls.clear();
    s.failing = name;
    s.failing_after = after;
    s.failing_once = true;
    const Life life = live();
    const bool hit = s.calls[name] > after;
    s.failing.clear();
    if (!hit) {
      EXPECT_IN(life.error.message, life.status == ATTN_OK);
      break;
    }
    hits++;
    if (life.status == ATTN_OK) {
      // It failed when all was over: modules that cannot be unloaded end with their context.
      EXPECT_IN(name, name == "cuCtxGetCurrent" || name == "cuCtxPushCurrent");
      s.abandoned = 0;
      expect_balanced();
      continue;
    }
    const std::string where = name + " failing after " + std::to_string(after) + ", at " +
                              life.step + ": " + life.error.message;
    EXPECT_IN(where, life.status == ATTN_ERROR_DEVICE);
    EXPECT_IN(where, life.error.backend_code == 999);
    EXPECT_IN(where, life.error.status == ATTN_ERROR_DEVICE);
    EXPECT_IN(where,
              std::string(life.error.message).find("CUDA_ERROR_UNKNOWN") != std::string::npos);
    EXPECT_IN(where, std::string(life.error.message).find("the driver's words for 999") !=
                         std::string::npos);
    expect_balanced();
  }
  EXPECT_IN(name, hits > 0 || name == "cuFuncSetAttribute");  // use() has a kernel that needs it
  // The library works once the driver does.
  EXPECT(live().status == ATTN_OK);
  expect_balanced();
  expect_cpu_works();
}

}  // namespace

void failures() {
  const char *names[] = {
#define ATTN_REQUIRED(name, parameters) #name,
#define ATTN_OPTIONAL ATTN_REQUIRED
#include "backend/cuda/driver_symbols.inc"
#undef ATTN_OPTIONAL
#undef ATTN_REQUIRED
  };
  for (const std::string name : names) {
    if (name == "cuInit") continue;  // absence() has it
    if (forgiven(name)) {
      run(name + " fails, which is forgiven", [&] {
        driver().failing = name;
        EXPECT(live().status == ATTN_OK);
      });
    } else {
      run(name + " fails", [&] { fail_in_turn(name); });
    }
  }
}

}  // namespace scenario
