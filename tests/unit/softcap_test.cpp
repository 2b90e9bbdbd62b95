// What kernels/cuda/common/softcap.hpp says of its polynomials.
#include "kernels/cuda/common/softcap.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

namespace attn::cuda {
namespace {

constexpr int kPoints = 10000;

TEST_CASE("softcap: the polynomial for small scores") {
  double worst = 0;
  for (int i = 1; i <= kPoints; i++) {
    const double y = static_cast<double>(kSoftcapSmall) * i / kPoints, z = y * y;
    const double value = y * (1 + kSoftcapCubic * z + kSoftcapQuintic * z * z);
    worst = std::max(worst, std::abs(value / std::tanh(y) - 1));
  }
  CHECK(worst < 6e-7);
}

TEST_CASE("softcap: the polynomial for tiny scores") {
  for (const double softcap : {0.1, 1.0, 15.0, 30.0, 50.0, 1e3, 1e5}) {
    const double limit = softcap_tiny(softcap), cubic = softcap_tiny_cubic(limit);
    CHECK(limit > 0);
    CHECK(limit <= kSoftcapSmall);
    double worst = 0;
    for (int i = 1; i <= kPoints; i++) {
      const double y = limit * i / kPoints;
      worst = std::max(worst, softcap * std::abs(y * (1 + cubic * y * y) - std::tanh(y)));
    }
    CHECK(worst < 1.05 * kSoftcapTinyError);
  }
}

}  // namespace
}  // namespace attn::cuda
