// For tests of the bindings: what a process launched on the fake driver of tests/cuda, by a C
// interface that any language calls. The process runs with the fake's folder in LD_LIBRARY_PATH.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../cuda/fake_driver.hpp"

namespace {

// Larger than any kernel's parameters. What is beyond them is the caller's stack, not looked at.
constexpr size_t kParams = 1536;

struct Record {
  std::string entry;
  void *stream;
  int device;
  unsigned char params[kParams];
};

std::vector<Record> records;

fake::State *state() {
  static fake::State *const found = [] {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    const auto function = driver == nullptr
                              ? nullptr
                              : reinterpret_cast<fake::State *(*)()>(dlsym(driver, "fake_state"));
    return function == nullptr ? nullptr : function();
  }();
  return found;
}

}  // namespace

extern "C" {

// Puts so many devices like an H100 into the machine. 0 if this driver is not the fake.
__attribute__((visibility("default"))) int recorder_open(int devices) {
  if (state() == nullptr) return 0;
  const std::lock_guard lock(state()->mutex);
  state()->devices.assign(static_cast<size_t>(devices),
                          {"Fake H100", 9, 0, 132, 227 << 10, 228 << 10, size_t{80} << 30});
  state()->on_launch = [](const fake::Launch &launch) {
    Record record{launch.entry, launch.stream, launch.device, {}};
    std::memcpy(record.params, launch.params, kParams);
    records.push_back(record);
  };
  return 1;
}

__attribute__((visibility("default"))) int recorder_count() {
  return static_cast<int>(records.size());
}

// Launch i: the kernel's name, its stream and device, and the first bytes of its parameters.
__attribute__((visibility("default"))) void recorder_launch(int i, char *entry, int entry_size,
                                                            uint64_t *stream, int *device,
                                                            unsigned char *params,
                                                            int params_size) {
  const Record &record = records[static_cast<size_t>(i)];
  const size_t length =
      std::min(record.entry.size(), static_cast<size_t>(std::max(entry_size - 1, 0)));
  std::memcpy(entry, record.entry.data(), length);
  entry[length] = '\0';
  *stream = reinterpret_cast<uintptr_t>(record.stream);
  *device = record.device;
  std::memcpy(params, record.params, std::min(kParams, static_cast<size_t>(params_size)));
}

// What no driver would have put up with; 0 is right.
__attribute__((visibility("default"))) int recorder_violations() {
  return static_cast<int>(state()->violations.size());
}

}  // extern "C"
