// The HIP runtime, loaded at run time, with our own declarations of what we use of it. Nothing of
// ROCm needs to be installed where libattn is built.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/error.hpp"

namespace attn::hip {

using hipError_t = int;
using hipModule_t = struct ModuleOfRuntime *;
using hipFunction_t = struct FunctionOfRuntime *;
using hipStream_t = struct StreamOfRuntime *;
using hipEvent_t = struct EventOfRuntime *;

// The runtime's numbers, under its names.
inline constexpr hipError_t hipSuccess = 0;
inline constexpr hipError_t hipErrorNoDevice = 100;
inline constexpr hipError_t hipErrorInvalidDevice = 101;
inline constexpr hipError_t hipErrorIllegalAddress = 700;
inline constexpr hipError_t hipErrorLaunchFailure = 719;
inline constexpr int hipDeviceAttributeMultiprocessorCount = 63;
inline constexpr int hipDeviceAttributeMaxSharedMemoryPerBlock = 74;
inline constexpr int hipStreamCaptureModeRelaxed = 2;

struct Driver {
#define ATTN_REQUIRED(name, parameters) hipError_t(*name) parameters = nullptr;
#define ATTN_OPTIONAL ATTN_REQUIRED
#include "backend/hip/driver_symbols.inc"
#undef ATTN_OPTIONAL
#undef ATTN_REQUIRED
  const char *(*hipGetErrorName)(hipError_t code) = nullptr;
  const char *(*hipGetErrorString)(hipError_t code) = nullptr;

  // ATTN_OK, or ATTN_ERROR_DEVICE with what was being done (a printf format) and the runtime's own
  // name and words for `code`.
  int32_t check(hipError_t code, const ErrorSink &error, const char *doing, ...) const
      __attribute__((format(printf, 4, 5)));
};

// The runtime, initialised, or BACKEND_UNAVAILABLE with the reason. Looks for it once a process. A
// copy that the process has loaded already, such as a framework's own, is the one: two would not
// share streams or memory.
int32_t load_driver(const Driver *&driver, const ErrorSink &error);

}  // namespace attn::hip
