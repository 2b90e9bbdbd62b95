// Scalar functions of a score, and their derivatives.
#pragma once

#include <math.h>

#include "kernels/common/target.hpp"

namespace attn {

template <class T>
ATTN_HD inline T softcap(T x, T cap) {
  return cap * static_cast<T>(tanh(x / cap));
}
// d softcap / dx, from the capped value.
template <class T>
ATTN_HD inline T softcap_derivative(T capped, T cap) {
  const T t = capped / cap;
  return T(1) - t * t;
}

// Neither branch overflows, and sigmoid(-inf) is 0.
template <class T>
ATTN_HD inline T sigmoid(T x) {
  if (x >= T(0)) return T(1) / (T(1) + static_cast<T>(exp(-x)));
  const T e = static_cast<T>(exp(x));
  return e / (T(1) + e);
}

template <class T>
ATTN_HD inline T silu(T x) {
  return x * sigmoid(x);
}
template <class T>
ATTN_HD inline T silu_derivative(T x) {
  const T s = sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}

inline constexpr double kLog2E = 1.4426950408889634074;
inline constexpr double kLn2 = 0.69314718055994530942;

}  // namespace attn
