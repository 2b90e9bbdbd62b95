// The growth rule of public structs: copy the common prefix, refuse a non-zero unknown tail.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "attn/attn.h"
#include "core/error.hpp"

namespace attn {

// A struct_size beyond this is taken for garbage rather than for a struct of the far future.
inline constexpr uint32_t kLargestStruct = 1u << 16;

// Where the first version of a struct ended: its size in the ABI that brought it, which stays when
// the struct grows. A smaller struct_size was never valid.
template <class T>
inline constexpr uint32_t kFirstSize = 0;
template <>
inline constexpr uint32_t kFirstSize<attn_context_desc> = 40;
template <>
inline constexpr uint32_t kFirstSize<attn_device_info> = 184;
template <>
inline constexpr uint32_t kFirstSize<attn_plan_options> = 24;
template <>
inline constexpr uint32_t kFirstSize<attn_plan_info> = 56;
template <>
inline constexpr uint32_t kFirstSize<attn_sdpa_desc> = 232;
template <>
inline constexpr uint32_t kFirstSize<attn_sdpa_args> = 2432;
template <>
inline constexpr uint32_t kFirstSize<attn_sdpa_backward_args> = 912;
template <>
inline constexpr uint32_t kFirstSize<attn_merge_desc> = 48;
template <>
inline constexpr uint32_t kFirstSize<attn_merge_args> = 904;

// Copies *in to out as far as both know it; the rest of out becomes zero, which means defaults.
template <class T>
int32_t copy_in(const T *in, T &out, const char *name, const ErrorSink &error) {
  static_assert(kFirstSize<T> != 0 && kFirstSize<T> <= sizeof(T));
  if (in == nullptr) return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name, "%s is NULL", name);
  const uint32_t size = in->struct_size;
  if (size < kFirstSize<T> || size > kLargestStruct) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name,
                      "%s.struct_size is %u; it must be the struct's sizeof, here %u "
                      "(start from its _INIT macro)",
                      name, size, unsigned{sizeof(T)});
  }
  const auto *bytes = reinterpret_cast<const unsigned char *>(in);
  for (uint32_t i = sizeof(T); i < size; i++) {
    if (bytes[i] != 0) {
      return error.fail(ATTN_ERROR_VERSION, name,
                        "%s has a field set at byte %u, beyond the %u bytes that this library "
                        "knows: it is older than the header the caller used; leave the field zero "
                        "or update libattn",
                        name, i, unsigned{sizeof(T)});
    }
  }
  if (size == sizeof(T)) {
    out = *in;
  } else {
    std::memset(static_cast<void *>(&out), 0, sizeof(T));
    std::memcpy(static_cast<void *>(&out), in, std::min<size_t>(size, sizeof(T)));
  }
  out.struct_size = sizeof(T);
  return ATTN_OK;
}

// A field that is reserved, and so set only by a client of a newer ABI.
inline int32_t check_reserved(const char *field, int64_t value, const ErrorSink &error) {
  if (value == 0) return ATTN_OK;
  return error.fail(ATTN_ERROR_VERSION, field,
                    "%s is %lld; this library knows no meaning of it: leave it 0 or update libattn",
                    field, static_cast<long long>(value));
}

// Fills the caller's struct as far as it reaches.
template <class T>
int32_t copy_out(const T &value, T *out, const char *name, const ErrorSink &error) {
  static_assert(kFirstSize<T> != 0 && kFirstSize<T> <= sizeof(T));
  if (out == nullptr) return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name, "%s is NULL", name);
  const uint32_t size = out->struct_size;
  if (size < kFirstSize<T> || size > kLargestStruct) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name,
                      "%s.struct_size is %u; set it to the struct's sizeof, here %u (start from "
                      "its _INIT macro)",
                      name, size, unsigned{sizeof(T)});
  }
  std::memcpy(static_cast<void *>(out), &value, std::min<size_t>(size, sizeof(T)));
  out->struct_size = size;
  return ATTN_OK;
}

}  // namespace attn
