#include "backend/gpu/sdpa_backward.hpp"

#include <algorithm>
#include <cstdint>

#include "core/ceil_div.hpp"
#include "core/saturating.hpp"
#include "core/workspace.hpp"
#include "kernels/common/gpu/sdpa_backward_params.hpp"

namespace attn::gpu {

namespace {

using sdpa::Call;
using sdpa::Problem;

// What every device gives a block without asking.
constexpr int32_t kMostSharedMemory = 48 * 1024;
constexpr int32_t kMostWarps = 8;
constexpr int64_t kMostBytes = int64_t{1} << 48;  // more than any address space has
static_assert(sizeof(SdpaBackwardParams) <= 4096);

int32_t warp_bytes(const Problem &p) {
  return BackwardLayout::bytes(p.d.head_dim_qk, p.d.head_dim_v);
}
int32_t warps_of(const Problem &p) {
  return std::clamp(kMostSharedMemory / warp_bytes(p), 1, kMostWarps);
}

struct Memory {
  BackwardRow *rows;  // [query place][num_q_heads]
  float *gated;       // [query place][num_q_heads][head_dim_v]; null: no gate
};

Memory carve(const Problem &p, int64_t queries, Carver &carver) {
  Memory m = {};
  m.rows = carver.take<BackwardRow>(queries * p.d.num_q_heads);
  if (p.has(ATTN_SDPA_GATE)) {
    m.gated = carver.take<float>(queries * p.d.num_q_heads * p.d.head_dim_v);
  }
  return m;
}

// The extents of a tensor's first dimensions, as a TokenView counts them.
int64_t outer_of(const attn_tensor &t) {
  return t.rank == 4 ? t.shape[0] : 1;
}
int64_t inner_of(const attn_tensor &t) {
  return t.shape[t.rank - 3];
}

}  // namespace

SdpaBackwardParams backward_params(const Problem &problem, const Call &call, void *workspace) {
  Carver carver(workspace);
  const Memory memory = carve(problem, call.total_q, carver);
  const attn_sdpa_desc &d = problem.d;
  const attn_sdpa_args &a = call.args;
  const attn_sdpa_backward_args &g = call.grads;
  SdpaBackwardParams p = {};
  p.in = make_score_inputs(d, a, call.seqlen_q, call.seqlen_k);
  p.q = token_view(a.q);
  p.k = token_view(a.k);
  p.v = token_view(a.v);
  p.out = token_view(a.out);
  p.dout = p.gated = token_view(g.dout);
  if (memory.gated != nullptr) {
    const int64_t token = int64_t{d.num_q_heads} * d.head_dim_v;
    p.gated = {memory.gated, ATTN_DTYPE_FP32, problem.ragged_q() ? 0 : call.seqlen_q * token,
               token,        d.head_dim_v,    1};
  }
  if (problem.softmax()) p.lse = query_view(a.lse, false);
  if (problem.wants(ATTN_SDPA_GRAD_LSE_IN)) p.dlse = query_view(g.dlse, false);
  if (problem.wants(ATTN_SDPA_GRAD_Q)) p.dq = token_view(g.dq);
  if (problem.wants(ATTN_SDPA_GRAD_K)) p.dk = token_view(g.dk);
  if (problem.wants(ATTN_SDPA_GRAD_V)) p.dv = token_view(g.dv);
  if (problem.wants(ATTN_SDPA_GRAD_GATE)) {
    p.dgate = token_view(g.dgate);
    p.dgate_n = static_cast<int32_t>(g.dgate.shape[g.dgate.rank - 1]);
  }
  if (problem.wants(ATTN_SDPA_GRAD_BIAS)) {
    const attn_tensor &t = g.dbias;
    p.dbias = query_view(t, true);
    p.bias_batch = outer_of(t);
    p.bias_heads = t.shape[t.rank - 3];
    p.bias_rows = t.shape[t.rank - 2];
    p.bias_keys = t.shape[t.rank - 1];
  }
  if (problem.wants(ATTN_SDPA_GRAD_SINK)) {
    p.dsink = static_cast<float *>(g.dsink.data);
    p.dsink_head = g.dsink.stride[0];
  }
  p.rows = memory.rows;
  p.batch = call.batch;
  p.places = call.total_q;
  p.key_outer = outer_of(a.k);
  p.key_inner = inner_of(a.k);
  p.latent = problem.latent() ? 1 : 0;
  p.group = problem.group;
  p.warps = warps_of(problem);
  p.warp_bytes = warp_bytes(problem);
  return p;
}

std::array<BackwardTasks, 5> backward_tasks(const Problem &problem, const Call &call,
                                            const SdpaBackwardParams &p) {
  const bool keys = problem.wants(ATTN_SDPA_GRAD_K) || problem.wants(ATTN_SDPA_GRAD_V);
  const int64_t queries = call.total_q * problem.d.num_q_heads;
  const auto if_wanted = [&](uint32_t grad, int64_t tasks) {
    return problem.wants(grad) ? tasks : 0;
  };
  return {{{BackwardStep::rows, queries},
           {BackwardStep::dq, if_wanted(ATTN_SDPA_GRAD_Q, queries)},
           {BackwardStep::keys, keys ? p.key_outer * p.key_inner * problem.d.num_kv_heads : 0},
           {BackwardStep::bias,
            if_wanted(ATTN_SDPA_GRAD_BIAS,
                      p.bias_batch * p.bias_heads * p.bias_rows * ceil_div(p.bias_keys, 32))},
           {BackwardStep::sink, if_wanted(ATTN_SDPA_GRAD_SINK, problem.d.num_q_heads)}}};
}

int32_t launch_backward_step(SdpaBackwardParams p, const BackwardTasks &tasks,
                             const GpuDevice &device, const Kernel &kernel, attn_stream stream,
                             const ErrorSink &error) {
  if (tasks.count == 0) return ATTN_OK;
  p.step = tasks.step;
  p.tasks = tasks.count;
  const LaunchShape launch = {
      .grid = {static_cast<uint32_t>(std::min<int64_t>(ceil_div(p.tasks, p.warps), INT32_MAX)), 1,
               1},
      .threads = static_cast<uint32_t>(p.warps * 32),
      .dynamic_smem = static_cast<uint32_t>(p.warps * p.warp_bytes)};
  return device.launch(kernel, launch, &p, stream, error);
}

Verdict backward_serves(const Problem &p, const Device &) {
  if (warp_bytes(p) > kMostSharedMemory) {
    return Verdict::refuses("a block's shared memory does not hold rows of these head dims");
  }
  if (saturating_product({p.most_queries(), p.d.num_q_heads,
                          int64_t{sizeof(BackwardRow)} +
                              (p.has(ATTN_SDPA_GATE) ? int64_t{4} * p.d.head_dim_v : 0)}) >
      kMostBytes) {
    return Verdict::refuses("the statistics of that many queries take more than 2^48 bytes");
  }
  return Verdict::serves();
}

size_t backward_workspace(const Problem &p, const Device &) {
  Carver carver;
  carve(p, p.most_queries(), carver);
  return carver.bytes();
}

int32_t prepare_backward(const Problem &p, const GpuDevice &device, const Kernel &kernel,
                         const ErrorSink &error) {
  return device.load(kernel, static_cast<uint32_t>(warps_of(p) * warp_bytes(p)), error);
}

int32_t launch_backward(const Problem &problem, const Call &call, const GpuDevice &device,
                        const Kernel &kernel, const Resources &resources, const ErrorSink &error) {
  const SdpaBackwardParams p = backward_params(problem, call, resources.workspace);
  for (const BackwardTasks &tasks : backward_tasks(problem, call, p)) {
    const int32_t status = launch_backward_step(p, tasks, device, kernel, resources.stream, error);
    if (status != ATTN_OK) return status;
  }
  return ATTN_OK;
}

}  // namespace attn::gpu
