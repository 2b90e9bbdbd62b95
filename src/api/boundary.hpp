// The wall between C callers and C++: no exception passes it.
#pragma once

#include <exception>
#include <new>
#include <utility>

#include "core/error.hpp"

namespace attn {

// Runs `body` and turns any exception into a status.
template <class Body>
int32_t guarded(const ErrorSink &error, Body &&body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (const std::bad_alloc &) {
    return error.fail(ATTN_ERROR_OUT_OF_MEMORY, "", "host memory ran out");
  } catch (const std::exception &exception) {
    return error.fail(ATTN_ERROR_INTERNAL, "", "a defect in libattn, please report it: %s",
                      exception.what());
  } catch (...) {
    return error.fail(ATTN_ERROR_INTERNAL, "", "a defect in libattn, please report it");
  }
}

inline int32_t require(const char *name, const void *pointer, const ErrorSink &error) {
  if (pointer != nullptr) return ATTN_OK;
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, name, "%s is NULL", name);
}

}  // namespace attn
