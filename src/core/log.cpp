#include "core/log.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace attn {
namespace {

// The one place where the library prints, and only if the environment asks for it.
void to_stderr(void *, int32_t, const char *message) {
  std::fprintf(stderr, "libattn: %s\n", message);
}

}  // namespace

Log::Log(const attn_context_desc &desc)
    : callback_(desc.log_callback), user_data_(desc.log_user_data), level_(desc.log_level) {
  const char *environment = std::getenv("ATTN_LOG");
  if (callback_ == nullptr && environment != nullptr && std::strcmp(environment, "1") == 0) {
    callback_ = to_stderr;
    level_ = ATTN_LOG_DEBUG;
  }
}

void Log::write(int32_t level, const char *format, ...) const noexcept {
  if (!wants(level)) return;
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  callback_(user_data_, level, line);
}

}  // namespace attn
