#include "kernels/cpu/common/device.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>
#include <vector>

#include "backend/cpu/backend.hpp"
#include "kernels/cpu/sdpa/tuned/simd_target.hpp"

namespace attn::cpu {
namespace {

constexpr int kMaxThreads = 1024;

int usable_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // A machine with more CPUs than cpu_set_t holds makes the call fail: then all count.
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online < 1 ? 1 : static_cast<int>(std::min<long>(online, kMaxThreads));
}

void read_model_name(char *name, size_t size) {
  std::snprintf(name, size, "CPU");
  std::FILE *file = std::fopen("/proc/cpuinfo", "re");
  if (file == nullptr) return;
  char line[256];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    const char *colon =
        std::strncmp(line, "model name", 10) == 0 ? std::strchr(line, ':') : nullptr;
    if (colon == nullptr) continue;
    std::snprintf(name, size, "%.*s", static_cast<int>(strcspn(colon + 2, "\n")), colon + 2);
    break;
  }
  std::fclose(file);
}

attn_device_info describe(int num_threads) {
  attn_device_info info = ATTN_DEVICE_INFO_INIT;
  info.backend = ATTN_BACKEND_CPU;
  info.num_units = num_threads;
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page_bytes > 0) {
    info.memory_bytes = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes);
  }
  read_model_name(info.name, sizeof info.name);
  std::snprintf(info.architecture, sizeof info.architecture, "%s", tuned::simd_target_name());
  return info;
}

}  // namespace

CpuDevice::CpuDevice(int num_threads) : pool_(num_threads), info_(describe(num_threads)) {}

int32_t CpuDevice::time(const std::function<int32_t()> &execute, attn_stream, double &us,
                        const ErrorSink &) const {
  using Clock = std::chrono::steady_clock;
  // Enough runs for a median that one interruption does not move; few enough for long problems.
  constexpr auto kEnough = std::chrono::milliseconds(100);
  constexpr size_t kLeast = 3, kMost = 101;
  int32_t status = execute();  // warms caches and page tables
  std::vector<double> times;
  const Clock::time_point start = Clock::now();
  while (status == ATTN_OK && times.size() < kMost &&
         (times.size() < kLeast || Clock::now() - start < kEnough)) {
    const Clock::time_point before = Clock::now();
    status = execute();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - before).count());
  }
  if (status != ATTN_OK) return status;
  std::nth_element(times.begin(), times.begin() + static_cast<long>(times.size() / 2), times.end());
  us = times[times.size() / 2];
  return ATTN_OK;
}

int32_t count(int32_t &count, const ErrorSink &) {
  count = 1;
  return ATTN_OK;
}

int32_t info(int32_t index, attn_device_info &info, const ErrorSink &error) {
  if (index != 0) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "device_index",
                      "device_index is %d; the CPU backend has one device, 0", index);
  }
  info = describe(usable_threads());
  return ATTN_OK;
}

int32_t open(const attn_context_desc &desc, std::unique_ptr<Device> &device,
             const ErrorSink &error) {
  if (desc.device_index != 0) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.device_index",
                      "desc.device_index is %d; the CPU backend has one device, 0",
                      desc.device_index);
  }
  if (desc.num_threads < 0 || desc.num_threads > kMaxThreads) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.num_threads",
                      "desc.num_threads is %d; it must be 0 (all) .. %d", desc.num_threads,
                      kMaxThreads);
  }
  const int num_threads =
      desc.num_threads == 0 ? std::min(usable_threads(), kMaxThreads) : desc.num_threads;
  try {
    device = std::make_unique<CpuDevice>(num_threads);
  } catch (const std::system_error &failure) {
    return error.fail(ATTN_ERROR_OUT_OF_MEMORY, "desc.num_threads",
                      "the system would not start %d threads (%s); ask for fewer by "
                      "desc.num_threads",
                      num_threads, failure.what());
  }
  return ATTN_OK;
}

}  // namespace attn::cpu
