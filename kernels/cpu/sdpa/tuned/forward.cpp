#include "kernels/cpu/sdpa/tuned/forward.hpp"

#include <algorithm>

#include "core/ceil_div.hpp"
#include "core/workspace.hpp"
#include "kernels/cpu/common/device.hpp"
#include "kernels/cpu/sdpa/tuned/forward_call.hpp"

namespace attn::cpu {
namespace {

using namespace tuned;

constexpr int64_t kMaxTokens = int64_t{1} << 30;
constexpr int64_t kMaxHeadDim = 1024;

struct Blocking {
  int key_block;
  int64_t rows_per_task;
};

int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Block sizes by what must stay in a core's caches: a panel's scores (key_block * panel) in half of
// the L1, the key block and the task's Q and O in half of a 1 MiB L2.
Blocking blocking_of(const attn_sdpa_desc &d, int panel) {
  const int64_t dims = d.head_dim_qk + d.head_dim_v;
  Blocking b;
  b.key_block = static_cast<int>(std::clamp<int64_t>(65536 / dims / 32 * 32, 64, 256));
  const int64_t rows = std::clamp<int64_t>(65536 / dims, 64, 256);
  const int64_t group = d.num_q_heads / d.num_kv_heads;
  const int64_t most = std::max<int64_t>(d.max_seqlen_q * group, 1);
  b.rows_per_task = std::max<int64_t>(round_up(std::min(rows / panel * panel, most), panel), panel);
  return b;
}

ForwardScratch scratch_of(const attn_sdpa_desc &d, const Blocking &b, const ForwardTarget &target) {
  ForwardScratch s;
  const auto take = [&](int64_t floats) {
    const size_t at = s.floats;
    s.floats += static_cast<size_t>(round_up(floats, 16));  // 64 bytes
    return at;
  };
  const int64_t panel = target.panel;
  s.q = take(b.rows_per_task * d.head_dim_qk);
  s.o = take(b.rows_per_task * d.head_dim_v);
  s.s = take(b.key_block * panel);
  s.k = take(int64_t{b.key_block} * d.head_dim_qk);
  s.v = take(int64_t{b.key_block} * d.head_dim_v);
  s.stage = take(panel * std::max(kStageColumns, kMaskGroup));
  s.bias = take(kMaskGroup * panel);
  s.panels = take(b.rows_per_task / panel *
                  static_cast<int64_t>((target.panel_state_bytes + 63) / 64 * 16));
  s.hidden = take((b.key_block + 3) / 4);
  // Threads' scratches must not meet in a cache line, nor all start in the same cache set.
  s.floats = static_cast<size_t>(round_up(static_cast<int64_t>(s.floats), 1024)) + 80;
  return s;
}

bool is_wide_or_half(int32_t dtype) {
  return dtype == ATTN_DTYPE_FP32 || dtype == ATTN_DTYPE_FP16 || dtype == ATTN_DTYPE_BF16;
}

}  // namespace

Verdict forward_serves(const sdpa::Problem &problem, const Device &) {
  const attn_sdpa_desc &d = problem.d;
  if (problem.backward()) return Verdict::refuses("is a forward kernel");
  for (int32_t dtype : {d.q_dtype, d.k_dtype, d.v_dtype, d.out_dtype}) {
    if (!is_wide_or_half(dtype)) return Verdict::refuses("takes fp32, fp16 and bf16 only");
  }
  for (const attn_quant *quant : {&d.q_quant, &d.k_quant, &d.v_quant, &d.out_quant}) {
    if (quant->granularity != ATTN_QUANT_NONE) {
      return Verdict::refuses("does not take quantisation scales");
    }
  }
  if (!problem.softmax()) return Verdict::refuses("has no activation but softmax");
  if (problem.has(ATTN_SDPA_DROPOUT)) return Verdict::refuses("has no dropout");
  if (problem.has(ATTN_SDPA_BLOCK_SPARSE)) return Verdict::refuses("has no block-sparse lists");
  if (problem.has(ATTN_SDPA_GATE)) return Verdict::refuses("has no output gate");
  if (d.max_seqlen_k > kMaxTokens || d.max_seqlen_q > kMaxTokens) {
    return Verdict::refuses("takes sequences of up to 2^30 tokens");
  }
  if (d.head_dim_qk > kMaxHeadDim || d.head_dim_v > kMaxHeadDim) {
    return Verdict::refuses("takes head dims up to 1024");
  }
  return Verdict::serves();
}

size_t forward_workspace_bytes(const sdpa::Problem &problem, const Device &device) {
  const ForwardTarget &target = forward_target();
  const ForwardScratch s = scratch_of(problem.d, blocking_of(problem.d, target.panel), target);
  return s.floats * sizeof(float) * static_cast<size_t>(pool_of(device).num_threads());
}

int32_t forward_launch(const sdpa::Problem &problem, const sdpa::Call &inputs, const Device &device,
                       const Resources &resources, const ErrorSink &) {
  const attn_sdpa_desc &d = problem.d;
  const ThreadPool &pool = pool_of(device);
  const ForwardTarget &target = forward_target();
  const Blocking b = blocking_of(d, target.panel);
  ForwardCall call;
  call.desc = &d;
  call.args = &inputs.args;
  call.batch = inputs.batch;
  call.seqlen_q = inputs.seqlen_q;
  call.seqlen_k = inputs.seqlen_k;
  call.group = problem.group;
  call.key_block = b.key_block;
  call.scratch = scratch_of(d, b, target);
  call.thread_scratch = static_cast<float *>(resources.workspace);

  // The longest sequence of this call, which may be far below the plan's limit.
  int64_t longest = inputs.seqlen_q, tokens = inputs.batch * inputs.seqlen_q;
  if (problem.ragged_q()) {
    const int32_t *offsets = inputs.args.cu_seqlens_q;
    longest = 0;
    for (int64_t i = 0; i < inputs.batch; ++i) {
      longest = std::max<int64_t>(longest, offsets[i + 1] - offsets[i]);
    }
    tokens = inputs.batch > 0 ? offsets[inputs.batch] : 0;
    call.rest = tokens;
    call.rest_tokens = inputs.total_q - tokens;
  }
  const int64_t heads = inputs.batch * d.num_kv_heads;
  const int64_t rows = longest * call.group, rest_rows = call.rest_tokens * call.group;
  const int64_t most_rows = std::max(rows, rest_rows);
  if (most_rows == 0) return ATTN_OK;
  // Enough tasks for the threads to end together, if need be of fewer rows.
  call.rows_per_task = std::min(b.rows_per_task, round_up(most_rows, target.panel));
  while (pool.num_threads() > 1 && call.rows_per_task > target.panel &&
         tokens * call.group * d.num_kv_heads / call.rows_per_task < 4 * pool.num_threads()) {
    call.rows_per_task = round_up(call.rows_per_task / 2, target.panel);
  }
  call.levels = ceil_div(rows, call.rows_per_task);
  pool.parallel_for(heads * call.levels + d.num_kv_heads * ceil_div(rest_rows, call.rows_per_task),
                    [&](int64_t task, int thread) { target.task(call, task, thread); });
  return ATTN_OK;
}

}  // namespace attn::cpu
