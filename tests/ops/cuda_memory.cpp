// DeviceMemory through libcuda.so.1, opened here and declared here: neither headers of CUDA nor
// the library's own driver layer, so that a mistake in that one cannot hide itself.
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <vector>

#include "device_memory.hpp"
#include "mirrored.hpp"

namespace check {
namespace {

using Result = int;
using Address = unsigned long long;
using Context = struct ContextHandle *;
using Stream = struct StreamHandle *;
using Event = struct EventHandle *;
using GraphHandle = struct CapturedGraph *;
using GraphExec = struct InstantiatedGraph *;

constexpr Result kSuccess = 0;
constexpr unsigned kNonBlocking = 1;
constexpr int kCaptureThreadLocal = 1;

// name in libcuda, type
#define CHECK_CUDA_FUNCTIONS(X)                                                  \
  X(cuInit, (unsigned))                                                          \
  X(cuDeviceGet, (int *, int))                                                   \
  X(cuDevicePrimaryCtxRetain, (Context *, int))                                  \
  X(cuDevicePrimaryCtxRelease_v2, (int))                                         \
  X(cuCtxSetCurrent, (Context))                                                  \
  X(cuCtxGetCurrent, (Context *))                                                \
  X(cuMemAlloc_v2, (Address *, size_t))                                          \
  X(cuMemFree_v2, (Address))                                                     \
  X(cuMemcpyHtoDAsync_v2, (Address, const void *, size_t, Stream))               \
  X(cuMemcpyDtoHAsync_v2, (void *, Address, size_t, Stream))                     \
  X(cuStreamCreate, (Stream *, unsigned))                                        \
  X(cuStreamDestroy_v2, (Stream))                                                \
  X(cuStreamSynchronize, (Stream))                                               \
  X(cuStreamBeginCapture_v2, (Stream, int))                                      \
  X(cuStreamEndCapture, (Stream, GraphHandle *))                                 \
  X(cuGraphGetNodes, (GraphHandle, void *, size_t *))                            \
  X(cuGraphInstantiateWithFlags, (GraphExec *, GraphHandle, unsigned long long)) \
  X(cuGraphLaunch, (GraphExec, Stream))                                          \
  X(cuGraphExecDestroy, (GraphExec))                                             \
  X(cuGraphDestroy, (GraphHandle))                                               \
  X(cuEventCreate, (Event *, unsigned))                                          \
  X(cuEventRecord, (Event, Stream))                                              \
  X(cuEventSynchronize, (Event))                                                 \
  X(cuEventElapsedTime, (float *, Event, Event))                                 \
  X(cuEventDestroy_v2, (Event))                                                  \
  X(cuGetErrorName, (Result, const char **))                                     \
  X(cuGetErrorString, (Result, const char **))

struct Driver {
#define CHECK_DECLARE(name, arguments) Result(*name) arguments = nullptr;
  CHECK_CUDA_FUNCTIONS(CHECK_DECLARE)
#undef CHECK_DECLARE

  Driver() {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      throw std::runtime_error(std::string("no CUDA driver: ") + dlerror());
    }
#define CHECK_LOAD(name, arguments)                              \
  {                                                              \
    void *symbol = dlsym(library, #name);                        \
    if (symbol == nullptr) {                                     \
      throw std::runtime_error("the CUDA driver has no " #name); \
    }                                                            \
    std::memcpy(&name, &symbol, sizeof symbol);                  \
  }
    CHECK_CUDA_FUNCTIONS(CHECK_LOAD)
#undef CHECK_LOAD
  }
};

const Driver &driver() {
  static const Driver loaded;
  return loaded;
}

// Whether an error ends the context: a kernel's fault, and all that follows it.
bool is_sticky(Result status) {
  return (status >= 700 && status <= 720) || status == 214 /* ECC */ || status == 999 ||
         status == 4 /* deinitialised */;
}

void require(Result status, const char *what) {
  if (status == kSuccess) return;
  const char *name = nullptr, *text = nullptr;
  driver().cuGetErrorName(status, &name);
  driver().cuGetErrorString(status, &text);
  throw DeviceError(std::string(what) + ": " + (name != nullptr ? name : "?") + " (" +
                        std::to_string(status) + "): " + (text != nullptr ? text : ""),
                    is_sticky(status));
}

#define CUDA(call) require(driver().call, #call)

class CudaGraph final : public Graph {
 public:
  CudaGraph(GraphHandle graph, Stream stream) : graph_(graph), stream_(stream) {
    driver().cuGraphGetNodes(graph_, nullptr, &nodes_);
    const Result status = driver().cuGraphInstantiateWithFlags(&exec_, graph_, 0);
    if (status != kSuccess) driver().cuGraphDestroy(graph_);
    require(status, "cuGraphInstantiateWithFlags");
  }
  ~CudaGraph() override {
    driver().cuGraphExecDestroy(exec_);
    driver().cuGraphDestroy(graph_);
  }
  CudaGraph(const CudaGraph &) = delete;
  CudaGraph &operator=(const CudaGraph &) = delete;
  void launch() override { CUDA(cuGraphLaunch(exec_, stream_)); }
  size_t nodes() const override { return nodes_; }

 private:
  GraphHandle graph_;
  GraphExec exec_ = nullptr;
  Stream stream_;
  size_t nodes_ = 0;
};

class CudaMemory final : public DeviceMemory {
 public:
  CudaMemory(size_t capacity, bool separate) : separate_(separate) {
    mirror::begin(capacity);
    CUDA(cuInit(0));
    CUDA(cuDeviceGet(&device_, 0));
    CUDA(cuDevicePrimaryCtxRetain(&context_, device_));
    CUDA(cuCtxSetCurrent(context_));
    for (Stream &stream : streams_) CUDA(cuStreamCreate(&stream, kNonBlocking));
    CUDA(cuEventCreate(&start_, 0));
    CUDA(cuEventCreate(&end_, 0));
    if (!separate_) CUDA(cuMemAlloc_v2(&pool_, capacity));
  }
  // After a fault none of this can be freed, nor needs to be: errors are passed over.
  ~CudaMemory() override {
    driver().cuCtxSetCurrent(context_);
    for (const auto &[host, block] : copies_) driver().cuMemFree_v2(block.address);
    if (pool_ != 0) driver().cuMemFree_v2(pool_);
    driver().cuEventDestroy_v2(start_);
    driver().cuEventDestroy_v2(end_);
    for (Stream stream : streams_) driver().cuStreamDestroy_v2(stream);
    driver().cuDevicePrimaryCtxRelease_v2(device_);
  }
  CudaMemory(const CudaMemory &) = delete;
  CudaMemory &operator=(const CudaMemory &) = delete;

  void upload() override {
    if (!separate_) {
      if (mirror::used() > 0) {
        CUDA(cuMemcpyHtoDAsync_v2(pool_, mirror::region(), mirror::used(), streams_[0]));
      }
    } else {
      upload_blocks();
    }
    CUDA(cuStreamSynchronize(streams_[0]));
  }

  void download() override {
    wait();
    if (!separate_) {
      if (mirror::used() > 0) {
        CUDA(cuMemcpyDtoHAsync_v2(mirror::region(), pool_, mirror::used(), streams_[0]));
      }
    } else {
      for (const auto &[host, copy] : copies_) {
        if (copy.workspace || copy.bytes == 0) continue;
        CUDA(cuMemcpyDtoHAsync_v2(reinterpret_cast<void *>(host), copy.address, copy.bytes,
                                  streams_[0]));
      }
    }
    CUDA(cuStreamSynchronize(streams_[0]));
  }

  void wait() override {
    for (Stream stream : streams_) CUDA(cuStreamSynchronize(stream));
  }

  void *address(const void *host) const override {
    const auto at = reinterpret_cast<uintptr_t>(host);
    if (!separate_) {
      const auto base = reinterpret_cast<uintptr_t>(mirror::region());
      if (at < base || at > base + mirror::used()) return const_cast<void *>(host);
      return reinterpret_cast<void *>(pool_ + (at - base));
    }
    auto next = copies_.upper_bound(at);
    if (next == copies_.begin()) return const_cast<void *>(host);
    const auto &[start, copy] = *--next;
    if (at > start + copy.bytes) return const_cast<void *>(host);
    return reinterpret_cast<void *>(copy.address + (at - start));
  }

  bool stable() const override { return !separate_; }
  attn_stream stream(int index) const override { return streams_[index]; }

  std::unique_ptr<Graph> capture(const std::function<void()> &work) override {
    CUDA(cuStreamBeginCapture_v2(streams_[0], kCaptureThreadLocal));
    GraphHandle graph = nullptr;
    try {
      work();
    } catch (...) {
      driver().cuStreamEndCapture(streams_[0], &graph);
      if (graph != nullptr) driver().cuGraphDestroy(graph);
      throw;
    }
    CUDA(cuStreamEndCapture(streams_[0], &graph));
    return std::make_unique<CudaGraph>(graph, streams_[0]);
  }

  double time_us(const std::function<void()> &enqueue) override {
    using Clock = std::chrono::steady_clock;
    for (int i = 0; i < 3; i++) enqueue();
    const auto batch = [&](int count) {
      CUDA(cuEventRecord(start_, streams_[0]));
      for (int i = 0; i < count; i++) enqueue();
      CUDA(cuEventRecord(end_, streams_[0]));
      CUDA(cuEventSynchronize(end_));
      float ms = 0;
      CUDA(cuEventElapsedTime(&ms, start_, end_));
      return static_cast<double>(ms) * 1000 / count;
    };
    const double first = batch(3);
    const int count = std::clamp(static_cast<int>(2000 / (first + 0.1)), 1, 200);
    std::vector<double> times;
    const auto end = Clock::now() + std::chrono::milliseconds(60);
    do {
      times.push_back(batch(count));
    } while (Clock::now() < end || times.size() < 5);
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

  void before_call() override {
    // Every other call comes from a thread that has no context.
    thread_local bool without = false;
    without = !without;
    driver().cuCtxSetCurrent(without ? nullptr : context_);
    left_ = without ? nullptr : context_;
  }

  std::string after_call() override {
    Context now = nullptr;
    driver().cuCtxGetCurrent(&now);
    driver().cuCtxSetCurrent(context_);
    if (now == left_) return {};
    return std::string("the call changed the thread's current context: it was ") +
           (left_ == nullptr ? "none" : "the primary one") + " and is " +
           (now == nullptr ? "none" : "another");
  }

 private:
  struct Copy {
    Address address = 0;
    size_t bytes = 0;
    bool workspace = false;
  };

  void upload_blocks() {
    const auto &blocks = mirror::blocks();
    for (auto copy = copies_.begin(); copy != copies_.end();) {
      const auto block = blocks.find(copy->first);
      // A new workspace each time, so that nothing of the last call is in it.
      if (block != blocks.end() && block->second.bytes == copy->second.bytes &&
          !copy->second.workspace && !block->second.workspace) {
        ++copy;
        continue;
      }
      CUDA(cuMemFree_v2(copy->second.address));
      copy = copies_.erase(copy);
    }
    for (const auto &[host, block] : blocks) {
      auto [copy, is_new] = copies_.try_emplace(host);
      if (is_new) {
        CUDA(cuMemAlloc_v2(&copy->second.address, std::max<size_t>(block.bytes, 1)));
        copy->second.bytes = block.bytes;
        copy->second.workspace = block.workspace;
      }
      if (block.workspace || block.bytes == 0) continue;
      CUDA(cuMemcpyHtoDAsync_v2(copy->second.address, reinterpret_cast<const void *>(host),
                                block.bytes, streams_[0]));
    }
  }

  bool separate_;
  int device_ = 0;
  Context context_ = nullptr;
  Stream streams_[kStreams] = {};
  Event start_ = nullptr, end_ = nullptr;
  Address pool_ = 0;
  std::map<uintptr_t, Copy> copies_;
  static thread_local Context left_;
};

thread_local Context CudaMemory::left_ = nullptr;

}  // namespace

std::unique_ptr<DeviceMemory> make_cuda_memory(size_t capacity, bool separate) {
  return std::make_unique<CudaMemory>(capacity, separate);
}

}  // namespace check
