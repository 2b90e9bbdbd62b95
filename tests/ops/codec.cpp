#include "codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "attn/attn.h"

namespace check {
namespace {

// A sign, an exponent and a mantissa field; what the codes mean beyond that is in `special`.
struct Format {
  int exponent_bits, mantissa_bits, bias;
  enum { kIeee, kOnlyAllOnesNan, kNegativeZeroNan, kNone } special;
  bool saturates;
};

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

double decode(const Format &f, uint32_t code) {
  const int bits = 1 + f.exponent_bits + f.mantissa_bits;
  const double sign = (code >> (bits - 1)) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(code >> f.mantissa_bits) & ((1 << f.exponent_bits) - 1);
  const int mantissa = static_cast<int>(code & ((1u << f.mantissa_bits) - 1));
  const bool all_ones = exponent == (1 << f.exponent_bits) - 1;
  if (f.special == Format::kIeee && all_ones) return mantissa != 0 ? kNan : sign * kInf;
  if (f.special == Format::kOnlyAllOnesNan && all_ones && mantissa == (1 << f.mantissa_bits) - 1) {
    return kNan;
  }
  if (f.special == Format::kNegativeZeroNan && code == 1u << (bits - 1)) return kNan;
  const double fraction = static_cast<double>(mantissa) / (1 << f.mantissa_bits);
  return exponent == 0 ? sign * std::ldexp(fraction, 1 - f.bias)
                       : sign * std::ldexp(1 + fraction, exponent - f.bias);
}

class Table {
 public:
  explicit Table(const Format &format) : format_(format) {
    const int bits = 1 + format.exponent_bits + format.mantissa_bits;
    sign_ = 1u << (bits - 1);
    for (uint32_t code = 0; code < 2 * sign_; code++) values_.push_back(decode(format, code));
    for (uint32_t code = 0; code < sign_ && std::isfinite(values_[code]); code++) {
      magnitudes_.push_back(values_[code]);  // rises with the code
    }
    for (uint32_t code = 0; code < 2 * sign_; code++) {
      if (std::isnan(values_[code])) nan_ = code;
    }
  }

  double value(uint32_t code) const { return values_[code]; }
  double largest() const { return magnitudes_.back(); }
  double step(double magnitude) const {
    const auto above = std::upper_bound(magnitudes_.begin() + 1, magnitudes_.end() - 1, magnitude);
    return *above - *(above - 1);
  }

  uint32_t code(double value) const {
    if (std::isnan(value)) {
      return format_.special == Format::kNone ? static_cast<uint32_t>(magnitudes_.size() - 1)
                                              : nan_;
    }
    const double magnitude = std::fabs(value);
    const auto above = std::upper_bound(magnitudes_.begin(), magnitudes_.end(), magnitude);
    uint32_t code;
    if (above == magnitudes_.end()) {
      code = static_cast<uint32_t>(magnitudes_.size() - 1);
      if (!format_.saturates) {
        // Beyond the middle between the largest value and its would-be successor is infinity.
        const double step = magnitudes_[code] - magnitudes_[code - 1];
        if (magnitude >= magnitudes_[code] + step / 2) code++;
      }
    } else {
      const uint32_t upper = static_cast<uint32_t>(above - magnitudes_.begin()), lower = upper - 1;
      const double to_lower = magnitude - magnitudes_[lower], to_upper = *above - magnitude;
      code = to_lower < to_upper || (to_lower == to_upper && lower % 2 == 0) ? lower : upper;
    }
    const bool negative = std::signbit(value);
    if (code == 0 && negative && format_.special == Format::kNegativeZeroNan) return 0;
    return negative ? code | sign_ : code;
  }

 private:
  Format format_;
  uint32_t sign_, nan_ = 0;
  std::vector<double> values_, magnitudes_;
};

const Table *table(int32_t dtype) {
  static const Table fp16({5, 10, 15, Format::kIeee, false});
  static const Table bf16({8, 7, 127, Format::kIeee, false});
  static const Table e4m3fn({4, 3, 7, Format::kOnlyAllOnesNan, true});
  static const Table e5m2({5, 2, 15, Format::kIeee, true});
  static const Table e4m3fnuz({4, 3, 8, Format::kNegativeZeroNan, true});
  static const Table e2m1({2, 1, 1, Format::kNone, true});
  switch (dtype) {
    case ATTN_DTYPE_FP16:
      return &fp16;
    case ATTN_DTYPE_BF16:
      return &bf16;
    case ATTN_DTYPE_FP8_E4M3FN:
      return &e4m3fn;
    case ATTN_DTYPE_FP8_E5M2:
      return &e5m2;
    case ATTN_DTYPE_FP8_E4M3FNUZ:
      return &e4m3fnuz;
    case ATTN_DTYPE_FP4_E2M1:
      return &e2m1;
    default:
      return nullptr;
  }
}

double whole(double value, double low, double high) {
  return std::isnan(value) ? 0 : std::clamp(std::nearbyint(value), low, high);
}

}  // namespace

int dtype_bits(int32_t dtype) {
  switch (dtype) {
    case ATTN_DTYPE_INT64:
      return 64;
    case ATTN_DTYPE_FP32:
    case ATTN_DTYPE_INT32:
      return 32;
    case ATTN_DTYPE_FP16:
    case ATTN_DTYPE_BF16:
      return 16;
    case ATTN_DTYPE_INT4:
    case ATTN_DTYPE_FP4_E2M1:
      return 4;
    default:
      return 8;
  }
}

bool is_float16_or_32(int32_t dtype) {
  return dtype == ATTN_DTYPE_FP32 || dtype == ATTN_DTYPE_FP16 || dtype == ATTN_DTYPE_BF16;
}

double load_element(const void *base, int32_t dtype, int64_t index) {
  const auto *bytes = static_cast<const uint8_t *>(base);
  switch (dtype_bits(dtype)) {
    case 64: {
      int64_t v;
      std::memcpy(&v, bytes + index * 8, 8);
      return static_cast<double>(v);
    }
    case 32: {
      if (dtype == ATTN_DTYPE_INT32) {
        int32_t v;
        std::memcpy(&v, bytes + index * 4, 4);
        return v;
      }
      float v;
      std::memcpy(&v, bytes + index * 4, 4);
      return static_cast<double>(v);
    }
    case 16: {
      uint16_t v;
      std::memcpy(&v, bytes + index * 2, 2);
      return table(dtype)->value(v);
    }
    case 4: {
      const uint32_t nibble = index % 2 != 0 ? bytes[index >> 1] >> 4 : bytes[index >> 1] & 15u;
      if (dtype == ATTN_DTYPE_INT4) return nibble < 8 ? nibble : nibble - 16.0;
      return table(dtype)->value(nibble);
    }
    default:
      if (dtype == ATTN_DTYPE_INT8) return static_cast<int8_t>(bytes[index]);
      if (dtype == ATTN_DTYPE_UINT8) return bytes[index];
      if (dtype == ATTN_DTYPE_FP8_E8M0) {
        return bytes[index] == 255 ? kNan : std::ldexp(1.0, bytes[index] - 127);
      }
      return table(dtype)->value(bytes[index]);
  }
}

void store_element(void *base, int32_t dtype, int64_t index, double value) {
  auto *bytes = static_cast<uint8_t *>(base);
  switch (dtype_bits(dtype)) {
    case 64: {
      const auto v = static_cast<int64_t>(value);
      std::memcpy(bytes + index * 8, &v, 8);
      return;
    }
    case 32:
      if (dtype == ATTN_DTYPE_INT32) {
        const auto v = static_cast<int32_t>(value);
        std::memcpy(bytes + index * 4, &v, 4);
      } else {
        const auto v = static_cast<float>(value);
        std::memcpy(bytes + index * 4, &v, 4);
      }
      return;
    case 16: {
      const auto v = static_cast<uint16_t>(table(dtype)->code(value));
      std::memcpy(bytes + index * 2, &v, 2);
      return;
    }
    case 4: {
      const uint32_t nibble =
          dtype == ATTN_DTYPE_INT4
              ? static_cast<uint32_t>(static_cast<int>(whole(value, -8, 7))) & 15u
              : table(dtype)->code(value);
      uint8_t &byte = bytes[index >> 1];
      byte = static_cast<uint8_t>(index % 2 != 0 ? (byte & 0x0fu) | nibble << 4
                                                 : (byte & 0xf0u) | nibble);
      return;
    }
    default:
      if (dtype == ATTN_DTYPE_INT8) {
        bytes[index] = static_cast<uint8_t>(static_cast<int8_t>(whole(value, -128, 127)));
      } else if (dtype == ATTN_DTYPE_UINT8) {
        bytes[index] = static_cast<uint8_t>(value);
      } else if (dtype == ATTN_DTYPE_FP8_E8M0) {
        bytes[index] = static_cast<uint8_t>(std::lround(std::log2(value)) + 127);
      } else {
        bytes[index] = static_cast<uint8_t>(table(dtype)->code(value));
      }
  }
}

double rounded(double value, int32_t dtype) {
  uint8_t memory[8] = {};
  store_element(memory, dtype, 0, value);
  return load_element(memory, dtype, 0);
}

double half_step(double value, int32_t dtype) {
  if (dtype == ATTN_DTYPE_INT8 || dtype == ATTN_DTYPE_INT4) return 0.5;
  const double magnitude = std::fabs(value);
  if (dtype == ATTN_DTYPE_FP32) {
    // Away from 0, so that a value which is one of the format's has the larger of its two steps.
    const double lower = std::ldexp(1.0, std::max(std::ilogb(std::max(magnitude, 0x1p-126)), -126));
    return lower * 0x1p-24;
  }
  return table(dtype)->step(magnitude) / 2;
}

double largest(int32_t dtype) {
  if (dtype == ATTN_DTYPE_INT8) return 127;
  if (dtype == ATTN_DTYPE_INT4) return 7;
  if (dtype == ATTN_DTYPE_FP32) return static_cast<double>(std::numeric_limits<float>::max());
  return table(dtype)->largest();
}

}  // namespace check
