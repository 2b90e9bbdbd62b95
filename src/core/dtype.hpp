// The table of element types.
#pragma once

#include <cstdint>

#include "attn/types.h"

namespace attn {

struct DtypeInfo {
  const char *name;
  int32_t bits;
};

// Null for a value that is no dtype (NONE included).
const DtypeInfo *dtype_info(int32_t dtype);

inline const char *dtype_name(int32_t dtype) {
  const DtypeInfo *info = dtype_info(dtype);
  return info == nullptr ? "unknown" : info->name;
}

}  // namespace attn
