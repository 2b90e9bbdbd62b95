// What all contexts on one device share: its primary context, retained once, and the modules that
// have been loaded into it.
#pragma once

#include <array>
#include <memory>
#include <mutex>

#include "backend/cuda/device.hpp"
#include "backend/cuda/driver.hpp"
#include "backend/gpu/functions.hpp"

namespace attn::cuda {

using Function = gpu::Function<CUfunction>;

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
    const Function *function = functions_.find(kernel);
    const bool ready = function != nullptr &&
                       function->dynamic_smem.load(std::memory_order_relaxed) >= dynamic_smem;
    return ready ? function : nullptr;
  }
  int32_t load(const Kernel &kernel, uint32_t dynamic_smem, const Function *&function,
               const ErrorSink &error) const;

 private:
  Unit(const Driver &driver, CUdevice device, CUcontext context, const Properties &properties)
      : driver_(driver), device_(device), context_(context), properties_(properties) {}

  int32_t load_module(const Kernel &kernel, uint32_t id, CUmodule &module,
                      const ErrorSink &error) const;

  const Driver &driver_;
  CUdevice device_;
  CUcontext context_;
  Properties properties_;
  mutable std::mutex mutex_;  // of what follows, but for finding functions
  mutable std::array<CUmodule, gpu::kMaxImages> modules_ = {};
  mutable gpu::FunctionTable<CUfunction> functions_;
};

}  // namespace attn::cuda
