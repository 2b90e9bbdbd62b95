// A libamdhip64.so whose devices are the interpreter: what loads, launches and copies by the HIP
// runtime's functions runs here unchanged. Everything is done when it is asked for, in order; a
// stream that is being captured notes it instead.
//
//   HIP_SIM_ARCH     the devices' architecture; gfx942
//   HIP_SIM_DEVICES  how many there are; 1
//   HIP_SIM_ORDER    of blocks and waves: forward, reverse, random, or mixed, in turn; mixed
//   HIP_SIM_SEED     of the random order; 1
//   HIP_SIM_INSTEAD  ENTRY=FILE: a code object that takes the place of the one with that entry
//   HIP_SIM_VERBOSE  1: tells of each launch how many instructions its waves ran
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "device.hpp"

namespace {

using Result = int;
constexpr Result kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNoDevice = 100,
                 kInvalidDevice = 101, kInvalidImage = 200, kInvalidHandle = 400, kNotFound = 500,
                 kLaunchFailure = 719, kNotSupported = 801;

struct Module {
  int device;
  std::unique_ptr<sim::CodeObject> object;
  std::map<std::string, std::unique_ptr<struct Function>> functions;
};
struct Function {
  Module *module;
  const sim::Kernel *kernel;
};
struct Stream {
  bool capturing = false;
  std::vector<std::function<Result()>> noted;
};
struct Event {
  double time = -1;
};
struct Graph {
  std::vector<std::function<Result()>> work;
};

const char *setting(const char *name, const char *otherwise) {
  const char *value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

struct State {
  std::mutex mutex;
  std::string architecture = setting("HIP_SIM_ARCH", "gfx942");
  std::string order = setting("HIP_SIM_ORDER", "mixed");
  int count = std::atoi(setting("HIP_SIM_DEVICES", "1"));
  bool verbose = std::atoi(setting("HIP_SIM_VERBOSE", "0")) != 0;
  // One for each order: what a kernel computes may depend on none.
  std::unique_ptr<sim::Device> devices[3];
  std::map<uint8_t *, size_t> allocations;
  std::set<Module *> modules;
  std::set<Stream *> streams;
  std::set<Event *> events;
  uint64_t launches = 0;
  double now = 0;     // milliseconds
  bool lost = false;  // a kernel did what ends a device
  Stream null_stream;

  State() {
    const auto seed = static_cast<uint64_t>(std::atoll(setting("HIP_SIM_SEED", "1")));
    constexpr sim::Order kOrders[] = {sim::Order::forward, sim::Order::reverse, sim::Order::random};
    for (int n = 0; n < 3; n++) {
      devices[n] = std::make_unique<sim::Device>(architecture, kOrders[n], seed);
    }
  }
  sim::Device &next_device() {
    if (order == "forward") return *devices[0];
    if (order == "reverse") return *devices[1];
    if (order == "random") return *devices[2];
    return *devices[launches % 3];
  }
};

State &state() {
  static State *const made = new State;
  return *made;
}
thread_local int current = 0;

// Enqueues on a stream: now, or when a graph of it is launched.
Result enqueue(Stream *stream, std::function<Result()> work) {
  State &s = state();
  if (stream == nullptr) stream = &s.null_stream;
  if (stream != &s.null_stream && s.streams.count(stream) == 0) return kInvalidHandle;
  if (stream->capturing) {
    stream->noted.push_back(std::move(work));
    return kSuccess;
  }
  return work();
}

Result run(const sim::Kernel &kernel, const uint32_t (&grid)[3], const uint32_t (&block)[3],
           uint32_t dynamic_lds, const std::vector<uint8_t> &kernarg) {
  State &s = state();
  if (s.lost) return kLaunchFailure;
  sim::Device &device = s.next_device();
  s.launches++;
  const uint64_t before = device.instructions();
  try {
    device.launch(kernel, grid, block, dynamic_lds, kernarg);
  } catch (const sim::Fault &fault) {
    std::fprintf(stderr, "hip-sim: %s: %s\n", s.architecture.c_str(), fault.what());
    s.lost = true;
    return kLaunchFailure;
  }
  if (s.verbose) {
    std::fprintf(stderr, "hip-sim: %s: %u x %u x %u blocks of %u threads, %llu instructions\n",
                 kernel.name.c_str(), grid[0], grid[1], grid[2], block[0],
                 static_cast<unsigned long long>(device.instructions() - before));
  }
  s.now += 0.01;
  return kSuccess;
}

template <class T>
void write(std::vector<uint8_t> &to, size_t offset, T value) {
  if (offset + sizeof value <= to.size()) std::memcpy(&to[offset], &value, sizeof value);
}

}  // namespace

#define ENTER() const std::lock_guard lock(state().mutex)
#define API extern "C" __attribute__((visibility("default")))

API Result hipInit(unsigned) {
  return state().count > 0 ? kSuccess : kNoDevice;
}
API Result hipRuntimeGetVersion(int *version) {
  *version = 60300000;
  return kSuccess;
}
API Result hipDriverGetVersion(int *version) {
  return hipRuntimeGetVersion(version);
}
API const char *hipGetErrorName(Result code) {
  switch (code) {
    case kSuccess:
      return "hipSuccess";
    case kInvalidValue:
      return "hipErrorInvalidValue";
    case kOutOfMemory:
      return "hipErrorOutOfMemory";
    case kNoDevice:
      return "hipErrorNoDevice";
    case kInvalidDevice:
      return "hipErrorInvalidDevice";
    case kInvalidImage:
      return "hipErrorInvalidImage";
    case kInvalidHandle:
      return "hipErrorInvalidHandle";
    case kNotFound:
      return "hipErrorNotFound";
    case kLaunchFailure:
      return "hipErrorLaunchFailure";
    default:
      return "hipErrorUnknown";
  }
}
API const char *hipGetErrorString(Result code) {
  return code == kLaunchFailure ? "a kernel failed on the interpreter, which has told why" : "";
}
API Result hipGetDeviceCount(int *count) {
  *count = state().count;
  return *count > 0 ? kSuccess : kNoDevice;
}
API Result hipGetDevice(int *device) {
  *device = current;
  return kSuccess;
}
API Result hipSetDevice(int device) {
  if (device < 0 || device >= state().count) return kInvalidDevice;
  current = device;
  return kSuccess;
}
API Result hipDeviceGetName(char *name, int size, int device) {
  if (device < 0 || device >= state().count) return kInvalidDevice;
  std::snprintf(name, static_cast<size_t>(size), "ISA interpreter %d", device);
  return kSuccess;
}
API Result hipDeviceTotalMem(size_t *bytes, int device) {
  if (device < 0 || device >= state().count) return kInvalidDevice;
  *bytes = size_t{16} << 30;
  return kSuccess;
}
API Result hipDeviceGetAttribute(int *value, int attribute, int device) {
  if (device < 0 || device >= state().count) return kInvalidDevice;
  switch (attribute) {
    case 63:  // multiprocessors
      *value = 4;
      return kSuccess;
    case 74:  // shared memory of a block
      *value = static_cast<int>(state().devices[0]->lds_limit());
      return kSuccess;
    case 87:  // lanes of a wave
      *value = state().devices[0]->lanes();
      return kSuccess;
    case 56:  // threads of a block
      *value = 1024;
      return kSuccess;
    default:
      return kInvalidValue;
  }
}
API Result hipGetDevicePropertiesR0600(void *properties, int device) {
  if (device < 0 || device >= state().count) return kInvalidDevice;
  std::memset(properties, 0, 1472);
  const bool gfx9 = state().architecture.starts_with("gfx9");
  std::snprintf(static_cast<char *>(properties) + 1160, 256, "%s%s", state().architecture.c_str(),
                gfx9 ? ":sramecc+:xnack-" : "");
  return kSuccess;
}

API Result hipMalloc(void **memory, size_t bytes) {
  ENTER();
  void *m = mmap(nullptr, std::max<size_t>(bytes, 1), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m == MAP_FAILED) return kOutOfMemory;
  for (auto &device : state().devices) device->allow(m, bytes);
  state().allocations[static_cast<uint8_t *>(m)] = bytes;
  *memory = m;
  return kSuccess;
}
API Result hipFree(void *memory) {
  ENTER();
  if (memory == nullptr) return kSuccess;
  const auto found = state().allocations.find(static_cast<uint8_t *>(memory));
  if (found == state().allocations.end()) return kInvalidValue;
  for (auto &device : state().devices) device->forbid(memory);
  munmap(memory, std::max<size_t>(found->second, 1));
  state().allocations.erase(found);
  return kSuccess;
}
API Result hipMemcpyAsync(void *to, const void *from, size_t bytes, int, Stream *stream) {
  ENTER();
  return enqueue(stream, [=] {
    if (state().lost) return kLaunchFailure;
    std::memcpy(to, from, bytes);
    return kSuccess;
  });
}
API Result hipMemsetAsync(void *to, int value, size_t bytes, Stream *stream) {
  ENTER();
  return enqueue(stream, [=] {
    std::memset(to, value, bytes);
    return kSuccess;
  });
}

// What HIP_SIM_INSTEAD names, if it is about this object.
std::unique_ptr<sim::CodeObject> replacement(const sim::CodeObject &object) {
  const std::string instead = setting("HIP_SIM_INSTEAD", "");
  const size_t sign = instead.find('=');
  if (sign == std::string::npos || object.find(instead.substr(0, sign)) == nullptr) return nullptr;
  std::ifstream file(instead.substr(sign + 1), std::ios::binary);
  const std::string image{std::istreambuf_iterator<char>(file), {}};
  if (image.empty()) throw std::runtime_error("cannot read " + instead.substr(sign + 1));
  return std::make_unique<sim::CodeObject>(image.data(), state().architecture);
}

API Result hipModuleLoadData(Module **module, const void *image) {
  ENTER();
  auto made = std::make_unique<Module>();
  made->device = current;
  try {
    made->object = std::make_unique<sim::CodeObject>(image, state().architecture);
    if (auto other = replacement(*made->object)) made->object = std::move(other);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "hip-sim: %s: %s\n", state().architecture.c_str(), error.what());
    return kInvalidImage;
  }
  *module = made.release();
  state().modules.insert(*module);
  return kSuccess;
}
API Result hipModuleUnload(Module *module) {
  ENTER();
  if (state().modules.erase(module) == 0) return kInvalidHandle;
  const void *memory = module->object->memory().data();
  for (auto &device : state().devices) device->forbid(memory);
  delete module;
  return kSuccess;
}
API Result hipModuleGetFunction(Function **function, Module *module, const char *name) {
  ENTER();
  if (state().modules.count(module) == 0) return kInvalidHandle;
  const sim::Kernel *kernel = module->object->find(name);
  if (kernel == nullptr) return kNotFound;
  auto &place = module->functions[name];
  if (place == nullptr) place.reset(new Function{module, kernel});
  *function = place.get();
  return kSuccess;
}
API Result hipModuleLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz,
                                 unsigned bx, unsigned by, unsigned bz, unsigned dynamic_lds,
                                 Stream *stream, void **params, void **extra) {
  ENTER();
  if (function == nullptr || function->module->device != current) return kInvalidHandle;
  const sim::Kernel &kernel = *function->kernel;
  if (extra != nullptr || params == nullptr) return kNotSupported;
  if (gx == 0 || gy == 0 || gz == 0 || bx * by * bz == 0 || bx * by * bz > kernel.most_threads ||
      kernel.lds_bytes + dynamic_lds > state().devices[0]->lds_limit()) {
    return kInvalidValue;
  }
  std::vector<uint8_t> kernarg(kernel.kernarg_bytes, 0);
  for (size_t n = 0; n < kernel.arguments.size(); n++) {
    std::memcpy(&kernarg[kernel.arguments[n].first], params[n], kernel.arguments[n].second);
  }
  const uint32_t grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
  for (const auto &[kind, offset] : kernel.hidden) {
    const int axis = kind.back() - 'x';
    if (kind.starts_with("hidden_block_count_")) write(kernarg, offset, grid[axis]);
    if (kind.starts_with("hidden_group_size_")) {
      write(kernarg, offset, static_cast<uint16_t>(block[axis]));
    }
    if (kind == "hidden_grid_dims") {
      write(kernarg, offset, static_cast<uint16_t>(gz > 1 ? 3 : gy > 1 ? 2 : 1));
    }
    if (kind == "hidden_dynamic_lds_size") write(kernarg, offset, dynamic_lds);
  }
  return enqueue(stream, [&kernel, gx, gy, gz, bx, by, bz, dynamic_lds, kernarg] {
    return run(kernel, {gx, gy, gz}, {bx, by, bz}, dynamic_lds, kernarg);
  });
}

API Result hipDeviceSynchronize() {
  return state().lost ? kLaunchFailure : kSuccess;
}
API Result hipStreamCreateWithFlags(Stream **stream, unsigned) {
  ENTER();
  *stream = new Stream;
  state().streams.insert(*stream);
  return kSuccess;
}
API Result hipStreamDestroy(Stream *stream) {
  ENTER();
  if (state().streams.erase(stream) == 0) return kInvalidHandle;
  delete stream;
  return kSuccess;
}
API Result hipStreamSynchronize(Stream *) {
  return state().lost ? kLaunchFailure : kSuccess;
}
API Result hipThreadExchangeStreamCaptureMode(int *mode) {
  thread_local int now = 0;
  std::swap(now, *mode);
  return kSuccess;
}
API Result hipStreamBeginCapture(Stream *stream, int) {
  ENTER();
  if (state().streams.count(stream) == 0 || stream->capturing) return kInvalidHandle;
  stream->capturing = true;
  return kSuccess;
}
API Result hipStreamEndCapture(Stream *stream, Graph **graph) {
  ENTER();
  if (state().streams.count(stream) == 0 || !stream->capturing) return kInvalidHandle;
  stream->capturing = false;
  *graph = new Graph{std::move(stream->noted)};
  stream->noted.clear();
  return kSuccess;
}
API Result hipGraphGetNodes(Graph *graph, void *, size_t *count) {
  *count = graph->work.size();
  return kSuccess;
}
API Result hipGraphInstantiateWithFlags(Graph **exec, Graph *graph, unsigned long long) {
  *exec = new Graph(*graph);
  return kSuccess;
}
API Result hipGraphLaunch(Graph *exec, Stream *) {
  ENTER();
  for (const auto &work : exec->work) {
    if (const Result code = work(); code != kSuccess) return code;
  }
  return kSuccess;
}
API Result hipGraphExecDestroy(Graph *exec) {
  delete exec;
  return kSuccess;
}
API Result hipGraphDestroy(Graph *graph) {
  delete graph;
  return kSuccess;
}

API Result hipEventCreateWithFlags(Event **event, unsigned) {
  ENTER();
  *event = new Event;
  state().events.insert(*event);
  return kSuccess;
}
API Result hipEventDestroy(Event *event) {
  ENTER();
  if (state().events.erase(event) == 0) return kInvalidHandle;
  delete event;
  return kSuccess;
}
API Result hipEventRecord(Event *event, Stream *) {
  ENTER();
  if (state().events.count(event) == 0) return kInvalidHandle;
  event->time = state().now;
  return kSuccess;
}
API Result hipEventSynchronize(Event *) {
  return state().lost ? kLaunchFailure : kSuccess;
}
API Result hipEventElapsedTime(float *milliseconds, Event *start, Event *end) {
  ENTER();
  if (start->time < 0 || end->time < 0) return kInvalidHandle;
  *milliseconds = static_cast<float>(end->time - start->time);
  return kSuccess;
}
