#include "shim.h"

#include "_cgo_export.h"

static void log_line(void *user_data, int32_t level, const char *message) {
  attnGoLog((uintptr_t)user_data, level, (char *)message);
}

int32_t attn_go_context_create(const attn_context_desc *desc, uintptr_t log_handle,
                               attn_context **context, attn_error *error) {
  attn_context_desc full = *desc;
  if (log_handle != 0) {
    full.log_callback = log_line;
    full.log_user_data = (void *)log_handle;
  }
  return attn_context_create(&full, context, error);
}

#define SET_SDPA_POINTERS(full)                \
  (full).q.data = q;                           \
  (full).k.data = k;                           \
  (full).v.data = v;                           \
  (full).out.data = out;                       \
  (full).lse.data = lse;                       \
  (full).row_max.data = row_max;               \
  (full).cu_seqlens_q = cu_seqlens_q;          \
  (full).cu_seqlens_k = cu_seqlens_k;          \
  (full).seqused_q = seqused_q;                \
  (full).seqused_k = seqused_k;                \
  (full).kv_page_indptr = kv_page_indptr;      \
  (full).kv_page_indices = kv_page_indices;    \
  (full).kv_last_page_len = kv_last_page_len;  \
  (full).rng_state = rng_state;                \
  (full).block_table.data = block_table;       \
  (full).mask.data = mask;                     \
  (full).tail_mask.data = tail_mask;           \
  (full).q_segment_ids.data = q_segment_ids;   \
  (full).kv_segment_ids.data = kv_segment_ids; \
  (full).bias.data = bias;                     \
  (full).alibi_slopes.data = alibi_slopes;     \
  (full).sink.data = sink;                     \
  (full).gate.data = gate;                     \
  (full).block_counts.data = block_counts;     \
  (full).block_indices.data = block_indices;   \
  (full).q_scale.data = q_scale;               \
  (full).k_scale.data = k_scale;               \
  (full).v_scale.data = v_scale;               \
  (full).out_scale.data = out_scale;

int32_t attn_go_sdpa_forward(const attn_plan *plan, const attn_sdpa_args *args,
                             ATTN_GO_SDPA_POINTERS, void *workspace, size_t workspace_bytes,
                             uintptr_t stream, attn_plan **tuned, attn_error *error) {
  attn_sdpa_args full = *args;
  SET_SDPA_POINTERS(full);
  if (tuned != NULL) {
    return attn_sdpa_plan_tune(plan, &full, NULL, workspace, workspace_bytes, (void *)stream, tuned,
                               error);
  }
  return attn_sdpa_forward(plan, &full, workspace, workspace_bytes, (void *)stream, error);
}

int32_t attn_go_sdpa_backward(const attn_plan *plan, const attn_sdpa_args *args,
                              const attn_sdpa_backward_args *grads, ATTN_GO_SDPA_POINTERS,
                              ATTN_GO_GRAD_POINTERS, void *workspace, size_t workspace_bytes,
                              uintptr_t stream, attn_plan **tuned, attn_error *error) {
  attn_sdpa_args full = *args;
  attn_sdpa_backward_args full_grads = *grads;
  SET_SDPA_POINTERS(full);
  full_grads.forward = &full;
  full_grads.dout.data = dout;
  full_grads.dlse.data = dlse;
  full_grads.dq.data = dq;
  full_grads.dk.data = dk;
  full_grads.dv.data = dv;
  full_grads.dbias.data = dbias;
  full_grads.dsink.data = dsink;
  full_grads.dgate.data = dgate;
  if (tuned != NULL) {
    return attn_sdpa_plan_tune(plan, NULL, &full_grads, workspace, workspace_bytes, (void *)stream,
                               tuned, error);
  }
  return attn_sdpa_backward(plan, &full_grads, workspace, workspace_bytes, (void *)stream, error);
}

int32_t attn_go_merge(const attn_plan *plan, const attn_merge_args *args, void *partial,
                      void *partial_lse, void *other, void *other_lse, void *row_mask, void *sink,
                      void *out, void *out_lse, void *workspace, size_t workspace_bytes,
                      uintptr_t stream, attn_error *error) {
  attn_merge_args full = *args;
  full.partial.data = partial;
  full.partial_lse.data = partial_lse;
  full.other.data = other;
  full.other_lse.data = other_lse;
  full.row_mask.data = row_mask;
  full.sink.data = sink;
  full.out.data = out;
  full.out_lse.data = out_lse;
  return attn_merge(plan, &full, workspace, workspace_bytes, (void *)stream, error);
}
