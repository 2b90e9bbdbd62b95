// Reads a fuzzer's bytes as decisions. When they run out, every answer is 0: the plain choice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

namespace fuzz {

class Reader {
 public:
  Reader(const uint8_t *data, size_t size) : data_(data), end_(data + size) {}

  bool empty() const { return data_ == end_; }
  uint8_t byte() { return empty() ? 0 : *data_++; }
  // 0 .. count-1
  uint32_t below(uint32_t count) { return count <= 1 ? 0 : byte() % count; }
  int32_t between(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(below(static_cast<uint32_t>(high - low + 1)));
  }
  bool flag() { return (byte() & 1) != 0; }
  uint64_t word() {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 8 | byte();
    return value;
  }
  template <class T, size_t kCount>
  T choose(const T (&options)[kCount]) {
    return options[below(static_cast<uint32_t>(kCount))];
  }

  // A number that programs get wrong, or any.
  int64_t hostile() {
    constexpr int64_t kValues[] = {0,
                                   1,
                                   -1,
                                   2,
                                   3,
                                   7,
                                   8,
                                   -2,
                                   16,
                                   17,
                                   31,
                                   64,
                                   100,
                                   4095,
                                   4096,
                                   4097,
                                   65536,
                                   INT32_MAX,
                                   INT32_MIN,
                                   int64_t{INT32_MAX} + 1,
                                   int64_t{UINT32_MAX} + 1,
                                   INT64_MAX,
                                   INT64_MIN,
                                   INT64_MAX / 2,
                                   INT64_MAX / 4,
                                   INT64_MIN / 2,
                                   int64_t{1} << 40};
    constexpr uint32_t kCount = std::size(kValues);
    const uint32_t pick = below(kCount + 2);
    if (pick < kCount) return kValues[pick];
    return pick == kCount ? static_cast<int8_t>(byte()) : static_cast<int64_t>(word());
  }

 private:
  const uint8_t *data_, *end_;
};

// A defect: stops the fuzzer (and the replay) with the reason.
[[noreturn]] void defect(const char *what, const char *detail = "");

}  // namespace fuzz
