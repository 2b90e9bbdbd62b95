// The HIP backend's host code: what it says where the runtime, a device or code for it is missing,
// which runtime it takes, and that it leaves the caller's device as it was.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "attn/attn.h"

namespace {

int passed = 0, failed = 0;

void expect(bool good, const std::string &what) {
  (good ? passed : failed)++;
  if (!good) std::printf("FAILED %s\n", what.c_str());
}
void expect_error(const char *scenario, int32_t got, int32_t want, const attn_error &error,
                  const char *says) {
  expect(got == want && std::strstr(error.message, says) != nullptr,
         std::string(scenario) + ": " + attn_status_name(got) + ": " + error.message);
}

int32_t create(int32_t backend, int32_t index, int32_t threads, attn_context **context,
               attn_error *error) {
  attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
  desc.backend = backend;
  desc.device_index = index;
  desc.num_threads = threads;
  *error = ATTN_ERROR_INIT;
  return attn_context_create(&desc, context, error);
}

// No device can be had; `says` is why.
void unavailable(const char *scenario, const char *says) {
  attn_error error = ATTN_ERROR_INIT;
  int32_t count = 7;
  const int32_t status = attn_device_count(ATTN_BACKEND_HIP, &count, &error);
  expect_error(scenario, status, ATTN_ERROR_BACKEND_UNAVAILABLE, error, says);
  expect(count == 0, std::string(scenario) + ": the count is 0");
  attn_context *context = nullptr;
  expect_error(scenario, create(ATTN_BACKEND_HIP, 0, 0, &context, &error),
               ATTN_ERROR_BACKEND_UNAVAILABLE, error, says);
  expect(create(ATTN_BACKEND_AUTO, 0, 0, &context, &error) == ATTN_OK,
         std::string(scenario) + ": AUTO goes on");
  attn_device_info info = ATTN_DEVICE_INFO_INIT;
  attn_context_query(context, &info, nullptr);
  expect(info.backend == ATTN_BACKEND_CPU, std::string(scenario) + ": AUTO takes the CPU");
  attn_context_destroy(context);
}

// One query of one head, whose output is its only value.
bool works(const attn_context *context, void *hip) {
  const auto hipMalloc = reinterpret_cast<int (*)(void **, size_t)>(dlsym(hip, "hipMalloc"));
  const auto hipMemcpy = reinterpret_cast<int (*)(void *, const void *, size_t, int, void *)>(
      dlsym(hip, "hipMemcpyAsync"));
  float in[8], out[8] = {};
  for (int n = 0; n < 8; n++) in[n] = 0.5f * static_cast<float>(n);
  void *q = nullptr, *o = nullptr;
  hipMalloc(&q, sizeof in);
  hipMalloc(&o, sizeof out);
  hipMemcpy(q, in, sizeof in, 1, nullptr);
  attn_error error = ATTN_ERROR_INIT;
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.q_dtype = ATTN_DTYPE_FP32, desc.softmax_scale = 1;
  desc.num_q_heads = 1, desc.head_dim_qk = 8, desc.max_batch = 1;
  desc.max_seqlen_q = desc.max_seqlen_k = 1;
  attn_plan *plan = nullptr;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  const int64_t shape[] = {1, 1, 1, 8};
  for (attn_tensor *t : {&args.q, &args.k, &args.v}) {
    attn_tensor_contiguous(t, q, ATTN_DTYPE_FP32, 4, shape, nullptr);
  }
  attn_tensor_contiguous(&args.out, o, ATTN_DTYPE_FP32, 4, shape, nullptr);
  bool good = attn_sdpa_plan_create(context, &desc, nullptr, &plan, &error) == ATTN_OK &&
              attn_sdpa_forward(plan, &args, nullptr, 0, nullptr, &error) == ATTN_OK;
  hipMemcpy(out, o, sizeof out, 2, nullptr);
  attn_plan_destroy(plan);
  good = good && std::memcmp(in, out, sizeof in) == 0;
  if (!good) std::printf("  %s\n", error.message);
  return good;
}

// Two devices, in a process that has the runtime already.
void two_devices() {
  void *hip = dlopen("libamdhip64.so.6", RTLD_NOW | RTLD_LOCAL);
  const auto set = reinterpret_cast<int (*)(int)>(dlsym(hip, "hipSetDevice"));
  const auto get = reinterpret_cast<int (*)(int *)>(dlsym(hip, "hipGetDevice"));
  attn_error error = ATTN_ERROR_INIT;
  int32_t count = 0;
  expect(attn_device_count(ATTN_BACKEND_HIP, &count, &error) == ATTN_OK && count == 2,
         "two devices are counted");
  attn_device_info info = ATTN_DEVICE_INFO_INIT;
  expect(attn_device_query(ATTN_BACKEND_HIP, 1, &info, &error) == ATTN_OK &&
             info.backend == ATTN_BACKEND_HIP && info.device_index == 1 && info.num_units == 4 &&
             info.memory_bytes == uint64_t{16} << 30 &&
             std::strcmp(info.architecture, std::getenv("HIP_SIM_ARCH")) == 0 &&
             std::strcmp(info.name, "ISA interpreter 1") == 0,
         "device 1 is described");
  expect_error("device 2 of two", attn_device_query(ATTN_BACKEND_HIP, 2, &info, &error),
               ATTN_ERROR_INVALID_ARGUMENT, error, "device_index is 2; the HIP runtime has 2");
  attn_context *context = nullptr;
  expect_error("threads of a device", create(ATTN_BACKEND_HIP, 0, 3, &context, &error),
               ATTN_ERROR_INVALID_ARGUMENT, error, "desc.num_threads is 3");
  expect_error("device -1", create(ATTN_BACKEND_HIP, -1, 0, &context, &error),
               ATTN_ERROR_INVALID_ARGUMENT, error, "desc.device_index is -1");
  for (int index = 0; index < 2; index++) {
    for (int current = 0; current < 2; current++) {
      set(current);
      expect(create(ATTN_BACKEND_HIP, index, 0, &context, &error) == ATTN_OK, "a context");
      expect(works(context, hip), "an execute on device " + std::to_string(index));
      attn_context_destroy(context);
      int now = -1;
      get(&now);
      expect(now == current, "the caller's device is current afterwards");
    }
  }
  expect(create(ATTN_BACKEND_AUTO, 0, 0, &context, &error) == ATTN_OK, "AUTO");
  attn_context_query(context, &info, nullptr);
  expect(info.backend == ATTN_BACKEND_HIP, "AUTO takes the device");
  // The backward pass, and what it refuses: rows that shared memory does not hold.
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.pass = ATTN_SDPA_BACKWARD;
  desc.q_dtype = ATTN_DTYPE_FP32, desc.softmax_scale = 1;
  desc.num_q_heads = 1, desc.head_dim_qk = 8, desc.max_batch = 1;
  desc.max_seqlen_q = desc.max_seqlen_k = 1;
  expect(attn_sdpa_supported(context, &desc, nullptr, &error) == ATTN_OK, "backward");
  desc.head_dim_qk = 4096;
  expect_error("backward", attn_sdpa_supported(context, &desc, nullptr, &error),
               ATTN_ERROR_UNSUPPORTED, error, "does not hold rows of these head dims");
  attn_context_destroy(context);
}

int report() {
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char **argv) {
  const std::string scenario = argc > 1 ? argv[1] : "";
  if (scenario == "absent") {
    if (dlopen("libamdhip64.so", RTLD_NOW) != nullptr ||
        dlopen("libamdhip64.so.6", RTLD_NOW) != nullptr) {
      std::printf("NOT RUN: a HIP runtime is installed here\n");
      return 0;
    }
    unavailable("absent", "the HIP runtime, libamdhip64.so (ROCm), could not be loaded");
  } else if (scenario == "named") {
    unavailable("named", "ATTN_HIP_RUNTIME could not be loaded");
  } else if (scenario == "empty") {
    unavailable("empty", "the HIP runtime is there, but no device");
  } else if (scenario == "debian") {
    unavailable("debian", "the HIP runtime is there, but no device");
    expect(dlopen("libamdhip64.so.5", RTLD_NOW | RTLD_NOLOAD) != nullptr,
           "it is Debian's runtime that said so");
  } else if (scenario == "foreign") {
    unavailable("foreign", "is gfx906; libattn has code for gfx90a, gfx942");
  } else if (scenario == "two") {
    two_devices();
  } else {
    std::printf("absent, named, empty, debian, foreign or two\n");
    return 2;
  }
  return report();
}
