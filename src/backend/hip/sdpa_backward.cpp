#include "backend/hip/sdpa_backward.hpp"

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "backend/gpu/position_rules.hpp"
#include "backend/gpu/sdpa_backward.hpp"
#include "backend/hip/rows.hpp"
#include "core/ceil_div.hpp"
#include "core/saturating.hpp"
#include "kernels/hip/any/sdpa/backward_matrix_params.hpp"

namespace attn::hip {

#define ATTN_VARIANT(entry, begin, end, step, element, head_dim) ATTN_GPU_IMAGE(entry, begin, end)
#include "kernels/hip/any/sdpa/backward_matrix_table.inc"
#undef ATTN_VARIANT

namespace {

using gpu::BackwardStep;
using sdpa::Call;
using sdpa::Problem;

constexpr int32_t fp16 = ATTN_DTYPE_FP16, bf16 = ATTN_DTYPE_BF16;

struct Variant {
  gpu::Kernel kernel;
  BackwardStep step;
  int32_t element, head_dim;
};
constexpr Variant kVariants[] = {
#define ATTN_VARIANT(entry, begin, end, step, element, head_dim) \
  {ATTN_GPU_KERNEL(entry), BackwardStep::step, element, head_dim},
#include "kernels/hip/any/sdpa/backward_matrix_table.inc"
#undef ATTN_VARIANT
};
constexpr int32_t kRows = 16;  // of a gradient, that a block has
static_assert(sizeof(SdpaBackwardMatrixParams) <= 4096);

// The smallest that holds the head dims; null if none does.
const Variant *find(const Problem &p, BackwardStep step) {
  const int32_t dim = std::max(p.d.head_dim_qk, p.d.head_dim_v);
  const Variant *best = nullptr;
  for (const Variant &v : kVariants) {
    if (v.step != step || v.element != p.d.q_dtype || v.head_dim < dim) continue;
    if (best == nullptr || v.head_dim < best->head_dim) best = &v;
  }
  return best;
}

bool wanted(const Problem &p, BackwardStep step) {
  if (step == BackwardStep::dq) return p.wants(ATTN_SDPA_GRAD_Q);
  return step == BackwardStep::keys && (p.wants(ATTN_SDPA_GRAD_K) || p.wants(ATTN_SDPA_GRAD_V));
}

int64_t blocks_of(const Problem &p, BackwardStep step, int64_t batch, int64_t rows) {
  const int64_t heads = step == BackwardStep::dq ? p.d.num_q_heads : p.d.num_kv_heads;
  return saturating_product({batch, heads, std::max<int64_t>(1, ceil_div(rows, kRows))});
}

// Whether the matrix kernels can read a call's rows and write its gradients.
bool takes(const Problem &p, const gpu::SdpaBackwardParams &call) {
  for (const TokenView &t : {call.q, call.k, call.v, call.dout}) {
    if (t.dtype != p.d.q_dtype || !reads_whole_rows(t)) return false;
  }
  for (const TokenView &t : {call.dq, call.dk, call.dv}) {
    if (t.data != nullptr && t.dtype != p.d.q_dtype) return false;
  }
  return true;
}

int32_t launch_matrix(const Problem &problem, const Call &call, const HipDevice &device,
                      const gpu::SdpaBackwardParams &params, BackwardStep step, attn_stream stream,
                      const ErrorSink &error) {
  const bool queries = step == BackwardStep::dq;
  const bool ragged = queries ? problem.ragged_q() : problem.ragged_k();
  SdpaBackwardMatrixParams p = {};
  p.call = params;
  p.rules = gpu::position_rules_32(problem.d);
  const int64_t rows = queries ? call.seqlen_q : call.seqlen_k;
  p.tiles = static_cast<int32_t>(std::max<int64_t>(1, ceil_div(rows, kRows)));
  // Behind the last sequence, ragged tensors may have tokens of none.
  const int64_t blocks = blocks_of(problem, step, call.batch + (ragged ? 1 : 0), rows);
  const Variant &variant = *find(problem, step);
  const gpu::LaunchShape launch = {.grid = {static_cast<uint32_t>(blocks), 1, 1},
                                   .threads = threads_for(device, variant.head_dim),
                                   .dynamic_smem = 0};
  return device.launch(variant.kernel, launch, &p, stream, error);
}

}  // namespace

Verdict backward_serves(const Problem &p, const Device &device) {
  const attn_sdpa_desc &d = p.d;
  if (find(p, BackwardStep::dq) == nullptr) {
    return Verdict::refuses("it takes fp16 or bf16, head dims up to 256");
  }
  if (d.k_dtype != d.q_dtype || d.v_dtype != d.q_dtype) {
    return Verdict::refuses("it takes q, k and v of one dtype");
  }
  if (d.head_dim_qk % 8 != 0 || d.head_dim_v % 8 != 0) {
    return Verdict::refuses("it takes head dims that are multiples of 8");
  }
  if (p.paged() || p.latent()) return Verdict::refuses("it takes dense and ragged keys and values");
  if (!p.softmax()) return Verdict::refuses("it takes softmax only");
  constexpr uint64_t kOthers = ATTN_SDPA_MASK | ATTN_SDPA_TAIL_MASK | ATTN_SDPA_SEGMENT_IDS |
                               ATTN_SDPA_BIAS | ATTN_SDPA_ALIBI | ATTN_SDPA_DROPOUT |
                               ATTN_SDPA_GATE | ATTN_SDPA_BLOCK_SPARSE;
  if (p.has(kOthers) || d.softcap != 0) {
    return Verdict::refuses(
        "it has no masks but those of positions, and no bias, ALiBi, dropout, gate, block lists or "
        "softcap");
  }
  // exp(s - lse) beside exp(s - lse with the sink): one weight would not do.
  if (p.wants(ATTN_SDPA_GRAD_LSE_IN) && p.has(ATTN_SDPA_SINK) &&
      !p.has(ATTN_SDPA_LSE_INCLUDES_SINK)) {
    return Verdict::refuses("it has no gradient of an lse without the sink");
  }
  constexpr int64_t kMost = 1 << 30;  // positions are counted in 32 bits
  if (d.max_seqlen_q >= kMost || d.max_seqlen_k >= kMost) {
    return Verdict::refuses("sequences are longer than 2^30 rows");
  }
  const int64_t batch = int64_t{d.max_batch} + 1;
  if (std::max(blocks_of(p, BackwardStep::dq, batch, d.max_seqlen_q),
               blocks_of(p, BackwardStep::keys, batch, d.max_seqlen_k)) > INT32_MAX) {
    return Verdict::refuses("there are more tiles than a grid has blocks");
  }
  return gpu::backward_serves(p, device);
}

int32_t backward_prepare(const Problem &p, const Device &device, const gpu::Kernel &portable,
                         const ErrorSink &error) {
  const gpu::GpuDevice &gpu = gpu::gpu_of(device);
  int32_t status = gpu::prepare_backward(p, gpu, portable, error);
  for (const BackwardStep step : {BackwardStep::dq, BackwardStep::keys}) {
    if (status == ATTN_OK && wanted(p, step)) status = gpu.load(find(p, step)->kernel, 0, error);
  }
  return status;
}

int32_t backward_launch(const Problem &problem, const Call &call, const Device &device,
                        const gpu::Kernel &portable, const Resources &resources,
                        const ErrorSink &error) {
  const auto &hip = static_cast<const HipDevice &>(device);
  const gpu::SdpaBackwardParams params = gpu::backward_params(problem, call, resources.workspace);
  const bool matrix = takes(problem, params);
  for (const gpu::BackwardTasks &tasks : gpu::backward_tasks(problem, call, params)) {
    if (tasks.count == 0) continue;
    const int32_t status =
        matrix && wanted(problem, tasks.step)
            ? launch_matrix(problem, call, hip, params, tasks.step, resources.stream, error)
            : gpu::launch_backward_step(params, tasks, hip, portable, resources.stream, error);
    if (status != ATTN_OK) return status;
  }
  return ATTN_OK;
}

}  // namespace attn::hip
