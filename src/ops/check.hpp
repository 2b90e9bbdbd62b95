// Checks that every family's descriptors and arguments need, each with its sentence.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "attn/types.h"
#include "core/error.hpp"

namespace attn {

// value must be one of 0 .. last.
int32_t check_enum(const char *field, int32_t value, int32_t last, const ErrorSink &error);
int32_t check_range(const char *field, int64_t value, int64_t least, int64_t most,
                    const ErrorSink &error);
int32_t check_flags(const char *field, uint64_t value, uint64_t known, const ErrorSink &error);
// dtype must be one of `allowed`.
int32_t check_dtype(const char *field, int32_t dtype, std::initializer_list<int32_t> allowed,
                    const ErrorSink &error);

// One extent that a tensor must have: exactly `value`, or also 1 (shared) if `or_one`, or at least
// `value` if `at_least`.
struct Extent {
  int64_t value;
  const char *meaning;  // for the message, such as "num_kv_heads"
  bool or_one = false;
  bool at_least = false;
};

// Checks a tensor that must be present: rank, extents, dtype, a data pointer that fits.
int32_t check_tensor(const char *field, const attn_tensor &tensor,
                     std::initializer_list<int32_t> dtypes, std::initializer_list<Extent> extents,
                     const ErrorSink &error);
// Besides: that no two elements of an output share memory.
int32_t check_output(const char *field, const attn_tensor &tensor, const ErrorSink &error);
// The tensor belongs to an option that the descriptor does not have.
int32_t check_absent(const char *field, const attn_tensor &tensor, const char *needs,
                     const ErrorSink &error);
int32_t check_pointer(const char *field, const void *pointer, bool wanted, const char *needs,
                      const ErrorSink &error);

inline bool is_present(const attn_tensor &tensor) {
  return tensor.rank != 0;
}

// The bytes that a tensor's elements lie in: [begin, end), empty if it has none.
struct Span {
  uintptr_t begin;
  uintptr_t end;
};
Span span_of(const attn_tensor &tensor);
// Whether two tensors may share a byte. Views that interleave without touching (q, k and v of one
// packed tensor) are recognised as disjoint.
bool overlaps(const attn_tensor &a, const attn_tensor &b);

}  // namespace attn
