#include "backend/cuda/driver.hpp"

#include <dlfcn.h>

#include <cstdarg>
#include <cstdio>
#include <type_traits>

#include "attn_build.h"

namespace attn::cuda {
namespace {

constexpr const char kLibrary[] = "libcuda.so.1";
// Drivers load code that a toolkit of their own major version made.
constexpr int kOldest = ATTN_BUILD_CUDA_TOOLKIT / 1000 * 1000;
constexpr int kSymbolsAsOf = 12000;  // whose versions of the functions driver_symbols.inc declares

// Version 2 of cuGetProcAddress, which came with 12.0: the status tells why a symbol is missing.
using GetProcAddress = CUresult (*)(const char *symbol, void **function, int version,
                                    uint64_t flags, int *status);

// The outcome of looking for the driver: a driver, or a reason.
struct Search {
  Driver driver;
  char reason[320] = "";
  bool started = false;  // cuInit has been called

  Search();
  bool found() const { return reason[0] == 0; }

 private:
  void fail(const char *format, ...) __attribute__((format(printf, 2, 3)));
  void look(void *library);
};

void Search::fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(reason, sizeof reason, format, arguments);
  va_end(arguments);
}

Search::Search() {
  void *library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    fail("the NVIDIA driver's %s could not be loaded: %s", kLibrary, dlerror());
    return;
  }
  look(library);
  // A driver that was started, with success or without, may have threads and handlers of its own.
  if (!found() && !started) dlclose(library);
}

void Search::look(void *library) {
  const auto get_version =
      reinterpret_cast<CUresult (*)(int *)>(dlsym(library, "cuDriverGetVersion"));
  int version = 0;
  if (get_version == nullptr) {
    return fail("%s lacks cuDriverGetVersion: it is no NVIDIA driver", kLibrary);
  }
  if (const CUresult code = get_version(&version); code != CUDA_SUCCESS) {
    return fail("cuDriverGetVersion of %s failed with code %d", kLibrary, code);
  }
  if (version < kOldest) {
    return fail(
        "the NVIDIA driver serves CUDA %d.%d; libattn needs a driver for CUDA %d.%d or "
        "newer: update the driver",
        version / 1000, version % 1000 / 10, kOldest / 1000, kOldest % 1000 / 10);
  }
  const auto get = reinterpret_cast<GetProcAddress>(dlsym(library, "cuGetProcAddress_v2"));
  if (get == nullptr) {
    return fail("%s (CUDA %d.%d) lacks cuGetProcAddress_v2", kLibrary, version / 1000,
                version % 1000 / 10);
  }
  const auto resolve = [&](const char *name, auto &function) {
    void *found = nullptr;
    int status = 0;
    if (get(name, &found, kSymbolsAsOf, 0, &status) != CUDA_SUCCESS) found = nullptr;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
    return found != nullptr;
  };
  const auto require = [&](const char *name, auto &function) {
    if (!found() || resolve(name, function)) return;
    fail("%s (CUDA %d.%d) lacks %s, which libattn needs: reinstall or update the driver", kLibrary,
         version / 1000, version % 1000 / 10, name);
  };
#define ATTN_REQUIRED(name, parameters) require(#name, driver.name);
  // Newer than kSymbolsAsOf: asked for as of the driver's own version.
#define ATTN_OPTIONAL(name, parameters)                                                     \
  if (void *pointer = nullptr; get(#name, &pointer, version, 0, nullptr) == CUDA_SUCCESS) { \
    driver.name = reinterpret_cast<decltype(driver.name)>(pointer);                         \
  }
#include "backend/cuda/driver_symbols.inc"
#undef ATTN_OPTIONAL
#undef ATTN_REQUIRED
  if (!found()) return;
  started = true;
  const CUresult code = driver.cuInit(0);
  if (code == CUDA_ERROR_NO_DEVICE) {
    fail("the NVIDIA driver is there, but no CUDA device (CUDA_VISIBLE_DEVICES may hide it)");
  } else if (code != CUDA_SUCCESS) {
    const char *name = nullptr, *text = nullptr;
    driver.cuGetErrorName(code, &name);
    driver.cuGetErrorString(code, &text);
    fail("the NVIDIA driver would not start: cuInit gave %s (%d): %s", name ? name : "no name",
         code, text ? text : "no description");
  }
}

}  // namespace

int32_t Driver::check(CUresult code, const ErrorSink &error, const char *doing, ...) const {
  if (code == CUDA_SUCCESS) return ATTN_OK;
  char what[200];
  va_list arguments;
  va_start(arguments, doing);
  std::vsnprintf(what, sizeof what, doing, arguments);
  va_end(arguments);
  const char *name = nullptr, *text = nullptr;
  cuGetErrorName(code, &name);
  cuGetErrorString(code, &text);
  const bool late = code >= CUDA_ERROR_ILLEGAL_ADDRESS && code <= CUDA_ERROR_LAUNCH_FAILED;
  return error.device_failure(code, "%s: %s (%d): %s%s", what, name ? name : "unknown error", code,
                              text ? text : "no description",
                              late ? " (work issued earlier may have caused it)" : "");
}

int32_t load_driver(const Driver *&driver, const ErrorSink &error) {
  static const Search search;
  driver = &search.driver;
  if (search.found()) return ATTN_OK;
  return error.fail(ATTN_ERROR_BACKEND_UNAVAILABLE, "backend", "%s", search.reason);
}

}  // namespace attn::cuda
