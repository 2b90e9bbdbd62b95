/* Data types and the tensor view. */
#ifndef ATTN_TYPES_H
#define ATTN_TYPES_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Element types, stored as int32_t. In a descriptor, ATTN_DTYPE_NONE (0) asks for the default that
 * the field documents. */
typedef enum attn_dtype {
  ATTN_DTYPE_NONE = 0,         /* the field's default */
  ATTN_DTYPE_FP32 = 1,         /* IEEE binary32 */
  ATTN_DTYPE_FP16 = 2,         /* IEEE binary16 */
  ATTN_DTYPE_BF16 = 3,         /* the upper half of a binary32 */
  ATTN_DTYPE_FP8_E4M3FN = 4,   /* OCP: no infinity, largest 448 (NVIDIA, MI350) */
  ATTN_DTYPE_FP8_E5M2 = 5,     /* OCP: IEEE-like, with infinities, largest 57344 */
  ATTN_DTYPE_FP8_E4M3FNUZ = 6, /* AMD MI300: bias 8, no negative zero, largest 240 */
  ATTN_DTYPE_FP8_E8M0 = 7,     /* OCP MX block scale: 2^(x-127), 255 is NaN */
  ATTN_DTYPE_INT8 = 8,         /* signed */
  ATTN_DTYPE_INT4 = 9,         /* signed, two a byte, even element in the low nibble */
  ATTN_DTYPE_FP4_E2M1 = 10,    /* OCP: two a byte, even element in the low nibble */
  ATTN_DTYPE_UINT8 = 11,       /* masks: packed bits or flags */
  ATTN_DTYPE_INT32 = 12,       /* indices, lengths, ids */
  ATTN_DTYPE_INT64 = 13        /* not used by an operation yet */
} attn_dtype;

#define ATTN_MAX_RANK 6 /* the most dimensions of a tensor */

/* A view of memory that the caller owns. Shape and strides are inline, so that the struct can be
 * copied, sent through any FFI and kept on the stack. rank 0 means "no tensor".
 *
 * Element (i0, i1, ...) lies at data + (i0*stride[0] + i1*stride[1] + ...) elements. Offsets are
 * computed in 64 bits. Strides may be any int64 value, negative or 0 (a repeated dimension)
 * included, except that an output's elements must not overlap and that sub-byte types (int4, fp4)
 * need stride 1 in the last dimension and even strides elsewhere. */
typedef struct attn_tensor {
  void *data;                    /* may be NULL if the tensor has no element */
  int32_t dtype;                 /* attn_dtype */
  int32_t rank;                  /* 0 (absent) .. ATTN_MAX_RANK */
  int64_t shape[ATTN_MAX_RANK];  /* entries past rank are ignored */
  int64_t stride[ATTN_MAX_RANK]; /* in elements; entries past rank are ignored */
} attn_tensor;

/* A tensor with all fields zero, that is: absent. */
#define ATTN_TENSOR_INIT              \
  {                                   \
    NULL, 0, 0, {0, 0, 0, 0, 0, 0}, { \
      0, 0, 0, 0, 0, 0                \
    }                                 \
  }

/* Fills `tensor` with a contiguous row-major view of `data`.
 *
 * shape: `rank` extents, each >= 0; rank: 0..ATTN_MAX_RANK.
 * Errors: INVALID_ARGUMENT for an unknown dtype, a rank out of range, a negative extent or a size
 * that overflows int64. On error `tensor` is untouched. Thread-safe. */
ATTN_API int32_t attn_tensor_contiguous(attn_tensor *tensor, void *data, int32_t dtype,
                                        int32_t rank, const int64_t *shape, attn_error *error);

/* Bits that one element of `dtype` takes: 32 for FP32, 4 for INT4; 0 for an unknown dtype.
 * Thread-safe; never fails. */
ATTN_API int32_t attn_dtype_bits(int32_t dtype);

/* The name of a dtype, for example "bf16"; "unknown" for a value that this library does not know.
 * Static storage. Thread-safe; never fails. */
ATTN_API const char *attn_dtype_name(int32_t dtype);

/* The logarithm of an lse. */
typedef enum attn_lse_base {
  ATTN_LSE_BASE_E = 0, /* natural log (FlashAttention) */
  ATTN_LSE_BASE_2 = 1  /* log2 of the same sum (FlashInfer) */
} attn_lse_base;

/* A stream of the backend: a CUstream or hipStream_t; NULL is the device's default stream.
 * On the CPU it must be NULL: work is done when the call returns. */
typedef void *attn_stream;

#ifdef __cplusplus
}
#endif

#endif /* ATTN_TYPES_H */
