/* What execute costs the host on CUDA, beside cuLaunchKernel of the same kernels with the same
 * grids and parameters, which are read from a captured graph. Prints a JSON array; times are
 * medians in microseconds over batches. Uses libcuda.so.1 as it finds it: no headers of CUDA. */
#include <attn/attn.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

#define BATCHES 401
#define CALLS 50 /* in a batch: few enough not to fill the driver's queue */
#define MAX_KERNELS 8

typedef int CUresult;
typedef unsigned long long CUdeviceptr;
typedef struct {
  void *function;
  unsigned grid[3], block[3], shared_bytes;
  void **parameters, **extra;
  void *kernel, *context;
} KernelNode; /* CUDA_KERNEL_NODE_PARAMS_v2 */

#define FUNCTIONS(X)                                                                               \
  X(cuInit, (unsigned))                                                                            \
  X(cuDevicePrimaryCtxRetain, (void **, int))                                                      \
  X(cuCtxSetCurrent, (void *))                                                                     \
  X(cuMemAlloc_v2, (CUdeviceptr *, size_t))                                                        \
  X(cuMemsetD8_v2, (CUdeviceptr, unsigned char, size_t))                                           \
  X(cuStreamCreate, (void **, unsigned))                                                           \
  X(cuStreamSynchronize, (void *))                                                                 \
  X(cuStreamBeginCapture_v2, (void *, int))                                                        \
  X(cuStreamEndCapture, (void *, void **))                                                         \
  X(cuGraphGetNodes, (void *, void **, size_t *))                                                  \
  X(cuGraphNodeGetType, (void *, int *))                                                           \
  X(cuGraphKernelNodeGetParams_v2, (void *, KernelNode *))                                         \
  X(cuKernelGetFunction, (void **, void *))                                                        \
  X(cuLaunchKernel, (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, \
                     void *, void **, void **))

#define DECLARE(name, arguments) static CUresult(*name) arguments;
FUNCTIONS(DECLARE)

static void load_driver(void) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW);
  if (library == NULL) {
    fprintf(stderr, "bench-gpu-overhead: no CUDA driver: %s\n", dlerror());
    exit(2);
  }
#define LOAD(name, arguments)                                                    \
  {                                                                              \
    void *symbol = dlsym(library, #name);                                        \
    if (symbol == NULL) {                                                        \
      fprintf(stderr, "bench-gpu-overhead: the CUDA driver has no " #name "\n"); \
      exit(2);                                                                   \
    }                                                                            \
    memcpy(&name, &symbol, sizeof symbol);                                       \
  }
  FUNCTIONS(LOAD)
}

static void cuda(CUresult status, const char *what) {
  if (status == 0) return;
  fprintf(stderr, "bench-gpu-overhead: %s gives CUDA error %d\n", what, status);
  exit(1);
}
#define CUDA(call) cuda(call, #call)

static void require(int32_t status, const attn_error *error) {
  if (status == ATTN_OK) return;
  fprintf(stderr, "bench-gpu-overhead: %s: %s\n", attn_status_name(status), error->message);
  exit(1);
}

static attn_tensor view(size_t bytes, int32_t dtype, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t shape[4] = {a, b, c, d};
  CUdeviceptr memory = 0;
  attn_tensor t = ATTN_TENSOR_INIT;
  attn_error error = ATTN_ERROR_INIT;
  CUDA(cuMemAlloc_v2(&memory, bytes));
  CUDA(cuMemsetD8_v2(memory, 0, bytes));
  require(attn_tensor_contiguous(&t, (void *)(uintptr_t)memory, dtype, 4, shape, &error), &error);
  return t;
}

typedef struct {
  const char *name;
  int64_t seqlen_q, seqlen_k;
  int32_t heads;
} Case;

static void run(const attn_context *context, void *stream, const Case *c, int first) {
  enum { kHeadDim = 64 };
  attn_error error = ATTN_ERROR_INIT;
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_plan *plan = NULL;
  CUdeviceptr workspace = 0;
  const size_t row = (size_t)c->heads * kHeadDim * 2;
  static double execute_us[BATCHES], launch_us[BATCHES];
  void *graph = NULL, *nodes[MAX_KERNELS];
  KernelNode kernels[MAX_KERNELS];
  size_t count = 0, launches = 0;

  desc.q_dtype = ATTN_DTYPE_BF16;
  desc.num_q_heads = c->heads;
  desc.head_dim_qk = kHeadDim;
  desc.max_batch = 1;
  desc.max_seqlen_q = c->seqlen_q;
  desc.max_seqlen_k = c->seqlen_k;
  desc.softmax_scale = 0.125f;
  require(attn_sdpa_plan_create(context, &desc, NULL, &plan, &error), &error);
  require(attn_plan_prepare(plan, &error), &error);
  require(attn_plan_query(plan, &info, &error), &error);
  args.q = view(row * (size_t)c->seqlen_q, ATTN_DTYPE_BF16, 1, c->seqlen_q, c->heads, kHeadDim);
  args.k = view(row * (size_t)c->seqlen_k, ATTN_DTYPE_BF16, 1, c->seqlen_k, c->heads, kHeadDim);
  args.v = view(row * (size_t)c->seqlen_k, ATTN_DTYPE_BF16, 1, c->seqlen_k, c->heads, kHeadDim);
  args.out = view(row * (size_t)c->seqlen_q, ATTN_DTYPE_BF16, 1, c->seqlen_q, c->heads, kHeadDim);
  CUDA(cuMemAlloc_v2(&workspace, info.workspace_bytes + 1));

#define EXECUTE() \
  attn_sdpa_forward(plan, &args, (void *)(uintptr_t)workspace, info.workspace_bytes, stream, &error)
  require(EXECUTE(), &error);
  CUDA(cuStreamSynchronize(stream));
  CUDA(cuStreamBeginCapture_v2(stream, 1));
  require(EXECUTE(), &error);
  CUDA(cuStreamEndCapture(stream, &graph));
  count = MAX_KERNELS;
  CUDA(cuGraphGetNodes(graph, nodes, &count));
  for (size_t i = 0; i < count && i < MAX_KERNELS; i++) {
    int type = -1;
    CUDA(cuGraphNodeGetType(nodes[i], &type));
    if (type != 0) continue; /* not a kernel */
    memset(&kernels[launches], 0, sizeof kernels[launches]);
    CUDA(cuGraphKernelNodeGetParams_v2(nodes[i], &kernels[launches]));
    if (kernels[launches].function == NULL) {
      CUDA(cuKernelGetFunction(&kernels[launches].function, kernels[launches].kernel));
    }
    launches++;
  }
  for (int batch = 0; batch < BATCHES; batch++) {
    double begin = now_us();
    for (int call = 0; call < CALLS; call++) {
      if (EXECUTE() != ATTN_OK) require(EXECUTE(), &error);
    }
    execute_us[batch] = (now_us() - begin) / CALLS;
    CUDA(cuStreamSynchronize(stream));
    begin = now_us();
    for (int call = 0; call < CALLS; call++) {
      for (size_t k = 0; k < launches; k++) {
        const KernelNode *n = &kernels[k];
        const CUresult status = cuLaunchKernel(n->function, n->grid[0], n->grid[1], n->grid[2],
                                               n->block[0], n->block[1], n->block[2],
                                               n->shared_bytes, stream, n->parameters, n->extra);
        if (status != 0) cuda(status, "cuLaunchKernel");
      }
    }
    launch_us[batch] = (now_us() - begin) / CALLS;
    CUDA(cuStreamSynchronize(stream));
  }
  printf(
      "%s{\"name\": \"%s\", \"implementation\": \"%s\", \"kernels\": %zu, \"nodes\": %zu, "
      "\"execute_us\": %.3f, \"launch_us\": %.3f}",
      first ? "[" : ",\n ", c->name, info.implementation, launches, count,
      median(execute_us, BATCHES), median(launch_us, BATCHES));
  attn_plan_destroy(plan);
}

int main(int argc, char **argv) {
  static const Case cases[] = {
      {"execute", 1, 1, 1}, {"prefill", 128, 128, 8}, {"split", 1, 2048, 1}};
  attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
  attn_context *context = NULL;
  attn_error error = ATTN_ERROR_INIT;
  void *primary = NULL, *stream = NULL;
  if (argc > 1) {
    const int help = strcmp(argv[1], "--help") == 0;
    fputs(
        "usage: bench-gpu-overhead\n\n"
        "Times attn_sdpa_forward on tiny problems against launches of the same kernels, and\n"
        "prints the medians in microseconds as JSON.\n",
        help ? stdout : stderr);
    return help ? 0 : 2;
  }
  load_driver();
  desc.backend = ATTN_BACKEND_CUDA;
  require(attn_context_create(&desc, &context, &error), &error);
  CUDA(cuInit(0));
  CUDA(cuDevicePrimaryCtxRetain(&primary, 0));
  CUDA(cuCtxSetCurrent(primary));
  CUDA(cuStreamCreate(&stream, 1));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) run(context, stream, &cases[i], i == 0);
  puts("]");
  attn_context_destroy(context);
  return 0;
}
