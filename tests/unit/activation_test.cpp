// Sigmoid, SiLU and their derivatives.
#include "kernels/common/activation.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>

namespace {

using namespace attn;

TEST_CASE("sigmoid and silu at their ends, and their slopes") {
  CHECK(sigmoid(-HUGE_VAL) == 0);
  CHECK(sigmoid(HUGE_VAL) == 1);
  CHECK(sigmoid(-1000.0) == 0);
  CHECK(silu(800.0) == 800);
  for (const double x : {-30.0, -1.5, 0.0, 0.7, 20.0}) {
    const double h = 1e-5;
    CHECK(silu_derivative(x) ==
          doctest::Approx((silu(x + h) - silu(x - h)) / (2 * h)).epsilon(1e-6));
    const double slope = (softcap(x + h, 2.0) - softcap(x - h, 2.0)) / (2 * h);
    CHECK(softcap_derivative(softcap(x, 2.0), 2.0) == doctest::Approx(slope).epsilon(1e-6));
  }
}

}  // namespace
