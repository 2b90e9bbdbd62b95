// tanh for softcap where elements have 16 bits.
#pragma once

#include <cmath>

namespace attn::cuda {

// For |y| < kSoftcapSmall, tanh(y) = y (1 + kSoftcapCubic y^2 + kSoftcapQuintic y^4) with a
// relative error of 5e-7: least squares on Chebyshev points.
inline constexpr float kSoftcapSmall = 0.25f;
inline constexpr float kSoftcapCubic = -0.33324450f, kSoftcapQuintic = 0.12874217f;

// For |y| < Y, tanh(y) = y (1 + c y^2) with an error of 0.0175 Y^5 if c = -1/3 + 0.869 (2/15) Y^2:
// the series' next term is (2/15) y^5, and with this share of it in the cubic one the error at Y is
// that in between. A score's error is softcap times as large; Y is such that it is
// kSoftcapTinyError, less than the 2^-16 that log-sum-exps may be off by.
inline constexpr double kSoftcapTinyError = 1e-5, kSoftcapTinyFifth = 0.0175;
inline double softcap_tiny(double softcap) {
  const double limit = std::pow(kSoftcapTinyError / (kSoftcapTinyFifth * softcap), 0.2);
  return limit < kSoftcapSmall ? limit : kSoftcapSmall;
}
inline double softcap_tiny_cubic(double limit) {
  return -1.0 / 3 + 2.0 / 15 * 0.869 * limit * limit;
}

}  // namespace attn::cuda
