// The growth rule of public structs: copy the common prefix, refuse a non-zero unknown tail.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/error.hpp"

namespace attn {

// A struct_size beyond this is taken for garbage rather than for a struct of the far future.
inline constexpr uint32_t kLargestStruct = 1u << 16;

// Where the first version of a struct ended; a smaller struct_size was never valid. Specialise it
// when a struct grows, with the size that it had in ABI 1.0.
template <class T>
inline constexpr uint32_t kFirstSize = sizeof(T);

// Copies *in to out as far as both know it; the rest of out becomes zero, which means defaults.
template <class T>
int32_t copy_in(const T *in, T &out, const char *name, const ErrorSink &error) {
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

// Fills the caller's struct as far as it reaches.
template <class T>
int32_t copy_out(const T &value, T *out, const char *name, const ErrorSink &error) {
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
