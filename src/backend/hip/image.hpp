// An embedded image: code objects for several architectures, each compressed. The build makes them
// (tools/build/hip_kernels.py, which describes the format).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "backend/gpu/device.hpp"

namespace attn::hip {

// The names of all architectures in the image, separated by ", ".
std::string architectures_of(const gpu::Image &image);
bool has_architecture(const gpu::Image &image, std::string_view architecture);

// Unpacks the code object for `architecture`; empty if there is none, or the image is damaged.
std::vector<unsigned char> unpack(const gpu::Image &image, std::string_view architecture);

}  // namespace attn::hip
