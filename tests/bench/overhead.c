/* What the library costs on the host: one execute of a tiny problem, and making a plan. Prints one
 * JSON object; times are medians in microseconds, of batches in the case of execute. */
#include <attn/attn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

#define HEAD_DIM 64
#define MAX_BATCHES 2001
#define CALLS 100 /* in a batch, so that reading the clock costs nothing */

static void require(int32_t status, const attn_error *error) {
  if (status == ATTN_OK) return;
  fprintf(stderr, "bench-overhead: %s: %s\n", attn_status_name(status), error->message);
  exit(1);
}

static void usage(FILE *to) {
  fputs(
      "usage: bench-overhead [--threads N] [--quick]\n\n"
      "Times attn_sdpa_forward on a tiny problem (1 query, 1 key, 1 head, fp32) and\n"
      "attn_sdpa_plan_create, and prints the medians in microseconds as JSON.\n\n"
      "  --threads N  threads of the context (default: all)\n"
      "  --quick      a tenth of the repetitions\n",
      to);
}

int main(int argc, char **argv) {
  int threads = 0, batches = MAX_BATCHES;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) {
      usage(stdout);
      return 0;
    } else if (strcmp(argv[i], "--quick") == 0) {
      batches = MAX_BATCHES / 10;
    } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      threads = atoi(argv[++i]);
    } else {
      usage(stderr);
      return 2;
    }
  }

  attn_error error = ATTN_ERROR_INIT;
  attn_context_desc context_desc = ATTN_CONTEXT_DESC_INIT;
  context_desc.backend = ATTN_BACKEND_CPU;
  context_desc.num_threads = threads;
  attn_context *context = NULL;
  require(attn_context_create(&context_desc, &context, &error), &error);

  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.q_dtype = ATTN_DTYPE_FP32;
  desc.num_q_heads = 1;
  desc.head_dim_qk = HEAD_DIM;
  desc.max_batch = 1;
  desc.max_seqlen_q = 1;
  desc.max_seqlen_k = 1;
  desc.softmax_scale = 0.125f;

  static double times[MAX_BATCHES];
  attn_plan *plan = NULL;
  for (int n = 0; n < batches; n++) {
    const double begin = now_us();
    require(attn_sdpa_plan_create(context, &desc, NULL, &plan, &error), &error);
    times[n] = now_us() - begin;
    attn_plan_destroy(plan);
  }
  const double plan_us = median(times, batches);

  require(attn_sdpa_plan_create(context, &desc, NULL, &plan, &error), &error);
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  require(attn_plan_query(plan, &info, &error), &error);
  const size_t alignment = (size_t)info.workspace_alignment;
  char *memory = malloc((size_t)info.workspace_bytes + alignment);
  void *workspace = (void *)(((size_t)memory + alignment - 1) / alignment * alignment);

  float q[HEAD_DIM], k[HEAD_DIM], v[HEAD_DIM], out[HEAD_DIM];
  for (int d = 0; d < HEAD_DIM; d++) {
    q[d] = (float)(d % 7) - 3.0f;
    k[d] = (float)(d % 5) - 2.0f;
    v[d] = (float)(d % 3) - 1.0f;
  }
  const int64_t shape[4] = {1, 1, 1, HEAD_DIM};
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  require(attn_tensor_contiguous(&args.q, q, ATTN_DTYPE_FP32, 4, shape, &error), &error);
  require(attn_tensor_contiguous(&args.k, k, ATTN_DTYPE_FP32, 4, shape, &error), &error);
  require(attn_tensor_contiguous(&args.v, v, ATTN_DTYPE_FP32, 4, shape, &error), &error);
  require(attn_tensor_contiguous(&args.out, out, ATTN_DTYPE_FP32, 4, shape, &error), &error);

  for (int n = 0; n < batches; n++) {
    const double begin = now_us();
    for (int i = 0; i < CALLS; i++) {
      require(attn_sdpa_forward(plan, &args, workspace, (size_t)info.workspace_bytes, NULL, &error),
              &error);
    }
    times[n] = (now_us() - begin) / CALLS;
  }
  const double execute_us = median(times, batches);
  for (int d = 0; d < HEAD_DIM; d++) { /* one key: the result is its value */
    if (out[d] != v[d]) {
      fprintf(stderr, "bench-overhead: out[%d] is %g, not %g\n", d, (double)out[d], (double)v[d]);
      return 1;
    }
  }
  attn_device_info device = ATTN_DEVICE_INFO_INIT;
  require(attn_context_query(context, &device, &error), &error);
  printf(
      "{\"threads\": %d, \"implementation\": \"%s\", \"execute_us\": %.3f, \"plan_create_us\": "
      "%.3f}\n",
      (int)device.num_units, info.implementation, execute_us, plan_us);
  attn_plan_destroy(plan);
  attn_context_destroy(context);
  free(memory);
  return 0;
}
