#include "kernels/common/philox.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>
#include <limits>

namespace {

void check_words(attn::PhiloxWords got, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  CHECK(got.word[0] == a);
  CHECK(got.word[1] == b);
  CHECK(got.word[2] == c);
  CHECK(got.word[3] == d);
}

}  // namespace

// The known answers for philox4x32-10 published with Random123.
TEST_CASE("philox4x32-10: known answers") {
  check_words(attn::philox4x32_10(0, 0, {{0, 0, 0, 0}}), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c,
              0x9b00dbd8);
  check_words(attn::philox4x32_10(~0u, ~0u, {{~0u, ~0u, ~0u, ~0u}}), 0x408f276d, 0x41c83b0e,
              0xa20bc7c6, 0x6d5451fd);
  check_words(attn::philox4x32_10(0xa4093822, 0x299f31d0,
                                  {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}),
              0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
}

TEST_CASE("dropout: the key, the counter and the comparison of the header") {
  const uint64_t state[2] = {0x0123456789abcdef, 0xfedcba9876543210};
  for (float p : {0.0f, 0.1f, 0.25f, 0.5f, 0.999f, std::nextafter(1.0f, 0.0f)}) {
    const attn::Dropout dropout = attn::make_dropout(state, p);
    for (int64_t bh : {0, 1, 77}) {
      for (int64_t i : {0, 5}) {
        for (int64_t j = 0; j < 40; j++) {
          const attn::PhiloxWords words =
              attn::philox4x32_10(0x89abcdef, 0x01234567u ^ 0xfedcba98u,
                                  {{static_cast<uint32_t>(j / 4), static_cast<uint32_t>(i),
                                    static_cast<uint32_t>(bh), 0x76543210}});
          const double u = std::ldexp(static_cast<double>(words.word[j % 4] >> 8), -24);
          CHECK(dropout.keeps(bh, i, j) == (u >= static_cast<double>(p)));
        }
      }
    }
    CHECK(dropout.keep_scale == 1 / (1 - static_cast<double>(p)));
  }
}

// u is a multiple of 2^-24: u >= p must hold for every p between two of them exactly as for the
// upper one.
TEST_CASE("dropout: thresholds between the steps of u") {
  const uint64_t state[2] = {1, 2};
  const auto kept_from = [&](float p) { return attn::make_dropout(state, p).threshold; };
  CHECK(kept_from(0) == 0);
  CHECK(kept_from(0x1p-24f) == 1);
  CHECK(kept_from(std::nextafter(0x1p-24f, 1.0f)) == 2);
  CHECK(kept_from(0x1p-30f) == 1);
  CHECK(kept_from(std::numeric_limits<float>::denorm_min()) == 1);
  CHECK(kept_from(0.5f) == 1u << 23);
  CHECK(kept_from(std::nextafter(1.0f, 0.0f)) == (1u << 24) - 1);
}
