// A CUDA device as a context holds it, and the kernels that launchers run on it.
//
// A launcher turns the table that the build generated beside its kernel into an array, in two
// passes over the same file:
//
//   #define ATTN_VARIANT(entry, begin, end, ...) ATTN_CUDA_IMAGE(entry, begin, end)
//   #include "kernels/cuda/sm80/sdpa/forward_table.inc"
//   #undef ATTN_VARIANT
//
//   constexpr Variant kVariants[] = {
//   #define ATTN_VARIANT(entry, begin, end, element, head_dim) {ATTN_CUDA_KERNEL(entry), head_dim},
//   #include "kernels/cuda/sm80/sdpa/forward_table.inc"
//   #undef ATTN_VARIANT
//   };
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "core/device.hpp"
#include "kernels/cuda/common/tensor_map.hpp"

namespace attn::cuda {

// One embedded code object: a fatbin with code for several architectures.
struct Image {
  constexpr Image(const unsigned char *first, const unsigned char *last)
      : begin(first), end(last) {}

  const unsigned char *begin, *end;
  // Its place in every device's table of modules; 0 until some device loads it.
  mutable std::atomic<uint32_t> id = 0;
};

// One entry point. Static data; loaded at first use, once for each device.
struct Kernel {
  const char *entry;
  const Image *image;
};

#define ATTN_CUDA_IMAGE(entry, begin, end)       \
  extern "C" const unsigned char begin[], end[]; \
  static constinit const ::attn::cuda::Image entry##_image(begin, end);
#define ATTN_CUDA_KERNEL(entry) \
  ::attn::cuda::Kernel {        \
#entry, &entry##_image      \
  }

struct LaunchShape {
  uint32_t grid[3];
  uint32_t threads;       // of a block
  uint32_t dynamic_smem;  // bytes of a block
};

class Unit;  // what all contexts on one device share: its primary context and loaded modules

class CudaDevice final : public Device {
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

  // A tensor of rank 4 with 16-bit elements as the copy engine sees it: extents from the contiguous
  // dimension on, strides in bytes of the others, boxes of 128 bytes a row, swizzled. False: the
  // driver does not take it.
  bool makes_tensor_maps() const;
  bool make_tensor_map(bool bf16, void *data, const uint64_t (&extents)[4],
                       const uint64_t (&strides)[3], const uint32_t (&box)[4],
                       TensorMap &map) const;

  // Loads the kernel and lets it use `dynamic_smem` bytes, so that a later launch only launches.
  // Allowed while a stream is being captured. Thread-safe.
  int32_t load(const Kernel &kernel, uint32_t dynamic_smem, const ErrorSink &error) const;

  // Launches on the caller's stream (null: the default stream) with the one struct that the kernel
  // takes; loads it if that is still to be done. A grid with a zero launches nothing. The caller's
  // current CUDA context is the same afterwards. Thread-safe.
  int32_t launch(const Kernel &kernel, const LaunchShape &shape, const void *params,
                 attn_stream stream, const ErrorSink &error) const;

 private:
  std::shared_ptr<const Unit> unit_;
  int num_sms_, compute_capability_, max_dynamic_smem_, smem_per_sm_;
};

// The device of a row in the CUDA lists.
inline const CudaDevice &cuda_of(const Device &device) {
  return static_cast<const CudaDevice &>(device);
}

}  // namespace attn::cuda
