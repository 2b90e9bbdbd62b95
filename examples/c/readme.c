#include <attn/attn.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) { /* one sequence of 4 tokens, 2 heads of 8 numbers each, causal */
  float q[4 * 2 * 8], k[4 * 2 * 8], v[4 * 2 * 8], out[4 * 2 * 8];
  for (int i = 0; i < 4 * 2 * 8; i++) q[i] = k[i] = 0.01f * i, v[i] = i / 16; /* v: the token */

  attn_error error = ATTN_ERROR_INIT;
  attn_context_desc where = ATTN_CONTEXT_DESC_INIT;
  where.backend = ATTN_BACKEND_CPU;
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
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  int64_t shape[] = {1, 4, 2, 8}; /* batch, sequence, head, head_dim */
  attn_tensor_contiguous(&args.q, q, ATTN_DTYPE_FP32, 4, shape, NULL);
  attn_tensor_contiguous(&args.k, k, ATTN_DTYPE_FP32, 4, shape, NULL);
  attn_tensor_contiguous(&args.v, v, ATTN_DTYPE_FP32, 4, shape, NULL);
  attn_tensor_contiguous(&args.out, out, ATTN_DTYPE_FP32, 4, shape, NULL);
  if (attn_sdpa_forward(plan, &args, workspace, info.workspace_bytes, NULL, &error))
    return puts(error.message), 1;

  printf("token 0 sees %.2f, token 3 sees a mix: %.2f\n", out[0], out[3 * 16]);
  free(workspace), attn_plan_destroy(plan), attn_context_destroy(context);
  return !(out[0] == 0 && out[3 * 16] > 1.5f && out[3 * 16] < 3);
}
