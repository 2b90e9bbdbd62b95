// Descriptors and calls at the limits of what may be asked: a plan or a refusal, no wrapped sizes.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "scenario.hpp"
#include "scenarios.hpp"

namespace scenario {
namespace {

constexpr int64_t kMost = INT32_MAX;

struct Context {
  Context() {
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = ATTN_BACKEND_CUDA;
    EXPECT(attn_context_create(&desc, &handle, nullptr) == ATTN_OK);
  }
  ~Context() { attn_context_destroy(handle); }

  attn_context *handle = nullptr;
};

// An upper bound would be enough for what the kernels write; exact where it is easy to say.
double least_workspace(const attn_sdpa_desc &d) {
  const auto ceil_div = [](int64_t a, int64_t b) { return static_cast<double>((a + b - 1) / b); };
  const auto batch = static_cast<double>(d.max_batch), heads = static_cast<double>(d.num_q_heads);
  double bytes = 0;
  if ((d.flags & ATTN_SDPA_BLOCK_SPARSE) != 0) {
    bytes += 4 * batch * heads * ceil_div(d.max_seqlen_q, d.block_size_q) *
             ceil_div((d.max_seqlen_k + d.block_size_k - 1) / d.block_size_k, 32);
  }
  const double pieces =
      d.split_policy == ATTN_SPLIT_FIXED ? ceil_div(d.max_seqlen_k, d.split_size) : 1;
  if (pieces > 1) {
    const double queries = d.q_layout == ATTN_LAYOUT_RAGGED
                               ? static_cast<double>(d.max_total_q)
                               : batch * static_cast<double>(d.max_seqlen_q);
    bytes += 4 * pieces * queries * heads * static_cast<double>(d.head_dim_qk + 1);
  }
  return bytes;
}

std::string text_of(const attn_sdpa_desc &d) {
  char text[200];
  std::snprintf(
      text, sizeof text,
      "batch %lld, seqlen %lld x %lld, total %lld, %d heads, layout %d, flags %llx, split %d",
      static_cast<long long>(d.max_batch), static_cast<long long>(d.max_seqlen_q),
      static_cast<long long>(d.max_seqlen_k), static_cast<long long>(d.max_total_q), d.num_q_heads,
      d.q_layout, static_cast<unsigned long long>(d.flags), d.split_size);
  return text;
}

void descriptors() {
  const Context context;
  const int64_t sizes[] = {0, 1, 1 << 15, 1 << 20, (1 << 29) - 1, 1 << 30, kMost};
  int planned = 0;
  attn_sdpa_desc d = ATTN_SDPA_DESC_INIT;
  d.q_dtype = ATTN_DTYPE_BF16;
  d.softmax_scale = 1;
  const auto plan = [&](const char *implementation) {
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    options.implementation = implementation;
    attn_plan *made = nullptr;
    attn_error error = ATTN_ERROR_INIT;
    const int32_t status = attn_sdpa_plan_create(context.handle, &d, &options, &made, &error);
    attn_plan_info info = ATTN_PLAN_INFO_INIT;
    if (status == ATTN_OK) {
      attn_plan_query(made, &info, nullptr);
      planned++;
      const bool tensor_cores = std::string(info.implementation) == "cuda/sdpa/forward/sm80";
      EXPECT_IN(text_of(d),
                !tensor_cores || static_cast<double>(info.workspace_bytes) >= least_workspace(d));
    } else {
      EXPECT_IN(text_of(d) + error.message, status == ATTN_ERROR_UNSUPPORTED);
    }
    attn_plan_destroy(made);
  };
  for (const int64_t batch : sizes) {
    for (const int64_t queries : sizes) {
      for (const int64_t keys : sizes) {
        for (const int32_t heads : {1, 1 << 16}) {
          for (const int32_t layout : {ATTN_LAYOUT_DENSE, ATTN_LAYOUT_RAGGED}) {
            for (const int kind : {0, 1, 2, 3}) {
              d.max_batch = batch;
              d.max_seqlen_q = queries;
              d.max_seqlen_k = keys;
              d.num_q_heads = heads;
              d.num_kv_heads = 1;
              d.head_dim_qk = d.head_dim_v = kind == 3 ? 512 : 64;
              d.q_layout = layout;
              d.max_total_q = layout == ATTN_LAYOUT_RAGGED ? 1000 : 0;
              d.flags = kind == 1 ? ATTN_SDPA_BLOCK_SPARSE : 0;
              d.block_size_q = d.block_size_k = kind == 1 ? 1 : 0;
              d.split_policy = kind == 2 ? ATTN_SPLIT_FIXED : ATTN_SPLIT_AUTO;
              d.split_size = kind == 2 ? 1 : 0;
              plan(nullptr);
              plan("cuda/sdpa/forward/sm80");
            }
          }
        }
      }
    }
  }
  EXPECT(planned > 1000);
}

// Any address: the fake reads and writes none.
void *const kMemory = reinterpret_cast<void *>(uintptr_t{0x7f0000000000});

attn_tensor tensor(std::vector<int64_t> shape, uintptr_t offset) {
  attn_tensor result = ATTN_TENSOR_INIT;
  attn_tensor_contiguous(&result, static_cast<char *>(kMemory) + offset, ATTN_DTYPE_BF16,
                         static_cast<int32_t>(shape.size()), shape.data(), nullptr);
  return result;
}

// Plans for `limits` and executes `args`: done or refused.
void execute(const attn_sdpa_desc &limits, const attn_sdpa_args &args) {
  const Context context;
  attn_plan *plan = nullptr;
  attn_error error = ATTN_ERROR_INIT;
  EXPECT_IN(error.message,
            attn_sdpa_plan_create(context.handle, &limits, nullptr, &plan, &error) == ATTN_OK);
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_plan_query(plan, &info, nullptr);
  const int32_t status =
      attn_sdpa_forward(plan, &args, kMemory, info.workspace_bytes, nullptr, &error);
  EXPECT_IN(text_of(limits) + ": " + error.message,
            status == ATTN_OK || status == ATTN_ERROR_UNSUPPORTED);
  attn_plan_destroy(plan);
}

void calls() {
  attn_sdpa_desc d = ATTN_SDPA_DESC_INIT;
  d.q_dtype = ATTN_DTYPE_BF16;
  d.num_kv_heads = 1;
  d.head_dim_qk = 64;
  d.softmax_scale = 1;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  const uintptr_t apart = uintptr_t{1} << 40;
  // No element anywhere, in as many sequences as there may be.
  for (const int32_t heads : {1, 256, 1 << 16}) {
    for (const int64_t batch : {int64_t{1} << 24, kMost}) {
      d.num_q_heads = heads;
      d.max_batch = batch;
      d.max_seqlen_q = 0;
      d.max_seqlen_k = 1 << 20;
      args.q = tensor({batch, 0, heads, 64}, 0);
      args.k = tensor({batch, 0, 1, 64}, 0);
      args.v = tensor({batch, 0, 1, 64}, 0);
      args.out = tensor({batch, 0, heads, 64}, 0);
      execute(d, args);
    }
  }
  // Few tokens under limits that many blocks would have to cover.
  for (const int32_t heads : {1, 64, 256, 1 << 16}) {
    for (const int64_t batch : {int64_t{1}, int64_t{1} << 10, int64_t{1} << 16, kMost}) {
      for (const int64_t queries : {32, 1 << 13, 1 << 22, (1 << 29) - 1}) {
        d.num_q_heads = heads;
        d.q_layout = ATTN_LAYOUT_RAGGED;
        d.max_batch = args.batch = batch;
        d.max_total_q = 128;
        d.max_seqlen_q = std::min<int64_t>(queries, ((1 << 30) - 1) / heads);
        args.q = tensor({128, heads, 64}, 0);
        args.out = tensor({128, heads, 64}, apart);
        args.cu_seqlens_q = static_cast<const int32_t *>(kMemory);
        d.kv_layout = ATTN_LAYOUT_PAGED_TABLE;
        d.page_size = 16;
        d.max_seqlen_k = 16;
        args.seqused_k = static_cast<const int32_t *>(kMemory);
        args.k = tensor({4, 16, 1, 64}, 2 * apart);
        args.v = tensor({4, 16, 1, 64}, 3 * apart);
        args.block_table = tensor({batch, 1}, 4 * apart);
        args.block_table.dtype = ATTN_DTYPE_INT32;
        execute(d, args);
      }
    }
  }
}

}  // namespace

void limits() {
  run("descriptors at their limits", [] {
    descriptors();
    expect_balanced();
  });
  run("calls at their limits", [] {
    calls();
    expect_balanced();
  });
}

}  // namespace scenario
