// Codecs, exhaustively over their codes, against the formats' definitions written with ldexp and
// against the rule "nearest, ties to even" applied to neighbouring values.
#include "kernels/common/dtype.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <random>
#include <vector>

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// What a format is, as its specification says it.
struct Definition {
  const char *name;
  int bits, exponent_bits, mantissa_bits, bias;
  std::function<double(uint32_t magnitude)> special;  // NaN, infinity, or 0 for "an ordinary code"
  bool saturates;
  std::function<float(uint32_t)> decode;
  std::function<uint32_t(double)> encode;
};

const double kNan = std::nan("");

std::vector<Definition> definitions() {
  const auto ieee = [](int exponent_bits, int mantissa_bits) {
    return [=](uint32_t magnitude) {
      const uint32_t infinity = ((1u << exponent_bits) - 1) << mantissa_bits;
      return magnitude < infinity ? 0 : magnitude == infinity ? kInf : kNan;
    };
  };
  const auto none = [](uint32_t) { return 0.0; };
  return {
      {"fp16", 16, 5, 10, 15, ieee(5, 10), false,
       [](uint32_t c) { return attn::decode_fp16(static_cast<uint16_t>(c)); },
       [](double x) { return attn::encode_fp16(x); }},
      {"bf16", 16, 8, 7, 127, ieee(8, 7), false,
       [](uint32_t c) { return attn::decode_bf16(static_cast<uint16_t>(c)); },
       [](double x) { return attn::encode_bf16(x); }},
      {"e4m3fn", 8, 4, 3, 7, [](uint32_t m) { return m == 0x7f ? kNan : 0; }, true,
       [](uint32_t c) { return attn::decode_e4m3fn(static_cast<uint8_t>(c)); },
       [](double x) { return attn::encode_e4m3fn(x); }},
      {"e5m2", 8, 5, 2, 15, ieee(5, 2), true,
       [](uint32_t c) { return attn::decode_e5m2(static_cast<uint8_t>(c)); },
       [](double x) { return attn::encode_e5m2(x); }},
      {"e4m3fnuz", 8, 4, 3, 8, none, true,
       [](uint32_t c) { return attn::decode_e4m3fnuz(static_cast<uint8_t>(c)); },
       [](double x) { return attn::encode_e4m3fnuz(x); }},
      {"e2m1", 4, 2, 1, 1, none, true,
       [](uint32_t c) { return attn::decode_e2m1(static_cast<uint8_t>(c)); },
       [](double x) { return attn::encode_e2m1(x); }},
  };
}

double defined_value(const Definition &f, uint32_t code) {
  const uint32_t sign_bit = 1u << (f.bits - 1), magnitude = code & (sign_bit - 1);
  const double sign = (code & sign_bit) != 0 ? -1 : 1;
  if (std::strcmp(f.name, "e4m3fnuz") == 0 && code == sign_bit) return kNan;
  const double special = f.special(magnitude);
  if (special != 0) return sign * special;
  const int exponent = static_cast<int>(magnitude >> f.mantissa_bits);
  const double fraction = std::ldexp(magnitude & ((1u << f.mantissa_bits) - 1), -f.mantissa_bits);
  return sign * (exponent == 0 ? std::ldexp(fraction, 1 - f.bias)
                               : std::ldexp(1 + fraction, exponent - f.bias));
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

}  // namespace

TEST_CASE("every code decodes to what its format defines") {
  for (const Definition &f : definitions()) {
    CAPTURE(f.name);
    int wrong = 0;
    for (uint32_t code = 0; code < 1u << f.bits; code++) {
      wrong += !same(static_cast<double>(f.decode(code)), defined_value(f, code));
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("every code comes back from a round trip") {
  for (const Definition &f : definitions()) {
    CAPTURE(f.name);
    int wrong = 0;
    for (uint32_t code = 0; code < 1u << f.bits; code++) {
      const double value = static_cast<double>(f.decode(code));
      if (std::isnan(value)) {
        wrong += !std::isnan(f.decode(f.encode(value)));
      } else if (std::isinf(value) && f.saturates) {
        wrong += !std::isfinite(f.decode(f.encode(value)));
      } else {
        wrong += f.encode(value) != code;
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("between two neighbours: to the nearest, ties to the even code") {
  for (const Definition &f : definitions()) {
    CAPTURE(f.name);
    int wrong = 0;
    for (uint32_t code = 0; code + 1 < 1u << (f.bits - 1); code++) {
      const double low = defined_value(f, code), high = defined_value(f, code + 1);
      if (!std::isfinite(low) || !std::isfinite(high)) break;
      const double middle = low + (high - low) / 2;  // exact
      const uint32_t sign = 1u << (f.bits - 1);
      // e4m3fnuz has no negative zero: what rounds to zero loses its sign.
      const auto negative = [&](uint32_t c) {
        return c == 0 && std::strcmp(f.name, "e4m3fnuz") == 0 ? 0 : c | sign;
      };
      const uint32_t even = code % 2 == 0 ? code : code + 1;
      const struct {
        double value;
        uint32_t expected;
      } samples[] = {{middle, even},
                     {std::nextafter(middle, 0.0), code},
                     {std::nextafter(middle, kInf), code + 1},
                     {std::nextafter(low, kInf), code},
                     {std::nextafter(high, 0.0), code + 1}};
      for (const auto &sample : samples) {
        wrong += f.encode(sample.value) != sample.expected;
        wrong += f.encode(-sample.value) != negative(sample.expected);
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("beyond the largest value") {
  for (const Definition &f : definitions()) {
    CAPTURE(f.name);
    double largest = 0;
    for (uint32_t code = 0; code < 1u << (f.bits - 1); code++) {
      const double value = defined_value(f, code);
      if (std::isfinite(value)) largest = std::max(largest, value);
    }
    const double step = largest - static_cast<double>(f.decode(f.encode(largest) - 1));
    const double edge = largest + step / 2;
    CHECK(static_cast<double>(f.decode(f.encode(std::nextafter(edge, 0.0)))) == largest);
    for (double beyond : {edge, edge * 1.5, 1e30, 1e300, kInf}) {
      CAPTURE(beyond);
      if (beyond < edge) continue;
      const double got = static_cast<double>(f.decode(f.encode(beyond)));
      CHECK(got == (f.saturates ? largest : kInf));
      CHECK(static_cast<double>(f.decode(f.encode(-beyond))) == -got);
    }
    for (double tiny : {std::numeric_limits<double>::denorm_min(), 1e-300, 1e-60}) {
      CHECK(f.decode(f.encode(tiny)) == 0);
    }
  }
}

TEST_CASE("from fp32 at random") {
  std::mt19937 random(1);
  for (const Definition &f : definitions()) {
    CAPTURE(f.name);
    std::vector<double> values;  // by code, rising
    for (uint32_t code = 0; code < 1u << (f.bits - 1); code++) {
      if (const double value = defined_value(f, code); std::isfinite(value))
        values.push_back(value);
    }
    int wrong = 0;
    for (int n = 0; n < 100000; n++) {
      const uint32_t bits = static_cast<uint32_t>(random());
      float x;
      std::memcpy(&x, &bits, 4);
      const double magnitude = std::fabs(static_cast<double>(x));
      if (std::isnan(x) || magnitude > values.back()) continue;
      const double got = std::fabs(static_cast<double>(f.decode(f.encode(static_cast<double>(x)))));
      const auto above = std::lower_bound(values.begin(), values.end(), magnitude);
      double best = *above - magnitude;
      if (above != values.begin()) best = std::min(best, magnitude - *(above - 1));
      wrong += std::fabs(got - magnitude) != best;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("int8 and int4 saturate and round ties to even") {
  for (int code = -128; code < 128; code++) CHECK(attn::saturate_to_int(code, -128, 127) == code);
  CHECK(attn::saturate_to_int(0.5, -128, 127) == 0);
  CHECK(attn::saturate_to_int(1.5, -128, 127) == 2);
  CHECK(attn::saturate_to_int(-0.5, -128, 127) == 0);
  CHECK(attn::saturate_to_int(-1.5, -128, 127) == -2);
  CHECK(attn::saturate_to_int(-2.5, -128, 127) == -2);
  CHECK(attn::saturate_to_int(126.5, -128, 127) == 126);
  CHECK(attn::saturate_to_int(127.5, -128, 127) == 127);
  CHECK(attn::saturate_to_int(1e300, -128, 127) == 127);
  CHECK(attn::saturate_to_int(-kInf, -128, 127) == -128);
  CHECK(attn::saturate_to_int(kNan, -128, 127) == 0);
  for (uint8_t nibble = 0; nibble < 16; nibble++) {
    CHECK(attn::decode_int4(nibble) == (nibble < 8 ? nibble : nibble - 16));
  }
}

TEST_CASE("e8m0 is a power of two") {
  for (int code = 0; code < 255; code++) {
    CHECK(static_cast<double>(attn::decode_e8m0(static_cast<uint8_t>(code))) ==
          std::ldexp(1.0, code - 127));
  }
  CHECK(std::isnan(attn::decode_e8m0(255)));
}

TEST_CASE("nibbles: the even element is the low one, and storing leaves the other alone") {
  uint8_t bytes[2] = {0xab, 0xcd};
  CHECK(attn::load_nibble(bytes, 0) == 0xb);
  CHECK(attn::load_nibble(bytes, 1) == 0xa);
  CHECK(attn::load_nibble(bytes, 2) == 0xd);
  CHECK(attn::load_nibble(bytes + 1, -1) == 0xa);
  attn::store_nibble(bytes, 1, 0x5);
  CHECK(bytes[0] == 0x5b);
  attn::store_nibble(bytes, 2, 0x7);
  CHECK(bytes[1] == 0xc7);
  using Int4 = attn::Codec<ATTN_DTYPE_INT4>;
  Int4::store(bytes, 3, -8.0);
  CHECK(bytes[1] == 0x87);
  CHECK(Int4::load(bytes, 3) == -8);
}
