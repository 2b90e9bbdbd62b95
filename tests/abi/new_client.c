/* A program of the days to come, on this library: its headers are one ABI minor ahead, and every
 * sized struct has one more member, `future` (tests/abi/new_client.py makes those headers).
 *
 * While `future` is zero everything must work; once it is set, the library must answer
 * ATTN_ERROR_VERSION rather than ignore it. */
#include <attn/attn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int passed, failed;
static attn_error error = ATTN_ERROR_INIT;

static void expect(int32_t status, int32_t want, const char *what) {
  if (status == want && (want == ATTN_OK || error.status == want)) {
    passed++;
    return;
  }
  failed++;
  printf("new client: %s gave %s, not %s: %s\n", what, attn_status_name(status),
         attn_status_name(want), error.message);
}

static attn_tensor view(float *data, int64_t a, int64_t b, int64_t c, int64_t d, int32_t rank) {
  attn_tensor tensor = ATTN_TENSOR_INIT;
  int64_t shape[4];
  shape[0] = a, shape[1] = b, shape[2] = c, shape[3] = d;
  expect(attn_tensor_contiguous(&tensor, data, ATTN_DTYPE_FP32, rank, shape, &error), ATTN_OK,
         "attn_tensor_contiguous");
  return tensor;
}

static attn_sdpa_desc describe(int32_t pass) {
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.pass = pass;
  desc.q_dtype = ATTN_DTYPE_FP32;
  desc.flags = pass == ATTN_SDPA_FORWARD ? ATTN_SDPA_RETURN_LSE : 0;
  desc.num_q_heads = 1;
  desc.head_dim_qk = 4;
  desc.max_batch = 1;
  desc.max_seqlen_q = 1;
  desc.max_seqlen_k = 2;
  desc.softmax_scale = 1;
  return desc;
}

static void *workspace_of(const attn_plan *plan, size_t *bytes) {
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  void *workspace = NULL;
  expect(attn_plan_query(plan, &info, &error), ATTN_OK, "attn_plan_query with a longer record");
  if (info.future != 0) failed++, printf("new client: the library wrote past what it knows\n");
  *bytes = (size_t)info.workspace_bytes;
  if (posix_memalign(&workspace, 4096, *bytes + 1) != 0) exit(1);
  return workspace;
}

int main(void) {
  static float q[4] = {1, 0, 0, 0}, k[8] = {0}, v[8] = {2, 2, 2, 2, 4, 4, 4, 4}, out[4], lse[1],
               grad_q[4], grad_k[8], grad_v[8];
  attn_context_desc context_desc = ATTN_CONTEXT_DESC_INIT;
  attn_device_info device = ATTN_DEVICE_INFO_INIT;
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  attn_sdpa_desc desc = describe(ATTN_SDPA_FORWARD), back = describe(ATTN_SDPA_BACKWARD);
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  attn_sdpa_backward_args back_args = ATTN_SDPA_BACKWARD_ARGS_INIT;
  attn_merge_desc merge_desc = ATTN_MERGE_DESC_INIT;
  attn_merge_args merge_args = ATTN_MERGE_ARGS_INIT;
  attn_context *context = NULL, *no_context = NULL;
  attn_plan *plan = NULL, *backward = NULL, *merge = NULL, *none = NULL;
  size_t bytes, back_bytes, merge_bytes;
  void *workspace, *back_workspace, *merge_workspace;
  int i;

  /* The minor is ahead: the check says so, whatever the client goes on to use. */
  expect(attn_abi_check(ATTN_ABI_VERSION, &error), ATTN_ERROR_VERSION, "attn_abi_check");
  expect(attn_abi_check(ATTN_ABI_VERSION - 1, &error), ATTN_OK, "attn_abi_check of this ABI");
  if (error.future != 0) failed++, printf("new client: attn_error was written past its end\n");

  /* All zero: everything works. */
  expect(attn_context_create(&context_desc, &context, &error), ATTN_OK, "attn_context_create");
  expect(attn_context_query(context, &device, &error), ATTN_OK, "attn_context_query");
  expect(attn_sdpa_plan_create(context, &desc, &options, &plan, &error), ATTN_OK,
         "attn_sdpa_plan_create");
  expect(attn_sdpa_plan_create(context, &back, &options, &backward, &error), ATTN_OK,
         "attn_sdpa_plan_create for the backward pass");
  merge_desc.dtype = ATTN_DTYPE_FP32;
  merge_desc.num_heads = 1;
  merge_desc.head_dim = 4;
  merge_desc.max_rows = 1;
  merge_desc.max_parts = 1;
  expect(attn_merge_plan_create(context, &merge_desc, NULL, &merge, &error), ATTN_OK,
         "attn_merge_plan_create");
  if (plan == NULL || backward == NULL || merge == NULL) {
    printf("%d passed, %d failed\n", passed, failed);
    return 1;
  }
  workspace = workspace_of(plan, &bytes);
  back_workspace = workspace_of(backward, &back_bytes);
  merge_workspace = workspace_of(merge, &merge_bytes);
  args.q = view(q, 1, 1, 1, 4, 4);
  args.k = view(k, 1, 2, 1, 4, 4);
  args.v = view(v, 1, 2, 1, 4, 4);
  args.out = view(out, 1, 1, 1, 4, 4);
  args.lse = view(lse, 1, 1, 1, 0, 3);
  expect(attn_sdpa_forward(plan, &args, workspace, bytes, NULL, &error), ATTN_OK,
         "attn_sdpa_forward");
  for (i = 0; i < 4; i++) {
    if (out[i] < 2.999f || out[i] > 3.001f) failed++, printf("new client: out is %g\n", out[i]);
  }
  back_args.forward = &args;
  back_args.dout = args.out;
  back_args.dq = view(grad_q, 1, 1, 1, 4, 4);
  back_args.dk = view(grad_k, 1, 2, 1, 4, 4);
  back_args.dv = view(grad_v, 1, 2, 1, 4, 4);
  expect(attn_sdpa_backward(backward, &back_args, back_workspace, back_bytes, NULL, &error),
         ATTN_OK, "attn_sdpa_backward");
  merge_args.partial = view(out, 1, 1, 1, 4, 4);
  merge_args.partial_lse = view(lse, 1, 1, 1, 0, 3);
  merge_args.out = view(grad_q, 1, 1, 4, 0, 3);
  expect(attn_merge(merge, &merge_args, merge_workspace, merge_bytes, NULL, &error), ATTN_OK,
         "attn_merge");

  /* One unknown member set: refused, wherever it is. */
  context_desc.future = 1;
  expect(attn_context_create(&context_desc, &no_context, &error), ATTN_ERROR_VERSION,
         "attn_context_create with an unknown member");
  options.future = 1;
  expect(attn_sdpa_plan_create(context, &desc, &options, &none, &error), ATTN_ERROR_VERSION,
         "attn_sdpa_plan_create with an unknown member in options");
  desc.future = UINT64_C(1) << 63; /* the last byte counts too */
  expect(attn_sdpa_supported(context, &desc, NULL, &error), ATTN_ERROR_VERSION,
         "attn_sdpa_supported with an unknown member");
  expect(attn_sdpa_plan_create(context, &desc, NULL, &none, &error), ATTN_ERROR_VERSION,
         "attn_sdpa_plan_create with an unknown member");
  if (strstr(error.message, "older") == NULL && strstr(error.message, "update") == NULL) {
    failed++, printf("new client: the message does not say what to do: %s\n", error.message);
  }
  args.future = 1;
  out[0] = 99;
  expect(attn_sdpa_forward(plan, &args, workspace, bytes, NULL, &error), ATTN_ERROR_VERSION,
         "attn_sdpa_forward with an unknown member");
  if (out[0] != 99) failed++, printf("new client: a refused call wrote its output\n");
  expect(attn_sdpa_backward(backward, &back_args, back_workspace, back_bytes, NULL, &error),
         ATTN_ERROR_VERSION, "attn_sdpa_backward with an unknown member in forward");
  args.future = 0;
  back_args.future = 1;
  expect(attn_sdpa_backward(backward, &back_args, back_workspace, back_bytes, NULL, &error),
         ATTN_ERROR_VERSION, "attn_sdpa_backward with an unknown member");
  merge_desc.future = 1;
  expect(attn_merge_plan_create(context, &merge_desc, NULL, &none, &error), ATTN_ERROR_VERSION,
         "attn_merge_plan_create with an unknown member");
  merge_args.future = 1;
  expect(attn_merge(merge, &merge_args, merge_workspace, merge_bytes, NULL, &error),
         ATTN_ERROR_VERSION, "attn_merge with an unknown member");

  /* So are an unknown flag and a reserved member, which a later ABI may give a meaning. */
  desc = describe(ATTN_SDPA_FORWARD);
  desc.flags |= UINT64_C(1) << 63;
  expect(attn_sdpa_plan_create(context, &desc, NULL, &none, &error), ATTN_ERROR_VERSION,
         "attn_sdpa_plan_create with an unknown flag");
  args.reserved = 1;
  expect(attn_sdpa_forward(plan, &args, workspace, bytes, NULL, &error), ATTN_ERROR_VERSION,
         "attn_sdpa_forward with a reserved member set");
  if (none != NULL || no_context != NULL)
    failed++, printf("new client: a failed create gave a handle\n");

  free(workspace), free(back_workspace), free(merge_workspace);
  attn_plan_destroy(merge);
  attn_plan_destroy(backward);
  attn_plan_destroy(plan);
  attn_context_destroy(context);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
