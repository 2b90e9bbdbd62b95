// The CPU as a device: its threads.
#pragma once

#include "backend/cpu/thread_pool.hpp"
#include "core/device.hpp"

namespace attn::cpu {

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int num_threads) : pool_(num_threads) {}

  attn_device_info info() const override;
  const ThreadPool &pool() const { return pool_; }

 private:
  ThreadPool pool_;
};

inline const ThreadPool &pool_of(const Device &device) {
  return static_cast<const CpuDevice &>(device).pool();
}

}  // namespace attn::cpu
