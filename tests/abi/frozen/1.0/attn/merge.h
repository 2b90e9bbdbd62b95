/* Merging partial attention results by their log-sum-exp: cascade (shared prefix), context
 * parallel, split KV.
 *
 * For each row n and head h, over its parts s:
 *
 *   m   = max_s lse_s,   w_s = exp(lse_s - m)
 *   out = sum_s w_s v_s / sum_s w_s,   out_lse = m + log(sum_s w_s)
 *
 * A part with lse = -inf counts for nothing, whatever its values (NaN too); if all parts are so,
 * out = 0 and out_lse = -inf. So (0, -inf) is the identity, and merging is associative and
 * commutative up to rounding. (FlashInfer merge_state, FlashAttention combine) */
#ifndef ATTN_MERGE_H
#define ATTN_MERGE_H

#include <stddef.h>
#include <stdint.h>

#include "context.h"
#include "plan.h"
#include "status.h"
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Options of a merge, or'ed into attn_merge_desc.flags. */
#define ATTN_MERGE_OTHER (1ull << 0)    /* args.other, other_lse: one more part */
#define ATTN_MERGE_ROW_MASK (1ull << 1) /* args.row_mask */
#define ATTN_MERGE_SINK (1ull << 2)     /* args.sink joins the denominator, once */
/* With SINK: out_lse includes the sink. */
#define ATTN_MERGE_LSE_INCLUDES_SINK (1ull << 3)
#define ATTN_MERGE_RETURN_LSE (1ull << 4) /* args.out_lse is written */

/* A merge by its limits; zero in a field means its default. */
typedef struct attn_merge_desc {
  uint32_t struct_size; /* sizeof(attn_merge_desc): set by ATTN_MERGE_DESC_INIT */
  int32_t dtype;        /* required: of partial and other: FP32, FP16, BF16 */
  uint64_t flags;       /* ATTN_MERGE_... */
  int32_t out_dtype;    /* default dtype */
  int32_t lse_base;     /* attn_lse_base of every lse, in and out */
  int32_t num_heads;    /* required, >= 1 */
  int32_t head_dim;     /* required, 1 .. 4096 */
  int64_t max_rows;     /* required, >= 0 */
  int64_t max_parts;    /* required, >= 0; `other` not counted */
} attn_merge_desc;

#define ATTN_MERGE_DESC_INIT \
  { sizeof(attn_merge_desc), 0, 0, 0, 0, 0, 0, 0, 0 }

/* n rows (tokens), s parts. Any order of dimensions in memory by strides: parts-first buffers, or
 * one slab a rank (decode context parallel), are views. */
typedef struct attn_merge_args {
  uint32_t struct_size;    /* sizeof(attn_merge_args): set by ATTN_MERGE_ARGS_INIT */
  uint32_t reserved;       /* must be 0 */
  attn_tensor partial;     /* [n, s, num_heads, head_dim] */
  attn_tensor partial_lse; /* [n, s, num_heads], FP32 */
  /* OTHER: [n, num_heads, head_dim] and [n, num_heads]. out and out_lse may be exactly these
   * tensors: merging in place. */
  attn_tensor other;
  attn_tensor other_lse; /* OTHER */
  /* ROW_MASK: UINT8 [n]; where 0, the row's partial parts are left out, so that it is `other` (or,
   * without it, 0 and -inf). */
  attn_tensor row_mask;
  attn_tensor sink;    /* SINK: FP32 [num_heads], natural units */
  attn_tensor out;     /* [n, num_heads, head_dim] */
  attn_tensor out_lse; /* RETURN_LSE: [n, num_heads], FP32 */
} attn_merge_args;

#define ATTN_MERGE_ARGS_INIT                                                                     \
  {                                                                                              \
    sizeof(attn_merge_args), 0, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT,            \
        ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT, ATTN_TENSOR_INIT \
  }

/* As attn_sdpa_supported. */
ATTN_API int32_t attn_merge_supported(const attn_context *context, const attn_merge_desc *desc,
                                      const attn_plan_options *options, attn_error *error);

/* As attn_sdpa_plan_create. */
ATTN_API int32_t attn_merge_plan_create(const attn_context *context, const attn_merge_desc *desc,
                                        const attn_plan_options *options, attn_plan **plan,
                                        attn_error *error);

/* Merges. Workspace, stream, errors and threads as attn_sdpa_forward. */
ATTN_API int32_t attn_merge(const attn_plan *plan, const attn_merge_args *args, void *workspace,
                            size_t workspace_bytes, attn_stream stream, attn_error *error);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_MERGE_H */
