// The context behind the opaque handle.
#pragma once

#include <memory>

#include "core/device.hpp"
#include "core/log.hpp"

struct attn_context {
  int32_t backend;  // attn_backend, never AUTO
  std::unique_ptr<attn::Device> device;
  attn::Log log;
};
