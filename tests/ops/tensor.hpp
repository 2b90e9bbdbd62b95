// Tensors for tests: any strides, guarded on all sides, and able to say whether anything but their
// elements was written.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "attn/attn.h"
#include "mirrored.hpp"

namespace check {

using Rng = std::mt19937_64;

inline int64_t uniform(Rng &rng, int64_t low, int64_t high) {  // both included
  return low + static_cast<int64_t>(rng() % static_cast<uint64_t>(high - low + 1));
}
inline bool chance(Rng &rng, double p) {
  return static_cast<double>(rng() >> 11) * 0x1p-53 < p;
}
double normal(Rng &rng);

// Logical values, row-major.
template <class T>
struct Array {
  std::vector<int64_t> shape;
  std::vector<T> data;

  Array() = default;
  explicit Array(std::vector<int64_t> extents, T value = T(0)) : shape(std::move(extents)) {
    int64_t n = 1;
    for (int64_t extent : shape) n *= extent;
    data.assign(static_cast<size_t>(n), value);
  }
  bool present() const { return !shape.empty(); }
  int64_t extent(size_t i) const { return shape[i]; }
  template <class... Index>
  T &at(Index... index) {
    return data[static_cast<size_t>(place({static_cast<int64_t>(index)...}))];
  }
  template <class... Index>
  const T &at(Index... index) const {
    return data[static_cast<size_t>(place({static_cast<int64_t>(index)...}))];
  }

 private:
  int64_t place(std::initializer_list<int64_t> index) const {
    int64_t offset = 0;
    size_t dim = 0;
    for (int64_t i : index) offset = offset * shape[dim++] + i;
    return offset;
  }
};

template <class To, class From>
Array<To> converted(const Array<From> &from) {
  Array<To> to;
  to.shape = from.shape;
  to.data.assign(from.data.begin(), from.data.end());
  return to;
}

// How a tensor lies in memory.
enum class Strides {
  kContiguous,
  kPadded,    // gaps after every dimension, odd alignment
  kPermuted,  // dimensions in another order (BHSD for BSHD, for one)
  kNegative,  // some dimensions run backwards
  kShared,    // inputs only: the first dimension (batch or page) repeats with stride 0
};

class HostTensor {
 public:
  HostTensor() = default;
  HostTensor(int32_t dtype, std::vector<int64_t> shape, Strides strides, Rng &rng);
  HostTensor(HostTensor &&) = default;
  HostTensor &operator=(HostTensor &&) = default;

  bool present() const { return view.rank > 0; }
  int64_t elements() const;
  double get(int64_t linear) const;
  void set(int64_t linear, double value);
  Array<double> load() const;
  void store(const Array<double> &values);

  // Every byte (gaps and guards too) from a pattern; remembers the result as "before".
  void poison(uint64_t pattern);
  // Remembers the present contents as "before".
  void remember() { before_.assign(bytes_.begin(), bytes_.end()); }
  // Whether no byte differs from "before".
  bool untouched() const { return same_bytes(before_); }
  // Whether all bytes outside the elements are as before.
  bool gaps_untouched() const;
  // The elements' bits, for comparing two runs.
  std::vector<uint8_t> element_bytes() const;

  // Whether all elements of `other`, a changed copy of view, lie in this tensor's memory.
  bool holds(const attn_tensor &other) const;

  attn_tensor view{};

  // Bytes around each tensor that must stay as they are. Fuzzers take 0, so that the address
  // sanitizer's own red zones begin right after the last element.
  static int64_t guard_bytes;

 private:
  int64_t offset(int64_t linear) const;
  bool same_bytes(const std::vector<uint8_t> &other) const;

  MirroredVector<uint8_t> bytes_;
  std::vector<uint8_t> before_;
};

// The values of any view.
Array<double> load_view(const attn_tensor &view);

}  // namespace check
