// Division that rounds up.
#pragma once

#include <cstdint>

namespace attn {

constexpr int64_t ceil_div(int64_t a, int64_t b) {  // a >= 0, b > 0
  return (a + b - 1) / b;
}

}  // namespace attn
