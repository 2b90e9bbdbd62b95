// Our declarations of the driver against NVIDIA's own header, where the build has it: the same
// numbers, and functions of the same shape. Compiling is the test.
#include <cuda.h>

#include <type_traits>

#include "backend/cuda/driver.hpp"

namespace {

// Handles and enumerations go by other names on our side; what is passed must be alike.
template <class Ours, class Theirs>
constexpr bool kAlike =
    sizeof(Ours) == sizeof(Theirs) &&
    std::is_pointer_v<Ours> == std::is_pointer_v<Theirs> &&std::is_floating_point_v<Ours> ==
        std::is_floating_point_v<Theirs>;

template <class Ours, class Theirs>
constexpr bool kSameShape = false;
template <class R, class... Ours, class S, class... Theirs>
constexpr bool kSameShape<R (*)(Ours...), S (*)(Theirs...)> = [] {
  if constexpr (sizeof...(Ours) == sizeof...(Theirs)) {
    return kAlike<R, S> && (kAlike<Ours, Theirs> && ...);
  }
  return false;
}();

using attn::cuda::Driver;

#define ATTN_REQUIRED(name, parameters) \
  static_assert(kSameShape<decltype(Driver::name), decltype(&::name)>, #name);
#define ATTN_OPTIONAL ATTN_REQUIRED
#include "backend/cuda/driver_symbols.inc"
#undef ATTN_OPTIONAL
#undef ATTN_REQUIRED

#define SAME(name) static_assert(attn::cuda::name == static_cast<int>(::name), #name)
SAME(CUDA_SUCCESS);
SAME(CUDA_ERROR_NO_DEVICE);
SAME(CUDA_ERROR_ILLEGAL_ADDRESS);
SAME(CUDA_ERROR_LAUNCH_FAILED);
SAME(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
SAME(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
SAME(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
SAME(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME(CU_JIT_ERROR_LOG_BUFFER);
SAME(CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
SAME(CU_STREAM_CAPTURE_MODE_RELAXED);
SAME(CU_TENSOR_MAP_DATA_TYPE_FLOAT16);
SAME(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16);
SAME(CU_TENSOR_MAP_INTERLEAVE_NONE);
SAME(CU_TENSOR_MAP_SWIZZLE_128B);
SAME(CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
SAME(CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
static_assert(sizeof(attn::cuda::TensorMap) == sizeof(CUtensorMap));
static_assert(alignof(attn::cuda::TensorMap) >= alignof(CUtensorMap));

}  // namespace
