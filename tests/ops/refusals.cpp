// Bad input: every row breaks one rule, and must get the right status, an error that names the
// field and says its value, and outputs, workspace and plan pointer as they were. Every
// implementation that serves the unbroken problem is asked.
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "allocations.hpp"
#include "harness.hpp"
#include "sdpa_call.hpp"

// A table reads best with a row a case.
// clang-format off

namespace check {
namespace {

constexpr int32_t kInvalid = ATTN_ERROR_INVALID_ARGUMENT, kUnsupported = ATTN_ERROR_UNSUPPORTED,
                  kVersion = ATTN_ERROR_VERSION, kWorkspace = ATTN_ERROR_WORKSPACE;

// One attempt: a copy of a valid call, to be broken.
struct Attempt {
  attn_sdpa_desc desc;
  attn_sdpa_args args;
  attn_sdpa_backward_args grads;
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  bool no_plan = false, no_args = false, no_forward = false, no_context = false, no_desc = false;
  bool other_pass = false;  // executed with the other pass's function
  void *workspace = nullptr;
  size_t workspace_bytes = 0;
  attn_stream stream = nullptr;
  // Room for what a row points the arguments to.
  std::vector<int32_t> numbers, more_numbers;
  std::vector<float> floats;
  SdpaCall *call = nullptr;
};

struct Refusal {
  std::string name;
  const SdpaCase *base;
  bool at_plan;  // else at execute
  int32_t status;
  std::string field;                // part of attn_error.field
  std::string value;                // part of the message; may be empty
  std::function<void(Attempt &)> break_it;
  bool contents = false;  // what an array holds: only a backend on the host can look
};

std::vector<SdpaCase> make_bases() {
  const uint64_t stats = ATTN_SDPA_RETURN_LSE | ATTN_SDPA_RETURN_ROW_MAX;
  return {
      {.name = "dense", .flags = stats, .hq = 4, .hkv = 2, .sq = {4, 4}, .sk = {9, 9},
       .spare_k = 0},
      {.name = "ragged", .flags = stats | ATTN_SDPA_SEQUSED_Q | ATTN_SDPA_SEQUSED_K,
       .q_layout = ATTN_LAYOUT_RAGGED, .kv_layout = ATTN_LAYOUT_RAGGED, .hq = 4, .hkv = 2,
       .sq = {4, 3}, .sk = {9, 5}, .spare_q = 1, .spare_k = 2},
      {.name = "table", .flags = stats, .q_layout = ATTN_LAYOUT_RAGGED,
       .kv_layout = ATTN_LAYOUT_PAGED_TABLE, .page_size = 4, .hq = 4, .hkv = 2, .sq = {4, 3},
       .sk = {9, 5}},
      {.name = "csr", .flags = stats, .kv_layout = ATTN_LAYOUT_PAGED_CSR, .page_size = 4, .hq = 4,
       .hkv = 2, .sq = {3, 3}, .sk = {9, 5}},
      {.name = "options",
       .flags = stats | ATTN_SDPA_MASK | ATTN_SDPA_TAIL_MASK | ATTN_SDPA_SEGMENT_IDS |
                ATTN_SDPA_BIAS | ATTN_SDPA_ALIBI | ATTN_SDPA_SINK | ATTN_SDPA_DROPOUT |
                ATTN_SDPA_BLOCK_SPARSE | ATTN_SDPA_GATE | ATTN_SDPA_WINDOW,
       .hq = 4, .hkv = 2, .sq = {4, 4}, .sk = {9, 9}, .window_left = 5, .window_right = 5,
       .block_q = 2, .block_k = 3, .dropout_p = 0.5f},
      {.name = "quant", .flags = stats, .q_dtype = ATTN_DTYPE_BF16, .k_dtype = ATTN_DTYPE_INT8,
       .hq = 4, .hkv = 2, .sq = {4, 4}, .sk = {9, 9}, .k_quant = {ATTN_QUANT_TOKEN_HEAD, 0, 0, 0},
       .v_quant = {ATTN_QUANT_BLOCK, 16, ATTN_DTYPE_FP16, 0}},
      {.name = "backward", .pass = ATTN_SDPA_BACKWARD, .flags = ATTN_SDPA_BIAS | ATTN_SDPA_SINK,
       .grads = ATTN_SDPA_GRAD_Q | ATTN_SDPA_GRAD_K | ATTN_SDPA_GRAD_V | ATTN_SDPA_GRAD_BIAS |
                ATTN_SDPA_GRAD_SINK | ATTN_SDPA_GRAD_LSE_IN,
       .hq = 4, .hkv = 2, .sq = {4, 4}, .sk = {9, 9}},
      {.name = "latent", .flags = stats | ATTN_SDPA_LATENT_KV, .hq = 4, .hkv = 1, .dqk = 32,
       .dv = 16, .sq = {4}, .sk = {9}},
  };
}

// `text` with a copy of `array` in the attempt, changed.
const int32_t *changed(std::vector<int32_t> &room, const int32_t *array, size_t count, size_t at,
                       int32_t value) {
  room.assign(array, array + count);
  room[at] = value;
  return room.data();
}

std::vector<Refusal> table(const std::vector<SdpaCase> &bases) {
  const auto base = [&](const char *name) -> const SdpaCase * {
    for (const SdpaCase &c : bases) {
      if (c.name == name) return &c;
    }
    return nullptr;
  };
  const SdpaCase *dense = base("dense"), *ragged = base("ragged"), *paged = base("table"),
                 *csr = base("csr"), *options = base("options"), *quant = base("quant"),
                 *backward = base("backward"), *latent = base("latent");
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  std::vector<Refusal> rows;
  const auto desc = [&](const char *name, const SdpaCase *of, int32_t status, const char *field,
                        const char *value, std::function<void(attn_sdpa_desc &)> change) {
    rows.push_back({name, of, true, status, field, value,
                    [change](Attempt &a) { change(a.desc); }});
  };
  const auto args = [&](const char *name, const SdpaCase *of, int32_t status, const char *field,
                        const char *value, std::function<void(Attempt &)> change) {
    rows.push_back({name, of, false, status, field, value, std::move(change)});
  };
  const auto contents = [&](const char *name, const SdpaCase *of, int32_t status, const char *field,
                            const char *value, std::function<void(Attempt &)> change) {
    rows.push_back({name, of, false, status, field, value, std::move(change), true});
  };
#define DESC(field, number) [=](attn_sdpa_desc &d) { d.field = number; }
#define ARGS(statement) [=]([[maybe_unused]] Attempt &a) { statement; }

  // --- the descriptor ---
  desc("desc-size-zero", dense, kInvalid, "desc", "0", DESC(struct_size, 0));
  desc("desc-size-small", dense, kInvalid, "desc", "", DESC(struct_size, sizeof(d) - 1));
  desc("desc-size-absurd", dense, kInvalid, "desc", "4294967295", DESC(struct_size, UINT32_MAX));
  desc("pass", dense, kInvalid, "desc.pass", "2", DESC(pass, 2));
  desc("pass-negative", dense, kInvalid, "desc.pass", "-1", DESC(pass, -1));
  desc("unknown-flag", dense, kVersion, "desc.flags", "", DESC(flags, d.flags | 1ull << 18));
  desc("highest-flag", dense, kVersion, "desc.flags", "", DESC(flags, d.flags | 1ull << 63));
  desc("tf32-of-bf16", dense, kInvalid, "desc.flags", "bf16", [](attn_sdpa_desc &d) {
    d.flags |= ATTN_SDPA_ALLOW_TF32;
    d.q_dtype = ATTN_DTYPE_BF16;
  });
  desc("tf32-of-int8", quant, kInvalid, "desc.flags", "int8", [](attn_sdpa_desc &d) {
    d.flags |= ATTN_SDPA_ALLOW_TF32;
    d.q_dtype = ATTN_DTYPE_INT8;
    d.q_quant.granularity = ATTN_QUANT_TENSOR;
  });
  desc("tf32-backward-of-fp16", backward, kInvalid, "desc.flags", "fp16", [](attn_sdpa_desc &d) {
    d.flags |= ATTN_SDPA_ALLOW_TF32;
    d.q_dtype = ATTN_DTYPE_FP16;
  });
  desc("unknown-grad", backward, kVersion, "desc.grads", "", DESC(grads, 1u << 7));
  desc("grads-in-forward", dense, kInvalid, "desc.grads", "", DESC(grads, ATTN_SDPA_GRAD_Q));
  desc("grad-bias-without-bias", backward, kInvalid, "desc.grads", "BIAS",
       DESC(flags, d.flags & ~ATTN_SDPA_BIAS));
  desc("grad-sink-without-sink", backward, kInvalid, "desc.grads", "SINK",
       DESC(flags, d.flags & ~ATTN_SDPA_SINK));
  desc("grad-gate-without-gate", backward, kInvalid, "desc.grads", "GATE",
       DESC(grads, ATTN_SDPA_GRAD_GATE));
  desc("grad-v-latent", latent, kInvalid, "desc.grads", "", [](attn_sdpa_desc &d) {
    d.pass = ATTN_SDPA_BACKWARD;
    d.flags = ATTN_SDPA_LATENT_KV;
    d.grads = ATTN_SDPA_GRAD_V;
  });
  desc("q-dtype-missing", dense, kInvalid, "desc.q_dtype", "", DESC(q_dtype, 0));
  desc("q-dtype-unknown", dense, kInvalid, "desc.q_dtype", "99", DESC(q_dtype, 99));
  desc("q-dtype-int32", dense, kInvalid, "desc.q_dtype", "int32", DESC(q_dtype, ATTN_DTYPE_INT32));
  desc("k-dtype-e8m0", dense, kInvalid, "desc.k_dtype", "", DESC(k_dtype, ATTN_DTYPE_FP8_E8M0));
  desc("v-dtype-unknown", dense, kInvalid, "desc.v_dtype", "-3", DESC(v_dtype, -3));
  desc("out-dtype-uint8", dense, kInvalid, "desc.out_dtype", "uint8",
       DESC(out_dtype, ATTN_DTYPE_UINT8));
  desc("backward-quantised-k", backward, kUnsupported, "desc.k_dtype", "int8",
       [](attn_sdpa_desc &d) {
         d.k_dtype = ATTN_DTYPE_INT8;
         d.k_quant.granularity = ATTN_QUANT_TENSOR;
         d.v_quant = d.k_quant;
       });
  desc("latent-v-dtype", latent, kInvalid, "desc.v_dtype", "fp16", DESC(v_dtype, ATTN_DTYPE_FP16));
  desc("latent-head-dim-v", latent, kInvalid, "desc.head_dim_v", "33", DESC(head_dim_v, 33));
  desc("q-layout-paged", dense, kInvalid, "desc.q_layout", "2",
       DESC(q_layout, ATTN_LAYOUT_PAGED_TABLE));
  desc("q-layout-unknown", dense, kInvalid, "desc.q_layout", "4", DESC(q_layout, 4));
  desc("kv-layout-unknown", dense, kInvalid, "desc.kv_layout", "-1", DESC(kv_layout, -1));
  desc("page-size-missing", paged, kInvalid, "desc.page_size", "0", DESC(page_size, 0));
  desc("page-size-negative", csr, kInvalid, "desc.page_size", "-4", DESC(page_size, -4));
  desc("page-size-without-pages", dense, kInvalid, "desc.page_size", "16", DESC(page_size, 16));
  desc("q-heads-zero", dense, kInvalid, "desc.num_q_heads", "0", DESC(num_q_heads, 0));
  desc("q-heads-negative", dense, kInvalid, "desc.num_q_heads", "-4", DESC(num_q_heads, -4));
  desc("kv-heads-not-dividing", dense, kInvalid, "desc.num_kv_heads", "3", DESC(num_kv_heads, 3));
  desc("kv-heads-more", dense, kInvalid, "desc.num_kv_heads", "8", DESC(num_kv_heads, 8));
  desc("head-dim-zero", dense, kInvalid, "desc.head_dim_qk", "0", DESC(head_dim_qk, 0));
  desc("head-dim-beyond", dense, kInvalid, "desc.head_dim_qk", "4097", DESC(head_dim_qk, 4097));
  desc("head-dim-v-negative", dense, kInvalid, "desc.head_dim_v", "-1", DESC(head_dim_v, -1));
  desc("batch-negative", dense, kInvalid, "desc.max_batch", "-1", DESC(max_batch, -1));
  desc("seqlen-q-negative", dense, kInvalid, "desc.max_seqlen_q", "-5", DESC(max_seqlen_q, -5));
  desc("seqlen-k-huge", dense, kInvalid, "desc.max_seqlen_k", "", DESC(max_seqlen_k, INT64_MAX));
  desc("total-q-dense", dense, kInvalid, "desc.max_total_q", "100", DESC(max_total_q, 100));
  desc("total-k-paged", paged, kInvalid, "desc.max_total_k", "100", DESC(max_total_k, 100));
  desc("total-q-negative", ragged, kInvalid, "desc.max_total_q", "-1", DESC(max_total_q, -1));
  desc("scale-zero", dense, kInvalid, "desc.softmax_scale", "0", DESC(softmax_scale, 0));
  desc("scale-nan", dense, kInvalid, "desc.softmax_scale", "nan", DESC(softmax_scale, nan));
  desc("scale-inf", dense, kInvalid, "desc.softmax_scale", "inf", DESC(softmax_scale, inf));
  desc("softcap-negative", dense, kInvalid, "desc.softcap", "-1", DESC(softcap, -1));
  desc("softcap-nan", dense, kInvalid, "desc.softcap", "nan", DESC(softcap, nan));
  desc("alignment", dense, kInvalid, "desc.alignment", "2", DESC(alignment, 2));
  desc("window-without-flag", dense, kInvalid, "desc.window_left", "5", DESC(window_left, 5));
  desc("window-right-without-flag", dense, kInvalid, "desc.window_right", "-1",
       DESC(window_right, -1));
  desc("window-below", options, kInvalid, "desc.window_left", "-2", DESC(window_left, -2));
  desc("window-right-below", options, kInvalid, "desc.window_right", "-7", DESC(window_right, -7));
  desc("chunk-negative", dense, kInvalid, "desc.chunk_size", "-1", DESC(chunk_size, -1));
  desc("sink-tokens-negative", options, kInvalid, "desc.sink_tokens", "-1", DESC(sink_tokens, -1));
  desc("sink-tokens-alone", dense, kInvalid, "desc.sink_tokens", "4", DESC(sink_tokens, 4));
  desc("block-size-missing", options, kInvalid, "desc.block_size_q", "0", DESC(block_size_q, 0));
  desc("block-size-without-flag", dense, kInvalid, "desc.block_size_k", "64",
       DESC(block_size_k, 64));
  desc("dropout-one", options, kInvalid, "desc.dropout_p", "1", DESC(dropout_p, 1));
  desc("dropout-negative", options, kInvalid, "desc.dropout_p", "-0.1", DESC(dropout_p, -0.1f));
  desc("dropout-nan", options, kInvalid, "desc.dropout_p", "nan", DESC(dropout_p, nan));
  desc("dropout-without-flag", dense, kInvalid, "desc.dropout_p", "0.5", DESC(dropout_p, 0.5f));
  desc("activation", dense, kInvalid, "desc.activation", "7", DESC(activation, 7));
  desc("silu-divisor-missing", dense, kInvalid, "desc.silu_divisor", "0", [](attn_sdpa_desc &d) {
    d.activation = ATTN_ACTIVATION_SILU;
    d.flags = 0;
  });
  desc("silu-divisor-softmax", dense, kInvalid, "desc.silu_divisor", "3", DESC(silu_divisor, 3));
  desc("silu-lse", dense, kUnsupported, "desc.flags", "LSE", [](attn_sdpa_desc &d) {
    d.activation = ATTN_ACTIVATION_SILU;
    d.silu_divisor = 1;
    d.flags = ATTN_SDPA_RETURN_LSE;
  });
  desc("silu-sink", dense, kUnsupported, "desc.flags", "SINK", [](attn_sdpa_desc &d) {
    d.activation = ATTN_ACTIVATION_SILU;
    d.silu_divisor = 1;
    d.flags = ATTN_SDPA_SINK;
  });
  desc("lse-base", dense, kInvalid, "desc.lse_base", "10", DESC(lse_base, 10));
  desc("lse-includes-no-sink", dense, kInvalid, "desc.flags", "SINK",
       DESC(flags, ATTN_SDPA_LSE_INCLUDES_SINK));
  desc("split-policy", dense, kInvalid, "desc.split_policy", "3", DESC(split_policy, 3));
  desc("split-size-missing", dense, kInvalid, "desc.split_size", "0",
       DESC(split_policy, ATTN_SPLIT_FIXED));
  desc("split-size-unused", dense, kInvalid, "desc.split_size", "64", DESC(split_size, 64));
  desc("determinism", dense, kInvalid, "desc.determinism", "3", DESC(determinism, 3));
  desc("seqused-k-csr", csr, kInvalid, "desc.flags", "SEQUSED_K",
       DESC(flags, d.flags | ATTN_SDPA_SEQUSED_K));
  desc("quant-of-float", dense, kInvalid, "desc.k_quant", "fp32",
       DESC(k_quant.granularity, ATTN_QUANT_TENSOR));
  desc("quant-granularity", quant, kInvalid, "desc.k_quant.granularity", "6",
       DESC(k_quant.granularity, 6));
  desc("quant-block-size", quant, kInvalid, "desc.v_quant.block_size", "0",
       DESC(v_quant.block_size, 0));
  desc("quant-block-size-unused", quant, kInvalid, "desc.k_quant.block_size", "16",
       DESC(k_quant.block_size, 16));
  desc("quant-scale-dtype", quant, kInvalid, "desc.k_quant.scale_dtype", "int8",
       DESC(k_quant.scale_dtype, ATTN_DTYPE_INT8));
  desc("quant-reserved", quant, kVersion, "desc.k_quant.reserved", "1", DESC(k_quant.reserved, 1));
  desc("latent-v-quant", latent, kInvalid, "desc.v_quant", "", [](attn_sdpa_desc &d) {
    d.k_dtype = ATTN_DTYPE_INT8;
    d.k_quant.granularity = d.v_quant.granularity = ATTN_QUANT_TENSOR;
  });
  rows.push_back({"implementation-unknown", dense, true, kInvalid, "options.implementation",
                  "no/such/kernel", ARGS(a.options.implementation = "no/such/kernel")});
  rows.push_back({"implementation-of-other-pass", dense, true, kInvalid, "options.implementation",
                  "cpu/sdpa/backward/reference",
                  ARGS(a.options.implementation = "cpu/sdpa/backward/reference")});
  rows.push_back({"options-size", dense, true, kInvalid, "options", "3",
                  ARGS(a.options.struct_size = 3)});
  rows.push_back({"options-reserved", dense, true, kVersion, "options.reserved", "1",
                  ARGS(a.options.reserved = 1)});
  rows.push_back({"no-context", dense, true, kInvalid, "context", "NULL", ARGS(a.no_context = true)});
  rows.push_back({"no-desc", dense, true, kInvalid, "desc", "NULL", ARGS(a.no_desc = true)});

  // --- the call ---
  args("no-plan", dense, kInvalid, "plan", "NULL", ARGS(a.no_plan = true));
  args("no-args", dense, kInvalid, "args", "NULL", ARGS(a.no_args = true));
  args("args-size", dense, kInvalid, "args", "8", ARGS(a.args.struct_size = 8));
  args("args-reserved", dense, kVersion, "args.reserved", "1", ARGS(a.args.reserved = 1));
  args("wrong-pass-forward", backward, kInvalid, "plan", "", ARGS(a.other_pass = true));
  args("wrong-pass-backward", dense, kInvalid, "plan", "", ARGS(a.other_pass = true));
  args("stream-on-cpu", dense, kInvalid, "stream", "", ARGS(a.stream = &a));
  args("batch-differs", dense, kInvalid, "batch", "3", ARGS(a.args.batch = 3));
  args("batch-beyond", ragged, kInvalid, "batch", "77", ARGS(a.args.batch = 77));
  args("batch-negative", ragged, kInvalid, "batch", "-1", ARGS(a.args.batch = -1));
  args("batch-unset", ragged, kInvalid, "args.batch", "0", ARGS(a.args.batch = 0));
  args("q-missing", dense, kInvalid, "args.q", "", ARGS(a.args.q.rank = 0));
  args("q-null", dense, kInvalid, "args.q", "NULL", ARGS(a.args.q.data = nullptr));
  args("q-rank", dense, kInvalid, "args.q", "3", ARGS(a.args.q.rank = 3));
  args("q-rank-negative", dense, kInvalid, "args.q", "-1", ARGS(a.args.q.rank = -1));
  args("q-rank-absurd", dense, kInvalid, "args.q", "7", ARGS(a.args.q.rank = 7));
  args("q-dtype", dense, kInvalid, "args.q", "bf16", ARGS(a.args.q.dtype = ATTN_DTYPE_BF16));
  args("q-heads", dense, kInvalid, "args.q.shape[2]", "5", ARGS(a.args.q.shape[2] = 5));
  args("q-head-dim", dense, kInvalid, "args.q.shape[3]", "31", ARGS(a.args.q.shape[3] = 31));
  args("q-negative-extent", dense, kInvalid, "args.q.shape[1]", "-4", ARGS(a.args.q.shape[1] = -4));
  args("q-longer-than-limit", dense, kInvalid, "args.q.shape[1]", "5", ARGS(a.args.q.shape[1] = 5));
  args("q-more-than-max-batch", dense, kInvalid, "args.q.shape[0]", "3",
       ARGS(a.args.q.shape[0] = 3; a.args.batch = 0));
  args("q-extent-huge", dense, kInvalid, "args.q", "",
       ARGS(a.args.q.shape[0] = INT64_MAX; a.args.batch = 0));
  args("q-misaligned", dense, kInvalid, "args.q", "",
       ARGS(a.args.q.data = static_cast<char *>(a.args.q.data) + 1));
  args("q-stride-overflow", dense, kInvalid, "args.q", "",
       ARGS(a.args.q.stride[1] = INT64_MAX / 2));
  args("k-batch", dense, kInvalid, "args.k.shape[0]", "1", ARGS(a.args.k.shape[0] = 1));
  args("k-longer-than-limit", dense, kInvalid, "args.k.shape[1]", "10", ARGS(a.args.k.shape[1] = 10));
  args("k-heads", dense, kInvalid, "args.k.shape[2]", "4", ARGS(a.args.k.shape[2] = 4));
  args("v-length", dense, kInvalid, "args.v.shape", "8", ARGS(a.args.v.shape[1] = 8));
  args("v-missing", dense, kInvalid, "args.v", "", ARGS(a.args.v = attn_tensor{}));
  args("v-with-latent", latent, kInvalid, "args.v", "", ARGS(a.args.v = a.args.k));
  args("page-size-of-pool", paged, kInvalid, "args.k.shape[1]", "3", ARGS(a.args.k.shape[1] = 3));
  args("out-shape", dense, kInvalid, "args.out.shape[3]", "16", ARGS(a.args.out.shape[3] = 16));
  args("out-dtype", dense, kInvalid, "args.out", "fp16", ARGS(a.args.out.dtype = ATTN_DTYPE_FP16));
  args("out-missing", dense, kInvalid, "args.out", "", ARGS(a.args.out = attn_tensor{}));
  args("out-overlaps-itself", dense, kInvalid, "args.out", "", ARGS(a.args.out.stride[1] = 0));
  args("out-is-q", dense, kInvalid, "args.out", "", ARGS(a.args.out = a.args.q));
  args("lse-in-out", dense, kInvalid, "args.lse", "", ARGS(a.args.lse.data = a.args.out.data));
  args("row-max-is-lse", dense, kInvalid, "args.row_max", "", ARGS(a.args.row_max = a.args.lse));
  args("lse-missing", dense, kInvalid, "args.lse", "", ARGS(a.args.lse.rank = 0));
  args("lse-shape", dense, kInvalid, "args.lse.shape[1]", "3", ARGS(a.args.lse.shape[1] = 3));
  args("lse-dtype", dense, kInvalid, "args.lse", "fp16", ARGS(a.args.lse.dtype = ATTN_DTYPE_FP16));
  args("sink-without-flag", dense, kInvalid, "args.sink", "SINK", [](Attempt &a) {
    a.floats.assign(4, 0);
    a.args.sink = {a.floats.data(), ATTN_DTYPE_FP32, 1, {4}, {1}};
  });
  args("mask-without-flag", dense, kInvalid, "args.mask", "MASK", [](Attempt &a) {
    a.floats.assign(64, 0);
    a.args.mask = {a.floats.data(), ATTN_DTYPE_UINT8, 4, {2, 4, 4, 2}, {32, 8, 2, 1}};
  });
  args("cu-seqlens-without-ragged", dense, kInvalid, "args.cu_seqlens_q", "RAGGED",
       [](Attempt &a) {
         a.numbers.assign(3, 0);
         a.args.cu_seqlens_q = a.numbers.data();
       });
  args("seqused-without-flag", dense, kInvalid, "args.seqused_k", "SEQUSED_K", [](Attempt &a) {
    a.numbers.assign(2, 0);
    a.args.seqused_k = a.numbers.data();
  });
  args("block-table-without-pages", dense, kInvalid, "args.block_table", "", [](Attempt &a) {
    a.numbers.assign(2, 0);
    a.args.block_table = {a.numbers.data(), ATTN_DTYPE_INT32, 2, {2, 1}, {1, 1}};
  });
  args("scale-without-quant", dense, kInvalid, "args.k_scale", "", [](Attempt &a) {
    a.floats.assign(1, 1);
    a.args.k_scale = {a.floats.data(), ATTN_DTYPE_FP32, 4, {1, 1, 1, 1}, {1, 1, 1, 1}};
  });
  args("rng-without-dropout", dense, kInvalid, "args.rng_state", "DROPOUT", [](Attempt &a) {
    a.floats.assign(4, 0);
    a.args.rng_state = reinterpret_cast<const uint64_t *>(a.floats.data());
  });
  args("cu-seqlens-q-missing", ragged, kInvalid, "args.cu_seqlens_q", "",
       ARGS(a.args.cu_seqlens_q = nullptr));
  args("cu-seqlens-k-missing", ragged, kInvalid, "args.cu_seqlens_k", "",
       ARGS(a.args.cu_seqlens_k = nullptr));
  contents("cu-seqlens-q-start", ragged, kInvalid, "args.cu_seqlens_q[0]", "1",
       ARGS(a.args.cu_seqlens_q = changed(a.numbers, a.args.cu_seqlens_q, 3, 0, 1)));
  contents("cu-seqlens-q-falls", ragged, kInvalid, "args.cu_seqlens_q[2]", "2",
       ARGS(a.args.cu_seqlens_q = changed(a.numbers, a.args.cu_seqlens_q, 3, 2, 2)));
  contents("cu-seqlens-q-past-total", ragged, kInvalid, "args.cu_seqlens_q[2]", "10",
       ARGS(a.args.cu_seqlens_q = changed(a.numbers, a.args.cu_seqlens_q, 3, 2, 10)));
  contents("cu-seqlens-k-falls", ragged, kInvalid, "args.cu_seqlens_k[1]", "-1",
       ARGS(a.args.cu_seqlens_k = changed(a.numbers, a.args.cu_seqlens_k, 3, 1, -1)));
  contents("cu-seqlens-k-past-total", ragged, kInvalid, "args.cu_seqlens_k[2]", "99",
       ARGS(a.args.cu_seqlens_k = changed(a.numbers, a.args.cu_seqlens_k, 3, 2, 99)));
  contents("cu-seqlens-past-limit", ragged, kInvalid, "args.cu_seqlens_q[1]", "9",
       ARGS(a.args.cu_seqlens_q = changed(a.numbers, a.args.cu_seqlens_q, 3, 1, 9)));
  args("seqused-q-missing", ragged, kInvalid, "args.seqused_q", "",
       ARGS(a.args.seqused_q = nullptr));
  contents("seqused-q-negative", ragged, kInvalid, "args.seqused_q[0]", "-1",
       ARGS(a.args.seqused_q = changed(a.numbers, a.args.seqused_q, 2, 0, -1)));
  contents("seqused-q-beyond", ragged, kInvalid, "args.seqused_q[1]", "5",
       ARGS(a.args.seqused_q = changed(a.numbers, a.args.seqused_q, 2, 1, 5)));
  contents("seqused-k-beyond", ragged, kInvalid, "args.seqused_k[1]", "8",
       ARGS(a.args.seqused_k = changed(a.numbers, a.args.seqused_k, 2, 1, 8)));
  contents("seqused-k-past-limit", paged, kInvalid, "args.seqused_k[0]", "10",
       ARGS(a.args.seqused_k = changed(a.numbers, a.args.seqused_k, 2, 0, 10)));
  args("seqused-k-missing", paged, kInvalid, "args.seqused_k", "",
       ARGS(a.args.seqused_k = nullptr));
  args("block-table-missing", paged, kInvalid, "args.block_table", "",
       ARGS(a.args.block_table.rank = 0));
  args("block-table-dtype", paged, kInvalid, "args.block_table", "int64",
       ARGS(a.args.block_table.dtype = ATTN_DTYPE_INT64));
  args("block-table-batch", paged, kInvalid, "args.block_table.shape[0]", "1",
       ARGS(a.args.block_table.shape[0] = 1));
  contents("block-table-too-narrow", paged, kInvalid, "", "", ARGS(a.args.block_table.shape[1] = 2));
  contents("page-id-beyond-pool", paged, kInvalid, "args.block_table", "1000", [](Attempt &a) {
    const attn_tensor &t = a.args.block_table;
    const auto *ids = static_cast<const int32_t *>(t.data);
    a.numbers.assign(ids, ids + t.shape[0] * t.shape[1]);  // the base's table is contiguous
    a.numbers[1] = 1000;
    a.args.block_table.data = a.numbers.data();
  });
  args("csr-indptr-missing", csr, kInvalid, "args.kv_page_indptr", "",
       ARGS(a.args.kv_page_indptr = nullptr));
  contents("csr-indptr-falls", csr, kInvalid, "args.kv_page_indptr[2]", "1",
       ARGS(a.args.kv_page_indptr = changed(a.numbers, a.args.kv_page_indptr, 3, 2, 1)));
  contents("csr-indptr-start", csr, kInvalid, "args.kv_page_indptr[0]", "-1",
       ARGS(a.args.kv_page_indptr = changed(a.numbers, a.args.kv_page_indptr, 3, 0, -1)));
  args("csr-indices-missing", csr, kInvalid, "args.kv_page_indices", "NULL",
       ARGS(a.args.kv_page_indices = nullptr));
  contents("csr-page-beyond-pool", csr, kInvalid, "args.kv_page_indices[1]", "7777",
       ARGS(a.args.kv_page_indices = changed(a.numbers, a.args.kv_page_indices, 5, 1, 7777)));
  args("csr-last-page-len-missing", csr, kInvalid, "args.kv_last_page_len", "NULL",
       ARGS(a.args.kv_last_page_len = nullptr));
  args("csr-indices-without-csr", ragged, kInvalid, "args.kv_page_indices", "",
       ARGS(a.args.kv_page_indices = a.args.cu_seqlens_k));
  contents("csr-last-page-zero", csr, kInvalid, "args.kv_last_page_len[0]", "0",
       ARGS(a.args.kv_last_page_len = changed(a.numbers, a.args.kv_last_page_len, 2, 0, 0)));
  contents("csr-last-page-beyond", csr, kInvalid, "args.kv_last_page_len[1]", "5",
       ARGS(a.args.kv_last_page_len = changed(a.numbers, a.args.kv_last_page_len, 2, 1, 5)));
  contents("csr-too-long", csr, kInvalid, "", "", ARGS(a.args.kv_last_page_len =
       changed(a.numbers, a.args.kv_last_page_len, 2, 0, 4)));
  args("mask-missing", options, kInvalid, "args.mask", "", ARGS(a.args.mask.rank = 0));
  args("mask-dtype", options, kInvalid, "args.mask", "int8", ARGS(a.args.mask.dtype = ATTN_DTYPE_INT8));
  args("mask-heads", options, kInvalid, "args.mask.shape[1]", "2", ARGS(a.args.mask.shape[1] = 2));
  args("mask-width", options, kInvalid, "args.mask.shape[3]", "1", ARGS(a.args.mask.shape[3] = 1));
  args("tail-mask-rows", options, kInvalid, "args.tail_mask.shape[2]", "3",
       ARGS(a.args.tail_mask.shape[2] = 3));
  args("segments-missing", options, kInvalid, "args.kv_segment_ids", "",
       ARGS(a.args.kv_segment_ids.rank = 0));
  args("segments-shape", options, kInvalid, "args.q_segment_ids.shape[1]", "3",
       ARGS(a.args.q_segment_ids.shape[1] = 3));
  args("bias-dtype", options, kInvalid, "args.bias", "int32",
       ARGS(a.args.bias.dtype = ATTN_DTYPE_INT32));
  args("bias-width", options, kInvalid, "args.bias.shape[3]", "8", ARGS(a.args.bias.shape[3] = 8));
  args("alibi-rank", options, kInvalid, "args.alibi_slopes", "3",
       ARGS(a.args.alibi_slopes.rank = 3));
  args("sink-extent", options, kInvalid, "args.sink.shape[0]", "2", ARGS(a.args.sink.shape[0] = 2));
  args("gate-width", options, kInvalid, "args.gate.shape[3]", "2", ARGS(a.args.gate.shape[3] = 2));
  args("rng-missing", options, kInvalid, "args.rng_state", "", ARGS(a.args.rng_state = nullptr));
  args("block-counts-rows", options, kInvalid, "args.block_counts.shape[2]", "1",
       ARGS(a.args.block_counts.shape[2] = 1));
  contents("block-count-beyond", options, kInvalid, "args.block_counts", "1000000", [](Attempt &a) {
    const attn_tensor &t = a.args.block_counts;
    const auto *counts = static_cast<const int32_t *>(t.data);
    a.numbers.assign(counts, counts + t.shape[0] * t.shape[1] * t.shape[2]);
    a.numbers[2] = 1000000;
    a.args.block_counts.data = a.numbers.data();
  });
  contents("block-count-negative", options, kInvalid, "args.block_counts", "-5", [](Attempt &a) {
    const attn_tensor &t = a.args.block_counts;
    const auto *counts = static_cast<const int32_t *>(t.data);
    a.numbers.assign(counts, counts + t.shape[0] * t.shape[1] * t.shape[2]);
    a.numbers[0] = -5;
    a.args.block_counts.data = a.numbers.data();
  });
  contents("block-index-beyond", options, kInvalid, "args.block_indices", "12345", [](Attempt &a) {
    const attn_tensor &t = a.args.block_indices;
    a.numbers.assign(static_cast<size_t>(t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3]), 0);
    a.numbers[0] = 12345;
    a.args.block_indices.data = a.numbers.data();
    const attn_tensor &c = a.args.block_counts;
    a.more_numbers.assign(static_cast<size_t>(c.shape[0] * c.shape[1] * c.shape[2]), 1);
    a.args.block_counts.data = a.more_numbers.data();
  });
  args("scale-missing", quant, kInvalid, "args.k_scale", "", ARGS(a.args.k_scale.rank = 0));
  args("scale-dtype", quant, kInvalid, "args.v_scale", "fp32",
       ARGS(a.args.v_scale.dtype = ATTN_DTYPE_FP32));
  args("scale-blocks", quant, kInvalid, "args.v_scale.shape[3]", "1",
       ARGS(a.args.v_scale.shape[3] = 1));
  args("scale-token-extent", quant, kInvalid, "args.k_scale.shape[1]", "4",
       ARGS(a.args.k_scale.shape[1] = 4));
  args("backward-no-forward", backward, kInvalid, "forward", "NULL", ARGS(a.no_forward = true));
  args("backward-size", backward, kInvalid, "args", "16", ARGS(a.grads.struct_size = 16));
  args("backward-reserved", backward, kVersion, "args.reserved", "9", ARGS(a.grads.reserved = 9));
  args("backward-forward-size", backward, kInvalid, "forward", "8", ARGS(a.args.struct_size = 8));
  args("dout-missing", backward, kInvalid, "args.dout", "", ARGS(a.grads.dout.rank = 0));
  args("dout-shape", backward, kInvalid, "args.dout.shape[1]", "3", ARGS(a.grads.dout.shape[1] = 3));
  args("dlse-missing", backward, kInvalid, "args.dlse", "", ARGS(a.grads.dlse.rank = 0));
  args("lse-missing-backward", backward, kInvalid, "lse", "", ARGS(a.args.lse.rank = 0));
  args("dq-missing", backward, kInvalid, "args.dq", "", ARGS(a.grads.dq.rank = 0));
  args("dq-shape", backward, kInvalid, "args.dq.shape[2]", "2", ARGS(a.grads.dq.shape[2] = 2));
  args("dq-dtype", backward, kInvalid, "args.dq", "bf16", ARGS(a.grads.dq.dtype = ATTN_DTYPE_BF16));
  args("dk-is-dv", backward, kInvalid, "args.dv", "", ARGS(a.grads.dv = a.grads.dk));
  args("dq-is-q", backward, kInvalid, "args.dq", "", ARGS(a.grads.dq.data = a.args.q.data));
  args("dgate-unasked", backward, kInvalid, "args.dgate", "", ARGS(a.grads.dgate = a.grads.dq));
  args("dbias-overlaps-itself", backward, kInvalid, "args.dbias", "",
       ARGS(a.grads.dbias.stride[0] = 0));
  args("workspace-null", ragged, kWorkspace, "workspace", "", ARGS(a.workspace = nullptr));
  args("workspace-small", ragged, kWorkspace, "workspace", "", ARGS(a.workspace_bytes -= 1));
  args("workspace-zero", ragged, kWorkspace, "workspace", "0", ARGS(a.workspace_bytes = 0));
  args("workspace-misaligned", ragged, kWorkspace, "workspace", "",
       ARGS(a.workspace = static_cast<char *>(a.workspace) + 1));
#undef DESC
#undef ARGS
  return rows;
}

std::string last_part(const std::string &field) {
  const size_t dot = field.find_last_of('.');
  return dot == std::string::npos ? field : field.substr(dot + 1);
}

std::string error_failure(const Refusal &row, int32_t status, const attn_error &error) {
  if (status == ATTN_OK) return "was accepted";
  if (status != row.status) {
    return std::string("status is ") + attn_status_name(status) + ", should be " +
           attn_status_name(row.status) + ": " + error.message;
  }
  if (error.status != status) return "error.status is not what was returned";
  const std::string field = error.field, message = error.message;
  if (field.find(row.field) == std::string::npos) {
    return "error.field is \"" + field + "\", should name " + row.field + ": " + message;
  }
  if (message.find(row.value) == std::string::npos) {
    return "the message does not say \"" + row.value + "\": " + message;
  }
  if (message.size() < 8 || message.find(last_part(row.field)) == std::string::npos) {
    return "the message does not name " + row.field + ": " + message;
  }
  return {};
}

std::string execute_failure(const Session &session, const Refusal &row, Attempt &a, SdpaCall &call,
                            const attn_plan *plan, Workspace &workspace) {
  call.poison_outputs(0xa5a5a5a5a5a5a5a5);
  workspace.poison(0x77);
  attn_error error = ATTN_ERROR_INIT;
  const bool backward = (call.c.pass == ATTN_SDPA_BACKWARD) != a.other_pass;
  if (DeviceMemory *device = session.device()) {
    device->upload();
    a.args = device->on_device(a.args);
    a.workspace = device->address(a.workspace);
    a.grads = device->on_device(a.grads);
    if (a.stream == nullptr) a.stream = device->stream(0);
  }
  a.grads.forward = a.no_forward ? nullptr : &a.args;
  const attn_plan *used = a.no_plan ? nullptr : plan;
  const uint64_t before = allocations();
  const auto execute = [&](attn_error *into) {
    return backward ? attn_sdpa_backward(used, a.no_args ? nullptr : &a.grads, a.workspace,
                                         a.workspace_bytes, a.stream, into)
                    : attn_sdpa_forward(used, a.no_args ? nullptr : &a.args, a.workspace,
                                        a.workspace_bytes, a.stream, into);
  };
  const int32_t status = execute(&error);
  const uint64_t allocated = allocations() - before;
  std::string failure = error_failure(row, status, error);
  if (!failure.empty()) return failure;
  if (execute(nullptr) != status) return "without an attn_error the status differs";
  for (const SdpaCall::Output &o : call.outputs) {
    if (!o.tensor.untouched()) return std::string("refused, but wrote to ") + o.name;
  }
  if (!workspace.guards_untouched()) return "refused, but wrote outside the workspace";
  if (allocated != 0) return "allocated while refusing";
  return {};
}

void check_row(Session &session, const Refusal &row) {
  if (session.backend() != "cpu" && (row.contents || row.name == "refusal/dense/stream-on-cpu")) {
    session.not_served(row.name, row.contents ? "lengths, page lists and block lists lie in the "
                                                "device's memory, which execute does not read"
                                              : "about the CPU's streams");
    return;
  }
  SdpaCall call(*row.base, session.seed_of(row.name, 0));
  call.compute_truth();
  Attempt a{};
  a.options = ATTN_PLAN_OPTIONS_INIT;
  a.desc = call.desc;
  a.args = call.args;
  a.grads = call.grads;
  a.call = &call;
  if (row.at_plan) {
    row.break_it(a);
    attn_plan *plan = reinterpret_cast<attn_plan *>(&a);  // to be overwritten with NULL
    attn_error error = ATTN_ERROR_INIT, probe_error = ATTN_ERROR_INIT;
    const attn_context *context = a.no_context ? nullptr : session.context();
    const attn_sdpa_desc *desc = a.no_desc ? nullptr : &a.desc;
    const int32_t status = attn_sdpa_plan_create(context, desc, &a.options, &plan, &error);
    const int32_t probe = attn_sdpa_supported(context, desc, &a.options, &probe_error);
    std::string failure = error_failure(row, status, error);
    if (failure.empty() && plan != nullptr) failure = "refused, but *plan is not NULL";
    if (failure.empty() && (probe != status || std::strcmp(error.message, probe_error.message))) {
      failure = std::string("attn_sdpa_supported says otherwise: ") + probe_error.message;
    }
    session.report(row.name, "", failure);
    return;
  }
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_plan *first = nullptr;
  attn_error error = ATTN_ERROR_INIT;
  const int32_t served =
      attn_sdpa_plan_create(session.context(), &call.desc, nullptr, &first, &error);
  if (served == ATTN_ERROR_UNSUPPORTED && call.desc.pass == ATTN_SDPA_BACKWARD &&
      session.backend() != "cpu") {
    session.not_served(row.name, session.backend() + " has no backward pass: " + describe(error));
    return;
  }
  if (served != ATTN_OK) {
    session.report(row.name, "", "not served: " + describe(error));
    return;
  }
  const PlanPtr listing(first);
  attn_plan_query(first, &info, nullptr);
  const int32_t count = info.num_implementations;
  for (int32_t i = 0; i < count; i++) {
    Attempt mine = a;
    attn_plan_implementation(first, i, &mine.options.implementation, nullptr);
    const char *name = mine.options.implementation;
    if (!session.options.implementation.empty() && session.options.implementation != name) continue;
    if (!session.begin(row.name, name)) continue;
    attn_plan *plan = nullptr;
    attn_sdpa_plan_create(session.context(), &call.desc, &mine.options, &plan, nullptr);
    const PlanPtr owner(plan);
    attn_plan_query(plan, &info, nullptr);
    // Some plans need no workspace: then there is nothing to break about it.
    if (row.status == kWorkspace && info.workspace_bytes == 0) continue;
    Workspace workspace(info);
    mine.workspace = workspace.data();
    mine.workspace_bytes = workspace.bytes();
    row.break_it(mine);
    try {
      const std::string failure = execute_failure(session, row, mine, call, plan, workspace);
      if (DeviceMemory *device = session.device()) device->wait();
      session.report(row.name, name, failure);
    } catch (const DeviceError &e) {
      session.report(row.name, name, e);
    }
  }
}

}  // namespace

void run_refusals(Session &session) {
  if (session.options.bench) return;
  const std::vector<SdpaCase> bases = make_bases();
  std::vector<Refusal> rows = table(bases);
  for (Refusal &row : rows) row.name = "refusal/" + row.base->name + "/" + row.name;
  std::erase_if(rows, [&](const Refusal &row) { return !session.wanted(row.name); });
  if (session.options.list) {
    for (const Refusal &row : rows) std::printf("%s\n", row.name.c_str());
    return;
  }
  session.expect(rows.size());
  for (const Refusal &row : rows) {
    if (session.is_finished(row.name)) continue;
    session.step(row.name);
    check_row(session, row);
    session.finished(row.name);
  }
}

}  // namespace check
