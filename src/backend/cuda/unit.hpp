// What all contexts on one device share: its primary context, retained once, and the modules that
// have been loaded into it.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "backend/cuda/device.hpp"
#include "backend/cuda/driver.hpp"

namespace attn::cuda {

// A loaded entry point. Its image's functions on one device form a list that only grows.
struct Function {
  const char *entry;
  CUfunction handle;
  mutable std::atomic<uint32_t> dynamic_smem;  // bytes it may use
  const Function *next;
};

// What the driver says of a device.
struct Properties {
  attn_device_info info;
  int num_sms, compute_capability, max_dynamic_smem, smem_per_sm;
};
int32_t read_properties(const Driver &driver, int index, Properties &properties,
                        const ErrorSink &error);

class Unit {
 public:
  // The device's unit, shared with all who hold it already.
  static int32_t open(const Driver &driver, int index, std::shared_ptr<const Unit> &unit,
                      const ErrorSink &error);
  ~Unit();
  Unit(const Unit &) = delete;
  Unit &operator=(const Unit &) = delete;

  const Driver &driver() const { return driver_; }
  CUcontext context() const { return context_; }
  const Properties &properties() const { return properties_; }

  // The kernel as it is loaded and allowed `dynamic_smem` bytes; null if load() has to be called.
  const Function *find(const Kernel &kernel, uint32_t dynamic_smem) const {
    const uint32_t id = kernel.image->id.load(std::memory_order_acquire);
    const Function *function = functions_[id].load(std::memory_order_acquire);
    while (function != nullptr && function->entry != kernel.entry) function = function->next;
    const bool ready = function != nullptr &&
                       function->dynamic_smem.load(std::memory_order_relaxed) >= dynamic_smem;
    return ready ? function : nullptr;
  }
  int32_t load(const Kernel &kernel, uint32_t dynamic_smem, const Function *&function,
               const ErrorSink &error) const;

 private:
  static constexpr uint32_t kMaxImages = 4096;

  Unit(const Driver &driver, CUdevice device, CUcontext context, const Properties &properties)
      : driver_(driver), device_(device), context_(context), properties_(properties) {}

  int32_t load_module(const Kernel &kernel, uint32_t id, CUmodule &module,
                      const ErrorSink &error) const;

  const Driver &driver_;
  CUdevice device_;
  CUcontext context_;
  Properties properties_;
  mutable std::mutex mutex_;  // of what follows, but for reading functions_
  mutable std::array<CUmodule, kMaxImages> modules_ = {};
  mutable std::vector<std::unique_ptr<const Function>> owned_;
  // By the image's id; place 0 is that of images which no device has loaded.
  mutable std::array<std::atomic<const Function *>, kMaxImages> functions_ = {};
};

}  // namespace attn::cuda
