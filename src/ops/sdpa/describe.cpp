// What a descriptor means: its rules and its defaults.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/dtype.hpp"
#include "core/struct_copy.hpp"
#include "ops/check.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::sdpa {
namespace {

constexpr uint64_t kKnownFlags = (ATTN_SDPA_ALLOW_TF32 << 1) - 1;
constexpr uint32_t kKnownGrads = (ATTN_SDPA_GRAD_LSE_IN << 1) - 1;
constexpr int32_t kMostHeads = 1 << 16;
constexpr int32_t kMostHeadDim = 4096;

bool is_float(int32_t dtype) {
  return dtype == ATTN_DTYPE_FP32 || dtype == ATTN_DTYPE_FP16 || dtype == ATTN_DTYPE_BF16;
}

int32_t check_data_dtype(const char *field, int32_t dtype, const ErrorSink &error) {
  return check_dtype(field, dtype,
                     {ATTN_DTYPE_FP32, ATTN_DTYPE_FP16, ATTN_DTYPE_BF16, ATTN_DTYPE_FP8_E4M3FN,
                      ATTN_DTYPE_FP8_E5M2, ATTN_DTYPE_FP8_E4M3FNUZ, ATTN_DTYPE_INT8,
                      ATTN_DTYPE_INT4, ATTN_DTYPE_FP4_E2M1},
                     error);
}

// A field that means something only with an option must be zero without it.
int32_t check_unused(const char *field, double value, bool used, const char *needs,
                     const ErrorSink &error) {
  if (used || value == 0) return ATTN_OK;
  return error.fail(ATTN_ERROR_INVALID_ARGUMENT, field,
                    "%s is %g, but has no meaning without %s: set that, or leave the field 0",
                    field, value, needs);
}

int32_t check_quant(const char *name, attn_quant &quant, int32_t dtype, const ErrorSink &error) {
  char field[ATTN_ERROR_FIELD_SIZE];
  const auto part = [&](const char *member) {
    std::snprintf(field, sizeof field, "%s.%s", name, member);
    return field;
  };
  int32_t status = check_enum(part("granularity"), quant.granularity, ATTN_QUANT_BLOCK, error);
  if (status != ATTN_OK) return status;
  if (quant.granularity != ATTN_QUANT_NONE && is_float(dtype)) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, part("granularity"),
                      "%s is %d, but the tensor's dtype %s is not a quantised one and takes no "
                      "scale",
                      field, quant.granularity, dtype_name(dtype));
  }
  const bool block = quant.granularity == ATTN_QUANT_BLOCK;
  if (block) {
    status = check_range(part("block_size"), quant.block_size, 1, kMostHeadDim, error);
  } else {
    status = check_unused(part("block_size"), quant.block_size, false, "BLOCK granularity", error);
  }
  if (status != ATTN_OK) return status;
  if (quant.granularity == ATTN_QUANT_NONE) {
    status = check_unused(part("scale_dtype"), quant.scale_dtype, false, "a granularity", error);
  } else {
    if (quant.scale_dtype == ATTN_DTYPE_NONE) quant.scale_dtype = ATTN_DTYPE_FP32;
    status = check_dtype(part("scale_dtype"), quant.scale_dtype,
                         {ATTN_DTYPE_FP32, ATTN_DTYPE_FP16, ATTN_DTYPE_BF16, ATTN_DTYPE_FP8_E4M3FN,
                          ATTN_DTYPE_FP8_E8M0},
                         error);
  }
  if (status != ATTN_OK) return status;
  return check_reserved(part("reserved"), quant.reserved, error);
}

int32_t check_dtypes(Problem &p, const ErrorSink &error) {
  attn_sdpa_desc &d = p.d;
  if (d.k_dtype == ATTN_DTYPE_NONE) d.k_dtype = d.q_dtype;
  if (d.v_dtype == ATTN_DTYPE_NONE) d.v_dtype = d.k_dtype;
  if (d.out_dtype == ATTN_DTYPE_NONE) {
    d.out_dtype = is_float(d.q_dtype) ? d.q_dtype : int32_t{ATTN_DTYPE_BF16};
  }
  int32_t status = check_data_dtype("desc.q_dtype", d.q_dtype, error);
  if (status == ATTN_OK) status = check_data_dtype("desc.k_dtype", d.k_dtype, error);
  if (status == ATTN_OK) status = check_data_dtype("desc.v_dtype", d.v_dtype, error);
  if (status == ATTN_OK) status = check_data_dtype("desc.out_dtype", d.out_dtype, error);
  if (status == ATTN_OK && p.has(ATTN_SDPA_ALLOW_TF32) && d.q_dtype != ATTN_DTYPE_FP32) {
    return error.fail(
        ATTN_ERROR_INVALID_ARGUMENT, "desc.flags",
        "desc.flags has ALLOW_TF32, which is about fp32 products, but desc.q_dtype is "
        "%s; it must be fp32",
        dtype_name(d.q_dtype));
  }
  if (status == ATTN_OK) status = check_quant("desc.q_quant", d.q_quant, d.q_dtype, error);
  if (status == ATTN_OK) status = check_quant("desc.k_quant", d.k_quant, d.k_dtype, error);
  if (status == ATTN_OK && p.latent()) {
    if (d.v_dtype != d.k_dtype) {
      return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.v_dtype",
                        "desc.v_dtype is %s; with LATENT_KV it must be k_dtype, %s",
                        dtype_name(d.v_dtype), dtype_name(d.k_dtype));
    }
    if (d.v_quant.granularity != ATTN_QUANT_NONE) {
      return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.v_quant.granularity",
                        "desc.v_quant is set; with LATENT_KV k_quant covers v");
    }
    // v's scales are k's: its leading columns.
    d.v_quant = d.k_quant;
  } else if (status == ATTN_OK) {
    status = check_quant("desc.v_quant", d.v_quant, d.v_dtype, error);
  }
  if (status == ATTN_OK) status = check_quant("desc.out_quant", d.out_quant, d.out_dtype, error);
  if (status != ATTN_OK || !p.backward()) return status;
  const struct {
    const char *field;
    int32_t dtype;
  } inputs[] = {{"desc.q_dtype", d.q_dtype},
                {"desc.k_dtype", d.k_dtype},
                {"desc.v_dtype", d.v_dtype},
                {"desc.out_dtype", d.out_dtype}};
  for (const auto &input : inputs) {
    if (!is_float(input.dtype)) {
      return error.fail(ATTN_ERROR_UNSUPPORTED, input.field,
                        "%s is %s; the backward pass takes fp32, fp16 or bf16: rounding to a "
                        "quantised format has no gradient",
                        input.field, dtype_name(input.dtype));
    }
  }
  return ATTN_OK;
}

int32_t check_shape(Problem &p, const ErrorSink &error) {
  attn_sdpa_desc &d = p.d;
  int32_t status = check_range("desc.num_q_heads", d.num_q_heads, 1, kMostHeads, error);
  if (status != ATTN_OK) return status;
  if (d.num_kv_heads == 0) d.num_kv_heads = d.num_q_heads;
  status = check_range("desc.num_kv_heads", d.num_kv_heads, 1, kMostHeads, error);
  if (status != ATTN_OK) return status;
  if (d.num_q_heads % d.num_kv_heads != 0) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.num_kv_heads",
                      "desc.num_kv_heads is %d; it must divide num_q_heads, %d", d.num_kv_heads,
                      d.num_q_heads);
  }
  p.group = d.num_q_heads / d.num_kv_heads;
  status = check_range("desc.head_dim_qk", d.head_dim_qk, 1, kMostHeadDim, error);
  if (status != ATTN_OK) return status;
  if (d.head_dim_v == 0) d.head_dim_v = d.head_dim_qk;
  status = check_range("desc.head_dim_v", d.head_dim_v, 1,
                       p.latent() ? d.head_dim_qk : kMostHeadDim, error);
  if (status != ATTN_OK) return status;

  status = check_enum("desc.q_layout", d.q_layout, ATTN_LAYOUT_PAGED_CSR, error);
  if (status == ATTN_OK && d.q_layout > ATTN_LAYOUT_RAGGED) {
    return error.fail(
        ATTN_ERROR_INVALID_ARGUMENT, "desc.q_layout",
        "desc.q_layout is %d; queries are DENSE (0) or RAGGED (1), only keys are paged",
        d.q_layout);
  }
  if (status == ATTN_OK) {
    status = check_enum("desc.kv_layout", d.kv_layout, ATTN_LAYOUT_PAGED_CSR, error);
  }
  if (status != ATTN_OK) return status;
  status = p.paged() ? check_range("desc.page_size", d.page_size, 1, INT32_MAX, error)
                     : check_unused("desc.page_size", d.page_size, false, "a paged layout", error);
  if (status != ATTN_OK) return status;
  if (p.has(ATTN_SDPA_SEQUSED_K) && d.kv_layout == ATTN_LAYOUT_PAGED_CSR) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.flags",
                      "desc.flags has SEQUSED_K, but the lengths of PAGED_CSR come from "
                      "kv_page_indptr and kv_last_page_len");
  }

  constexpr int64_t kMost = INT32_MAX;
  status = check_range("desc.max_batch", d.max_batch, 0, kMost, error);
  if (status == ATTN_OK) status = check_range("desc.max_seqlen_q", d.max_seqlen_q, 0, kMost, error);
  if (status == ATTN_OK) status = check_range("desc.max_seqlen_k", d.max_seqlen_k, 0, kMost, error);
  if (status == ATTN_OK) {
    status = check_unused("desc.max_total_q", static_cast<double>(d.max_total_q), p.ragged_q(),
                          "q_layout RAGGED", error);
  }
  if (status == ATTN_OK) {
    status = check_unused("desc.max_total_k", static_cast<double>(d.max_total_k), p.ragged_k(),
                          "kv_layout RAGGED", error);
  }
  if (status != ATTN_OK) return status;
  // cu_seqlens are int32: no more tokens in all than they can count.
  const auto total = [&](int64_t seqlen) { return std::min(d.max_batch * seqlen, kMost); };
  if (p.ragged_q() && d.max_total_q == 0) d.max_total_q = total(d.max_seqlen_q);
  if (p.ragged_k() && d.max_total_k == 0) d.max_total_k = total(d.max_seqlen_k);
  status = check_range("desc.max_total_q", d.max_total_q, 0, kMost, error);
  if (status == ATTN_OK) status = check_range("desc.max_total_k", d.max_total_k, 0, kMost, error);
  return status;
}

int32_t check_scores(Problem &p, const ErrorSink &error) {
  const attn_sdpa_desc &d = p.d;
  if (!std::isfinite(d.softmax_scale) || d.softmax_scale == 0) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.softmax_scale",
                      "desc.softmax_scale is %g; it must be finite and not 0, usually "
                      "1/sqrt(head_dim_qk) = %g",
                      static_cast<double>(d.softmax_scale),
                      1 / std::sqrt(static_cast<double>(d.head_dim_qk)));
  }
  if (!std::isfinite(d.softcap) || d.softcap < 0) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.softcap",
                      "desc.softcap is %g; it must be finite and >= 0 (0 = none)",
                      static_cast<double>(d.softcap));
  }
  int32_t status = check_enum("desc.alignment", d.alignment, ATTN_ALIGN_TOP_LEFT, error);
  const bool window = p.has(ATTN_SDPA_WINDOW);
  if (status == ATTN_OK && window) {
    status = check_range("desc.window_left", d.window_left, -1, INT32_MAX, error);
    if (status == ATTN_OK) {
      status = check_range("desc.window_right", d.window_right, -1, INT32_MAX, error);
    }
  } else if (status == ATTN_OK) {
    status = check_unused("desc.window_left", d.window_left, false, "the WINDOW flag", error);
    if (status == ATTN_OK) {
      status = check_unused("desc.window_right", d.window_right, false, "the WINDOW flag", error);
    }
  }
  if (status == ATTN_OK) status = check_range("desc.chunk_size", d.chunk_size, 0, INT32_MAX, error);
  if (status == ATTN_OK)
    status = check_range("desc.sink_tokens", d.sink_tokens, 0, INT32_MAX, error);
  if (status == ATTN_OK) {
    status = check_unused("desc.sink_tokens", d.sink_tokens, window || d.chunk_size > 0,
                          "the WINDOW flag or chunk_size", error);
  }
  if (status != ATTN_OK) return status;
  const struct {
    const char *field;
    int32_t value;
  } blocks[] = {{"desc.block_size_q", d.block_size_q}, {"desc.block_size_k", d.block_size_k}};
  for (const auto &block : blocks) {
    status = p.has(ATTN_SDPA_BLOCK_SPARSE)
                 ? check_range(block.field, block.value, 1, INT32_MAX, error)
                 : check_unused(block.field, block.value, false, "the BLOCK_SPARSE flag", error);
    if (status != ATTN_OK) return status;
  }
  return ATTN_OK;
}

int32_t check_weights(Problem &p, const ErrorSink &error) {
  const attn_sdpa_desc &d = p.d;
  if (!p.has(ATTN_SDPA_DROPOUT)) {
    const int32_t status = check_unused("desc.dropout_p", static_cast<double>(d.dropout_p), false,
                                        "the DROPOUT flag", error);
    if (status != ATTN_OK) return status;
  } else if (!(d.dropout_p >= 0 && d.dropout_p < 1)) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.dropout_p",
                      "desc.dropout_p is %g; it must be >= 0 and < 1",
                      static_cast<double>(d.dropout_p));
  }
  int32_t status = check_enum("desc.activation", d.activation, ATTN_ACTIVATION_SILU, error);
  if (status == ATTN_OK) status = check_enum("desc.lse_base", d.lse_base, ATTN_LSE_BASE_2, error);
  if (status != ATTN_OK) return status;
  if (p.softmax()) {
    status = check_unused("desc.silu_divisor", static_cast<double>(d.silu_divisor), false,
                          "activation SILU", error);
    if (status != ATTN_OK) return status;
  } else {
    if (!std::isfinite(d.silu_divisor) || d.silu_divisor == 0) {
      return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.silu_divisor",
                        "desc.silu_divisor is %g; it must be finite and not 0 (HSTU: the largest "
                        "sequence length)",
                        static_cast<double>(d.silu_divisor));
    }
    const struct {
      uint64_t flag;
      const char *name;
    } meaningless[] = {{ATTN_SDPA_SINK, "SINK"},
                       {ATTN_SDPA_RETURN_LSE, "RETURN_LSE"},
                       {ATTN_SDPA_RETURN_ROW_MAX, "RETURN_ROW_MAX"}};
    for (const auto &option : meaningless) {
      if (p.has(option.flag)) {
        return error.fail(ATTN_ERROR_UNSUPPORTED, "desc.flags",
                          "desc.flags has %s, which only a softmax has; activation is SILU",
                          option.name);
      }
    }
  }
  if (p.has(ATTN_SDPA_LSE_INCLUDES_SINK) && !p.has(ATTN_SDPA_SINK)) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.flags",
                      "desc.flags has LSE_INCLUDES_SINK without SINK");
  }
  return ATTN_OK;
}

int32_t check_schedule(Problem &p, const ErrorSink &error) {
  const attn_sdpa_desc &d = p.d;
  int32_t status = check_enum("desc.split_policy", d.split_policy, ATTN_SPLIT_FIXED, error);
  if (status != ATTN_OK) return status;
  status = d.split_policy == ATTN_SPLIT_FIXED
               ? check_range("desc.split_size", d.split_size, 1, INT32_MAX, error)
               : check_unused("desc.split_size", d.split_size, false, "split_policy FIXED", error);
  if (status != ATTN_OK) return status;
  return check_enum("desc.determinism", d.determinism, ATTN_DETERMINISM_BATCH_INVARIANT, error);
}

int32_t check_grads(Problem &p, const ErrorSink &error) {
  attn_sdpa_desc &d = p.d;
  int32_t status = check_flags("desc.grads", d.grads, kKnownGrads, error);
  if (status != ATTN_OK) return status;
  if (!p.backward()) return check_unused("desc.grads", d.grads, false, "pass BACKWARD", error);
  if (d.grads == 0) {
    d.grads = ATTN_SDPA_GRAD_Q | ATTN_SDPA_GRAD_K | (p.latent() ? 0 : ATTN_SDPA_GRAD_V);
  }
  const struct {
    uint32_t grad;
    bool possible;
    const char *name, *needs;
  } rules[] = {
      {ATTN_SDPA_GRAD_V, !p.latent(), "GRAD_V", "separate k and v (LATENT_KV: GRAD_K covers both)"},
      {ATTN_SDPA_GRAD_BIAS, p.has(ATTN_SDPA_BIAS), "GRAD_BIAS", "the BIAS flag"},
      {ATTN_SDPA_GRAD_SINK, p.has(ATTN_SDPA_SINK), "GRAD_SINK", "the SINK flag"},
      {ATTN_SDPA_GRAD_GATE, p.has(ATTN_SDPA_GATE), "GRAD_GATE", "the GATE flag"},
      {ATTN_SDPA_GRAD_LSE_IN, p.softmax(), "GRAD_LSE_IN", "activation SOFTMAX"},
  };
  for (const auto &rule : rules) {
    if (p.wants(rule.grad) && !rule.possible) {
      return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.grads",
                        "desc.grads has %s, which needs %s", rule.name, rule.needs);
    }
  }
  return ATTN_OK;
}

}  // namespace

int32_t make_problem(const attn_sdpa_desc *desc, Problem &problem, const ErrorSink &error) {
  int32_t status = copy_in(desc, problem.d, "desc", error);
  if (status == ATTN_OK) {
    status = check_enum("desc.pass", problem.d.pass, ATTN_SDPA_BACKWARD, error);
  }
  if (status == ATTN_OK) status = check_flags("desc.flags", problem.d.flags, kKnownFlags, error);
  if (status == ATTN_OK) status = check_shape(problem, error);
  if (status == ATTN_OK) status = check_dtypes(problem, error);
  if (status == ATTN_OK) status = check_scores(problem, error);
  if (status == ATTN_OK) status = check_weights(problem, error);
  if (status == ATTN_OK) status = check_schedule(problem, error);
  if (status == ATTN_OK) status = check_grads(problem, error);
  return status;
}

}  // namespace attn::sdpa
