#include "kernels/cpu/sdpa/tuned/backward.hpp"

#include <algorithm>
#include <cmath>

#include "core/workspace.hpp"
#include "kernels/cpu/common/device.hpp"
#include "kernels/cpu/sdpa/reference/backward.hpp"
#include "kernels/cpu/sdpa/tuned/backward_call.hpp"

namespace attn::cpu {
namespace {

using namespace tuned;

constexpr int64_t kMaxHeadDim = 512;
// A thread keeps a head's queries, keys and gradients in fp32.
constexpr int64_t kMaxScratchFloats = int64_t{1} << 28;

BackwardScratch scratch_of(const attn_sdpa_desc &d) {
  const int64_t rows = backward_pad(std::max<int64_t>(d.max_seqlen_q, 1));
  const int64_t keys = std::max<int64_t>(d.max_seqlen_k, 1);
  const int64_t dqk = backward_pad(d.head_dim_qk), dv = backward_pad(d.head_dim_v);
  BackwardScratch s = {};
  const auto take = [&s](int64_t floats) {
    const int64_t at = s.floats;
    s.floats += (floats + 15) / 16 * 16;
    return at;
  };
  s.q_rows = take(rows * d.head_dim_qk);
  s.dout_rows = take(rows * d.head_dim_v);
  s.q_columns = take(rows * dqk);
  s.dout_columns = take(rows * dv);
  s.dq = take(rows * dqk);
  s.k = take(keys * d.head_dim_qk);
  s.v = take(keys * d.head_dim_v);
  s.k_columns = take(keys * dqk);
  s.dk = take(keys * dqk);
  s.dv = take(keys * dv);
  s.p = take(kBackwardKeys * kBackwardRows);
  s.ds = take(kBackwardKeys * kBackwardRows);
  s.lse = take(rows);
  s.d = take(rows);
  s.begin = take(rows);
  s.end = take(rows);
  s.sink = take(rows);
  s.stage = take(kBackwardPad * std::max(dqk, dv));
  // Threads' scratches must not all start in the same cache set.
  s.floats = (s.floats + 1023) / 1024 * 1024 + 80;
  return s;
}

// Floats of the gradients of keys that all tasks of paged keys together leave to be summed.
double part_floats(const sdpa::Problem &problem) {
  if (!problem.paged()) return 0;
  const attn_sdpa_desc &d = problem.d;
  return double(d.max_batch) * double(d.num_kv_heads) * double(d.max_seqlen_k) *
         double((problem.wants(ATTN_SDPA_GRAD_K) ? d.head_dim_qk : 0) +
                (problem.wants(ATTN_SDPA_GRAD_V) ? d.head_dim_v : 0));
}

// Counts, or carves into `exec`.
size_t carve(const sdpa::Problem &problem, int threads, Carver carver, BackwardExec *exec) {
  const BackwardScratch scratch = scratch_of(problem.d);
  float *thread_scratch = carver.take<float>(threads * scratch.floats);
  double *sink_parts = carver.take<double>(
      problem.wants(ATTN_SDPA_GRAD_SINK) ? problem.d.max_batch * problem.d.num_q_heads : 0);
  // Only within the limits that serves() checks do these fit.
  const bool paged =
      problem.paged() && (problem.wants(ATTN_SDPA_GRAD_K) || problem.wants(ATTN_SDPA_GRAD_V));
  const int64_t keys =
      paged ? problem.d.max_batch * problem.d.num_kv_heads * problem.d.max_seqlen_k : 0;
  const auto take_parts = [&](uint32_t gradient, int64_t dim) {
    return carver.take<float>(problem.wants(gradient) ? keys * dim : 0);
  };
  float *dk_parts = take_parts(ATTN_SDPA_GRAD_K, problem.d.head_dim_qk);
  float *dv_parts = take_parts(ATTN_SDPA_GRAD_V, problem.d.head_dim_v);
  PageUse *page_uses = carver.take<PageUse>(paged ? most_page_uses(problem) : 0);
  int64_t *page_groups = carver.take<int64_t>(paged ? most_page_uses(problem) + 1 : 0);
  if (exec != nullptr) {
    exec->dk_parts = dk_parts;
    exec->dv_parts = dv_parts;
    exec->page_uses = page_uses;
    exec->page_groups = page_groups;
    exec->scratch = scratch;
    exec->thread_scratch = thread_scratch;
    exec->sink_parts = sink_parts;
  }
  return carver.bytes();
}

// Whether the lse of some query is +inf or NaN. With +inf its keys with scores of +inf share all
// weight, which how many they are decides; with either, its q may be what must not reach keys that
// it does not see, not even times a weight of 0. Rare enough to leave the call to the reference.
bool has_special_rows(const sdpa::Problem &problem, const sdpa::Call &call,
                      const SequenceTable &sequences) {
  const QueryView lse = query_view(call.args.lse, false);
  for (int64_t b = 0; b < call.batch; b++) {
    const Sequence s = sequences.sequence(b);
    for (int64_t h = 0; h < problem.d.num_q_heads; h++) {
      for (int64_t i = 0; i < s.seqlen_q; i++) {
        const float value = static_cast<const float *>(lse.data)[lse.offset(s.query(i), h)];
        if (std::isnan(value) || (std::isinf(value) && value > 0)) return true;
      }
    }
  }
  return false;
}

bool is_float(int32_t dtype) {
  return dtype == ATTN_DTYPE_FP32 || dtype == ATTN_DTYPE_FP16 || dtype == ATTN_DTYPE_BF16;
}

}  // namespace

Verdict backward_serves(const sdpa::Problem &problem, const Device &) {
  const attn_sdpa_desc &d = problem.d;
  if (!problem.backward()) return Verdict::refuses("tuned backward: the pass is forward");
  if (!problem.softmax()) return Verdict::refuses("tuned backward has softmax only");
  for (int32_t dtype : {d.q_dtype, d.k_dtype, d.v_dtype, d.out_dtype}) {
    if (!is_float(dtype)) return Verdict::refuses("tuned backward takes fp32, fp16 and bf16 only");
  }
  for (const attn_quant *quant : {&d.q_quant, &d.k_quant, &d.v_quant, &d.out_quant}) {
    if (quant->granularity != ATTN_QUANT_NONE) {
      return Verdict::refuses("tuned backward takes no quantisation scales");
    }
  }
  if (problem.latent()) return Verdict::refuses("tuned backward has no latent KV");
  if (problem.has(ATTN_SDPA_DROPOUT)) return Verdict::refuses("tuned backward has no dropout");
  if (problem.has(ATTN_SDPA_BLOCK_SPARSE)) {
    return Verdict::refuses("tuned backward has no block-sparse lists");
  }
  if (problem.wants(ATTN_SDPA_GRAD_BIAS)) {
    return Verdict::refuses("tuned backward has no bias gradient");
  }
  if (problem.wants(ATTN_SDPA_GRAD_LSE_IN) && problem.has(ATTN_SDPA_SINK) &&
      !problem.has(ATTN_SDPA_LSE_INCLUDES_SINK)) {
    return Verdict::refuses("tuned backward has no dlse of an lse that excludes a sink");
  }
  if (d.head_dim_qk > kMaxHeadDim || d.head_dim_v > kMaxHeadDim) {
    return Verdict::refuses("tuned backward takes head dims up to 512");
  }
  if (std::max(d.max_seqlen_q, d.max_seqlen_k) > (1 << 24) ||
      scratch_of(d).floats > kMaxScratchFloats) {
    return Verdict::refuses("tuned backward would need more than 1 GiB of workspace a thread");
  }
  if (part_floats(problem) > kMaxScratchFloats) {
    return Verdict::refuses("tuned backward would need more than 1 GiB for gradients of pages");
  }
  return Verdict::serves();
}

size_t backward_workspace_bytes(const sdpa::Problem &problem, const Device &device) {
  return std::max(carve(problem, pool_of(device).num_threads(), Carver(), nullptr),
                  reference::backward_workspace(problem, device));
}

int32_t backward_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                        const Resources &resources, const ErrorSink &error) {
  const ThreadPool &pool = pool_of(device);
  BackwardExec exec;
  exec.problem = &problem;
  exec.call = &call;
  exec.sequences = make_sequence_table(problem.d, call.args, call.seqlen_q, call.seqlen_k);
  if (has_special_rows(problem, call, exec.sequences)) {
    return reference::backward_launch(problem, call, device, resources, error);
  }
  carve(problem, pool.num_threads(), Carver(resources.workspace), &exec);
  const int64_t heads = call.batch * problem.d.num_kv_heads;
  if (heads > 0 && 2 * heads <= pool.num_threads()) {
    exec.pieces = 2 * ((pool.num_threads() + heads - 1) / heads);
  }
  pool.parallel_for(exec.num_tasks(),
                    [&exec](int64_t task, int thread) { run_backward(exec, task, thread); });
  if (problem.paged()) {
    const bool dk = problem.wants(ATTN_SDPA_GRAD_K), dv = problem.wants(ATTN_SDPA_GRAD_V);
    if (dk || dv) {
      const attn_tensor &pool_of_pages = dk ? call.grads.dk : call.grads.dv;
      pool.parallel_for(pool_of_pages.shape[0],
                        [&exec](int64_t page, int) { clear_page(exec, page); });
      const int64_t used =
          group_pages(exec.sequences, call.batch, exec.page_uses, exec.page_groups);
      pool.parallel_for(used, [&exec](int64_t group, int) { sum_page(exec, group); });
    }
  }
  if (problem.ragged_q() || problem.ragged_k()) {
    pool.parallel_for(problem.d.num_q_heads,
                      [&exec](int64_t head, int) { clear_ragged_rest(exec, head); });
  }
  if (problem.wants(ATTN_SDPA_GRAD_SINK)) {
    const attn_tensor &dsink = call.grads.dsink;
    for (int64_t h = 0; h < problem.d.num_q_heads; h++) {
      double sum = 0;
      for (int64_t b = 0; b < call.batch; b++) {
        sum += exec.sink_parts[b * problem.d.num_q_heads + h];
      }
      static_cast<float *>(dsink.data)[h * dsink.stride[0]] = static_cast<float>(sum);
    }
  }
  return ATTN_OK;
}

}  // namespace attn::cpu
