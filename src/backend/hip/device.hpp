// A HIP device as a context holds it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "backend/gpu/device.hpp"

namespace attn::hip {

using gpu::Kernel;
using gpu::LaunchShape;

class Unit;  // what all contexts on one device share: its loaded modules

class HipDevice final : public gpu::GpuDevice {
 public:
  explicit HipDevice(std::shared_ptr<const Unit> unit);
  ~HipDevice() override;

  attn_device_info info() const override;
  int32_t time(const std::function<int32_t()> &execute, attn_stream stream, double &us,
               const ErrorSink &error) const override;
  int32_t load(const Kernel &kernel, uint32_t dynamic_smem, const ErrorSink &error) const override;
  int32_t launch(const Kernel &kernel, const LaunchShape &shape, const void *params,
                 attn_stream stream, const ErrorSink &error) const override;

 private:
  std::shared_ptr<const Unit> unit_;
};

}  // namespace attn::hip
