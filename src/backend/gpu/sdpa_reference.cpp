#include "backend/gpu/sdpa_reference.hpp"

#include <algorithm>
#include <cstdint>

#include "core/ceil_div.hpp"
#include "kernels/common/gpu/sdpa_reference_params.hpp"

namespace attn::gpu {

namespace {

using sdpa::Call;
using sdpa::Problem;

// What every device gives a block without asking.
constexpr int32_t kMostSharedMemory = 48 * 1024;
constexpr int32_t kMostWarps = 8;
static_assert(ReferenceLayout::bytes(4096, 4096) <= kMostSharedMemory);
static_assert(sizeof(SdpaReferenceParams) <= 4096);

// Warps of a block, and how many of them take different heads of one place: those that share a kv
// head read the same keys.
struct Shape {
  explicit Shape(const Problem &p)
      : warp_bytes(ReferenceLayout::bytes(p.d.head_dim_qk, p.d.head_dim_v)),
        warps(std::clamp(kMostSharedMemory / warp_bytes, 1, kMostWarps)),
        heads(1) {
    while (heads * 2 <= warps && p.group % (heads * 2) == 0) heads *= 2;
    warps = warps / heads * heads;
  }

  int32_t warp_bytes, warps, heads;
};

}  // namespace

int32_t prepare_reference(const Problem &problem, const GpuDevice &device, const Kernel &kernel,
                          const ErrorSink &error) {
  const Shape shape(problem);
  return device.load(kernel, static_cast<uint32_t>(shape.warps * shape.warp_bytes), error);
}

int32_t launch_reference(const Problem &problem, const Call &call, const GpuDevice &device,
                         const Kernel &kernel, attn_stream stream, const ErrorSink &error) {
  const attn_sdpa_desc &d = problem.d;
  const attn_sdpa_args &a = call.args;
  const Shape shape(problem);
  SdpaReferenceParams p = {};
  p.in = make_score_inputs(d, a, call.seqlen_q, call.seqlen_k);
  p.q = scaled_view(a.q, d.q_quant, a.q_scale, d.head_dim_qk);
  p.k = scaled_view(a.k, d.k_quant, a.k_scale, d.head_dim_qk);
  p.v = scaled_view(a.v, d.v_quant, a.v_scale, d.head_dim_v);
  p.out = scaled_view(a.out, d.out_quant, a.out_scale, d.head_dim_v);
  if (problem.has(ATTN_SDPA_RETURN_LSE)) p.lse = query_view(a.lse, false);
  if (problem.has(ATTN_SDPA_RETURN_ROW_MAX)) p.row_max = query_view(a.row_max, false);
  p.batch = call.batch;
  p.places = call.total_q;
  p.group = problem.group;
  p.heads = shape.heads;
  p.places_per_block = shape.warps / shape.heads;
  p.warp_bytes = shape.warp_bytes;
  p.tiles = ceil_div(p.places, p.places_per_block);
  p.blocks = p.tiles * (d.num_q_heads / shape.heads);
  const LaunchShape launch = {
      .grid = {static_cast<uint32_t>(std::min<int64_t>(p.blocks, INT32_MAX)), 1, 1},
      .threads = static_cast<uint32_t>(shape.warps * 32),
      .dynamic_smem = static_cast<uint32_t>(shape.warps * shape.warp_bytes)};
  return device.launch(kernel, launch, &p, stream, error);
}

}  // namespace attn::gpu
