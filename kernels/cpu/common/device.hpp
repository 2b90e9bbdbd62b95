// The CPU as a device: its threads. It lies with the kernels, which run on them; the backend opens
// it.
#pragma once

#include "core/device.hpp"
#include "kernels/cpu/common/thread_pool.hpp"

namespace attn::cpu {

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int num_threads);

  attn_device_info info() const override { return info_; }
  int32_t time(const std::function<int32_t()> &execute, attn_stream stream, double &us,
               const ErrorSink &error) const override;
  const ThreadPool &pool() const { return pool_; }

 private:
  ThreadPool pool_;
  attn_device_info info_;
};

inline const ThreadPool &pool_of(const Device &device) {
  return static_cast<const CpuDevice &>(device).pool();
}

}  // namespace attn::cpu
