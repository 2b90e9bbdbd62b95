// tanh for softcap where elements have 16 bits.
#pragma once

namespace attn::cuda {

// For |y| < kSoftcapSmall, tanh(y) = y (1 + kSoftcapCubic y^2 + kSoftcapQuintic y^4) with a
// relative error of 5e-7: least squares on Chebyshev points.
inline constexpr float kSoftcapSmall = 0.25f;
inline constexpr float kSoftcapCubic = -0.33324450f, kSoftcapQuintic = 0.12874217f;

}  // namespace attn::cuda
