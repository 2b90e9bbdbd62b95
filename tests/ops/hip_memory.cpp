// DeviceMemory through libamdhip64.so, opened here and declared here: neither headers of ROCm nor
// the library's own driver layer, so that a mistake in that one cannot hide itself.
#include <dlfcn.h>

#include <cstring>

#include "device_memory.hpp"
#include "mirrored.hpp"

namespace check {
namespace {

using Result = int;
using Stream = struct HipStreamHandle *;
using Event = struct HipEventHandle *;
using GraphHandle = struct HipCapturedGraph *;
using GraphExec = struct HipInstantiatedGraph *;

constexpr Result kSuccess = 0;
constexpr unsigned kNonBlocking = 1;
constexpr int kToDevice = 1, kToHost = 2, kCaptureThreadLocal = 1;

#define CHECK_HIP_FUNCTIONS(X)                                                    \
  X(hipInit, (unsigned))                                                          \
  X(hipSetDevice, (int))                                                          \
  X(hipGetDevice, (int *))                                                        \
  X(hipMalloc, (void **, size_t))                                                 \
  X(hipFree, (void *))                                                            \
  X(hipMemcpyAsync, (void *, const void *, size_t, int, Stream))                  \
  X(hipStreamCreateWithFlags, (Stream *, unsigned))                               \
  X(hipStreamDestroy, (Stream))                                                   \
  X(hipStreamSynchronize, (Stream))                                               \
  X(hipStreamBeginCapture, (Stream, int))                                         \
  X(hipStreamEndCapture, (Stream, GraphHandle *))                                 \
  X(hipGraphGetNodes, (GraphHandle, void *, size_t *))                            \
  X(hipGraphInstantiateWithFlags, (GraphExec *, GraphHandle, unsigned long long)) \
  X(hipGraphLaunch, (GraphExec, Stream))                                          \
  X(hipGraphExecDestroy, (GraphExec))                                             \
  X(hipGraphDestroy, (GraphHandle))                                               \
  X(hipEventCreateWithFlags, (Event *, unsigned))                                 \
  X(hipEventDestroy, (Event))                                                     \
  X(hipEventRecord, (Event, Stream))                                              \
  X(hipEventSynchronize, (Event))                                                 \
  X(hipEventElapsedTime, (float *, Event, Event))

struct Runtime {
#define CHECK_DECLARE(name, arguments) Result(*name) arguments = nullptr;
  CHECK_HIP_FUNCTIONS(CHECK_DECLARE)
#undef CHECK_DECLARE
  const char *(*hipGetErrorName)(Result) = nullptr;

  Runtime() {
    void *library = nullptr;
    for (const char *name : {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so"}) {
      if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (library == nullptr) throw std::runtime_error(std::string("no HIP runtime: ") + dlerror());
    const auto load = [&](const char *name, auto &function) {
      void *symbol = dlsym(library, name);
      if (symbol == nullptr) throw std::runtime_error(std::string("no ") + name + " in HIP");
      std::memcpy(&function, &symbol, sizeof symbol);
    };
#define CHECK_LOAD(name, arguments) load(#name, name);
    CHECK_HIP_FUNCTIONS(CHECK_LOAD)
#undef CHECK_LOAD
    load("hipGetErrorName", hipGetErrorName);
  }
};

const Runtime &runtime() {
  static const Runtime loaded;
  return loaded;
}

void require(Result status, const char *what) {
  if (status == kSuccess) return;
  const char *name = runtime().hipGetErrorName(status);
  const bool lost = (status >= 700 && status <= 720) || status == 999;
  throw DeviceError(std::string(what) + ": " + (name != nullptr ? name : "?") + " (" +
                        std::to_string(status) + ")",
                    lost);
}

#define HIP(call) require(runtime().call, #call)

class HipGraph final : public Graph {
 public:
  HipGraph(GraphHandle graph, Stream stream) : graph_(graph), stream_(stream) {
    runtime().hipGraphGetNodes(graph_, nullptr, &nodes_);
    const Result status = runtime().hipGraphInstantiateWithFlags(&exec_, graph_, 0);
    if (status != kSuccess) runtime().hipGraphDestroy(graph_);
    require(status, "hipGraphInstantiateWithFlags");
  }
  ~HipGraph() override {
    runtime().hipGraphExecDestroy(exec_);
    runtime().hipGraphDestroy(graph_);
  }
  HipGraph(const HipGraph &) = delete;
  HipGraph &operator=(const HipGraph &) = delete;
  void launch() override { HIP(hipGraphLaunch(exec_, stream_)); }
  size_t nodes() const override { return nodes_; }

 private:
  GraphHandle graph_;
  GraphExec exec_ = nullptr;
  Stream stream_;
  size_t nodes_ = 0;
};

class HipMemory final : public DeviceMemory {
 public:
  explicit HipMemory(size_t capacity) {
    mirror::begin(capacity);
    HIP(hipInit(0));
    HIP(hipSetDevice(0));
    for (Stream &stream : streams_) HIP(hipStreamCreateWithFlags(&stream, kNonBlocking));
    HIP(hipEventCreateWithFlags(&start_, 0));
    HIP(hipEventCreateWithFlags(&end_, 0));
    void *pool = nullptr;
    HIP(hipMalloc(&pool, capacity));
    pool_ = static_cast<uint8_t *>(pool);
  }
  // After a fault none of this can be freed, nor needs to be: errors are passed over.
  ~HipMemory() override {
    runtime().hipFree(pool_);
    runtime().hipEventDestroy(start_);
    runtime().hipEventDestroy(end_);
    for (Stream stream : streams_) runtime().hipStreamDestroy(stream);
  }
  HipMemory(const HipMemory &) = delete;
  HipMemory &operator=(const HipMemory &) = delete;

  void upload() override {
    if (mirror::used() > 0) {
      HIP(hipMemcpyAsync(pool_, mirror::region(), mirror::used(), kToDevice, streams_[0]));
    }
    HIP(hipStreamSynchronize(streams_[0]));
  }
  void download() override {
    wait();
    if (mirror::used() > 0) {
      HIP(hipMemcpyAsync(mirror::region(), pool_, mirror::used(), kToHost, streams_[0]));
    }
    HIP(hipStreamSynchronize(streams_[0]));
  }
  void wait() override {
    for (Stream stream : streams_) HIP(hipStreamSynchronize(stream));
  }
  void *address(const void *host) const override {
    const auto *at = static_cast<const uint8_t *>(host);
    if (at < mirror::region() || at > mirror::region() + mirror::used()) {
      return const_cast<void *>(host);
    }
    return pool_ + (at - mirror::region());
  }
  attn_stream stream(int index) const override { return streams_[index]; }

  std::unique_ptr<Graph> capture(const std::function<void()> &work) override {
    HIP(hipStreamBeginCapture(streams_[0], kCaptureThreadLocal));
    GraphHandle graph = nullptr;
    try {
      work();
    } catch (...) {
      runtime().hipStreamEndCapture(streams_[0], &graph);
      if (graph != nullptr) runtime().hipGraphDestroy(graph);
      throw;
    }
    HIP(hipStreamEndCapture(streams_[0], &graph));
    return std::make_unique<HipGraph>(graph, streams_[0]);
  }

  double time_us(const std::function<void()> &enqueue) override {
    enqueue();
    HIP(hipEventRecord(start_, streams_[0]));
    constexpr int kRuns = 10;
    for (int n = 0; n < kRuns; n++) enqueue();
    HIP(hipEventRecord(end_, streams_[0]));
    HIP(hipEventSynchronize(end_));
    float ms = 0;
    HIP(hipEventElapsedTime(&ms, start_, end_));
    return static_cast<double>(ms) * 1000 / kRuns;
  }

  std::string after_call() override {
    int device = 0;
    runtime().hipGetDevice(&device);
    return device == 0 ? std::string() : "the call changed the thread's current device";
  }

 private:
  Stream streams_[kStreams] = {};
  Event start_ = nullptr, end_ = nullptr;
  uint8_t *pool_ = nullptr;
};

}  // namespace

std::unique_ptr<DeviceMemory> make_hip_memory(size_t capacity) {
  return std::make_unique<HipMemory>(capacity);
}

}  // namespace check
