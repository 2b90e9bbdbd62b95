// What attn-check itself asks of a driver, beside tests/cuda/fake_driver.cpp: memory that is the
// host's, streams and graphs that do nothing. Nothing is computed; at the end, the names of all
// kernels that were launched go to the file that ATTN_LAUNCHED names.
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>

#include "../../cuda/fake_driver.hpp"

using Result = int;
using Address = unsigned long long;

extern "C" {

fake::State *fake_state();
Result cuDevicePrimaryCtxRelease(int device);
Result cuCtxPushCurrent(void *context);
Result cuCtxPopCurrent(void **context);
Result cuCtxGetCurrent(void **context);
Result cuEventDestroy(void *event);

Result cuDevicePrimaryCtxRelease_v2(int device) {
  return cuDevicePrimaryCtxRelease(device);
}
Result cuCtxSetCurrent(void *context) {
  for (void *top = nullptr; cuCtxGetCurrent(&top) == 0 && top != nullptr;) cuCtxPopCurrent(&top);
  return context == nullptr ? 0 : cuCtxPushCurrent(context);
}
Result cuMemAlloc_v2(Address *address, size_t bytes) {
  constexpr size_t kAlignment = 512;
  const size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  *address = reinterpret_cast<Address>(std::aligned_alloc(kAlignment, whole));
  return *address == 0 ? 2 : 0;
}
Result cuMemFree_v2(Address address) {
  std::free(reinterpret_cast<void *>(address));
  return 0;
}
Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *) {
  std::memcpy(reinterpret_cast<void *>(to), from, bytes);
  return 0;
}
Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *) {
  std::memcpy(to, reinterpret_cast<const void *>(from), bytes);
  return 0;
}
Result cuStreamCreate(void **stream, unsigned) {
  *stream = std::malloc(1);
  return 0;
}
Result cuStreamDestroy_v2(void *stream) {
  std::free(stream);
  return 0;
}
Result cuStreamSynchronize(void *) {
  return 0;
}
Result cuStreamBeginCapture_v2(void *, int) {
  return 0;
}
Result cuStreamEndCapture(void *, void **graph) {
  *graph = std::malloc(1);
  return 0;
}
Result cuGraphGetNodes(void *, void *, size_t *count) {
  *count = 1;
  return 0;
}
Result cuGraphInstantiateWithFlags(void **exec, void *, unsigned long long) {
  *exec = std::malloc(1);
  return 0;
}
Result cuGraphLaunch(void *, void *) {
  return 0;
}
Result cuGraphExecDestroy(void *exec) {
  std::free(exec);
  return 0;
}
Result cuGraphDestroy(void *graph) {
  std::free(graph);
  return 0;
}
Result cuEventDestroy_v2(void *event) {
  return cuEventDestroy(event);
}

}  // extern "C"

namespace {

struct Report {
  Report() {
    fake_state()->devices = {
        {"fake H200", 9, 0, 132, 227 << 10, 228 << 10, size_t{141} << 30},
    };
  }
  ~Report() {
    const char *path = std::getenv("ATTN_LAUNCHED");
    if (path == nullptr) return;
    std::set<std::string> entries;
    for (const fake::Launch &launch : fake_state()->launches) entries.insert(launch.entry);
    std::ofstream file(path);
    for (const std::string &entry : entries) file << entry << "\n";
  }
};

[[gnu::init_priority(65000)]] Report report;

}  // namespace
