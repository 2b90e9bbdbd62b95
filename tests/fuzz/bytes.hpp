// The fuzzer's bytes as a stream of choices. When they run out, every choice is 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

class Bytes {
 public:
  Bytes(const uint8_t *data, size_t size) : data_(data), size_(size) {}

  template <class T>
  T take() {
    T value{};
    const size_t count = size_ < sizeof(T) ? size_ : sizeof(T);
    std::memcpy(&value, data_, count);
    data_ += count;
    size_ -= count;
    return value;
  }

  // One of 0 .. count-1.
  int64_t below(int64_t count) { return take<uint8_t>() % count; }
  bool one_in(int64_t count) { return below(count) == 1 % count; }
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  const uint8_t *rest() const { return data_; }

  // A whole number that is usually near a limit somebody forgot.
  int64_t hostile() {
    static constexpr int64_t kValues[] = {0,         1,         -1,        2,          7,
                                          -2,        127,       255,       INT32_MAX,  INT32_MIN,
                                          1ll << 31, 1ll << 32, 1ll << 62, INT64_MAX,  INT64_MIN,
                                          4096,      4097,      65536,     2147483646, 3};
    const int64_t which = below(24);
    return which < 20 ? kValues[which] : take<int64_t>();
  }

 private:
  const uint8_t *data_;
  size_t size_;
};
