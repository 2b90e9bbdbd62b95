#include "tensor.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "codec.hpp"

namespace check {

int64_t HostTensor::guard_bytes = 128;

namespace {

int64_t element_offset(const attn_tensor &view, int64_t linear) {
  int64_t result = 0;
  for (int i = view.rank - 1; i >= 0; i--) {
    result += linear % view.shape[i] * view.stride[i];
    linear /= view.shape[i];
  }
  return result;
}

}  // namespace

double normal(Rng &rng) {
  std::normal_distribution<double> distribution;
  return distribution(rng);
}

HostTensor::HostTensor(int32_t dtype, std::vector<int64_t> shape, Strides strides, Rng &rng) {
  const int rank = static_cast<int>(shape.size());
  const int bits = dtype_bits(dtype);
  const bool nibbles = bits < 8;
  view.dtype = dtype;
  view.rank = rank;
  // The order of dimensions in memory, outermost first.
  std::vector<int> order(static_cast<size_t>(rank));
  std::iota(order.begin(), order.end(), 0);
  if (strides == Strides::kPermuted) {
    if (nibbles) {
      std::shuffle(order.begin(), order.end() - 1, rng);  // the last must keep stride 1
    } else if (rank >= 3 && chance(rng, 0.5)) {
      std::swap(order[static_cast<size_t>(rank) - 3], order[static_cast<size_t>(rank) - 2]);
    } else {
      std::shuffle(order.begin(), order.end(), rng);
    }
  }
  int64_t span = 1;
  for (int place = rank - 1; place >= 0; place--) {
    const int dim = order[static_cast<size_t>(place)];
    view.shape[dim] = shape[static_cast<size_t>(dim)];
    if (strides == Strides::kShared && dim == 0) {
      view.stride[dim] = 0;
      continue;
    }
    view.stride[dim] = span;
    span *= std::max<int64_t>(shape[static_cast<size_t>(dim)], 1);
    if (strides == Strides::kPadded) span += uniform(rng, 0, 5);
    if (nibbles) span += span % 2;
  }
  int64_t first = 0;
  if (strides == Strides::kNegative) {
    for (int dim = 0; dim < rank; dim++) {
      if ((nibbles && dim == rank - 1) || chance(rng, 0.4)) continue;
      first += (std::max<int64_t>(view.shape[dim], 1) - 1) * view.stride[dim];
      view.stride[dim] = -view.stride[dim];
    }
  }
  const int64_t lead = strides == Strides::kPadded && !nibbles ? uniform(rng, 0, 3) : 0;
  const int64_t bytes = guard_bytes * 2 + ((span + lead) * bits + 7) / 8;
  bytes_.resize(static_cast<size_t>(bytes));
  view.data = bytes_.data() + guard_bytes + (first + lead) * bits / 8;
  poison(~UINT64_C(0));
}

int64_t HostTensor::elements() const {
  int64_t n = 1;
  for (int i = 0; i < view.rank; i++) n *= view.shape[i];
  return n;
}

int64_t HostTensor::offset(int64_t linear) const {
  return element_offset(view, linear);
}

double HostTensor::get(int64_t linear) const {
  return load_element(view.data, view.dtype, offset(linear));
}
void HostTensor::set(int64_t linear, double value) {
  store_element(view.data, view.dtype, offset(linear), value);
}

Array<double> HostTensor::load() const {
  return load_view(view);
}

Array<double> load_view(const attn_tensor &view) {
  if (view.rank == 0) return {};
  Array<double> result(std::vector<int64_t>(view.shape, view.shape + view.rank));
  for (size_t i = 0; i < result.data.size(); i++) {
    result.data[i] =
        load_element(view.data, view.dtype, element_offset(view, static_cast<int64_t>(i)));
  }
  return result;
}

bool HostTensor::holds(const attn_tensor &other) const {
  if (other.dtype != view.dtype || other.rank < 1 || other.rank > ATTN_MAX_RANK) return false;
  __extension__ typedef __int128 Wide;
  const auto *base = static_cast<const uint8_t *>(other.data);
  const Wide start = (base - bytes_.data()) * 8;
  Wide low = 0, high = 0;
  for (int i = 0; i < other.rank; i++) {
    if (other.shape[i] < 1) return other.shape[i] == 0;
    const Wide reach = Wide{other.shape[i] - 1} * other.stride[i];
    (reach < 0 ? low : high) += reach;
  }
  const int bits = dtype_bits(view.dtype);
  return start + low * bits >= 0 &&
         start + (high + 1) * bits <= static_cast<Wide>(bytes_.size()) * 8;
}

void HostTensor::store(const Array<double> &values) {
  for (size_t i = 0; i < values.data.size(); i++) set(static_cast<int64_t>(i), values.data[i]);
}

void HostTensor::poison(uint64_t pattern) {
  for (size_t i = 0; i < bytes_.size(); i++) {
    bytes_[i] = static_cast<uint8_t>(pattern >> (i % 8 * 8));
  }
  remember();
}

bool HostTensor::gaps_untouched() const {
  std::vector<uint8_t> expected = before_;
  const auto *base = static_cast<const uint8_t *>(view.data);
  const auto origin = base - bytes_.data();
  const int bits = dtype_bits(view.dtype);
  for (int64_t i = 0, n = elements(); i < n; i++) {
    const int64_t at = offset(i);
    if (bits < 8) {
      const size_t byte = static_cast<size_t>(origin + (at >> 1));
      const uint8_t mask = at % 2 != 0 ? 0xf0 : 0x0f;
      expected[byte] = static_cast<uint8_t>((expected[byte] & ~mask) | (bytes_[byte] & mask));
    } else {
      const size_t byte = static_cast<size_t>(origin + at * (bits / 8));
      std::memcpy(&expected[byte], &bytes_[byte], static_cast<size_t>(bits / 8));
    }
  }
  return same_bytes(expected);
}

bool HostTensor::same_bytes(const std::vector<uint8_t> &other) const {
  return std::equal(bytes_.begin(), bytes_.end(), other.begin(), other.end());
}

std::vector<uint8_t> HostTensor::element_bytes() const {
  std::vector<uint8_t> result;
  if (!present()) return result;
  const auto *base = static_cast<const uint8_t *>(view.data);
  const int bits = dtype_bits(view.dtype);
  for (int64_t i = 0, n = elements(); i < n; i++) {
    const int64_t at = offset(i);
    if (bits < 8) {
      result.push_back(static_cast<uint8_t>(at % 2 != 0 ? base[at >> 1] >> 4 : base[at >> 1] & 15));
    } else {
      result.insert(result.end(), base + at * (bits / 8), base + (at + 1) * (bits / 8));
    }
  }
  return result;
}

}  // namespace check
