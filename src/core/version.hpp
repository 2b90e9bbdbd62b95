// The library's version as text.
#pragma once

#include "attn/version.h"

namespace attn {

#define ATTN_TEXT_OF(x) #x
#define ATTN_TEXT(x) ATTN_TEXT_OF(x)
inline constexpr const char kVersionString[] = ATTN_TEXT(ATTN_VERSION_MAJOR) "." ATTN_TEXT(
    ATTN_VERSION_MINOR) "." ATTN_TEXT(ATTN_VERSION_PATCH);
#undef ATTN_TEXT
#undef ATTN_TEXT_OF

}  // namespace attn
