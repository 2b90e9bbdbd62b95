#include "core/version.hpp"

#include "attn/attn.h"
#include "attn_build.h"
#include "core/error.hpp"

extern "C" uint32_t attn_abi_version(void) {
  return ATTN_ABI_VERSION;
}

extern "C" int32_t attn_abi_check(uint32_t client_abi, attn_error *error) {
  const uint32_t major = client_abi >> 16, minor = client_abi & 0xffff;
  if (major == ATTN_ABI_MAJOR && minor <= ATTN_ABI_MINOR) return ATTN_OK;
  return attn::ErrorSink(error).fail(
      ATTN_ERROR_VERSION, "client_abi",
      "the program was built for libattn ABI %u.%u, the library loaded is ABI %d.%d (libattn %s): "
      "%s",
      major, minor, ATTN_ABI_MAJOR, ATTN_ABI_MINOR, attn::kVersionString,
      major == ATTN_ABI_MAJOR ? "update the library" : "install the library of the same ABI major");
}

extern "C" const char *attn_version_string(void) {
  return attn::kVersionString;
}

extern "C" const char *attn_build_info(void) {
  // Constant text, put together by the compiler, so that the call can't fail.
  return "version: " ATTN_BUILD_VERSION
         "\n"
         "compiler: " ATTN_BUILD_COMPILER
         "\n"
         "build type: " ATTN_BUILD_TYPE
         "\n"
         "cpu: yes, SIMD by " ATTN_BUILD_SIMD
         "\n"
         "cuda: " ATTN_BUILD_CUDA
         "\n"
         "hip: " ATTN_BUILD_HIP "\n";
}
