#include "backend/hip/sdpa_forward.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "backend/gpu/device.hpp"
#include "core/ceil_div.hpp"
#include "core/saturating.hpp"
#include "kernels/hip/any/sdpa/forward_params.hpp"

namespace attn::hip {

#define ATTN_VARIANT(entry, begin, end, element, head_dim) ATTN_GPU_IMAGE(entry, begin, end)
#include "kernels/hip/any/sdpa/forward_table.inc"
#undef ATTN_VARIANT

namespace {

using sdpa::Call;
using sdpa::Problem;

constexpr int32_t fp16 = ATTN_DTYPE_FP16, bf16 = ATTN_DTYPE_BF16;

struct Variant {
  gpu::Kernel kernel;
  int32_t element, head_dim;
};
constexpr Variant kVariants[] = {
#define ATTN_VARIANT(entry, begin, end, element, head_dim) \
  {ATTN_GPU_KERNEL(entry), element, head_dim},
#include "kernels/hip/any/sdpa/forward_table.inc"
#undef ATTN_VARIANT
};
constexpr int32_t kQueries = 16;  // of a block, which is one wave
static_assert(sizeof(SdpaForwardParams) <= 4096);

// The smallest that holds the head dims; null if none does.
const Variant *find(const Problem &problem) {
  const int32_t dim = std::max(problem.d.head_dim_qk, problem.d.head_dim_v);
  const Variant *best = nullptr;
  for (const Variant &v : kVariants) {
    if (v.element != problem.d.q_dtype || v.head_dim < dim) continue;
    if (best == nullptr || v.head_dim < best->head_dim) best = &v;
  }
  return best;
}

// Waves of 64 and of 32 lanes are the kernel's own choice, by architecture.
uint32_t wave_of(const Device &device) {
  return std::string_view(device.info().architecture).starts_with("gfx9") ? 64 : 32;
}

int64_t blocks_of(int64_t batch, int64_t tiles, int64_t heads) {
  return saturating_product({batch, tiles, heads});
}

// Whether each row of 16-bit elements begins at a multiple of 16 bytes.
bool vectors(const TokenView &t) {
  const auto aligned = [](int64_t elements) { return elements % 8 == 0; };
  return t.dim == 1 && reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && aligned(t.outer) &&
         aligned(t.inner) && aligned(t.head);
}

}  // namespace

Verdict forward_serves(const Problem &p, const Device &) {
  const attn_sdpa_desc &d = p.d;
  if (find(p) == nullptr) return Verdict::refuses("it takes fp16 or bf16, head dims up to 64");
  if (d.k_dtype != d.q_dtype || d.v_dtype != d.q_dtype || d.out_dtype != d.q_dtype) {
    return Verdict::refuses("it takes q, k, v and out of one dtype");
  }
  if (!p.softmax()) return Verdict::refuses("it takes softmax only");
  if (p.has(ATTN_SDPA_DROPOUT) || p.has(ATTN_SDPA_BLOCK_SPARSE)) {
    return Verdict::refuses("it has no dropout and no block lists");
  }
  if (blocks_of(int64_t{d.max_batch} + 1, ceil_div(d.max_seqlen_q, kQueries), d.num_q_heads) >
      INT32_MAX) {
    return Verdict::refuses("there are more tiles of queries than a grid has blocks");
  }
  return Verdict::serves();
}

size_t forward_workspace(const Problem &, const Device &) {
  return 0;
}

int32_t forward_prepare(const Problem &problem, const Device &device, const ErrorSink &error) {
  return gpu::gpu_of(device).load(find(problem)->kernel, 0, error);
}

int32_t forward_launch(const Problem &problem, const Call &call, const Device &device,
                       const Resources &resources, const ErrorSink &error) {
  const attn_sdpa_desc &d = problem.d;
  const attn_sdpa_args &a = call.args;
  SdpaForwardParams p = {};
  p.in = make_score_inputs(d, a, call.seqlen_q, call.seqlen_k);
  p.q = token_view(a.q);
  p.k = token_view(a.k);
  p.v = token_view(a.v);
  p.out = token_view(a.out);
  if (problem.has(ATTN_SDPA_RETURN_LSE)) p.lse = query_view(a.lse, false);
  if (problem.has(ATTN_SDPA_RETURN_ROW_MAX)) p.row_max = query_view(a.row_max, false);
  p.batch = call.batch;
  p.places = call.total_q;
  p.tiles = static_cast<int32_t>(std::max<int64_t>(ceil_div(call.seqlen_q, kQueries), 1));
  p.heads = d.num_q_heads;
  p.group = problem.group;
  p.head_dim_qk = d.head_dim_qk;
  p.head_dim_v = d.head_dim_v;
  p.vector = vectors(p.q) && vectors(p.k);
  // Behind the last sequence, ragged queries may have tokens of none.
  const int64_t rows = call.batch + (problem.ragged_q() ? 1 : 0);
  const gpu::LaunchShape launch = {
      .grid = {static_cast<uint32_t>(blocks_of(rows, p.tiles, p.heads)), 1, 1},
      .threads = wave_of(device),
      .dynamic_smem = 0};
  if (call.total_q == 0) return ATTN_OK;
  return gpu::gpu_of(device).launch(find(problem)->kernel, launch, &p, resources.stream, error);
}

}  // namespace attn::hip
