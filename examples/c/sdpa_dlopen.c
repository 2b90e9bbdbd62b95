/* Attention from a library that is found at run time: the program starts without libattn, and
 * offers the feature only where the library is installed and new enough.
 *
 * Build:  cc -std=c99 sdpa_dlopen.c $(pkg-config --cflags attn) -ldl -o sdpa_dlopen
 * Run:    ./sdpa_dlopen [path of libattn.so.1]
 *
 * Load libattn.so.1, the name with the ABI's major: plain libattn.so belongs to the development
 * package. Ask attn_abi_version first: it is the one function that never changes. */
#include <attn/attn.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* The functions that the program uses; X(name) for each. */
#define FUNCTIONS(X)        \
  X(attn_abi_check)         \
  X(attn_context_create)    \
  X(attn_context_destroy)   \
  X(attn_plan_destroy)      \
  X(attn_plan_query)        \
  X(attn_sdpa_forward)      \
  X(attn_sdpa_plan_create)  \
  X(attn_status_name)       \
  X(attn_tensor_contiguous) \
  X(attn_version_string)

/* A table with one pointer a function. The headers give the types, so that a wrong call does not
 * compile. */
static struct {
#define DECLARE(name) __typeof__(&name) name;
  FUNCTIONS(DECLARE)
#undef DECLARE
} lib;

/* dlsym returns an object pointer; ISO C has no cast from it to a function pointer, POSIX says that
 * the bytes are the same. */
static int resolve(void *library, const char *name, void *function) {
  *(void **)function = dlsym(library, name);
  if (*(void **)function == NULL) fprintf(stderr, "%s is missing: %s\n", name, dlerror());
  return *(void **)function != NULL;
}

/* Fills `lib`; 0 if there is no library that serves this program. */
static int load(const char *path) {
  uint32_t (*abi_version)(void);
  attn_error error = ATTN_ERROR_INIT;
  uint32_t version;
  int found = 1;
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "no libattn: %s\n", dlerror());
    return 0;
  }
  if (!resolve(library, "attn_abi_version", &abi_version)) return 0;
  version = abi_version();
  printf("%s has ABI %u.%u, this program needs %d.%d\n", path, (unsigned)(version >> 16),
         (unsigned)(version & 0xffff), ATTN_ABI_MAJOR, ATTN_ABI_MINOR);
  if (version >> 16 != ATTN_ABI_MAJOR) return 0;
#define RESOLVE(name) found &= resolve(library, #name, &lib.name);
  FUNCTIONS(RESOLVE)
#undef RESOLVE
  if (!found) return 0;
  if (lib.attn_abi_check(ATTN_ABI_VERSION, &error) != ATTN_OK) {
    fprintf(stderr, "%s\n", error.message);
    return 0;
  }
  return 1; /* never closed: plans and contexts point into it */
}

static void check(int32_t status, const attn_error *error) {
  if (status == ATTN_OK) return;
  fprintf(stderr, "%s in %s: %s\n", lib.attn_status_name(status), error->field, error->message);
  exit(1);
}

int main(int argc, char **argv) {
  /* One query of two keys with equal scores: the result is the mean of their values. */
  float q[4] = {1, 2, 3, 4}, k[8] = {0}, v[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[4];
  const int64_t q_shape[4] = {1, 1, 1, 4}, k_shape[4] = {1, 2, 1, 4};
  attn_error error = ATTN_ERROR_INIT;
  attn_context_desc context_desc = ATTN_CONTEXT_DESC_INIT;
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_context *context;
  attn_plan *plan;
  char *base, *workspace;
  size_t alignment;
  int d, wrong = 0;

  if (!load(argc > 1 ? argv[1] : "libattn.so.1")) return 1;
  printf("libattn %s\n", lib.attn_version_string());

  context_desc.backend = ATTN_BACKEND_CPU; /* the arrays above are host memory */
  check(lib.attn_context_create(&context_desc, &context, &error), &error);
  desc.q_dtype = ATTN_DTYPE_FP32;
  desc.num_q_heads = 1;
  desc.head_dim_qk = 4;
  desc.max_batch = 1;
  desc.max_seqlen_q = 1;
  desc.max_seqlen_k = 2;
  desc.softmax_scale = 0.5f;
  check(lib.attn_sdpa_plan_create(context, &desc, NULL, &plan, &error), &error);
  check(lib.attn_plan_query(plan, &info, &error), &error);
  alignment = info.workspace_alignment ? (size_t)info.workspace_alignment : 1;
  base = malloc((size_t)info.workspace_bytes + alignment);
  if (base == NULL) return 1;
  workspace = base + (alignment - (uintptr_t)base % alignment) % alignment;

  check(lib.attn_tensor_contiguous(&args.q, q, ATTN_DTYPE_FP32, 4, q_shape, &error), &error);
  check(lib.attn_tensor_contiguous(&args.k, k, ATTN_DTYPE_FP32, 4, k_shape, &error), &error);
  check(lib.attn_tensor_contiguous(&args.v, v, ATTN_DTYPE_FP32, 4, k_shape, &error), &error);
  check(lib.attn_tensor_contiguous(&args.out, out, ATTN_DTYPE_FP32, 4, q_shape, &error), &error);
  check(lib.attn_sdpa_forward(plan, &args, workspace, (size_t)info.workspace_bytes, NULL, &error),
        &error);

  for (d = 0; d < 4; d++) {
    float want = (v[d] + v[4 + d]) / 2;
    if (!(out[d] > want - 1e-5f && out[d] < want + 1e-5f)) wrong = 1;
  }
  printf("mean of the values: %g %g %g %g\n", out[0], out[1], out[2], out[3]);
  free(base);
  lib.attn_plan_destroy(plan);
  lib.attn_context_destroy(context);
  if (wrong) fprintf(stderr, "the result is wrong\n");
  return wrong;
}
