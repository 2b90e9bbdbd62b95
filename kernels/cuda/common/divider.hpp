// Division by a number that is known before the launch: a multiplication on the device.
#pragma once

#include <stdint.h>

#include "kernels/common/target.hpp"

namespace attn::cuda {

// n / d for 0 <= n < 2^31, 1 <= d < 2^31. (Granlund and Montgomery, Division by Invariant Integers
// using Multiplication, PLDI 1994)
struct Divider {
  uint32_t divisor, factor, shift;

  Divider() = default;
  explicit Divider(int64_t d) : divisor(static_cast<uint32_t>(d)), factor(0), shift(0) {
    while ((UINT64_C(1) << shift) < divisor) shift++;
    factor = static_cast<uint32_t>(
        (UINT64_C(1) << 32) * ((UINT64_C(1) << shift) - divisor) / divisor + 1);
  }

  ATTN_HD uint32_t quotient(uint32_t n) const {
    const uint32_t high = static_cast<uint32_t>(static_cast<uint64_t>(n) * factor >> 32);
    return (high + n) >> shift;
  }
  // Gives n / d and leaves n % d in n.
  ATTN_HD uint32_t divide(uint32_t &n) const {
    const uint32_t q = quotient(n);
    n -= q * divisor;
    return q;
  }
};

}  // namespace attn::cuda
