/* A program of the days of ABI 1.0: compiled with the frozen headers, run on today's library.
 *
 * It attends, attends to each half of the keys, merges the halves, and checks all three against
 * its own arithmetic. It must compile and pass for ever; never edit it for a newer library. */
#include <attn/attn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUERIES = 5, KEYS = 12, HEADS = 4, KV_HEADS = 2, DIM = 8 };

static float q[QUERIES * HEADS * DIM], k[KEYS * KV_HEADS * DIM], v[KEYS * KV_HEADS * DIM];
static int passed, failed;

static void check(int ok, const char *what) {
  if (ok) {
    passed++;
  } else {
    failed++;
    printf("old client: %s\n", what);
  }
}

static void must(int32_t status, const attn_error *error, const char *what) {
  if (status == ATTN_OK) return;
  printf("old client: %s: %s (%s): %s\n", what, attn_status_name(status), error->field,
         error->message);
  printf("%d passed, %d failed\n", passed, failed + 1);
  exit(1);
}

static void fill(float *x, int n, unsigned seed) {
  int i;
  for (i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

static attn_tensor view(void *data, int32_t rank, const int64_t *shape) {
  attn_tensor tensor = ATTN_TENSOR_INIT;
  attn_error error = ATTN_ERROR_INIT;
  must(attn_tensor_contiguous(&tensor, data, ATTN_DTYPE_FP32, rank, shape, &error), &error,
       "attn_tensor_contiguous");
  return tensor;
}

/* Attention over keys first .. first+count-1, without a mask; out [QUERIES, HEADS, DIM]. */
static void expected(int first, int count, double *out, double *lse) {
  int i, h, j, d;
  for (i = 0; i < QUERIES; i++) {
    for (h = 0; h < HEADS; h++) {
      int g = h / (HEADS / KV_HEADS);
      double sum = 0, *o = out + (i * HEADS + h) * DIM;
      for (d = 0; d < DIM; d++) o[d] = 0;
      for (j = first; j < first + count; j++) {
        double s = 0, w;
        for (d = 0; d < DIM; d++)
          s += q[(i * HEADS + h) * DIM + d] * k[(j * KV_HEADS + g) * DIM + d];
        w = exp(s * 0.5);
        sum += w;
        for (d = 0; d < DIM; d++) o[d] += w * v[(j * KV_HEADS + g) * DIM + d];
      }
      for (d = 0; d < DIM; d++) o[d] /= sum;
      lse[i * HEADS + h] = log(sum);
    }
  }
}

static void compare(const float *have, const double *want, int n, const char *what) {
  double worst = 0;
  int i;
  for (i = 0; i < n; i++) {
    double e = fabs(have[i] - want[i]);
    if (!(e <= worst)) worst = e; /* a NaN too */
  }
  if (!(worst < 1e-5)) printf("old client: %s is off by %g\n", what, worst);
  check(worst < 1e-5, what);
}

static void *workspace_of(const attn_plan *plan, size_t *bytes, void **base) {
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_error error = ATTN_ERROR_INIT;
  size_t align;
  must(attn_plan_query(plan, &info, &error), &error, "attn_plan_query");
  check(info.implementation != NULL && strncmp(info.implementation, "cpu/", 4) == 0,
        "the plan names its implementation");
  align = info.workspace_alignment > 0 ? (size_t)info.workspace_alignment : 1;
  *bytes = (size_t)info.workspace_bytes;
  *base = malloc(*bytes + align);
  if (*base == NULL) exit(1);
  return (void *)(((uintptr_t)*base + align - 1) / align * align);
}

/* Attends to some of the keys with a plan made for all. out and lse: query-major. */
static void attend(const attn_plan *plan, int first, int count, float *out, float *lse) {
  const int64_t q_shape[] = {1, QUERIES, HEADS, DIM}, lse_shape[] = {1, HEADS, QUERIES};
  int64_t k_shape[] = {1, KEYS, KV_HEADS, DIM};
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  attn_error error = ATTN_ERROR_INIT;
  size_t bytes;
  void *base, *workspace = workspace_of(plan, &bytes, &base);

  k_shape[1] = count;
  args.q = view(q, 4, q_shape);
  args.k = view(k + first * KV_HEADS * DIM, 4, k_shape);
  args.v = view(v + first * KV_HEADS * DIM, 4, k_shape);
  args.out = view(out, 4, q_shape);
  args.lse = view(lse, 3, lse_shape);
  args.lse.stride[1] = 1; /* [1, HEADS, QUERIES] over memory with the head last */
  args.lse.stride[2] = HEADS;
  must(attn_sdpa_forward(plan, &args, workspace, bytes, NULL, &error), &error, "attn_sdpa_forward");
  free(base);
}

int main(void) {
  static float out[QUERIES * HEADS * DIM], lse[QUERIES * HEADS];
  static float parts[2 * QUERIES * HEADS * DIM], parts_lse[2 * QUERIES * HEADS];
  static float merged[QUERIES * HEADS * DIM], merged_lse[QUERIES * HEADS];
  static double want[QUERIES * HEADS * DIM], want_lse[QUERIES * HEADS];
  const int n = QUERIES * HEADS * DIM, rows = QUERIES * HEADS;
  attn_error error = ATTN_ERROR_INIT;
  attn_context_desc context_desc = ATTN_CONTEXT_DESC_INIT;
  attn_device_info device = ATTN_DEVICE_INFO_INIT;
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  attn_merge_desc merge_desc = ATTN_MERGE_DESC_INIT;
  attn_merge_args merge_args = ATTN_MERGE_ARGS_INIT;
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  attn_context *context = NULL;
  attn_plan *plan = NULL, *reference = NULL, *merge = NULL;

  fill(q, QUERIES * HEADS * DIM, 1);
  fill(k, KEYS * KV_HEADS * DIM, 2);
  fill(v, KEYS * KV_HEADS * DIM, 3);

  check(attn_abi_version() >> 16 == ATTN_ABI_MAJOR, "the ABI's major is the client's");
  check(attn_abi_version() >= ATTN_ABI_VERSION, "the ABI's minor is not older");
  must(attn_abi_check(ATTN_ABI_VERSION, &error), &error, "attn_abi_check");
  check(strcmp(attn_dtype_name(ATTN_DTYPE_BF16), "bf16") == 0, "attn_dtype_name");
  check(attn_dtype_bits(ATTN_DTYPE_INT4) == 4, "attn_dtype_bits");

  context_desc.backend = ATTN_BACKEND_CPU;
  context_desc.num_threads = 2;
  must(attn_context_create(&context_desc, &context, &error), &error, "attn_context_create");
  must(attn_context_query(context, &device, &error), &error, "attn_context_query");
  check(device.backend == ATTN_BACKEND_CPU && device.num_units == 2, "attn_context_query");
  check(memchr(device.name, 0, sizeof device.name) != NULL, "the device's name ends");

  desc.flags = ATTN_SDPA_RETURN_LSE;
  desc.q_dtype = ATTN_DTYPE_FP32;
  desc.num_q_heads = HEADS;
  desc.num_kv_heads = KV_HEADS;
  desc.head_dim_qk = DIM;
  desc.max_batch = 1;
  desc.max_seqlen_q = QUERIES;
  desc.max_seqlen_k = KEYS;
  desc.softmax_scale = 0.5f;
  must(attn_sdpa_supported(context, &desc, NULL, &error), &error, "attn_sdpa_supported");
  must(attn_sdpa_plan_create(context, &desc, NULL, &plan, &error), &error, "attn_sdpa_plan_create");
  attend(plan, 0, KEYS, out, lse);
  expected(0, KEYS, want, want_lse);
  compare(out, want, n, "out");
  compare(lse, want_lse, rows, "lse");

  options.implementation = "cpu/sdpa/forward/reference";
  must(attn_sdpa_plan_create(context, &desc, &options, &reference, &error), &error,
       "attn_sdpa_plan_create with a named implementation");
  attend(reference, 0, KEYS, out, lse);
  compare(out, want, n, "the reference's out");

  attend(plan, 0, KEYS / 2, parts, parts_lse);
  attend(plan, KEYS / 2, KEYS - KEYS / 2, parts + n, parts_lse + rows);
  merge_desc.dtype = ATTN_DTYPE_FP32;
  merge_desc.flags = ATTN_MERGE_RETURN_LSE;
  merge_desc.num_heads = HEADS;
  merge_desc.head_dim = DIM;
  merge_desc.max_rows = QUERIES;
  merge_desc.max_parts = 2;
  must(attn_merge_plan_create(context, &merge_desc, NULL, &merge, &error), &error,
       "attn_merge_plan_create");
  {
    const int64_t part_shape[] = {QUERIES, 2, HEADS, DIM}, part_lse_shape[] = {QUERIES, 2, HEADS};
    const int64_t out_shape[] = {QUERIES, HEADS, DIM}, out_lse_shape[] = {QUERIES, HEADS};
    size_t bytes;
    void *base, *workspace = workspace_of(merge, &bytes, &base);
    merge_args.partial = view(parts, 4, part_shape);
    merge_args.partial.stride[0] = HEADS * DIM; /* parts first in memory */
    merge_args.partial.stride[1] = n;
    merge_args.partial_lse = view(parts_lse, 3, part_lse_shape);
    merge_args.partial_lse.stride[0] = HEADS;
    merge_args.partial_lse.stride[1] = rows;
    merge_args.out = view(merged, 3, out_shape);
    merge_args.out_lse = view(merged_lse, 2, out_lse_shape);
    must(attn_merge(merge, &merge_args, workspace, bytes, NULL, &error), &error, "attn_merge");
    free(base);
  }
  compare(merged, want, n, "the merged out");
  compare(merged_lse, want_lse, rows, "the merged lse");

  /* Errors reach an old client's record in full. */
  desc.num_kv_heads = 3;
  check(attn_sdpa_supported(context, &desc, NULL, &error) == ATTN_ERROR_INVALID_ARGUMENT &&
            error.status == ATTN_ERROR_INVALID_ARGUMENT &&
            strstr(error.field, "num_kv_heads") != NULL && error.message[0] != '\0',
        "a wrong number of kv heads is named");

  attn_plan_destroy(merge);
  attn_plan_destroy(reference);
  attn_plan_destroy(plan);
  attn_context_destroy(context);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
