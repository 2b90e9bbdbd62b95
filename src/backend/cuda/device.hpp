// A CUDA device as a context holds it, and the kernels that launchers run on it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "backend/gpu/device.hpp"
#include "kernels/cuda/common/tensor_map.hpp"

namespace attn::cuda {

using gpu::Image;
using gpu::Kernel;
using gpu::LaunchShape;

class Unit;  // what all contexts on one device share: its primary context and loaded modules

class CudaDevice final : public gpu::GpuDevice {
 public:
  explicit CudaDevice(std::shared_ptr<const Unit> unit);
  ~CudaDevice() override;

  attn_device_info info() const override;
  int32_t time(const std::function<int32_t()> &execute, attn_stream stream, double &us,
               const ErrorSink &error) const override;

  int num_sms() const { return num_sms_; }
  int compute_capability() const { return compute_capability_; }  // 90 for sm_90
  int max_dynamic_smem() const { return max_dynamic_smem_; }      // bytes a block may opt in to
  int smem_per_sm() const { return smem_per_sm_; }

  // A tensor of up to five dimensions with 16-bit elements as the copy engine sees it: extents from
  // the contiguous dimension on, strides in bytes of the others, boxes of 128 bytes a row,
  // swizzled. False: the driver does not take it.
  bool makes_tensor_maps() const;
  bool make_tensor_map(bool bf16, void *data, uint32_t rank, const uint64_t *extents,
                       const uint64_t *strides, const uint32_t *box, TensorMap &map) const;

  int32_t load(const Kernel &kernel, uint32_t dynamic_smem, const ErrorSink &error) const override;
  int32_t launch(const Kernel &kernel, const LaunchShape &shape, const void *params,
                 attn_stream stream, const ErrorSink &error) const override;

 private:
  std::shared_ptr<const Unit> unit_;
  int num_sms_, compute_capability_, max_dynamic_smem_, smem_per_sm_;
};

// The device of a row in the CUDA lists.
inline const CudaDevice &cuda_of(const Device &device) {
  return static_cast<const CudaDevice &>(device);
}

}  // namespace attn::cuda
