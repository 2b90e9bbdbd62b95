#include "fake_driver.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>

// Types and numbers are written out: what the library declares is under test.
namespace {

using fake::State;
using Result = int;

constexpr Result kSuccess = 0, kInvalidValue = 1, kNoDevice = 100, kInvalidDevice = 101,
                 kInvalidContext = 201, kInvalidHandle = 400, kNotFound = 500;
constexpr int kRelaxed = 2;

struct Context {
  int device;
};
struct Module {
  Context *context;
  const void *image;
};
struct Function {
  Module *module;
  std::string entry;
};
struct Event {
  double time;
};

State &state() {
  static State *const made = [] {
    auto *s = new State;
    const char *count = std::getenv("FAKE_CUDA_DEVICES");
    const char *capability = std::getenv("FAKE_CUDA_CAPABILITY");
    const int cc = capability == nullptr ? 90 : std::atoi(capability);
    for (int i = 0; i < (count == nullptr ? 2 : std::atoi(count)); i++) {
      s->devices.push_back({"Fake GPU " + std::to_string(i), cc / 10, cc % 10, 132, 227 * 1024,
                            228 * 1024, size_t{80} << 30});
    }
    return s;
  }();
  return *made;
}

Context primaries[16];
Context own = {0};
int retained[16];
std::set<Module *> modules;
std::set<Function *> functions;
std::set<Event *> events;
double now = 0;  // milliseconds on the device
thread_local std::vector<Context *> stack;
thread_local int capture_mode = 0;
bool initialised = false;

void violation(const std::string &text) {
  state().violations.push_back(text);
}

// Counts the call; the code that it has to fail with, or success.
Result enter(const char *name) {
  State &s = state();
  const int before = s.calls[name]++;
  if (!initialised && std::strcmp(name, "cuInit") != 0 &&
      std::strncmp(name, "cuGetError", 10) != 0) {
    violation(std::string(name) + " before cuInit");
  }
  const bool fails =
      s.failing == name && (s.failing_once ? before == s.failing_after : before >= s.failing_after);
  return fails ? s.failing_code : kSuccess;
}

// What would break a capture, this thread's or another's, is done in relaxed mode.
void expect_relaxed(const char *doing) {
  if (capture_mode != kRelaxed) violation(std::string(doing) + " in a mode that capture forbids");
}

Context *current() {
  return stack.empty() ? nullptr : stack.back();
}

bool valid(int device) {
  return device >= 0 && device < static_cast<int>(state().devices.size());
}

bool is_primary(const Context *context) {
  return context >= primaries && context < primaries + 16;
}

}  // namespace

#define ENTER()                              \
  const std::lock_guard lock(state().mutex); \
  if (const Result code = enter(__func__); code != kSuccess) return code

extern "C" {

State *fake_state() {
  return &state();
}
void *fake_primary(int device) {
  return &primaries[device];
}
void *fake_own_context() {
  return &own;
}
int fake_stack_depth() {
  return static_cast<int>(stack.size());
}
int fake_capture_mode() {
  return capture_mode;
}

Result cuDriverGetVersion(int *version) {
  *version = state().version;
  return kSuccess;
}

Result cuInit(unsigned) {
  ENTER();
  initialised = true;
  for (int i = 0; i < 16; i++) primaries[i].device = i;
  return state().devices.empty() ? kNoDevice : kSuccess;
}

Result cuGetErrorName(Result code, const char **name) {
  static const std::map<Result, const char *> names = {
      {kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
      {2, "CUDA_ERROR_OUT_OF_MEMORY"},
      {kNoDevice, "CUDA_ERROR_NO_DEVICE"},
      {kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE"},
      {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT"},
      {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE"},
      {kNotFound, "CUDA_ERROR_NOT_FOUND"},
      {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {999, "CUDA_ERROR_UNKNOWN"},
  };
  const auto found = names.find(code);
  *name = found == names.end() ? nullptr : found->second;
  return found == names.end() ? kInvalidValue : kSuccess;
}

Result cuGetErrorString(Result code, const char **text) {
  static thread_local char words[64];
  std::snprintf(words, sizeof words, "the driver's words for %d", code);
  *text = words;
  return kSuccess;
}

Result cuDeviceGetCount(int *count) {
  ENTER();
  *count = static_cast<int>(state().devices.size());
  return kSuccess;
}

Result cuDeviceGet(int *device, int index) {
  ENTER();
  if (!valid(index)) return kInvalidDevice;
  *device = index;
  return kSuccess;
}

Result cuDeviceGetName(char *name, int size, int device) {
  ENTER();
  if (!valid(device)) return kInvalidDevice;
  std::snprintf(name, static_cast<size_t>(size), "%s",
                state().devices[static_cast<size_t>(device)].name.c_str());
  return kSuccess;
}

Result cuDeviceTotalMem(size_t *bytes, int device) {
  ENTER();
  if (!valid(device)) return kInvalidDevice;
  *bytes = state().devices[static_cast<size_t>(device)].memory;
  return kSuccess;
}

Result cuDeviceGetAttribute(int *value, int attribute, int device) {
  ENTER();
  if (!valid(device)) return kInvalidDevice;
  const fake::Device &d = state().devices[static_cast<size_t>(device)];
  switch (attribute) {
    case 16:
      *value = d.num_sms;
      return kSuccess;
    case 75:
      *value = d.major;
      return kSuccess;
    case 76:
      *value = d.minor;
      return kSuccess;
    case 81:
      *value = d.smem_per_sm;
      return kSuccess;
    case 97:
      *value = d.max_dynamic_smem;
      return kSuccess;
    default:
      return kInvalidValue;
  }
}

Result cuDevicePrimaryCtxRetain(Context **context, int device) {
  ENTER();
  if (!valid(device)) return kInvalidDevice;
  retained[device]++;
  state().contexts++;
  *context = &primaries[device];
  return kSuccess;
}

Result cuDevicePrimaryCtxRelease(int device) {
  ENTER();
  if (!valid(device) || retained[device] == 0) {
    violation("released a primary context that is not retained");
    return kInvalidContext;
  }
  expect_relaxed("released a primary context");
  if (--retained[device] == 0) {  // what lives in the context ends with it
    for (auto it = modules.begin(); it != modules.end();) {
      const bool its_own = (*it)->context == &primaries[device];
      state().abandoned += its_own;
      state().modules -= its_own;
      it = its_own ? modules.erase(it) : std::next(it);
    }
  }
  state().contexts--;
  return kSuccess;
}

Result cuCtxGetCurrent(Context **context) {
  ENTER();
  *context = current();
  return kSuccess;
}

Result cuCtxPushCurrent(Context *context) {
  ENTER();
  if (is_primary(context) && retained[context->device] == 0) return kInvalidContext;
  stack.push_back(context);
  return kSuccess;
}

Result cuCtxPopCurrent(Context **context) {
  ENTER();
  if (stack.empty()) {
    violation("popped an empty stack of contexts");
    return kInvalidContext;
  }
  *context = stack.back();
  stack.pop_back();
  return kSuccess;
}

Result cuModuleLoadDataEx(Module **module, const void *image, unsigned num_options,
                          const int *options, void **values) {
  const std::lock_guard lock(state().mutex);
  if (const Result code = enter(__func__); code != kSuccess) {
    const std::string &log = state().jit_log;
    for (unsigned i = 0; i < num_options; i++) {
      const bool sized = i + 1 < num_options && options[i] == 5 && options[i + 1] == 6;
      if (!sized || log.empty()) continue;
      const auto size = reinterpret_cast<uintptr_t>(values[i + 1]) & 0xffffffffu;
      std::snprintf(static_cast<char *>(values[i]), size, "%s", log.c_str());
    }
    return code;
  }
  if (!is_primary(current())) return kInvalidContext;
  expect_relaxed("loaded a module");
  constexpr uint32_t kFatbinMagic = 0xba55ed50;
  uint32_t magic;
  std::memcpy(&magic, image, sizeof magic);
  if (magic != kFatbinMagic) return 200;  // invalid image
  *module = new Module{current(), image};
  modules.insert(*module);
  state().modules++;
  return kSuccess;
}

Result cuModuleUnload(Module *module) {
  ENTER();
  if (modules.count(module) == 0) {
    violation("unloaded what is no module");
    return kInvalidHandle;
  }
  if (current() != module->context) return kInvalidContext;
  expect_relaxed("unloaded a module");
  for (auto it = functions.begin(); it != functions.end();) {
    const bool own_function = (*it)->module == module;
    if (own_function) delete *it;
    it = own_function ? functions.erase(it) : std::next(it);
  }
  modules.erase(module);
  delete module;
  state().modules--;
  return kSuccess;
}

Result cuModuleGetFunction(Function **function, Module *module, const char *name) {
  ENTER();
  if (modules.count(module) == 0) return kInvalidHandle;
  *function = new Function{module, name};
  functions.insert(*function);
  return kSuccess;
}

Result cuFuncLoad(Function *function) {
  ENTER();
  return functions.count(function) != 0 ? kSuccess : kInvalidHandle;
}

Result cuFuncGetAttribute(int *value, int attribute, Function *function) {
  ENTER();
  if (functions.count(function) == 0) return kInvalidHandle;
  *value = 0;  // bytes of static shared memory
  return attribute == 1 ? kSuccess : kInvalidValue;
}

Result cuFuncSetAttribute(Function *function, int attribute, int value) {
  ENTER();
  if (functions.count(function) == 0) return kInvalidHandle;
  const int device = function->module->context->device;
  if (attribute != 8 || value < 0 ||
      value > state().devices[static_cast<size_t>(device)].max_dynamic_smem) {
    return kInvalidValue;
  }
  state().dynamic_smem[function->entry] = value;
  return kSuccess;
}

Result cuThreadExchangeStreamCaptureMode(int *mode) {
  ENTER();
  std::swap(*mode, capture_mode);
  return kSuccess;
}

Result cuLaunchKernel(Function *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                      unsigned block_x, unsigned block_y, unsigned block_z, unsigned dynamic_smem,
                      void *stream, void **params, void **) {
  ENTER();
  if (functions.count(function) == 0) return kInvalidHandle;
  if (current() != function->module->context) return kInvalidContext;
  if (grid_x == 0 || grid_y > 65535 || grid_y == 0 || grid_z > 65535 || grid_z == 0 ||
      block_x * block_y * block_z == 0 || block_x * block_y * block_z > 1024) {
    return kInvalidValue;
  }
  const auto set = state().dynamic_smem.find(function->entry);
  const auto allowed = static_cast<unsigned>(
      std::max(48 * 1024, set == state().dynamic_smem.end() ? 0 : set->second));
  if (dynamic_smem > allowed) return kInvalidValue;
  const fake::Launch launch = {
      function->entry, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, dynamic_smem, stream,
      params[0],       current()->device};
  if (state().on_launch != nullptr) state().on_launch(launch);
  if (state().launches.size() < 10000) state().launches.push_back(launch);
  now += 10;
  return kSuccess;
}

Result cuTensorMapEncodeTiled(void *map, int, uint32_t rank, void *address, const uint64_t *extents,
                              const uint64_t *strides, const uint32_t *box, const uint32_t *, int,
                              int, int, int) {
  ENTER();
  bool valid = reinterpret_cast<uintptr_t>(map) % 64 == 0 && rank >= 1 && rank <= 5 &&
               reinterpret_cast<uintptr_t>(address) % 16 == 0;
  for (uint32_t i = 0; valid && i < rank; i++) {
    valid = extents[i] >= 1 && box[i] >= 1 && box[i] <= 256;
    if (i > 0) valid = valid && strides[i - 1] % 16 == 0 && strides[i - 1] < uint64_t{1} << 40;
  }
  if (!valid) return kInvalidValue;
  std::memset(map, 0, 128);
  return kSuccess;
}

Result cuEventCreate(Event **event, unsigned) {
  ENTER();
  if (current() == nullptr) return kInvalidContext;
  *event = new Event{-1};
  events.insert(*event);
  state().events++;
  return kSuccess;
}

Result cuEventDestroy(Event *event) {
  ENTER();
  if (events.erase(event) == 0) {
    violation("destroyed what is no event");
    return kInvalidHandle;
  }
  delete event;
  state().events--;
  return kSuccess;
}

Result cuEventRecord(Event *event, void *) {
  ENTER();
  if (events.count(event) == 0) return kInvalidHandle;
  event->time = now;
  return kSuccess;
}

Result cuEventSynchronize(Event *event) {
  ENTER();
  expect_relaxed("waited for an event");
  return events.count(event) != 0 ? kSuccess : kInvalidHandle;
}

Result cuEventElapsedTime(float *milliseconds, Event *start, Event *end) {
  ENTER();
  if (events.count(start) == 0 || events.count(end) == 0 || start->time < 0 || end->time < 0) {
    return kInvalidHandle;
  }
  *milliseconds = static_cast<float>(end->time - start->time);
  return kSuccess;
}

Result cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags,
                           int *status) {
  struct Row {
    const char *name;
    void *address;
    int since;
  };
#define ROW(name, since) \
  { #name, reinterpret_cast < void *>(name), since }
  static const Row rows[] = {
      ROW(cuInit, 2000),
      ROW(cuGetErrorName, 6000),
      ROW(cuGetErrorString, 6000),
      ROW(cuDeviceGetCount, 2000),
      ROW(cuDeviceGet, 2000),
      ROW(cuDeviceGetName, 2000),
      ROW(cuDeviceTotalMem, 3020),
      ROW(cuDeviceGetAttribute, 2000),
      ROW(cuDevicePrimaryCtxRetain, 7000),
      ROW(cuDevicePrimaryCtxRelease, 11000),
      ROW(cuCtxGetCurrent, 4000),
      ROW(cuCtxPushCurrent, 4000),
      ROW(cuCtxPopCurrent, 4000),
      ROW(cuModuleLoadDataEx, 2010),
      ROW(cuModuleUnload, 2000),
      ROW(cuModuleGetFunction, 2000),
      ROW(cuFuncLoad, 12040),
      ROW(cuFuncGetAttribute, 2020),
      ROW(cuFuncSetAttribute, 9000),
      ROW(cuThreadExchangeStreamCaptureMode, 10010),
      ROW(cuLaunchKernel, 7000),
      ROW(cuTensorMapEncodeTiled, 12000),
      ROW(cuEventCreate, 2000),
      ROW(cuEventDestroy, 4000),
      ROW(cuEventRecord, 2000),
      ROW(cuEventSynchronize, 2000),
      ROW(cuEventElapsedTime, 2000),
  };
#undef ROW
  *function = nullptr;
  if (status != nullptr) *status = 1;  // not found
  if (flags != 0) return kInvalidValue;
  if (state().missing == symbol) return kNotFound;
  for (const Row &row : rows) {
    if (std::strcmp(row.name, symbol) != 0) continue;
    if (version < row.since) {
      if (status != nullptr) *status = 2;  // the version asked for is too old
      return kNotFound;
    }
    *function = row.address;
    if (status != nullptr) *status = 0;
    return kSuccess;
  }
  return kNotFound;
}

}  // extern "C"
