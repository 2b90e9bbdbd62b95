#include "backend/cuda/device.hpp"

#include "backend/cuda/backend.hpp"
#include "backend/cuda/scope.hpp"
#include "backend/cuda/unit.hpp"
#include "backend/gpu/timing.hpp"

namespace attn::cuda {
namespace {

constexpr int kOldestCapability = 80;

class Event {
 public:
  explicit Event(const Driver &driver) : driver_(driver) {}
  ~Event() {
    if (event_ != nullptr) driver_.cuEventDestroy(event_);
  }
  Event(Event &&other) noexcept : driver_(other.driver_), event_(other.event_) {
    other.event_ = nullptr;
  }
  Event &operator=(Event &&) = delete;

  int32_t record(attn_stream stream, const ErrorSink &error) {
    int32_t status = ATTN_OK;
    if (event_ == nullptr) {
      status = driver_.check(driver_.cuEventCreate(&event_, 0), error, "cuEventCreate");
    }
    if (status != ATTN_OK) return status;
    return driver_.check(driver_.cuEventRecord(event_, static_cast<CUstream>(stream)), error,
                         "cuEventRecord");
  }
  int32_t wait(const ErrorSink &error) const {
    return driver_.check(driver_.cuEventSynchronize(event_), error, "cuEventSynchronize");
  }
  // Both events have happened.
  int32_t microseconds_since(const Event &start, double &us, const ErrorSink &error) const {
    float milliseconds = 0;
    const CUresult code = driver_.cuEventElapsedTime(&milliseconds, start.event_, event_);
    us = milliseconds * 1e3;
    return driver_.check(code, error, "cuEventElapsedTime");
  }

 private:
  const Driver &driver_;
  CUevent event_ = nullptr;
};

int32_t device_count(const Driver &driver, int &count, const ErrorSink &error) {
  const int32_t status = driver.check(driver.cuDeviceGetCount(&count), error, "cuDeviceGetCount");
  if (status != ATTN_OK || count > 0) return status;
  return error.fail(ATTN_ERROR_BACKEND_UNAVAILABLE, "backend",
                    "the NVIDIA driver is there, but no CUDA device");
}

int32_t check_index(const Driver &driver, const char *field, int32_t index,
                    const ErrorSink &error) {
  int count = 0;
  const int32_t status = device_count(driver, count, error);
  if (status != ATTN_OK || (index >= 0 && index < count)) return status;
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, field,
                    "%s is %d; the driver has %d device%s, %s%d", field, index, count,
                    count == 1 ? "" : "s", count == 1 ? "" : "0 .. ", count - 1);
}

}  // namespace

CudaDevice::CudaDevice(std::shared_ptr<const Unit> unit)
    : unit_(std::move(unit)),
      num_sms_(unit_->properties().num_sms),
      compute_capability_(unit_->properties().compute_capability),
      max_dynamic_smem_(unit_->properties().max_dynamic_smem),
      smem_per_sm_(unit_->properties().smem_per_sm) {}

CudaDevice::~CudaDevice() = default;

attn_device_info CudaDevice::info() const {
  return unit_->properties().info;
}

bool CudaDevice::makes_tensor_maps() const {
  return unit_->driver().cuTensorMapEncodeTiled != nullptr;
}

bool CudaDevice::make_tensor_map(bool bf16, void *data, uint32_t rank, const uint64_t *extents,
                                 const uint64_t *strides, const uint32_t *box,
                                 TensorMap &map) const {
  const ContextScope scope(unit_->driver(), unit_->context());  // which the driver asks for
  if (scope.code() != CUDA_SUCCESS) return false;
  const uint32_t element_strides[] = {1, 1, 1, 1, 1};
  return unit_->driver().cuTensorMapEncodeTiled(
             &map, bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, rank,
             data, extents, strides, box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

int32_t CudaDevice::load(const Kernel &kernel, uint32_t dynamic_smem,
                         const ErrorSink &error) const {
  const Function *function = unit_->find(kernel, dynamic_smem);
  return function != nullptr ? ATTN_OK : unit_->load(kernel, dynamic_smem, function, error);
}

int32_t CudaDevice::launch(const Kernel &kernel, const LaunchShape &shape, const void *params,
                           attn_stream stream, const ErrorSink &error) const {
  if (shape.grid[0] == 0 || shape.grid[1] == 0 || shape.grid[2] == 0) return ATTN_OK;
  const Driver &driver = unit_->driver();
  const ContextScope scope(driver, unit_->context());
  if (scope.code() != CUDA_SUCCESS) {
    return driver.check(scope.code(), error, "making the context of the device current");
  }
  const Function *function = unit_->find(kernel, shape.dynamic_smem);
  if (function == nullptr) {
    const int32_t status = unit_->load(kernel, shape.dynamic_smem, function, error);
    if (status != ATTN_OK) return status;
  }
  void *arguments[] = {const_cast<void *>(params)};
  const CUresult code = driver.cuLaunchKernel(
      function->handle, shape.grid[0], shape.grid[1], shape.grid[2], shape.threads, 1, 1,
      shape.dynamic_smem, static_cast<CUstream>(stream), arguments, nullptr);
  if (code == CUDA_SUCCESS) return ATTN_OK;
  return driver.check(
      code, error, "launching %s (grid %u x %u x %u, %u threads, %u bytes of shared memory)",
      kernel.entry, shape.grid[0], shape.grid[1], shape.grid[2], shape.threads, shape.dynamic_smem);
}

int32_t CudaDevice::time(const std::function<int32_t()> &execute, attn_stream stream, double &us,
                         const ErrorSink &error) const {
  const Driver &driver = unit_->driver();
  const ContextScope scope(driver, unit_->context());
  const CaptureScope capture(driver);  // somebody else's
  const int32_t status =
      driver.check(scope.code(), error, "making the context of the device current");
  return status == ATTN_OK ? gpu::median_time<Event>(driver, execute, stream, us, error) : status;
}

int32_t count(int32_t &count, const ErrorSink &error) {
  count = 0;
  const Driver *driver;
  int devices = 0;
  int32_t status = load_driver(driver, error);
  if (status == ATTN_OK) status = device_count(*driver, devices, error);
  if (status != ATTN_OK) return status;
  Properties properties;
  for (int i = 0; i < devices; i++) {
    status = read_properties(*driver, i, properties, error);
    if (status != ATTN_OK) return status;
    if (properties.compute_capability >= kOldestCapability) {
      count = devices;
      return ATTN_OK;
    }
  }
  return error.fail(ATTN_ERROR_BACKEND_UNAVAILABLE, "backend",
                    "no CUDA device is new enough: device %d, %s, is %s; libattn needs sm_80 "
                    "(Ampere) or newer",
                    devices - 1, properties.info.name, properties.info.architecture);
}

int32_t info(int32_t index, attn_device_info &info, const ErrorSink &error) {
  const Driver *driver;
  int32_t status = load_driver(driver, error);
  if (status == ATTN_OK) status = check_index(*driver, "device_index", index, error);
  Properties properties;
  if (status == ATTN_OK) status = read_properties(*driver, index, properties, error);
  if (status == ATTN_OK) info = properties.info;
  return status;
}

int32_t open(const attn_context_desc &desc, std::unique_ptr<Device> &device,
             const ErrorSink &error) {
  if (desc.num_threads != 0) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.num_threads",
                      "desc.num_threads is %d; it must be 0 for a CUDA device", desc.num_threads);
  }
  const Driver *driver;
  int32_t status = load_driver(driver, error);
  if (status == ATTN_OK) {
    status = check_index(*driver, "desc.device_index", desc.device_index, error);
  }
  Properties properties;
  if (status == ATTN_OK) status = read_properties(*driver, desc.device_index, properties, error);
  if (status != ATTN_OK) return status;
  if (properties.compute_capability < kOldestCapability) {
    return error.fail(ATTN_ERROR_BACKEND_UNAVAILABLE, "desc.device_index",
                      "desc.device_index is %d, %s, which is %s; libattn needs sm_80 (Ampere) or "
                      "newer",
                      desc.device_index, properties.info.name, properties.info.architecture);
  }
  std::shared_ptr<const Unit> unit;
  status = Unit::open(*driver, desc.device_index, unit, error);
  if (status == ATTN_OK) device = std::make_unique<CudaDevice>(std::move(unit));
  return status;
}

}  // namespace attn::cuda
