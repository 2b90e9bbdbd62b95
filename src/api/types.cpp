#include "attn/types.h"

#include <cinttypes>

#include "api/boundary.hpp"
#include "core/dtype.hpp"

extern "C" int32_t attn_tensor_contiguous(attn_tensor *tensor, void *data, int32_t dtype,
                                          int32_t rank, const int64_t *shape, attn_error *error) {
  const attn::ErrorSink sink(error);
  int32_t status = attn::require("tensor", tensor, sink);
  if (status != ATTN_OK) return status;
  if (attn::dtype_info(dtype) == nullptr) {
    return sink.fail(ATTN_ERROR_INVALID_ARGUMENT, "dtype", "dtype is %d, which is no attn_dtype",
                     dtype);
  }
  if (rank < 0 || rank > ATTN_MAX_RANK) {
    return sink.fail(ATTN_ERROR_INVALID_ARGUMENT, "rank", "rank is %d; it must be 0 .. %d", rank,
                     ATTN_MAX_RANK);
  }
  if (rank > 0) status = attn::require("shape", shape, sink);
  if (status != ATTN_OK) return status;
  attn_tensor view = ATTN_TENSOR_INIT;
  view.data = data;
  view.dtype = dtype;
  view.rank = rank;
  int64_t stride = 1;
  for (int i = rank - 1; i >= 0; i--) {
    if (shape[i] < 0) {
      return sink.fail(ATTN_ERROR_INVALID_ARGUMENT, "shape",
                       "shape[%d] is %" PRId64 "; it must not be negative", i, shape[i]);
    }
    view.shape[i] = shape[i];
    view.stride[i] = stride;
    // An empty dimension leaves the strides of those before it without meaning: count it as 1.
    if (__builtin_mul_overflow(stride, shape[i] == 0 ? 1 : shape[i], &stride)) {
      return sink.fail(ATTN_ERROR_INVALID_ARGUMENT, "shape",
                       "shape: the product of the extents does not fit in 64 bits");
    }
  }
  *tensor = view;
  return ATTN_OK;
}

extern "C" int32_t attn_dtype_bits(int32_t dtype) {
  const attn::DtypeInfo *info = attn::dtype_info(dtype);
  return info == nullptr ? 0 : info->bits;
}

extern "C" const char *attn_dtype_name(int32_t dtype) {
  return attn::dtype_name(dtype);
}
