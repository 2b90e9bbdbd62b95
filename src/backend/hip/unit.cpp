#include "backend/hip/unit.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "backend/hip/image.hpp"

namespace attn::hip {
namespace {

// The properties' struct has grown from release to release; only the architecture's name is read
// from it, of which no attribute tells. Where that lies has changed once.
constexpr size_t kPropertiesBytes = 8192;  // several times the largest so far
constexpr size_t kNameAt = 1160, kNameAtBefore6 = 396, kNameBytes = 256;

}  // namespace

int32_t read_properties(const Driver &driver, int index, Properties &properties,
                        const ErrorSink &error) {
  attn_device_info info = ATTN_DEVICE_INFO_INIT;
  int32_t status = driver.check(driver.hipDeviceGetName(info.name, sizeof info.name, index), error,
                                "hipDeviceGetName of device %d", index);
  info.name[sizeof info.name - 1] = 0;
  size_t bytes = 0;
  if (status == ATTN_OK) {
    status = driver.check(driver.hipDeviceTotalMem(&bytes, index), error,
                          "hipDeviceTotalMem of device %d", index);
  }
  const auto attribute = [&](int which, int &value) {
    if (status != ATTN_OK) return;
    status = driver.check(driver.hipDeviceGetAttribute(&value, which, index), error,
                          "hipDeviceGetAttribute %d of device %d", which, index);
  };
  attribute(hipDeviceAttributeMultiprocessorCount, info.num_units);
  attribute(hipDeviceAttributeMaxSharedMemoryPerBlock, properties.max_smem);
  if (status != ATTN_OK) return status;
  std::vector<char> raw(kPropertiesBytes);
  const bool current = driver.hipGetDevicePropertiesR0600 != nullptr;
  const auto get = current ? driver.hipGetDevicePropertiesR0600 : driver.hipGetDeviceProperties;
  if (get == nullptr) {
    return error.fail(ATTN_ERROR_BACKEND_UNAVAILABLE, "backend",
                      "the HIP runtime does not tell the architecture of its devices");
  }
  status =
      driver.check(get(raw.data(), index), error, "hipGetDeviceProperties of device %d", index);
  if (status != ATTN_OK) return status;
  const char *name = raw.data() + (current ? kNameAt : kNameAtBefore6);
  properties.architecture.assign(name, strnlen(name, kNameBytes));
  // "gfx942:sramecc+:xnack-"
  properties.architecture.resize(
      std::min(properties.architecture.find(':'), properties.architecture.size()));
  info.backend = ATTN_BACKEND_HIP;
  info.device_index = index;
  info.memory_bytes = bytes;
  std::snprintf(info.architecture, sizeof info.architecture, "%s", properties.architecture.c_str());
  properties.info = info;
  return ATTN_OK;
}

int32_t Unit::open(const Driver &driver, int index, std::shared_ptr<const Unit> &unit,
                   const ErrorSink &error) {
  static std::mutex mutex;
  static std::vector<std::weak_ptr<const Unit>> units;
  const std::lock_guard lock(mutex);
  const auto place = static_cast<size_t>(index);
  if (units.size() <= place) units.resize(place + 1);
  unit = units[place].lock();
  if (unit != nullptr) return ATTN_OK;
  Properties properties;
  const int32_t status = read_properties(driver, index, properties, error);
  if (status != ATTN_OK) return status;
  unit = std::shared_ptr<const Unit>(new Unit(driver, properties));
  units[place] = unit;
  return ATTN_OK;
}

// At the end of the process the runtime may be gone already: then its calls fail, and do no harm.
Unit::~Unit() {
  const CaptureScope capture(driver_);  // somebody else's
  const DeviceScope scope(driver_, index());
  for (const hipModule_t module : modules_) {
    if (module != nullptr) driver_.hipModuleUnload(module);
  }
}

int32_t Unit::load_module(const Kernel &kernel, uint32_t id, hipModule_t &module,
                          const ErrorSink &error) const {
  module = modules_[id];
  if (module != nullptr) return ATTN_OK;
  const std::vector<unsigned char> object = unpack(*kernel.image, properties_.architecture);
  if (object.empty()) {
    return error.fail(ATTN_ERROR_INTERNAL, "", "the image of %s has no code for %s", kernel.entry,
                      properties_.architecture.c_str());
  }
  const int32_t status = driver_.check(driver_.hipModuleLoadData(&module, object.data()), error,
                                       "loading %s on device %d (%s)", kernel.entry, index(),
                                       properties_.architecture.c_str());
  if (status == ATTN_OK) modules_[id] = module;
  return status;
}

int32_t Unit::load(const Kernel &kernel, const Function *&function, const ErrorSink &error) const {
  const uint32_t id = gpu::id_of(*kernel.image);
  if (id == 0) {
    return error.fail(ATTN_ERROR_INTERNAL, "", "there are more than %u kernel images",
                      gpu::kMaxImages);
  }
  const std::lock_guard lock(mutex_);
  function = functions_.find(kernel);
  if (function != nullptr) return ATTN_OK;  // another thread was quicker
  const DeviceScope scope(driver_, index());
  int32_t status = driver_.check(scope.code(), error, "making device %d current", index());
  if (status != ATTN_OK) return status;
  const CaptureScope capture(driver_);
  hipModule_t module = nullptr;
  status = load_module(kernel, id, module, error);
  if (status != ATTN_OK) return status;
  functions_.reserve();
  hipFunction_t handle = nullptr;
  status = driver_.check(driver_.hipModuleGetFunction(&handle, module, kernel.entry), error,
                         "hipModuleGetFunction of %s", kernel.entry);
  if (status == ATTN_OK) {
    function =
        functions_.add(id, kernel.entry, handle, static_cast<uint32_t>(properties_.max_smem));
  }
  return status;
}

}  // namespace attn::hip
