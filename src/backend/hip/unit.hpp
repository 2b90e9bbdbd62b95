// What all contexts on one device share: the modules that have been loaded on it.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>

#include "backend/gpu/functions.hpp"
#include "backend/hip/device.hpp"
#include "backend/hip/driver.hpp"

namespace attn::hip {

using Function = gpu::Function<hipFunction_t>;

// What the runtime says of a device.
struct Properties {
  attn_device_info info;
  std::string architecture;  // "gfx942", without the features that may follow
  int max_smem;              // bytes of a block
};
int32_t read_properties(const Driver &driver, int index, Properties &properties,
                        const ErrorSink &error);

// Makes a device current for the thread; the caller's is current again afterwards.
class DeviceScope {
 public:
  DeviceScope(const Driver &driver, int device) : driver_(driver) {
    code_ = driver.hipGetDevice(&before_);
    if (code_ != hipSuccess || before_ == device) return;
    code_ = driver.hipSetDevice(device);
    changed_ = code_ == hipSuccess;
  }
  ~DeviceScope() {
    if (changed_) driver_.hipSetDevice(before_);
  }
  DeviceScope(const DeviceScope &) = delete;
  DeviceScope &operator=(const DeviceScope &) = delete;

  hipError_t code() const { return code_; }

 private:
  const Driver &driver_;
  hipError_t code_;
  int before_ = 0;
  bool changed_ = false;
};

// Lets the thread load and unload modules and wait for events while it, or another thread, captures
// a stream: other modes of capture forbid that, and the capture would break.
class CaptureScope {
 public:
  explicit CaptureScope(const Driver &driver) : driver_(driver) {
    changed_ = driver_.hipThreadExchangeStreamCaptureMode != nullptr &&
               driver_.hipThreadExchangeStreamCaptureMode(&mode_) == hipSuccess;
  }
  ~CaptureScope() {
    if (changed_) driver_.hipThreadExchangeStreamCaptureMode(&mode_);
  }
  CaptureScope(const CaptureScope &) = delete;
  CaptureScope &operator=(const CaptureScope &) = delete;

 private:
  const Driver &driver_;
  int mode_ = hipStreamCaptureModeRelaxed;
  bool changed_;
};

class Unit {
 public:
  // The device's unit, shared with all who hold it already.
  static int32_t open(const Driver &driver, int index, std::shared_ptr<const Unit> &unit,
                      const ErrorSink &error);
  ~Unit();
  Unit(const Unit &) = delete;
  Unit &operator=(const Unit &) = delete;

  const Driver &driver() const { return driver_; }
  const Properties &properties() const { return properties_; }
  int index() const { return properties_.info.device_index; }

  // Null if load() has to be called.
  const Function *find(const Kernel &kernel) const { return functions_.find(kernel); }
  int32_t load(const Kernel &kernel, const Function *&function, const ErrorSink &error) const;

 private:
  Unit(const Driver &driver, const Properties &properties)
      : driver_(driver), properties_(properties) {}

  int32_t load_module(const Kernel &kernel, uint32_t id, hipModule_t &module,
                      const ErrorSink &error) const;

  const Driver &driver_;
  Properties properties_;
  mutable std::mutex mutex_;  // of what follows, but for finding functions
  mutable std::array<hipModule_t, gpu::kMaxImages> modules_ = {};
  mutable gpu::FunctionTable<hipFunction_t> functions_;
};

}  // namespace attn::hip
