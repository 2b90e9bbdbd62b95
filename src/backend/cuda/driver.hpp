// The CUDA driver, loaded at run time, with our own declarations of what we use of it. Nothing here
// needs CUDA to be installed where libattn is built.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/error.hpp"
#include "kernels/cuda/common/tensor_map.hpp"

namespace attn::cuda {

using CUresult = int;
using CUdevice = int;
using CUcontext = struct ContextOfDriver *;
using CUmodule = struct ModuleOfDriver *;
using CUfunction = struct FunctionOfDriver *;
using CUstream = struct StreamOfDriver *;
using CUevent = struct EventOfDriver *;

// The driver's numbers, under its names.
inline constexpr CUresult CUDA_SUCCESS = 0;
inline constexpr CUresult CUDA_ERROR_NO_DEVICE = 100;
inline constexpr CUresult CUDA_ERROR_ILLEGAL_ADDRESS = 700;
inline constexpr CUresult CUDA_ERROR_LAUNCH_FAILED = 719;
inline constexpr int CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16;
inline constexpr int CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75;
inline constexpr int CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76;
inline constexpr int CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = 81;
inline constexpr int CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97;
inline constexpr int CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1;
inline constexpr int CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
inline constexpr int CU_JIT_ERROR_LOG_BUFFER = 5;
inline constexpr int CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6;
inline constexpr int CU_STREAM_CAPTURE_MODE_RELAXED = 2;
inline constexpr int CU_TENSOR_MAP_DATA_TYPE_FLOAT16 = 6;
inline constexpr int CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 = 9;
inline constexpr int CU_TENSOR_MAP_INTERLEAVE_NONE = 0;
inline constexpr int CU_TENSOR_MAP_SWIZZLE_128B = 3;
inline constexpr int CU_TENSOR_MAP_L2_PROMOTION_L2_256B = 3;
inline constexpr int CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE = 0;

struct Driver {
#define ATTN_REQUIRED(name, parameters) CUresult(*name) parameters = nullptr;
#define ATTN_OPTIONAL ATTN_REQUIRED
#include "backend/cuda/driver_symbols.inc"
#undef ATTN_OPTIONAL
#undef ATTN_REQUIRED

  // ATTN_OK, or ATTN_ERROR_DEVICE with what was being done (a printf format) and the driver's own
  // name and words for `code`.
  int32_t check(CUresult code, const ErrorSink &error, const char *doing, ...) const
      __attribute__((format(printf, 4, 5)));
};

// The driver, initialised, or BACKEND_UNAVAILABLE with the reason. Looks for it once a process.
int32_t load_driver(const Driver *&driver, const ErrorSink &error);

}  // namespace attn::cuda
