// The table of backends, and the implementation lists of each. A new backend is a row here.
#include <cstring>

#include "attn_build.h"
#include "backend/cpu/backend.hpp"
#include "backend/cpu/lists.hpp"
#if ATTN_BUILD_HAS_CUDA
#include "backend/cuda/backend.hpp"
#include "backend/cuda/lists.hpp"
#endif
#if ATTN_BUILD_HAS_HIP
#include "backend/hip/backend.hpp"
#include "backend/hip/lists.hpp"
#endif
#include "core/device.hpp"
#include "ops/merge/problem.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn {
namespace {

template <int32_t Id>
int32_t not_built(const ErrorSink &error) {
  return error.fail(ATTN_ERROR_BACKEND_UNAVAILABLE, "backend",
                    "this build of libattn has no %s backend; attn_build_info() lists what it has",
                    Id == ATTN_BACKEND_CUDA ? "CUDA" : "HIP");
}

// A backend that this build lacks.
template <int32_t Id>
constexpr Backend absent(const char *name) {
  return {Id, name,
          [](int32_t &count, const ErrorSink &error) {
            count = 0;
            return not_built<Id>(error);
          },
          [](int32_t, attn_device_info &, const ErrorSink &error) { return not_built<Id>(error); },
          [](const attn_context_desc &, std::unique_ptr<Device> &, const ErrorSink &error) {
            return not_built<Id>(error);
          }};
}

// In the order in which AUTO tries them.
constexpr Backend kBackends[] = {
#if ATTN_BUILD_HAS_CUDA
    {ATTN_BACKEND_CUDA, "CUDA", cuda::count, cuda::info, cuda::open},
#else
    absent<ATTN_BACKEND_CUDA>("CUDA"),
#endif
#if ATTN_BUILD_HAS_HIP
    {ATTN_BACKEND_HIP, "HIP", hip::count, hip::info, hip::open},
#else
    absent<ATTN_BACKEND_HIP>("HIP"),
#endif
    {ATTN_BACKEND_CPU, "CPU", cpu::count, cpu::info, cpu::open},
};

}  // namespace

const Backend *find_backend(int32_t backend) {
  for (const Backend &row : kBackends) {
    if (backend == row.id) return &row;
    int32_t count = 0;
    if (backend == ATTN_BACKEND_AUTO && row.count(count, ErrorSink(nullptr)) == ATTN_OK &&
        count > 0) {
      return &row;
    }
  }
  return nullptr;
}

sdpa::List sdpa::implementations(int32_t backend, int32_t pass) {
#if ATTN_BUILD_HAS_CUDA
  if (backend == ATTN_BACKEND_CUDA) return cuda::sdpa_list(pass);
#endif
#if ATTN_BUILD_HAS_HIP
  if (backend == ATTN_BACKEND_HIP) return hip::sdpa_list(pass);
#endif
  return backend == ATTN_BACKEND_CPU ? cpu::sdpa_list(pass) : sdpa::List();
}

merge::List merge::implementations(int32_t backend) {
#if ATTN_BUILD_HAS_CUDA
  if (backend == ATTN_BACKEND_CUDA) return cuda::merge_list();
#endif
#if ATTN_BUILD_HAS_HIP
  if (backend == ATTN_BACKEND_HIP) return hip::merge_list();
#endif
  return backend == ATTN_BACKEND_CPU ? cpu::merge_list() : merge::List();
}

}  // namespace attn
