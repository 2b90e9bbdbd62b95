// Bits of the listed key blocks of a block-sparse call, in the workspace: for kernels that take a
// tile of queries and walk the keys in order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/gpu/device.hpp"
#include "kernels/common/gpu/block_map_params.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::gpu {

inline constexpr size_t kMostBlockBytes = size_t{1} << 30;  // of a map

// Bytes that the map of any call of the problem takes at most; 0 if it is not block-sparse.
size_t block_map_bytes(const sdpa::Problem &problem);

// The map of a call in `memory`, of block_map_bytes(). Does nothing on the device.
BlockMap block_map(const sdpa::Problem &problem, const sdpa::Call &call, void *memory);

// Writes it, on the stream, by a backend's build of the kernel.
int32_t write_block_map(const GpuDevice &device, const Kernel &kernel, const sdpa::Problem &problem,
                        const sdpa::Call &call, const BlockMap &map, attn_stream stream,
                        const ErrorSink &error);

}  // namespace attn::gpu
