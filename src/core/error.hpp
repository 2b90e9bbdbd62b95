// Errors: formed in the caller's record, without allocation, with no driver or global state.
#pragma once

#include <cstdint>

#include "attn/status.h"

namespace attn {

// Writes to the caller's attn_error, which may be null. Every fallible internal function takes one
// and returns a status, so that a message is formed where the cause is known.
class ErrorSink {
 public:
  explicit ErrorSink(attn_error *out) : out_(out) {}

  // Fills the record and returns `status`. `field` is what the caller would write, such as
  // "args.k.shape[2]"; empty if no field is at fault.
  int32_t fail(int32_t status, const char *field, const char *format, ...) const noexcept
      __attribute__((format(printf, 4, 5)));

  int32_t device_failure(int32_t backend_code, const char *format, ...) const noexcept
      __attribute__((format(printf, 3, 4)));

 private:
  attn_error *out_;
};

}  // namespace attn
