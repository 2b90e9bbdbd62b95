/* What cgo cannot do by itself: filling structs that hold data pointers.
 *
 * cgo forbids passing Go memory that holds Go pointers, so the structs come with all data pointers
 * NULL and each pointer comes as an argument of its own; the shim copies the struct to the C stack
 * and sets the pointers there. Streams are numbers: small ones have a meaning to CUDA, but Go takes
 * no small number for a pointer. */
#ifndef ATTN_GO_SHIM_H
#define ATTN_GO_SHIM_H

#include <attn/attn.h>

int32_t attn_go_context_create(const attn_context_desc *desc, uintptr_t log_handle,
                               attn_context **context, attn_error *error);

/* The pointers of attn_sdpa_args, in the order of its fields. */
#define ATTN_GO_SDPA_POINTERS                                                                     \
  void *q, void *k, void *v, void *out, void *lse, void *row_max, const void *cu_seqlens_q,       \
      const void *cu_seqlens_k, const void *seqused_q, const void *seqused_k,                     \
      const void *kv_page_indptr, const void *kv_page_indices, const void *kv_last_page_len,      \
      const void *rng_state, void *block_table, void *mask, void *tail_mask, void *q_segment_ids, \
      void *kv_segment_ids, void *bias, void *alibi_slopes, void *sink, void *gate,               \
      void *block_counts, void *block_indices, void *q_scale, void *k_scale, void *v_scale,       \
      void *out_scale

/* And of attn_sdpa_backward_args. */
#define ATTN_GO_GRAD_POINTERS \
  void *dout, void *dlse, void *dq, void *dk, void *dv, void *dbias, void *dsink, void *dgate

/* tuned != NULL: attn_sdpa_plan_tune instead of executing. */
int32_t attn_go_sdpa_forward(const attn_plan *plan, const attn_sdpa_args *args,
                             ATTN_GO_SDPA_POINTERS, void *workspace, size_t workspace_bytes,
                             uintptr_t stream, attn_plan **tuned, attn_error *error);

int32_t attn_go_sdpa_backward(const attn_plan *plan, const attn_sdpa_args *args,
                              const attn_sdpa_backward_args *grads, ATTN_GO_SDPA_POINTERS,
                              ATTN_GO_GRAD_POINTERS, void *workspace, size_t workspace_bytes,
                              uintptr_t stream, attn_plan **tuned, attn_error *error);

int32_t attn_go_merge(const attn_plan *plan, const attn_merge_args *args, void *partial,
                      void *partial_lse, void *other, void *other_lse, void *row_mask, void *sink,
                      void *out, void *out_lse, void *workspace, size_t workspace_bytes,
                      uintptr_t stream, attn_error *error);

#endif /* ATTN_GO_SHIM_H */
