// What core knows of a backend and of its devices: next to nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "attn/context.h"
#include "core/error.hpp"

namespace attn {

// One device as a context holds it; each backend derives its own. Immutable after creation.
class Device {
 public:
  virtual ~Device() = default;
  virtual attn_device_info info() const = 0;
  // The median time of `execute`, in microseconds, once it is warm.
  virtual int32_t time(const std::function<int32_t()> &execute, attn_stream stream, double &us,
                       const ErrorSink &error) const = 0;
};

// One row of the table of backends; a backend that this build lacks has a row that says why.
struct Backend {
  int32_t id;  // attn_backend
  const char *name;
  int32_t (*count)(int32_t &count, const ErrorSink &error);
  int32_t (*info)(int32_t index, attn_device_info &info, const ErrorSink &error);
  int32_t (*open)(const attn_context_desc &desc, std::unique_ptr<Device> &device,
                  const ErrorSink &error);
};

// The row of `backend`; for AUTO the best that has a device. Defined beside the table, in
// src/backend/registry.cpp. Null for a value that is no backend.
const Backend *find_backend(int32_t backend);

}  // namespace attn
