#include "ops/check.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "core/dtype.hpp"

namespace attn {
namespace {

// "FP16, BF16 or INT8", for messages.
class DtypeList {
 public:
  explicit DtypeList(std::initializer_list<int32_t> dtypes) {
    int used = 0;
    for (const int32_t *dtype = dtypes.begin(); dtype != dtypes.end(); ++dtype) {
      const char *joint = dtype == dtypes.begin() ? "" : dtype + 1 == dtypes.end() ? " or " : ", ";
      used += std::snprintf(text_ + used, sizeof text_ - static_cast<size_t>(used), "%s%s", joint,
                            dtype_name(*dtype));
      used = std::min(used, static_cast<int>(sizeof text_) - 1);
    }
  }
  const char *text() const { return text_; }

 private:
  char text_[192] = {};
};

bool contains(std::initializer_list<int32_t> dtypes, int32_t dtype) {
  return std::find(dtypes.begin(), dtypes.end(), dtype) != dtypes.end();
}

// Offsets, in elements, of the first and last element in memory; false if that overflows.
bool element_range(const attn_tensor &tensor, int64_t &lowest, int64_t &highest) {
  lowest = highest = 0;
  for (int i = 0; i < tensor.rank; i++) {
    int64_t reach = 0;
    int64_t &end = tensor.stride[i] < 0 ? lowest : highest;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.stride[i], &reach) ||
        __builtin_add_overflow(end, reach, &end)) {
      return false;
    }
  }
  // Room for the scaling to bits, and to spare.
  constexpr int64_t kMost = INT64_MAX / 128;
  return lowest > -kMost && highest < kMost;
}

bool has_elements(const attn_tensor &tensor) {
  for (int i = 0; i < tensor.rank; i++) {
    if (tensor.shape[i] == 0) return false;
  }
  return true;
}

struct Dimension {
  int64_t extent;
  int64_t stride;  // bytes, > 0
};

// A tensor's dimensions of more than one element, widest stride first; for proofs about overlap.
struct Lattice {
  Dimension dimensions[ATTN_MAX_RANK] = {};
  int rank = 0;
  int64_t element_bytes;

  explicit Lattice(const attn_tensor &tensor) {
    const int32_t bits = dtype_info(tensor.dtype)->bits;
    element_bytes = std::max(1, bits / 8);
    for (int i = 0; i < tensor.rank; i++) {
      // Two elements a byte: the innermost dimension is contiguous, count it in bytes.
      const bool packed = bits < 8 && i == tensor.rank - 1;
      const int64_t extent = packed ? (tensor.shape[i] + 1) / 2 : tensor.shape[i];
      const int64_t stride = packed ? 1 : std::abs(tensor.stride[i]) * bits / 8;
      if (extent <= 1) continue;
      int place = rank++;
      for (; place > 0 && dimensions[place - 1].stride < stride; place--) {
        dimensions[place] = dimensions[place - 1];
      }
      dimensions[place] = {extent, stride};
    }
  }

  int64_t bytes_from(int first) const {
    int64_t bytes = element_bytes;
    for (int i = first; i < rank && i < ATTN_MAX_RANK; i++) {  // the second test helps compilers
      bytes += (dimensions[i].extent - 1) * dimensions[i].stride;
    }
    return bytes;
  }
};

// Whether a's dimensions from `i` on, starting at 0, and b's from `j` on, starting at `delta`,
// certainly share no byte. Views that interleave (q, k and v in one packed tensor) have a common
// outer stride: then it is enough that the inner parts miss each other within one period.
bool disjoint(const Lattice &a, int i, const Lattice &b, int j, int64_t delta) {
  const int64_t a_bytes = a.bytes_from(i);
  const int64_t b_bytes = b.bytes_from(j);
  if (delta >= a_bytes || delta + b_bytes <= 0) return true;
  if (i == a.rank || j == b.rank) return false;
  const int64_t period = a.dimensions[i].stride;
  if (period != b.dimensions[j].stride || period == 0) return false;
  if (a.bytes_from(i + 1) > period || b.bytes_from(j + 1) > period) return false;
  const int64_t phase = ((delta % period) + period) % period;
  return disjoint(a, i + 1, b, j + 1, phase) && disjoint(a, i + 1, b, j + 1, phase - period);
}

}  // namespace

int32_t check_enum(const char *field, int32_t value, int32_t last, const ErrorSink &error) {
  if (value >= 0 && value <= last) return ATTN_OK;
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, field,
                    "%s is %d, a value that this library does not know (it knows 0 .. %d)", field,
                    value, last);
}

int32_t check_range(const char *field, int64_t value, int64_t least, int64_t most,
                    const ErrorSink &error) {
  if (value >= least && value <= most) return ATTN_OK;
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, field,
                    "%s is %" PRId64 "; it must be %" PRId64 " .. %" PRId64, field, value, least,
                    most);
}

int32_t check_flags(const char *field, uint64_t value, uint64_t known, const ErrorSink &error) {
  const uint64_t unknown = value & ~known;
  if (unknown == 0) return ATTN_OK;
  return error.fail(ATTN_ERROR_VERSION, field,
                    "%s has bit %d set, which this library does not know: leave it out or update "
                    "libattn",
                    field, __builtin_ctzll(unknown));
}

int32_t check_dtype(const char *field, int32_t dtype, std::initializer_list<int32_t> allowed,
                    const ErrorSink &error) {
  if (contains(allowed, dtype)) return ATTN_OK;
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, field, "%s is %d (%s); it must be %s", field,
                    dtype, dtype == ATTN_DTYPE_NONE ? "none" : dtype_name(dtype),
                    DtypeList(allowed).text());
}

int32_t check_tensor(const char *field, const attn_tensor &tensor,
                     std::initializer_list<int32_t> dtypes, std::initializer_list<Extent> extents,
                     const ErrorSink &error) {
  char name[ATTN_ERROR_FIELD_SIZE];
  const int rank = static_cast<int>(extents.size());
  if (tensor.rank != rank) {
    std::snprintf(name, sizeof name, "%s.rank", field);
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name, "%s is %d%s; it must be %d", name,
                      tensor.rank, tensor.rank == 0 ? " (the tensor is absent)" : "", rank);
  }
  if (!contains(dtypes, tensor.dtype)) {
    std::snprintf(name, sizeof name, "%s.dtype", field);
    return check_dtype(name, tensor.dtype, dtypes, error);
  }
  int i = 0;
  for (const Extent &extent : extents) {
    const int64_t is = tensor.shape[i];
    const bool fits =
        is == extent.value || (extent.or_one && is == 1) || (extent.at_least && is >= extent.value);
    if (!fits || is < 0) {
      std::snprintf(name, sizeof name, "%s.shape[%d]", field, i);
      return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name,
                        "%s (%s) is %" PRId64 "; it must be %s%" PRId64 "%s", name, extent.meaning,
                        is, extent.at_least ? "at least " : "", extent.value,
                        extent.or_one && extent.value != 1 ? " or 1" : "");
    }
    i++;
  }
  if (!has_elements(tensor)) return ATTN_OK;
  const int32_t bits = dtype_info(tensor.dtype)->bits;
  if (tensor.data == nullptr) {
    std::snprintf(name, sizeof name, "%s.data", field);
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name, "%s is NULL, but the tensor has elements",
                      name);
  }
  if (bits > 8 && reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uint32_t>(bits / 8) != 0) {
    std::snprintf(name, sizeof name, "%s.data", field);
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name,
                      "%s is at %p; %s must be aligned to its %d bytes", name, tensor.data,
                      dtype_name(tensor.dtype), bits / 8);
  }
  int64_t lowest = 0, highest = 0;
  if (!element_range(tensor, lowest, highest)) {
    std::snprintf(name, sizeof name, "%s.stride", field);
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name,
                      "%s: shape and strides reach beyond 64-bit addresses", name);
  }
  if (bits < 8) {
    for (int axis = 0; axis < rank; axis++) {
      const bool last = axis == rank - 1;
      if (tensor.shape[axis] > 1 &&
          (last ? tensor.stride[axis] != 1 : tensor.stride[axis] % 2 != 0)) {
        std::snprintf(name, sizeof name, "%s.stride[%d]", field, axis);
        return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name,
                          "%s is %" PRId64 "; %s holds two elements a byte: it must be %s", name,
                          tensor.stride[axis], dtype_name(tensor.dtype), last ? "1" : "even");
      }
    }
  }
  return ATTN_OK;
}

int32_t check_output(const char *field, const attn_tensor &tensor, const ErrorSink &error) {
  if (!has_elements(tensor)) return ATTN_OK;
  const Lattice lattice(tensor);
  for (int i = 0; i < lattice.rank; i++) {
    if (lattice.dimensions[i].stride < lattice.bytes_from(i + 1)) {
      char name[ATTN_ERROR_FIELD_SIZE];
      std::snprintf(name, sizeof name, "%s.stride", field);
      return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name,
                        "%s: elements of this output overlap (a stride of %" PRId64
                        " bytes steps over %" PRId64 " bytes)",
                        name, lattice.dimensions[i].stride, lattice.bytes_from(i + 1));
    }
  }
  return ATTN_OK;
}

int32_t check_absent(const char *field, const attn_tensor &tensor, const char *needs,
                     const ErrorSink &error) {
  if (!is_present(tensor)) return ATTN_OK;
  return error.fail(
      ATTN_ERROR_INVALID_ARGUMENT, field,
      "%s is given (rank %d), but the plan has no %s: leave it absent, or plan for it", field,
      tensor.rank, needs);
}

int32_t check_pointer(const char *field, const void *pointer, bool wanted, const char *needs,
                      const ErrorSink &error) {
  if ((pointer != nullptr) == wanted) return ATTN_OK;
  if (wanted) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, field, "%s is NULL; the plan's %s needs it",
                      field, needs);
  }
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, field,
                    "%s is given, but the plan has no %s: leave it NULL, or plan for it", field,
                    needs);
}

Span span_of(const attn_tensor &tensor) {
  if (!is_present(tensor) || !has_elements(tensor)) return {0, 0};
  int64_t lowest = 0, highest = 0;
  element_range(tensor, lowest, highest);
  const int32_t bits = dtype_info(tensor.dtype)->bits;
  const auto base = reinterpret_cast<intptr_t>(tensor.data);
  return {static_cast<uintptr_t>(base + lowest * bits / 8),
          static_cast<uintptr_t>(base + (highest * bits + std::max(8, bits)) / 8)};
}

bool overlaps(const attn_tensor &a, const attn_tensor &b) {
  const Span x = span_of(a), y = span_of(b);
  if (x.begin >= y.end || y.begin >= x.end || x.begin == x.end || y.begin == y.end) return false;
  return !disjoint(Lattice(a), 0, Lattice(b), 0, static_cast<int64_t>(y.begin - x.begin));
}

}  // namespace attn
