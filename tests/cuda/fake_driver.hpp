// A libcuda.so.1 for tests: it computes nothing, but keeps the books of a driver, refuses what a
// driver refuses, and fails on request. The test program and the fake share this state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace fake {

struct Device {
  std::string name;
  int major, minor;
  int num_sms;
  int max_dynamic_smem;
  int smem_per_sm;
  size_t memory;
};

struct Launch {
  std::string entry;
  unsigned grid[3];
  unsigned block[3];
  unsigned dynamic_smem;
  void *stream;
  const void *params;  // of the first argument; valid during the call only
  int device;
};

struct State {
  std::mutex mutex;

  // What a test asks for.
  int version = 13000;
  std::vector<Device> devices;
  std::string missing;        // this symbol is not there
  std::string failing;        // this call fails ...
  int failing_code = 999;     // ... with this code
  int failing_after = 0;      // ... after so many successes
  bool failing_once = false;  // ... and never again
  std::string jit_log;        // what a failing load writes to the caller's log
  void (*on_launch)(const Launch &) = nullptr;

  // The books.
  std::map<std::string, int> calls;
  std::vector<Launch> launches;
  std::map<std::string, int> dynamic_smem;  // by entry, as set
  int contexts = 0;                         // retained and not released
  int modules = 0, events = 0;              // alive
  int abandoned = 0;                        // modules that went down with their context
  std::vector<std::string> violations;      // what no driver would have put up with
};

}  // namespace fake

// The fake also exports, beside the driver's functions:
//   fake::State *fake_state();
//   void *fake_primary(int device);  // a caller's context: the primary one of a device,
//   void *fake_own_context();        // or one of its own
//   int fake_stack_depth();          // contexts on the calling thread's stack
//   int fake_capture_mode();         // the calling thread's, 0 if nobody changed it
