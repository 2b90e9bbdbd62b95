#include "attn/status.h"

#include <iterator>

extern "C" const char *attn_status_name(int32_t status) {
  static constexpr const char *kNames[] = {
      "ATTN_OK",
      "ATTN_ERROR_INVALID_ARGUMENT",
      "ATTN_ERROR_UNSUPPORTED",
      "ATTN_ERROR_VERSION",
      "ATTN_ERROR_OUT_OF_MEMORY",
      "ATTN_ERROR_WORKSPACE",
      "ATTN_ERROR_BACKEND_UNAVAILABLE",
      "ATTN_ERROR_DEVICE",
      "ATTN_ERROR_INTERNAL",
  };
  static_assert(std::size(kNames) == ATTN_ERROR_INTERNAL + 1);
  if (status < 0 || status >= static_cast<int32_t>(std::size(kNames))) return "ATTN_ERROR_UNKNOWN";
  return kNames[status];
}
