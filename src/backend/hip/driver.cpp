#include "backend/hip/driver.hpp"

#include <dlfcn.h>
#include <link.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>

namespace attn::hip {
namespace {

// Newest first among those whose functions are as declared; 5 knows no recent device.
constexpr const char *kLibraries[] = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5",
                                      "libamdhip64.so", "/opt/rocm/lib/libamdhip64.so"};

// The outcome of looking for the runtime: a runtime, or a reason.
struct Search {
  Driver driver;
  char reason[320] = "";
  bool started = false;  // hipInit has been called

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

// A runtime in the process under whatever path: frameworks bring their own.
void *already_loaded() {
  void *library = nullptr;
  dl_iterate_phdr(
      [](dl_phdr_info *info, size_t, void *to) {
        if (info->dlpi_name == nullptr || std::strstr(info->dlpi_name, "libamdhip64") == nullptr) {
          return 0;
        }
        *static_cast<void **>(to) = dlopen(info->dlpi_name, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
        return *static_cast<void **>(to) != nullptr ? 1 : 0;
      },
      &library);
  return library;
}

Search::Search() {
  void *library = already_loaded();
  const char *asked_for = std::getenv("ATTN_HIP_RUNTIME");
  if (library == nullptr && asked_for != nullptr) {
    library = dlopen(asked_for, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      fail("ATTN_HIP_RUNTIME could not be loaded: %s", dlerror());
      return;
    }
  }
  for (const char *name : kLibraries) {
    if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    fail("the HIP runtime, libamdhip64.so (ROCm), could not be loaded: %s", dlerror());
    return;
  }
  look(library);
  // A runtime that was started, with success or without, may have threads and handlers of its own.
  if (!found() && !started) dlclose(library);
}

void Search::look(void *library) {
  const auto resolve = [&](const char *name, auto &function, bool required) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function != nullptr || !required || !found()) return;
    fail("libamdhip64.so lacks %s, which libattn needs: update ROCm", name);
  };
#define ATTN_REQUIRED(name, parameters) resolve(#name, driver.name, true);
#define ATTN_OPTIONAL(name, parameters) resolve(#name, driver.name, false);
#include "backend/hip/driver_symbols.inc"
#undef ATTN_OPTIONAL
#undef ATTN_REQUIRED
  resolve("hipGetErrorName", driver.hipGetErrorName, true);
  resolve("hipGetErrorString", driver.hipGetErrorString, true);
  if (!found()) return;
  started = true;
  const hipError_t code = driver.hipInit(0);
  // Older runtimes say "invalid device" where there is none.
  if (code == hipErrorNoDevice || code == hipErrorInvalidDevice) {
    fail("the HIP runtime is there, but no device (HIP_VISIBLE_DEVICES may hide it)");
  } else if (code != hipSuccess) {
    const char *name = driver.hipGetErrorName(code), *text = driver.hipGetErrorString(code);
    fail("the HIP runtime would not start: hipInit gave %s (%d): %s", name ? name : "no name", code,
         text ? text : "no description");
  }
}

}  // namespace

int32_t Driver::check(hipError_t code, const ErrorSink &error, const char *doing, ...) const {
  if (code == hipSuccess) return ATTN_OK;
  char what[200];
  va_list arguments;
  va_start(arguments, doing);
  std::vsnprintf(what, sizeof what, doing, arguments);
  va_end(arguments);
  const char *name = hipGetErrorName(code), *text = hipGetErrorString(code);
  const bool late = code >= hipErrorIllegalAddress && code <= hipErrorLaunchFailure;
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

}  // namespace attn::hip
