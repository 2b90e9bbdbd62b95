// What the launchers of kernels on matrix instructions have in common.
#pragma once

#include <cstdint>
#include <string_view>

#include "backend/hip/device.hpp"
#include "kernels/common/sequence.hpp"

namespace attn::hip {

inline constexpr int32_t kWaveDim = 64;  // of a head, that one wave of a block takes

// Threads of a block of kernels for head dims up to `head_dim`. Waves of 64 and of 32 lanes are the
// kernel's own choice, by architecture.
inline uint32_t threads_for(const Device &device, int32_t head_dim) {
  const bool wide = std::string_view(device.info().architecture).starts_with("gfx9");
  return static_cast<uint32_t>(head_dim / kWaveDim) * (wide ? 64 : 32);
}

// Whether each row of 16-bit elements begins at a multiple of 16 bytes.
inline bool reads_whole_rows(const TokenView &t) {
  const auto aligned = [](int64_t elements) { return elements % 8 == 0; };
  return t.dim == 1 && reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && aligned(t.outer) &&
         aligned(t.inner) && aligned(t.head);
}

}  // namespace attn::hip
