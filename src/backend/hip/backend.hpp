// HIP's row in the table of backends.
#pragma once

#include <memory>

#include "core/device.hpp"

namespace attn::hip {

int32_t count(int32_t &count, const ErrorSink &error);
int32_t info(int32_t index, attn_device_info &info, const ErrorSink &error);
int32_t open(const attn_context_desc &desc, std::unique_ptr<Device> &device,
             const ErrorSink &error);

}  // namespace attn::hip
