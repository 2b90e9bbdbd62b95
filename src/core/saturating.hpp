// Products of a descriptor's limits, which may be larger than any number of bytes.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace attn {

// The product of factors that are not negative; INT64_MAX if it is beyond that.
inline int64_t saturating_product(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  bool beyond = false;
  for (const int64_t factor : factors) {
    if (factor == 0) return 0;
    beyond = beyond || __builtin_mul_overflow(product, factor, &product);
  }
  return beyond ? INT64_MAX : product;
}

}  // namespace attn
