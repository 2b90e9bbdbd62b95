#include "core/inflate.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

namespace attn {
namespace {

constexpr int kMostBits = 15;

class Bits {
 public:
  Bits(const unsigned char *data, size_t bytes) : at_(data), end_(data + bytes) {}

  // Beyond the end there are zeros, and good() is false.
  uint32_t take(int count) {
    while (held_ < count) {
      if (at_ == end_) overrun_ = true;
      word_ |= static_cast<uint64_t>(at_ == end_ ? 0 : *at_++) << held_;
      held_ += 8;
    }
    const auto value = static_cast<uint32_t>(word_ & ((uint64_t{1} << count) - 1));
    word_ >>= count;
    held_ -= count;
    return value;
  }
  void to_byte() { take(held_ % 8); }
  bool good() const { return !overrun_; }

 private:
  const unsigned char *at_, *end_;
  uint64_t word_ = 0;
  int held_ = 0;
  bool overrun_ = false;
};

// A Huffman code as RFC 1951 numbers it: by the codes of each length, and the symbols in order.
class Code {
 public:
  // False if the lengths make no code.
  bool make(const uint8_t *lengths, int count) {
    counts_.fill(0);
    for (int n = 0; n < count; n++) counts_[lengths[n]]++;
    counts_[0] = 0;
    int left = 1;
    std::array<int, kMostBits + 2> first = {};
    for (int bits = 1; bits <= kMostBits; bits++) {
      left = 2 * left - counts_[static_cast<size_t>(bits)];
      if (left < 0) return false;
      first[static_cast<size_t>(bits) + 1] =
          first[static_cast<size_t>(bits)] + counts_[static_cast<size_t>(bits)];
    }
    for (int n = 0; n < count; n++) {
      if (lengths[n] != 0) symbols_[static_cast<size_t>(first[lengths[n]]++)] = n;
    }
    return true;
  }
  // -1 if the bits are no code.
  int next(Bits &bits) const {
    int code = 0, first = 0, index = 0;
    for (size_t length = 1; length <= kMostBits; length++) {
      code |= static_cast<int>(bits.take(1));
      const int count = counts_[length];
      if (code - count < first) return symbols_[static_cast<size_t>(index + code - first)];
      index += count;
      first = 2 * (first + count);
      code *= 2;
    }
    return -1;
  }

 private:
  std::array<int, kMostBits + 1> counts_ = {};
  std::array<int, 288> symbols_ = {};
};

struct Target {
  unsigned char *begin, *at, *end;

  bool put(uint32_t byte) {
    if (at == end) return false;
    *at++ = static_cast<unsigned char>(byte);
    return true;
  }
  bool repeat(uint32_t distance, uint32_t length) {
    if (distance > static_cast<size_t>(at - begin) || length > static_cast<size_t>(end - at)) {
      return false;
    }
    for (; length > 0; length--, at++) *at = *(at - distance);  // may overlap
    return true;
  }
};

// Lengths 257 .. 285 and distances 0 .. 29: the least value, and how many bits more.
constexpr uint16_t kLength[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
constexpr uint8_t kLengthBits[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                   2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
constexpr uint16_t kDistance[] = {1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                  33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                  1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
constexpr uint8_t kDistanceBits[] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                     6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};

bool compressed_block(Bits &bits, const Code &literals, const Code &distances, Target &to) {
  while (bits.good()) {
    const int symbol = literals.next(bits);
    if (symbol < 0) return false;
    if (symbol == 256) return true;
    if (symbol < 256) {
      if (!to.put(static_cast<uint32_t>(symbol))) return false;
      continue;
    }
    const size_t n = static_cast<size_t>(symbol - 257);
    if (n >= std::size(kLength)) return false;
    const uint32_t length = kLength[n] + bits.take(kLengthBits[n]);
    const int d = distances.next(bits);
    if (d < 0 || d >= static_cast<int>(std::size(kDistance))) return false;
    const uint32_t distance =
        kDistance[static_cast<size_t>(d)] + bits.take(kDistanceBits[static_cast<size_t>(d)]);
    if (!to.repeat(distance, length)) return false;
  }
  return false;
}

bool stored_block(Bits &bits, Target &to) {
  bits.to_byte();
  const uint32_t length = bits.take(16);
  if ((bits.take(16) ^ 0xffff) != length) return false;
  for (uint32_t n = 0; n < length; n++) {
    if (!bits.good() || !to.put(bits.take(8))) return false;
  }
  return true;
}

// A block's own codes, whose lengths are coded themselves.
bool read_codes(Bits &bits, Code &literals, Code &distances) {
  constexpr uint8_t kOrder[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  const int num_literals = static_cast<int>(bits.take(5)) + 257;
  const int num_distances = static_cast<int>(bits.take(5)) + 1;
  const uint32_t num_lengths = bits.take(4) + 4;
  std::array<uint8_t, 320> lengths = {};
  for (uint32_t n = 0; n < num_lengths; n++)
    lengths[kOrder[n]] = static_cast<uint8_t>(bits.take(3));
  Code code;
  if (num_literals > 286 || !code.make(lengths.data(), 19)) return false;
  const int all = num_literals + num_distances;
  lengths.fill(0);
  for (int n = 0; n < all;) {
    const int symbol = code.next(bits);
    if (symbol < 0 || !bits.good()) return false;
    if (symbol < 16) {
      lengths[static_cast<size_t>(n++)] = static_cast<uint8_t>(symbol);
      continue;
    }
    if (symbol == 16 && n == 0) return false;
    const uint8_t value = symbol == 16 ? lengths[static_cast<size_t>(n - 1)] : uint8_t{0};
    int times = symbol == 16   ? 3 + static_cast<int>(bits.take(2))
                : symbol == 17 ? 3 + static_cast<int>(bits.take(3))
                               : 11 + static_cast<int>(bits.take(7));
    if (n + times > all) return false;
    for (; times > 0; times--) lengths[static_cast<size_t>(n++)] = value;
  }
  return literals.make(lengths.data(), num_literals) &&
         distances.make(lengths.data() + num_literals, num_distances);
}

void fixed_codes(Code &literals, Code &distances) {
  std::array<uint8_t, 288> lengths;
  std::fill(lengths.begin(), lengths.begin() + 144, uint8_t{8});
  std::fill(lengths.begin() + 144, lengths.begin() + 256, uint8_t{9});
  std::fill(lengths.begin() + 256, lengths.begin() + 280, uint8_t{7});
  std::fill(lengths.begin() + 280, lengths.end(), uint8_t{8});
  literals.make(lengths.data(), 288);
  lengths.fill(5);
  distances.make(lengths.data(), 30);
}

}  // namespace

bool inflate(const unsigned char *data, size_t bytes, unsigned char *to, size_t size) {
  Bits bits(data, bytes);
  Target target = {to, to, to + size};
  bool last = false;
  while (!last) {
    last = bits.take(1) != 0;
    Code literals, distances;
    bool good = false;
    switch (bits.take(2)) {
      case 0:
        good = stored_block(bits, target);
        break;
      case 1:
        fixed_codes(literals, distances);
        good = compressed_block(bits, literals, distances, target);
        break;
      case 2:
        good = read_codes(bits, literals, distances) &&
               compressed_block(bits, literals, distances, target);
        break;
      default:
        break;
    }
    if (!good || !bits.good()) return false;
  }
  return target.at == target.end;
}

}  // namespace attn
