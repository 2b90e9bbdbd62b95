/* Two ways to call attention, linked against libattn:
 *
 *   1. prefill: a ragged batch (sequences of different lengths, one after the other), causal,
 *      grouped key heads, with the log-sum-exp;
 *   2. decode: one new token a sequence against a paged KV cache, with a plan that is made once and
 *      executed for every step.
 *
 * Build:  cc -std=c99 sdpa.c $(pkg-config --cflags --libs attn) -lm -o sdpa
 *
 * The program computes the same with plain loops, and exits with 1 if the results differ. */
#include <attn/attn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 4, KV_HEADS = 2, DIM = 16, PAGE = 4, MAX_KEYS = 12, SEQUENCES = 3 };

/* Ends the program if a call failed: the record names the field, its value and the rule. */
static void check(int32_t status, const attn_error *error) {
  if (status == ATTN_OK) return;
  fprintf(stderr, "%s in %s: %s\n", attn_status_name(status), error->field, error->message);
  exit(1);
}

static attn_tensor view(float *data, int32_t rank, int64_t a, int64_t b, int64_t c, int64_t d) {
  attn_tensor tensor = ATTN_TENSOR_INIT;
  attn_error error = ATTN_ERROR_INIT;
  int64_t shape[4];
  shape[0] = a, shape[1] = b, shape[2] = c, shape[3] = d;
  check(attn_tensor_contiguous(&tensor, data, ATTN_DTYPE_FP32, rank, shape, &error), &error);
  return tensor;
}

static attn_tensor indices(int32_t *data, int64_t a, int64_t b) {
  attn_tensor tensor = ATTN_TENSOR_INIT;
  attn_error error = ATTN_ERROR_INIT;
  int64_t shape[2];
  shape[0] = a, shape[1] = b;
  check(attn_tensor_contiguous(&tensor, data, ATTN_DTYPE_INT32, 2, shape, &error), &error);
  return tensor;
}

static void fill(float *x, size_t n, uint32_t seed) {
  size_t i;
  for (i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

/* A workspace for a plan on the CPU, aligned as the plan asks. *base is what to free. */
static void *workspace_for(const attn_plan *plan, size_t *bytes, void **base) {
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_error error = ATTN_ERROR_INIT;
  size_t alignment;
  check(attn_plan_query(plan, &info, &error), &error);
  printf("  plan: %s, %u bytes of workspace\n", info.implementation,
         (unsigned)info.workspace_bytes);
  alignment = info.workspace_alignment ? (size_t)info.workspace_alignment : 1;
  *bytes = (size_t)info.workspace_bytes;
  *base = malloc(*bytes + alignment);
  if (*base == NULL) exit(1);
  return (void *)(((uintptr_t)*base + alignment - 1) / alignment * alignment);
}

/* Row j of one key head: key(j) = keys + rows[j] * KV_HEADS * DIM. */
static double worst_of_query(const float *q, const float *keys, const float *values,
                             const int *rows, int count, int head, const float *out) {
  double weight[MAX_KEYS], sum = 0, worst = 0;
  int j, d, kv_head = head / (HEADS / KV_HEADS);
  for (j = 0; j < count; j++) {
    const float *key = keys + (rows[j] * KV_HEADS + kv_head) * DIM;
    double score = 0;
    for (d = 0; d < DIM; d++) score += (double)q[d] * key[d];
    weight[j] = exp(score / 4);
    sum += weight[j];
  }
  for (d = 0; d < DIM; d++) {
    double want = 0, difference;
    for (j = 0; j < count; j++) {
      want += weight[j] / sum * values[(rows[j] * KV_HEADS + kv_head) * DIM + d];
    }
    difference = fabs(want - out[d]);
    if (!(difference <= worst)) worst = difference;
  }
  return worst;
}

static attn_sdpa_desc description(void) {
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.q_dtype = ATTN_DTYPE_FP32;
  desc.num_q_heads = HEADS;
  desc.num_kv_heads = KV_HEADS;
  desc.head_dim_qk = DIM;
  desc.max_batch = SEQUENCES;
  desc.max_seqlen_k = MAX_KEYS;
  desc.softmax_scale = 0.25f; /* 1 / sqrt(DIM) */
  return desc;
}

static double prefill(const attn_context *context) {
  static int32_t starts[SEQUENCES + 1] = {0, 5, 6, 15}; /* lengths 5, 1 and 9 */
  enum { TOKENS = 15 };
  static float q[TOKENS * HEADS * DIM], k[TOKENS * KV_HEADS * DIM], v[TOKENS * KV_HEADS * DIM];
  static float out[TOKENS * HEADS * DIM], lse[HEADS * TOKENS];
  attn_sdpa_desc desc = description();
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  attn_error error = ATTN_ERROR_INIT;
  attn_plan *plan;
  void *workspace, *base;
  size_t bytes;
  double worst = 0;
  int b, i, h;

  printf("prefill of 5, 1 and 9 tokens\n");
  fill(q, sizeof q / sizeof *q, 1);
  fill(k, sizeof k / sizeof *k, 2);
  fill(v, sizeof v / sizeof *v, 3);
  desc.flags = ATTN_SDPA_CAUSAL | ATTN_SDPA_RETURN_LSE;
  desc.q_layout = ATTN_LAYOUT_RAGGED;
  desc.kv_layout = ATTN_LAYOUT_RAGGED;
  desc.max_seqlen_q = MAX_KEYS;
  desc.max_total_q = TOKENS;
  desc.max_total_k = TOKENS;
  check(attn_sdpa_plan_create(context, &desc, NULL, &plan, &error), &error);
  workspace = workspace_for(plan, &bytes, &base);

  args.batch = SEQUENCES;
  args.q = view(q, 3, TOKENS, HEADS, DIM, 0);
  args.k = view(k, 3, TOKENS, KV_HEADS, DIM, 0);
  args.v = view(v, 3, TOKENS, KV_HEADS, DIM, 0);
  args.out = view(out, 3, TOKENS, HEADS, DIM, 0);
  args.lse = view(lse, 2, HEADS, TOKENS, 0, 0);
  args.cu_seqlens_q = starts;
  args.cu_seqlens_k = starts;
  check(attn_sdpa_forward(plan, &args, workspace, bytes, NULL, &error), &error);

  for (b = 0; b < SEQUENCES; b++) {
    for (i = starts[b]; i < starts[b + 1]; i++) {
      for (h = 0; h < HEADS; h++) {
        int rows[MAX_KEYS], count = i - starts[b] + 1, j;
        double e;
        for (j = 0; j < count; j++) rows[j] = starts[b] + j;
        e = worst_of_query(q + (i * HEADS + h) * DIM, k, v, rows, count, h,
                           out + (i * HEADS + h) * DIM);
        if (!(e <= worst)) worst = e;
      }
    }
  }
  free(base);
  attn_plan_destroy(plan);
  return worst;
}

static double decode(const attn_context *context) {
  enum { PAGES = 9, PAGES_PER_SEQUENCE = MAX_KEYS / PAGE };
  /* Which pages hold a sequence's keys, in order; -1 where there is none yet. */
  static int32_t table[SEQUENCES * PAGES_PER_SEQUENCE] = {7, 0, 3, 5, 8, -1, 2, -1, -1};
  static int32_t lengths[SEQUENCES] = {9, 5, 2};
  static float k[PAGES * PAGE * KV_HEADS * DIM], v[PAGES * PAGE * KV_HEADS * DIM];
  static float q[SEQUENCES * HEADS * DIM], out[SEQUENCES * HEADS * DIM];
  attn_sdpa_desc desc = description();
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  attn_error error = ATTN_ERROR_INIT;
  attn_plan *plan;
  void *workspace, *base;
  size_t bytes;
  double worst = 0;
  int step, b, h;

  printf("decode of 2 steps from a paged cache\n");
  fill(k, sizeof k / sizeof *k, 4);
  fill(v, sizeof v / sizeof *v, 5);
  desc.kv_layout = ATTN_LAYOUT_PAGED_TABLE;
  desc.page_size = PAGE;
  desc.max_seqlen_q = 1;
  check(attn_sdpa_plan_create(context, &desc, NULL, &plan, &error), &error);
  workspace = workspace_for(plan, &bytes, &base);

  args.q = view(q, 4, SEQUENCES, 1, HEADS, DIM);
  args.k = view(k, 4, PAGES, PAGE, KV_HEADS, DIM);
  args.v = view(v, 4, PAGES, PAGE, KV_HEADS, DIM);
  args.out = view(out, 4, SEQUENCES, 1, HEADS, DIM);
  args.block_table = indices(table, SEQUENCES, PAGES_PER_SEQUENCE);
  args.seqused_k = lengths;
  for (step = 0; step < 2; step++) {
    fill(q, sizeof q / sizeof *q, 6 + (uint32_t)step);
    /* A server writes the new token's key and value into the cache here. */
    for (b = 0; b < SEQUENCES; b++) lengths[b]++;
    check(attn_sdpa_forward(plan, &args, workspace, bytes, NULL, &error), &error);
    for (b = 0; b < SEQUENCES; b++) {
      int rows[MAX_KEYS], j;
      for (j = 0; j < lengths[b]; j++) {
        rows[j] = table[b * PAGES_PER_SEQUENCE + j / PAGE] * PAGE + j % PAGE;
      }
      for (h = 0; h < HEADS; h++) {
        double e = worst_of_query(q + (b * HEADS + h) * DIM, k, v, rows, lengths[b], h,
                                  out + (b * HEADS + h) * DIM);
        if (!(e <= worst)) worst = e;
      }
    }
  }
  free(base);
  attn_plan_destroy(plan);
  return worst;
}

int main(void) {
  attn_error error = ATTN_ERROR_INIT;
  attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
  attn_context *context;
  double first, second;

  check(attn_abi_check(ATTN_ABI_VERSION, &error), &error);
  desc.backend = ATTN_BACKEND_CPU; /* for arrays in host memory; sdpa_cuda.c uses a GPU */
  check(attn_context_create(&desc, &context, &error), &error);
  printf("libattn %s\n", attn_version_string());
  first = prefill(context);
  printf("  largest difference from plain loops: %.2g\n", first);
  second = decode(context);
  printf("  largest difference from plain loops: %.2g\n", second);
  attn_context_destroy(context);
  if (!(first < 1e-5 && second < 1e-5)) {
    fprintf(stderr, "the result is wrong\n");
    return 1;
  }
  return 0;
}
