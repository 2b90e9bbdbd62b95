// What the GPU backends have in common: embedded kernels, and a device that launches them.
//
// A launcher turns the table that the build generated beside its kernel into an array, in two
// passes over the same file:
//
//   #define ATTN_VARIANT(entry, begin, end, ...) ATTN_GPU_IMAGE(entry, begin, end)
//   #include "kernels/cuda/sm80/sdpa/forward_table.inc"
//   #undef ATTN_VARIANT
//
//   constexpr Variant kVariants[] = {
//   #define ATTN_VARIANT(entry, begin, end, element, head_dim) {ATTN_GPU_KERNEL(entry), head_dim},
//   #include "kernels/cuda/sm80/sdpa/forward_table.inc"
//   #undef ATTN_VARIANT
//   };
#pragma once

#include <atomic>
#include <cstdint>

#include "core/device.hpp"

namespace attn::gpu {

// One embedded image: code for several architectures.
struct Image {
  constexpr Image(const unsigned char *first, const unsigned char *last)
      : begin(first), end(last) {}

  const unsigned char *begin, *end;
  // Its place in every device's table of functions; 0 until some device loads it.
  mutable std::atomic<uint32_t> id = 0;
};

// One entry point. Static data; loaded at first use, once for each device.
struct Kernel {
  const char *entry;
  const Image *image;
};

#define ATTN_GPU_IMAGE(entry, begin, end)        \
  extern "C" const unsigned char begin[], end[]; \
  static constinit const ::attn::gpu::Image entry##_image(begin, end);
#define ATTN_GPU_KERNEL(entry) \
  ::attn::gpu::Kernel {        \
#entry, &entry##_image     \
  }

struct LaunchShape {
  uint32_t grid[3];
  uint32_t threads;       // of a block
  uint32_t dynamic_smem;  // bytes of a block
};

class GpuDevice : public Device {
 public:
  // Loads the kernel and lets it use `dynamic_smem` bytes, so that a later launch only launches.
  // Allowed while a stream is being captured. Thread-safe.
  virtual int32_t load(const Kernel &kernel, uint32_t dynamic_smem,
                       const ErrorSink &error) const = 0;

  // Launches on the caller's stream (null: the default stream) with the one struct that the kernel
  // takes; loads it if that is still to be done. A grid with a zero launches nothing. What is
  // current for the caller's thread is the same afterwards. Thread-safe.
  virtual int32_t launch(const Kernel &kernel, const LaunchShape &shape, const void *params,
                         attn_stream stream, const ErrorSink &error) const = 0;
};

// The device of a row in a GPU backend's lists.
inline const GpuDevice &gpu_of(const Device &device) {
  return static_cast<const GpuDevice &>(device);
}

}  // namespace attn::gpu
