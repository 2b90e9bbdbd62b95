#include "core/error.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstring>

namespace attn {
namespace {

// Copies what the caller's record has room for: an older client's may be shorter.
void write(attn_error *out, int32_t status, int32_t backend_code, const char *field,
           const char *format, va_list arguments) noexcept {
  if (out == nullptr || out->struct_size <= offsetof(attn_error, message)) return;
  const size_t size = std::min<size_t>(out->struct_size, sizeof(attn_error));
  const size_t message_size = size - offsetof(attn_error, message);
  out->status = status;
  out->backend_code = backend_code;
  out->reserved = 0;
  std::snprintf(out->field, sizeof out->field, "%s", field);
  std::vsnprintf(out->message, message_size, format, arguments);
}

}  // namespace

int32_t ErrorSink::fail(int32_t status, const char *field, const char *format, ...) const noexcept {
  va_list arguments;
  va_start(arguments, format);
  write(out_, status, 0, field, format, arguments);
  va_end(arguments);
  return status;
}

int32_t ErrorSink::device_failure(int32_t backend_code, const char *format, ...) const noexcept {
  va_list arguments;
  va_start(arguments, format);
  write(out_, ATTN_ERROR_DEVICE, backend_code, "", format, arguments);
  va_end(arguments);
  return ATTN_ERROR_DEVICE;
}

}  // namespace attn
