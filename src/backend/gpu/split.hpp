// Attention whose keys are cut into pieces, because its rows alone do not fill the chip: how many
// pieces, where their results go, and the step that merges them.
#pragma once

#include <cstdint>

#include "backend/gpu/merge.hpp"
#include "core/workspace.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::gpu {

constexpr int64_t kMostPartialBytes = int64_t{1} << 48;  // more than any address space has

// What a kernel makes of a problem's limits without pieces.
struct Filling {
  int64_t blocks;  // of the largest call
  int64_t places;  // for blocks on the device at a time
  int64_t tile;    // keys that a block takes at a time
};

// 1: the keys are not cut.
int32_t pieces_of_keys(const sdpa::Problem &problem, const Filling &filling);

// Memory of partial results; all null with one piece.
struct Partial {
  float *out = nullptr, *lse = nullptr, *max = nullptr;
};
Partial carve_partial(const sdpa::Problem &problem, int32_t pieces, int64_t total_q,
                      Carver &carver);
// About what that takes; saturates.
int64_t partial_bytes(const sdpa::Problem &problem, int32_t pieces, int64_t total_q);

// Merges what a kernel has left for the call's total_q queries. Sinks, the gate and the unit of the
// lse are applied here.
int32_t combine_partial(const sdpa::Problem &problem, const sdpa::Call &call,
                        const GpuDevice &device, MergeKernelOf kernel_of, const Partial &partial,
                        int32_t pieces, attn_stream stream, const ErrorSink &error);

}  // namespace attn::gpu
