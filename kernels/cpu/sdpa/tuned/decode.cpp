#include "kernels/cpu/sdpa/tuned/decode.hpp"

#include <cstdlib>

#include "core/workspace.hpp"
#include "kernels/cpu/common/device.hpp"
#include "kernels/cpu/sdpa/tuned/decode_call.hpp"

namespace attn::cpu {
namespace decode {
namespace {

bool is_float(int32_t dtype) {
  return dtype == ATTN_DTYPE_FP32 || dtype == ATTN_DTYPE_FP16 || dtype == ATTN_DTYPE_BF16;
}

// Rows of one key head at the limits.
int64_t rows_per_head(const sdpa::Problem &problem) {
  return std::max<int64_t>(problem.d.max_seqlen_q, 1) * problem.group;
}

int head_limit(const sdpa::Problem &problem) {
  return static_cast<int>(
      std::clamp<int64_t>(kRowsPerTask / rows_per_head(problem), 1, problem.d.num_kv_heads));
}

Scratch make_scratch(const sdpa::Problem &problem) {
  const int64_t dqk = padded(problem.d.head_dim_qk), dv = padded(problem.d.head_dim_v);
  const int64_t rows = rows_per_head(problem) * head_limit(problem);
  Scratch s;
  const auto take = [&s](int64_t floats) {
    const int64_t at = s.floats;
    s.floats += padded(floats);
    return at;
  };
  s.q = take(rows * dqk);
  s.o = take(rows * dv);
  s.m = take(rows);
  s.l = take(rows);
  s.s = take(padded(rows) * kBlock);
  s.wide_k = take(kBlock * dqk);
  s.wide_v = take(problem.latent() ? 0 : kBlock * dv);
  return s;
}

// Counts, or carves into `exec`.
size_t carve(const sdpa::Problem &problem, int threads, Carver carver, Exec *exec) {
  const attn_sdpa_desc &d = problem.d;
  const Scratch scratch = make_scratch(problem);
  const int64_t queries = problem.most_queries();
  const int64_t splits = split_limit(d, d.max_seqlen_k);
  const int64_t partials = splits > 1 ? queries * d.num_q_heads * splits : 0;
  float *thread_scratch = carver.take<float>(threads * scratch.floats);
  float *partial_o = carver.take<float>(partials * d.head_dim_v);
  float *partial_ml = carver.take<float>(partials * 2);
  if (exec != nullptr) {
    exec->scratch = scratch;
    exec->split_stride = splits;
    exec->thread_scratch = thread_scratch;
    exec->partial_o = partial_o;
    exec->partial_ml = partial_ml;
  }
  return carver.bytes();
}

}  // namespace

Sequence sequence(const sdpa::Problem &problem, const sdpa::Call &call, int64_t batch) {
  const attn_sdpa_args &a = call.args;
  Sequence s{};
  s.batch = batch;
  if (problem.ragged_q()) {
    s.q_row = a.cu_seqlens_q[batch];
    s.q_places = a.cu_seqlens_q[batch + 1] - s.q_row;
  } else {
    s.q_row = batch * call.seqlen_q;
    s.q_places = call.seqlen_q;
  }
  s.queries = problem.has(ATTN_SDPA_SEQUSED_Q) ? std::min<int64_t>(a.seqused_q[batch], s.q_places)
                                               : s.q_places;
  switch (problem.d.kv_layout) {
    case ATTN_LAYOUT_RAGGED:
      s.keys = a.cu_seqlens_k[batch + 1] - a.cu_seqlens_k[batch];
      break;
    case ATTN_LAYOUT_PAGED_CSR: {
      const int64_t pages = a.kv_page_indptr[batch + 1] - a.kv_page_indptr[batch];
      s.keys = pages > 0 ? (pages - 1) * problem.d.page_size + a.kv_last_page_len[batch] : 0;
      break;
    }
    case ATTN_LAYOUT_PAGED_TABLE:
      s.keys = a.seqused_k[batch];
      break;
    default:
      s.keys = call.seqlen_k;
  }
  if (problem.has(ATTN_SDPA_SEQUSED_K)) s.keys = std::min<int64_t>(s.keys, a.seqused_k[batch]);
  s.offset = problem.diagonal_offset(s.queries, s.keys);
  return s;
}

}  // namespace decode

Verdict decode_serves(const sdpa::Problem &problem, const Device &) {
  using namespace decode;
  const attn_sdpa_desc &d = problem.d;
  if (problem.backward()) return Verdict::refuses("decode has no backward pass");
  if (!problem.softmax()) return Verdict::refuses("decode computes softmax attention only");
  if (!is_float(d.q_dtype) || !is_float(d.k_dtype) || !is_float(d.v_dtype) ||
      !is_float(d.out_dtype)) {
    return Verdict::refuses("decode takes fp32, fp16 and bf16 only");
  }
  if (problem.has(ATTN_SDPA_DROPOUT)) return Verdict::refuses("decode has no dropout");
  if (problem.has(ATTN_SDPA_BLOCK_SPARSE)) return Verdict::refuses("decode has no block lists");
  if (d.max_seqlen_q > kMaxQueries) {
    return Verdict::refuses("decode serves at most 16 queries a sequence (max_seqlen_q)");
  }
  if (rows_per_head(problem) > kMaxRowsPerHead) {
    return Verdict::refuses("decode serves at most 512 queries times query heads a kv head");
  }
  return Verdict::serves();
}

size_t decode_workspace_bytes(const sdpa::Problem &problem, const Device &device) {
  return decode::carve(problem, pool_of(device).num_threads(), Carver(), nullptr);
}

int32_t decode_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                      const Resources &resources, const ErrorSink &) {
  using namespace decode;
  const ThreadPool &pool = pool_of(device);
  Exec exec;
  exec.problem = &problem;
  exec.call = &call;
  carve(problem, pool.num_threads(), Carver(resources.workspace), &exec);

  for (int64_t b = 0; b < call.batch; b++) {
    exec.max_splits =
        std::max(exec.max_splits, split_count(problem.d, sequence(problem, call, b).keys));
  }
  // Where the heads of a token lie side by side, one task walks several of them, so that memory is
  // read in order; but not at the price of idle threads. No result depends on this.
  const int64_t token = std::abs(call.args.k.stride[1]), head = std::abs(call.args.k.stride[2]);
  const int64_t token_stride = problem.ragged_k() ? std::abs(call.args.k.stride[0]) : token;
  const int64_t head_stride = problem.ragged_k() ? std::abs(call.args.k.stride[1]) : head;
  const int heads = problem.d.num_kv_heads;
  exec.heads_inside = head_stride < token_stride;
  exec.heads_per_task = exec.heads_inside ? head_limit(problem) : 1;
  exec.head_tasks = static_cast<int>(ceil_div(heads, exec.heads_per_task));
  while (exec.heads_per_task > 1 && exec.num_tasks() < 4 * pool.num_threads()) {
    exec.heads_per_task = (exec.heads_per_task + 1) / 2;
    exec.head_tasks = static_cast<int>(ceil_div(heads, exec.heads_per_task));
  }
  pool.parallel_for(exec.num_tasks(),
                    [&exec](int64_t task, int thread) { run_task(exec, task, thread); });
  if (exec.num_merges() > 0) {
    pool.parallel_for(exec.num_merges(), [&exec](int64_t merge, int) { run_merge(exec, merge); });
  }
  return ATTN_OK;
}

}  // namespace attn::cpu
