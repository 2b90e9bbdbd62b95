// Log lines to the callback that the user installed, or to stderr under ATTN_LOG=1.
#pragma once

#include <cstdint>

#include "attn/context.h"

namespace attn {

class Log {
 public:
  Log() = default;
  explicit Log(const attn_context_desc &desc);

  bool wants(int32_t level) const { return callback_ != nullptr && level <= level_; }
  void write(int32_t level, const char *format, ...) const noexcept
      __attribute__((format(printf, 3, 4)));

 private:
  attn_log_callback callback_ = nullptr;
  void *user_data_ = nullptr;
  int32_t level_ = ATTN_LOG_ERROR;
};

}  // namespace attn
