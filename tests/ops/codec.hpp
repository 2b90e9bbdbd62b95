// Element codecs of the checker's own. They work by tables of every value a format has, so that
// they share neither code nor method with the library's bit arithmetic.
#pragma once

#include <cstdint>

namespace check {

int dtype_bits(int32_t dtype);
bool is_float16_or_32(int32_t dtype);

// The element at `index` (elements, may be negative) from `base`.
double load_element(const void *base, int32_t dtype, int64_t index);

// Rounds to nearest, ties to even. fp32, fp16 and bf16 overflow to infinity; all others saturate.
void store_element(void *base, int32_t dtype, int64_t index, double value);

// `value` as it comes back after being stored.
double rounded(double value, int32_t dtype);

// Half the distance between the two values of the format that `value` lies between: the most that
// rounding it errs, if it is in range.
double half_step(double value, int32_t dtype);

// The largest finite value.
double largest(int32_t dtype);

}  // namespace check
