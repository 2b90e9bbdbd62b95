#include <attn/attn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) { /* self-attention, causal: 4 tokens, 2 heads of 8 numbers each */
  float x[4 * 2 * 8] = {0.4f, 0.8f}, y[4 * 2 * 8]; /* token 0; the others are zeros */
  attn_error error = ATTN_ERROR_INIT;
  attn_context_desc where = {.struct_size = sizeof where, .backend = ATTN_BACKEND_CPU};
  attn_context *context;
  if (attn_context_create(&where, &context, &error)) return puts(error.message), 1;
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT; /* the problem's limits; zero means default */
  desc.flags = ATTN_SDPA_CAUSAL, desc.q_dtype = ATTN_DTYPE_FP32, desc.softmax_scale = 0.35f;
  desc.num_q_heads = 2, desc.head_dim_qk = 8, desc.max_batch = 1;
  desc.max_seqlen_q = desc.max_seqlen_k = 4;
  attn_plan *plan;
  if (attn_sdpa_plan_create(context, &desc, NULL, &plan, &error)) return puts(error.message), 1;
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_plan_query(plan, &info, NULL);
  void *workspace = aligned_alloc(4096, (info.workspace_bytes + 4095) / 4096 * 4096);
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT; /* tensors: batch, token, head, number */
  attn_tensor_contiguous(&args.q, x, ATTN_DTYPE_FP32, 4, (int64_t[]){1, 4, 2, 8}, NULL);
  args.k = args.v = args.out = args.q, args.out.data = y;
  if (attn_sdpa_forward(plan, &args, workspace, info.workspace_bytes, NULL, &error)) return 1;
  printf("token 0 sees itself: %.2f; token 3 sees all alike: %.2f\n", y[0], y[3 * 2 * 8]);
  free(workspace), attn_plan_destroy(plan), attn_context_destroy(context);
  return fabsf(y[0] - 0.4f) > 1e-6f || fabsf(y[3 * 2 * 8] - 0.1f) > 1e-6f;
}
