#include "backend/cuda/unit.hpp"

#include <algorithm>
#include <cstdio>

#include "backend/cuda/scope.hpp"

namespace attn::cuda {
namespace {

constexpr int kUnasked = 48 * 1024;  // bytes of shared memory that any kernel may use

}  // namespace

int32_t read_properties(const Driver &driver, int index, Properties &properties,
                        const ErrorSink &error) {
  CUdevice device;
  int32_t status =
      driver.check(driver.cuDeviceGet(&device, index), error, "cuDeviceGet of device %d", index);
  const auto attribute = [&](int which, int &value) {
    if (status != ATTN_OK) return;
    status = driver.check(driver.cuDeviceGetAttribute(&value, which, device), error,
                          "cuDeviceGetAttribute %d of device %d", which, index);
  };
  attn_device_info info = ATTN_DEVICE_INFO_INIT;
  if (status == ATTN_OK) {
    status = driver.check(driver.cuDeviceGetName(info.name, sizeof info.name, device), error,
                          "cuDeviceGetName of device %d", index);
  }
  size_t bytes = 0;
  if (status == ATTN_OK) {
    status = driver.check(driver.cuDeviceTotalMem(&bytes, device), error,
                          "cuDeviceTotalMem of device %d", index);
  }
  int major = 0, minor = 0;
  attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, major);
  attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, minor);
  attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, properties.num_sms);
  attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, properties.max_dynamic_smem);
  attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, properties.smem_per_sm);
  if (status != ATTN_OK) return status;
  properties.compute_capability = major * 10 + minor;
  info.backend = ATTN_BACKEND_CUDA;
  info.device_index = index;
  info.num_units = properties.num_sms;
  info.memory_bytes = bytes;
  std::snprintf(info.architecture, sizeof info.architecture, "sm_%d",
                properties.compute_capability);
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
  int32_t status = read_properties(driver, index, properties, error);
  CUdevice device = 0;
  if (status == ATTN_OK) {
    status =
        driver.check(driver.cuDeviceGet(&device, index), error, "cuDeviceGet of device %d", index);
  }
  if (status != ATTN_OK) return status;
  // Memory first: once the context is retained, nothing here may fail.
  std::unique_ptr<Unit> made(new Unit(driver, device, nullptr, properties));
  status = driver.check(driver.cuDevicePrimaryCtxRetain(&made->context_, device), error,
                        "cuDevicePrimaryCtxRetain of device %d (%s)", index, properties.info.name);
  if (status != ATTN_OK) return status;
  unit = std::move(made);
  units[place] = unit;
  return ATTN_OK;
}

// At the end of the process the driver may be gone already: then its calls fail, and do no harm.
Unit::~Unit() {
  if (context_ == nullptr) return;
  const CaptureScope capture(driver_);  // somebody else's
  {
    const ContextScope scope(driver_, context_);
    for (const CUmodule module : modules_) {
      if (module != nullptr) driver_.cuModuleUnload(module);
    }
  }
  driver_.cuDevicePrimaryCtxRelease(device_);
}

int32_t Unit::load_module(const Kernel &kernel, uint32_t id, CUmodule &module,
                          const ErrorSink &error) const {
  module = modules_[id];
  if (module != nullptr) return ATTN_OK;
  // Where a device has no code of its own, the driver compiles PTX, and has more to say.
  char log[200] = "";
  int options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void *values[] = {log, reinterpret_cast<void *>(uintptr_t{sizeof log})};
  const CUresult code =
      driver_.cuModuleLoadDataEx(&module, kernel.image->begin, 2, options, values);
  log[sizeof log - 1] = 0;
  const int32_t status = driver_.check(code, error, "loading %s on device %d (%s)%s%.120s",
                                       kernel.entry, properties_.info.device_index,
                                       properties_.info.architecture, log[0] == 0 ? "" : ": ", log);
  if (status == ATTN_OK) modules_[id] = module;
  return status;
}

int32_t Unit::load(const Kernel &kernel, uint32_t dynamic_smem, const Function *&function,
                   const ErrorSink &error) const {
  const uint32_t id = gpu::id_of(*kernel.image);
  if (id == 0) {
    return error.fail(ATTN_ERROR_INTERNAL, "", "there are more than %u kernel images",
                      gpu::kMaxImages);
  }
  const std::lock_guard lock(mutex_);
  function = functions_.find(kernel);
  if (function != nullptr && function->dynamic_smem.load(std::memory_order_relaxed) >= dynamic_smem)
    return ATTN_OK;  // another thread was quicker

  const ContextScope scope(driver_, context_);
  int32_t status = driver_.check(scope.code(), error, "making the context of device %d current",
                                 properties_.info.device_index);
  if (status != ATTN_OK) return status;
  const CaptureScope capture(driver_);
  CUfunction handle = function != nullptr ? function->handle : nullptr;
  uint32_t allowed =
      function != nullptr ? function->dynamic_smem.load(std::memory_order_relaxed) : 0;
  if (function == nullptr) {
    CUmodule module = nullptr;
    status = load_module(kernel, id, module, error);
    if (status != ATTN_OK) return status;
    functions_.reserve();
    status = driver_.check(driver_.cuModuleGetFunction(&handle, module, kernel.entry), error,
                           "cuModuleGetFunction of %s", kernel.entry);
    if (status == ATTN_OK && driver_.cuFuncLoad != nullptr) {
      status = driver_.check(driver_.cuFuncLoad(handle), error, "cuFuncLoad of %s", kernel.entry);
    }
    int static_smem = 0;
    if (status == ATTN_OK) {
      status = driver_.check(
          driver_.cuFuncGetAttribute(&static_smem, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, handle),
          error, "cuFuncGetAttribute of %s", kernel.entry);
    }
    if (status != ATTN_OK) return status;
    allowed = static_cast<uint32_t>(std::max(0, kUnasked - static_smem));
  }
  if (allowed < dynamic_smem) {
    status = driver_.check(
        driver_.cuFuncSetAttribute(handle, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                   static_cast<int>(dynamic_smem)),
        error, "giving %s %u bytes of shared memory", kernel.entry, dynamic_smem);
    if (status != ATTN_OK) return status;
    allowed = dynamic_smem;
  }
  if (function == nullptr) {
    function = functions_.add(id, kernel.entry, handle, allowed);
  } else {
    function->dynamic_smem.store(allowed, std::memory_order_release);
  }
  return ATTN_OK;
}

}  // namespace attn::cuda
