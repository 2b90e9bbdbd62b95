#include "ops/merge/problem.hpp"

#include "core/struct_copy.hpp"
#include "ops/check.hpp"

namespace attn::merge {
namespace {

constexpr uint64_t kKnownFlags = (ATTN_MERGE_RETURN_LSE << 1) - 1;

bool same_view(const attn_tensor &a, const attn_tensor &b) {
  if (a.data != b.data || a.dtype != b.dtype || a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; i++) {
    if (a.shape[i] != b.shape[i] || (a.shape[i] > 1 && a.stride[i] != b.stride[i])) return false;
  }
  return true;
}

}  // namespace

int32_t make_problem(const attn_merge_desc *desc, Problem &problem, const ErrorSink &error) {
  int32_t status = copy_in(desc, problem.d, "desc", error);
  if (status != ATTN_OK) return status;
  attn_merge_desc &d = problem.d;
  if (d.out_dtype == ATTN_DTYPE_NONE) d.out_dtype = d.dtype;
  const auto floats = {int32_t{ATTN_DTYPE_FP32}, int32_t{ATTN_DTYPE_FP16},
                       int32_t{ATTN_DTYPE_BF16}};
  status = check_dtype("desc.dtype", d.dtype, floats, error);
  if (status == ATTN_OK) status = check_dtype("desc.out_dtype", d.out_dtype, floats, error);
  if (status == ATTN_OK) status = check_flags("desc.flags", d.flags, kKnownFlags, error);
  if (status == ATTN_OK) status = check_enum("desc.lse_base", d.lse_base, ATTN_LSE_BASE_2, error);
  if (status == ATTN_OK) status = check_range("desc.num_heads", d.num_heads, 1, 1 << 16, error);
  if (status == ATTN_OK) status = check_range("desc.head_dim", d.head_dim, 1, 4096, error);
  if (status == ATTN_OK) status = check_range("desc.max_rows", d.max_rows, 0, INT32_MAX, error);
  if (status == ATTN_OK) status = check_range("desc.max_parts", d.max_parts, 0, INT32_MAX, error);
  if (status == ATTN_OK && problem.has(ATTN_MERGE_LSE_INCLUDES_SINK) &&
      !problem.has(ATTN_MERGE_SINK)) {
    return error.fail(ATTN_ERROR_INVALID_ARGUMENT, "desc.flags",
                      "desc.flags has LSE_INCLUDES_SINK without SINK");
  }
  return status;
}

int32_t make_call(const Problem &problem, const attn_merge_args *args, Call &call,
                  const ErrorSink &error) {
  int32_t status = copy_in(args, call.args, "args", error);
  if (status == ATTN_OK) status = check_reserved("args.reserved", call.args.reserved, error);
  if (status != ATTN_OK) return status;
  const attn_merge_desc &d = problem.d;
  const attn_merge_args &a = call.args;
  const Extent heads = {d.num_heads, "num_heads"}, dim = {d.head_dim, "head_dim"};
  status = check_tensor("args.partial", a.partial, {d.dtype},
                        {{0, "rows", false, true}, {0, "parts", false, true}, heads, dim}, error);
  if (status != ATTN_OK) return status;
  call.rows = a.partial.shape[0];
  call.parts = a.partial.shape[1];
  status = check_range("args.partial.shape[0]", call.rows, 0, d.max_rows, error);
  if (status == ATTN_OK) {
    status = check_range("args.partial.shape[1]", call.parts, 0, d.max_parts, error);
  }
  const Extent rows = {call.rows, "rows"}, parts = {call.parts, "parts"};
  const auto fp32 = {int32_t{ATTN_DTYPE_FP32}};
  if (status == ATTN_OK) {
    status = check_tensor("args.partial_lse", a.partial_lse, fp32, {rows, parts, heads}, error);
  }
  if (status == ATTN_OK && problem.has(ATTN_MERGE_OTHER)) {
    status = check_tensor("args.other", a.other, {d.dtype}, {rows, heads, dim}, error);
    if (status == ATTN_OK) {
      status = check_tensor("args.other_lse", a.other_lse, fp32, {rows, heads}, error);
    }
  } else if (status == ATTN_OK) {
    status = check_absent("args.other", a.other, "OTHER flag", error);
    if (status == ATTN_OK)
      status = check_absent("args.other_lse", a.other_lse, "OTHER flag", error);
  }
  if (status == ATTN_OK) {
    status = problem.has(ATTN_MERGE_ROW_MASK)
                 ? check_tensor("args.row_mask", a.row_mask, {ATTN_DTYPE_UINT8}, {rows}, error)
                 : check_absent("args.row_mask", a.row_mask, "ROW_MASK flag", error);
  }
  if (status == ATTN_OK) {
    status = problem.has(ATTN_MERGE_SINK) ? check_tensor("args.sink", a.sink, fp32, {heads}, error)
                                          : check_absent("args.sink", a.sink, "SINK flag", error);
  }
  if (status == ATTN_OK) {
    status = check_tensor("args.out", a.out, {d.out_dtype}, {rows, heads, dim}, error);
  }
  if (status == ATTN_OK) status = check_output("args.out", a.out, error);
  if (status == ATTN_OK && !problem.has(ATTN_MERGE_RETURN_LSE)) {
    status = check_absent("args.out_lse", a.out_lse, "RETURN_LSE flag", error);
  } else if (status == ATTN_OK) {
    status = check_tensor("args.out_lse", a.out_lse, fp32, {rows, heads}, error);
    if (status == ATTN_OK) status = check_output("args.out_lse", a.out_lse, error);
  }
  if (status != ATTN_OK) return status;

  const struct {
    const char *field;
    const attn_tensor &output, &in_place;
  } outputs[] = {{"args.out", a.out, a.other}, {"args.out_lse", a.out_lse, a.other_lse}};
  const struct {
    const char *field;
    const attn_tensor &tensor;
  } others[] = {{"args.partial", a.partial},
                {"args.partial_lse", a.partial_lse},
                {"args.other", a.other},
                {"args.other_lse", a.other_lse},
                {"args.row_mask", a.row_mask},
                {"args.sink", a.sink},
                {"args.out", a.out}};
  for (const auto &output : outputs) {
    for (const auto &other : others) {
      if (&other.tensor == &output.output) continue;
      const bool allowed =
          &other.tensor == &output.in_place && same_view(output.output, other.tensor);
      if (!allowed && overlaps(output.output, other.tensor)) {
        return error.fail(ATTN_ERROR_INVALID_ARGUMENT, output.field,
                          "%s overlaps %s in memory; an output needs memory of its own (out may be "
                          "exactly `other`, out_lse exactly `other_lse`)",
                          output.field, other.field);
      }
    }
  }
  return ATTN_OK;
}

}  // namespace attn::merge
