#include "backend/hip/device.hpp"

#include "backend/gpu/timing.hpp"
#include "backend/hip/backend.hpp"
#include "backend/hip/image.hpp"
#include "backend/hip/merge.hpp"
#include "backend/hip/unit.hpp"

namespace attn::hip {
namespace {

class Event {
 public:
  explicit Event(const Driver &driver) : driver_(driver) {}
  ~Event() {
    if (event_ != nullptr) driver_.hipEventDestroy(event_);
  }
  Event(Event &&other) noexcept : driver_(other.driver_), event_(other.event_) {
    other.event_ = nullptr;
  }
  Event &operator=(Event &&) = delete;

  int32_t record(attn_stream stream, const ErrorSink &error) {
    int32_t status = ATTN_OK;
    if (event_ == nullptr) {
      status = driver_.check(driver_.hipEventCreateWithFlags(&event_, 0), error, "hipEventCreate");
    }
    if (status != ATTN_OK) return status;
    return driver_.check(driver_.hipEventRecord(event_, static_cast<hipStream_t>(stream)), error,
                         "hipEventRecord");
  }
  int32_t wait(const ErrorSink &error) const {
    return driver_.check(driver_.hipEventSynchronize(event_), error, "hipEventSynchronize");
  }
  // Both events have happened.
  int32_t microseconds_since(const Event &start, double &us, const ErrorSink &error) const {
    float milliseconds = 0;
    const hipError_t code = driver_.hipEventElapsedTime(&milliseconds, start.event_, event_);
    us = milliseconds * 1e3;
    return driver_.check(code, error, "hipEventElapsedTime");
  }

 private:
  const Driver &driver_;
  hipEvent_t event_ = nullptr;
};

// All images have code for the same architectures.
const gpu::Image &an_image() {
  return *merge_kernel(ATTN_DTYPE_FP32, gpu::MergePath::any).image;
}

int32_t device_count(const Driver &driver, int &count, const ErrorSink &error) {
  const hipError_t code = driver.hipGetDeviceCount(&count);
  if (code == hipErrorNoDevice) count = 0;
  const int32_t status =
      code == hipErrorNoDevice ? int32_t{ATTN_OK} : driver.check(code, error, "hipGetDeviceCount");
  if (status != ATTN_OK || count > 0) return status;
  return error.fail(ATTN_ERROR_BACKEND_UNAVAILABLE, "backend",
                    "the HIP runtime is there, but no device");
}

int32_t check_index(const Driver &driver, const char *field, int32_t index,
                    const ErrorSink &error) {
  int count = 0;
  const int32_t status = device_count(driver, count, error);
  if (status != ATTN_OK || (index >= 0 && index < count)) return status;
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, field,
                    "%s is %d; the HIP runtime has %d device%s, %s%d", field, index, count,
                    count == 1 ? "" : "s", count == 1 ? "" : "0 .. ", count - 1);
}

}  // namespace

HipDevice::HipDevice(std::shared_ptr<const Unit> unit) : unit_(std::move(unit)) {}

HipDevice::~HipDevice() = default;

attn_device_info HipDevice::info() const {
  return unit_->properties().info;
}

int32_t HipDevice::load(const Kernel &kernel, uint32_t dynamic_smem, const ErrorSink &error) const {
  const auto most = static_cast<uint32_t>(unit_->properties().max_smem);
  if (dynamic_smem > most) {
    return error.fail(ATTN_ERROR_INTERNAL, "", "%s wants %u bytes of shared memory of %u",
                      kernel.entry, dynamic_smem, most);
  }
  const Function *function = unit_->find(kernel);
  return function != nullptr ? ATTN_OK : unit_->load(kernel, function, error);
}

int32_t HipDevice::launch(const Kernel &kernel, const LaunchShape &shape, const void *params,
                          attn_stream stream, const ErrorSink &error) const {
  if (shape.grid[0] == 0 || shape.grid[1] == 0 || shape.grid[2] == 0) return ATTN_OK;
  const Driver &driver = unit_->driver();
  const DeviceScope scope(driver, unit_->index());
  if (scope.code() != hipSuccess) {
    return driver.check(scope.code(), error, "making device %d current", unit_->index());
  }
  const Function *function = unit_->find(kernel);
  if (function == nullptr) {
    const int32_t status = unit_->load(kernel, function, error);
    if (status != ATTN_OK) return status;
  }
  void *arguments[] = {const_cast<void *>(params)};
  const hipError_t code = driver.hipModuleLaunchKernel(
      function->handle, shape.grid[0], shape.grid[1], shape.grid[2], shape.threads, 1, 1,
      shape.dynamic_smem, static_cast<hipStream_t>(stream), arguments, nullptr);
  if (code == hipSuccess) return ATTN_OK;
  return driver.check(
      code, error, "launching %s (grid %u x %u x %u, %u threads, %u bytes of shared memory)",
      kernel.entry, shape.grid[0], shape.grid[1], shape.grid[2], shape.threads, shape.dynamic_smem);
}

int32_t HipDevice::time(const std::function<int32_t()> &execute, attn_stream stream, double &us,
                        const ErrorSink &error) const {
  const Driver &driver = unit_->driver();
  const DeviceScope scope(driver, unit_->index());
  const CaptureScope capture(driver);  // somebody else's
  const int32_t status =
      driver.check(scope.code(), error, "making device %d current", unit_->index());
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
    if (has_architecture(an_image(), properties.architecture)) {
      count = devices;
      return ATTN_OK;
    }
  }
  return error.fail(ATTN_ERROR_BACKEND_UNAVAILABLE, "backend",
                    "no HIP device can serve: device %d, %s, is %s; libattn has code for %s",
                    devices - 1, properties.info.name, properties.info.architecture,
                    architectures_of(an_image()).c_str());
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
                      "desc.num_threads is %d; it must be 0 for a HIP device", desc.num_threads);
  }
  const Driver *driver;
  int32_t status = load_driver(driver, error);
  if (status == ATTN_OK) {
    status = check_index(*driver, "desc.device_index", desc.device_index, error);
  }
  std::shared_ptr<const Unit> unit;
  if (status == ATTN_OK) status = Unit::open(*driver, desc.device_index, unit, error);
  if (status != ATTN_OK) return status;
  const Properties &properties = unit->properties();
  if (!has_architecture(an_image(), properties.architecture)) {
    return error.fail(ATTN_ERROR_BACKEND_UNAVAILABLE, "desc.device_index",
                      "desc.device_index is %d, %s, which is %s; libattn has code for %s",
                      desc.device_index, properties.info.name, properties.info.architecture,
                      architectures_of(an_image()).c_str());
  }
  device = std::make_unique<HipDevice>(std::move(unit));
  return ATTN_OK;
}

}  // namespace attn::hip
