/* Causal attention on a CUDA device, on a stream of its own; where there is none, on the CPU.
 *
 * Build:  cc -std=c99 sdpa_cuda.c $(pkg-config --cflags --libs attn) -ldl -lm -o sdpa_cuda
 *
 * libattn takes pointers and streams as the CUDA driver and every framework give them. The program
 * opens libcuda.so.1 itself, so that it needs no CUDA toolkit to be built; yours would include
 * cuda.h or cuda_runtime.h instead. It computes the same with plain loops, and exits with 1 if the
 * results differ. */
#include <attn/attn.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2, TOKENS = 48, HEADS = 8, KV_HEADS = 2, DIM = 64 };
enum { Q_SIZE = BATCH * TOKENS * HEADS * DIM, K_SIZE = BATCH * TOKENS * KV_HEADS * DIM };

/* Ends the program if a call failed: the record names the field, its value and the rule. */
static void check(int32_t status, const attn_error *error) {
  if (status == ATTN_OK) return;
  fprintf(stderr, "%s in %s: %s\n", attn_status_name(status), error->field, error->message);
  exit(1);
}

/* --- the CUDA driver: what this program uses of it ---------------------------------------------
 */

/* X(name in the library, name here, parameters) */
#define DRIVER(X)                                                                                 \
  X(cuInit, init, (unsigned flags))                                                               \
  X(cuDeviceGet, device_get, (int *device, int index))                                            \
  X(cuDevicePrimaryCtxRetain, retain, (void **context, int device))                               \
  X(cuDevicePrimaryCtxRelease_v2, release, (int device))                                          \
  X(cuCtxSetCurrent, set_current, (void *context))                                                \
  X(cuMemAlloc_v2, alloc, (uint64_t * address, size_t bytes))                                     \
  X(cuMemFree_v2, free, (uint64_t address))                                                       \
  X(cuMemcpyHtoDAsync_v2, to_device, (uint64_t to, const void *from, size_t bytes, void *stream)) \
  X(cuMemcpyDtoHAsync_v2, to_host, (void *to, uint64_t from, size_t bytes, void *stream))         \
  X(cuStreamCreate, stream_create, (void **stream, unsigned flags))                               \
  X(cuStreamSynchronize, synchronize, (void *stream))                                             \
  X(cuStreamDestroy_v2, stream_destroy, (void *stream))

static struct {
#define DECLARE(name, member, parameters) int(*member) parameters;
  DRIVER(DECLARE)
#undef DECLARE
} cuda;

static void cuda_check(int code, const char *call) {
  if (code == 0) return;
  fprintf(stderr, "%s failed with CUDA error %d\n", call, code);
  exit(1);
}
#define CUDA(member, arguments) cuda_check(cuda.member arguments, #member)

/* dlsym returns an object pointer; ISO C has no cast from it to a function pointer, POSIX says that
 * the bytes are the same. */
static void resolve(void *library, const char *name, void *function) {
  *(void **)function = dlsym(library, name);
  if (*(void **)function == NULL) {
    fprintf(stderr, "%s is missing: %s\n", name, dlerror());
    exit(1);
  }
}

/* Opens the driver and makes the device's primary context current, as the CUDA runtime does. */
static int open_cuda(int index) {
  int device = 0;
  void *context = NULL;
  void *library = dlopen("libcuda.so.1", RTLD_NOW);
  if (library == NULL) {
    fprintf(stderr, "libattn found a CUDA device, but: %s\n", dlerror());
    exit(1);
  }
#define RESOLVE(name, member, parameters) resolve(library, #name, &cuda.member);
  DRIVER(RESOLVE)
#undef RESOLVE
  CUDA(init, (0));
  CUDA(device_get, (&device, index));
  CUDA(retain, (&context, device));
  CUDA(set_current, (context));
  return device;
}

/* --- memory where the attention is computed ----------------------------------------------------
 */

static int on_gpu;
static void *stream; /* NULL is the default stream, and the only one of the CPU */

/* A device's address is a number to the driver and a void * to libattn. */
static void *memory(size_t bytes) {
  uint64_t address = 0;
  if (!on_gpu) return calloc(bytes ? bytes : 1, 1);
  CUDA(alloc, (&address, bytes ? bytes : 1));
  return (void *)(uintptr_t)address;
}

static void release(void *data) {
  if (on_gpu) {
    CUDA(free, ((uintptr_t)data));
  } else {
    free(data);
  }
}

static void copy_in(void *to, const float *from, size_t count) {
  if (on_gpu) {
    CUDA(to_device, ((uintptr_t)to, from, count * sizeof *from, stream));
  } else {
    memcpy(to, from, count * sizeof *from);
  }
}

static void copy_out(float *to, const void *from, size_t count) {
  if (on_gpu) {
    CUDA(to_host, (to, (uintptr_t)from, count * sizeof *to, stream));
    CUDA(synchronize, (stream));
  } else {
    memcpy(to, from, count * sizeof *to);
  }
}

/* -----------------------------------------------------------------------------------------------
 */

static attn_tensor view(void *data, int64_t heads) {
  attn_tensor tensor = ATTN_TENSOR_INIT;
  attn_error error = ATTN_ERROR_INIT;
  int64_t shape[4] = {BATCH, TOKENS, 0, DIM};
  shape[2] = heads;
  check(attn_tensor_contiguous(&tensor, data, ATTN_DTYPE_FP32, 4, shape, &error), &error);
  return tensor;
}

static void fill(float *x, size_t n, uint32_t seed) {
  size_t i;
  for (i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

/* The definition of attention. */
static double largest_difference(const float *q, const float *k, const float *v, const float *out) {
  double largest = 0;
  int b, i, j, h, d;
  for (b = 0; b < BATCH; b++) {
    for (i = 0; i < TOKENS; i++) {
      for (h = 0; h < HEADS; h++) {
        const size_t row = (size_t)((b * TOKENS + i) * HEADS + h) * DIM;
        double want[DIM] = {0}, sum = 0;
        for (j = 0; j <= i; j++) { /* causal: query i sees keys 0 to i */
          const size_t key = (size_t)((b * TOKENS + j) * KV_HEADS + h / (HEADS / KV_HEADS)) * DIM;
          double score = 0, weight;
          for (d = 0; d < DIM; d++) score += (double)q[row + (size_t)d] * k[key + (size_t)d];
          weight = exp(score / 8);
          sum += weight;
          for (d = 0; d < DIM; d++) want[d] += weight * v[key + (size_t)d];
        }
        for (d = 0; d < DIM; d++) {
          const double difference = fabs(want[d] / sum - out[row + (size_t)d]);
          if (!(difference <= largest)) largest = difference; /* so that NaN stays */
        }
      }
    }
  }
  return largest;
}

int main(void) {
  static float q[Q_SIZE], k[K_SIZE], v[K_SIZE], out[Q_SIZE];
  attn_error error = ATTN_ERROR_INIT;
  attn_context_desc context_desc = ATTN_CONTEXT_DESC_INIT;
  attn_device_info device_info = ATTN_DEVICE_INFO_INIT;
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_context *context;
  attn_plan *plan;
  void *workspace, *base;
  size_t bytes, alignment;
  int32_t devices = 0;
  int device = 0;
  double difference;

  check(attn_abi_check(ATTN_ABI_VERSION, &error), &error);
  on_gpu = attn_device_count(ATTN_BACKEND_CUDA, &devices, &error) == ATTN_OK && devices > 0;
  if (!on_gpu) printf("no CUDA device: ran on the CPU (%s)\n", error.message);
  if (on_gpu) {
    device = open_cuda(0);
    CUDA(stream_create, (&stream, 1)); /* 1: not ordered with the default stream */
  }
  context_desc.backend = on_gpu ? ATTN_BACKEND_CUDA : ATTN_BACKEND_CPU;
  check(attn_context_create(&context_desc, &context, &error), &error);
  check(attn_context_query(context, &device_info, &error), &error);

  desc.flags = ATTN_SDPA_CAUSAL;
  desc.q_dtype = ATTN_DTYPE_FP32;
  desc.num_q_heads = HEADS;
  desc.num_kv_heads = KV_HEADS;
  desc.head_dim_qk = DIM;
  desc.max_batch = BATCH;
  desc.max_seqlen_q = TOKENS;
  desc.max_seqlen_k = TOKENS;
  desc.softmax_scale = 0.125f; /* 1 / sqrt(DIM) */
  check(attn_sdpa_plan_create(context, &desc, NULL, &plan, &error), &error);
  check(attn_plan_prepare(plan, &error), &error); /* loads kernels now, not at the first execute */
  check(attn_plan_query(plan, &info, &error), &error);
  alignment = info.workspace_alignment ? (size_t)info.workspace_alignment : 1;
  bytes = (size_t)info.workspace_bytes;
  base = memory(bytes + alignment);
  workspace = (void *)(((uintptr_t)base + alignment - 1) / alignment * alignment);

  fill(q, Q_SIZE, 1);
  fill(k, K_SIZE, 2);
  fill(v, K_SIZE, 3);
  args.q = view(memory(sizeof q), HEADS);
  args.k = view(memory(sizeof k), KV_HEADS);
  args.v = view(memory(sizeof v), KV_HEADS);
  args.out = view(memory(sizeof out), HEADS);
  copy_in(args.q.data, q, Q_SIZE);
  copy_in(args.k.data, k, K_SIZE);
  copy_in(args.v.data, v, K_SIZE);
  /* In the stream's order, after the copies. On a GPU it returns before the work is done. */
  check(attn_sdpa_forward(plan, &args, workspace, bytes, stream, &error), &error);
  copy_out(out, args.out.data, Q_SIZE);

  difference = largest_difference(q, k, v, out);
  printf("%s on %s: largest difference from plain loops %.2g\n", info.implementation,
         device_info.name, difference);
  release(args.q.data);
  release(args.k.data);
  release(args.v.data);
  release(args.out.data);
  release(base);
  attn_plan_destroy(plan);
  attn_context_destroy(context);
  if (on_gpu) {
    CUDA(stream_destroy, (stream));
    CUDA(release, (device));
  }
  if (!(difference < 1e-5)) {
    fprintf(stderr, "the result is wrong\n");
    return 1;
  }
  return 0;
}
