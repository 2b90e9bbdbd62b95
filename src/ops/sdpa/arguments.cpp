// One execute's arguments against the problem: shapes, dtypes, presence, overlap.
#include <algorithm>
#include <cinttypes>

#include "core/ceil_div.hpp"
#include "core/dtype.hpp"
#include "core/struct_copy.hpp"
#include "ops/check.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::sdpa {
namespace {

// Checks the arguments of one call, in the order of the struct, and fills in the call's sizes.
class Checker {
 public:
  Checker(const Problem &problem, Call &call, const ErrorSink &error)
      : p_(problem), d_(problem.d), call_(call), a_(call.args), error_(error) {}

  int32_t inputs() {
    int32_t status = queries();
    if (status == ATTN_OK) status = keys();
    if (status == ATTN_OK) status = lengths();
    if (status == ATTN_OK) status = masks();
    if (status == ATTN_OK) status = score_terms();
    if (status == ATTN_OK) status = blocks();
    if (status == ATTN_OK) status = scales();
    return status;
  }

  int32_t forward_outputs() {
    int32_t status = out();
    if (status == ATTN_OK) status = check_output("args.out", a_.out, error_);
    const struct {
      const char *field, *flag_name;
      const attn_tensor &tensor;
      uint64_t flag;
    } statistics[] = {
        {"args.lse", "RETURN_LSE flag", a_.lse, ATTN_SDPA_RETURN_LSE},
        {"args.row_max", "RETURN_ROW_MAX flag", a_.row_max, ATTN_SDPA_RETURN_ROW_MAX}};
    for (const auto &s : statistics) {
      if (status != ATTN_OK) return status;
      if (!p_.has(s.flag)) {
        status = check_absent(s.field, s.tensor, s.flag_name, error_);
        continue;
      }
      status = row_statistic(s.field, s.tensor);
      if (status == ATTN_OK) status = check_output(s.field, s.tensor, error_);
    }
    if (status != ATTN_OK) return status;
    const Named outputs[] = {
        {"args.out", &a_.out}, {"args.lse", &a_.lse}, {"args.row_max", &a_.row_max}};
    return no_overlap(outputs, 3);
  }

  int32_t backward() {
    const attn_sdpa_backward_args &g = call_.grads;
    int32_t status = out();
    if (status == ATTN_OK && p_.softmax()) status = row_statistic("args.forward->lse", a_.lse);
    if (status == ATTN_OK) status = like_out("args.dout", g.dout, {kFp32, kFp16, kBf16});
    if (status == ATTN_OK) {
      status = p_.wants(ATTN_SDPA_GRAD_LSE_IN)
                   ? row_statistic("args.dlse", g.dlse)
                   : check_absent("args.dlse", g.dlse, "GRAD_LSE_IN", error_);
    }
    const struct {
      const char *field, *name;
      const attn_tensor &grad, &of;
      uint32_t flag;
    } rules[] = {{"args.dq", "GRAD_Q", g.dq, a_.q, ATTN_SDPA_GRAD_Q},
                 {"args.dk", "GRAD_K", g.dk, a_.k, ATTN_SDPA_GRAD_K},
                 {"args.dv", "GRAD_V", g.dv, a_.v, ATTN_SDPA_GRAD_V},
                 {"args.dbias", "GRAD_BIAS", g.dbias, a_.bias, ATTN_SDPA_GRAD_BIAS},
                 {"args.dsink", "GRAD_SINK", g.dsink, a_.sink, ATTN_SDPA_GRAD_SINK},
                 {"args.dgate", "GRAD_GATE", g.dgate, a_.gate, ATTN_SDPA_GRAD_GATE}};
    for (const auto &rule : rules) {
      if (status != ATTN_OK) return status;
      if (!p_.wants(rule.flag)) {
        status = check_absent(rule.field, rule.grad, rule.name, error_);
        continue;
      }
      status = like(rule.field, rule.grad, rule.of);
      if (status == ATTN_OK) status = check_output(rule.field, rule.grad, error_);
    }
    if (status != ATTN_OK) return status;
    const Named outputs[] = {{"args.dq", &g.dq},       {"args.dk", &g.dk},
                             {"args.dv", &g.dv},       {"args.dbias", &g.dbias},
                             {"args.dsink", &g.dsink}, {"args.dgate", &g.dgate}};
    status = no_overlap(outputs, 6);
    const Named read[] = {{"args.forward->out", &a_.out},
                          {"args.forward->lse", &a_.lse},
                          {"args.dout", &g.dout},
                          {"args.dlse", &g.dlse}};
    for (const Named &output : outputs) {
      for (const Named &input : read) {
        if (status == ATTN_OK) status = apart(output, input);
      }
    }
    return status;
  }

 private:
  static constexpr int32_t kFp32 = ATTN_DTYPE_FP32, kFp16 = ATTN_DTYPE_FP16,
                           kBf16 = ATTN_DTYPE_BF16, kInt32 = ATTN_DTYPE_INT32,
                           kUint8 = ATTN_DTYPE_UINT8;
  struct Named {
    const char *field;
    const attn_tensor *tensor;
  };

  int32_t queries() {
    const attn_tensor &q = a_.q;
    const Extent heads = {d_.num_q_heads, "num_q_heads"}, dim = {d_.head_dim_qk, "head_dim_qk"};
    if (p_.ragged_q()) {
      const int32_t status = check_tensor("args.q", q, {d_.q_dtype},
                                          {{0, "total_q", false, true}, heads, dim}, error_);
      if (status != ATTN_OK) return status;
      call_.batch = a_.batch;
      call_.total_q = q.shape[0];
      call_.seqlen_q = d_.max_seqlen_q;
      if (call_.total_q > d_.max_total_q) {
        return beyond("args.q.shape[0]", "total_q", call_.total_q, "max_total_q", d_.max_total_q);
      }
      if (call_.batch == 0 && call_.total_q > 0) {  // the likely slip: it was never set
        return error_.fail(ATTN_ERROR_INVALID_ARGUMENT, "args.batch",
                           "args.batch is 0, but args.q has %" PRId64
                           " tokens; with ragged q it "
                           "must be the number of sequences",
                           call_.total_q);
      }
    } else {
      const int32_t status = check_tensor(
          "args.q", q, {d_.q_dtype},
          {{0, "batch", false, true}, {0, "seqlen_q", false, true}, heads, dim}, error_);
      if (status != ATTN_OK) return status;
      call_.batch = q.shape[0];
      call_.seqlen_q = q.shape[1];
      call_.total_q = call_.batch * call_.seqlen_q;
      if (a_.batch != 0 && a_.batch != call_.batch) {
        return error_.fail(ATTN_ERROR_INVALID_ARGUMENT, "args.batch",
                           "args.batch is %" PRId64
                           "; with dense q it must be 0 or q's first "
                           "extent, %" PRId64,
                           a_.batch, call_.batch);
      }
      if (call_.seqlen_q > d_.max_seqlen_q) {
        return beyond("args.q.shape[1]", "seqlen_q", call_.seqlen_q, "max_seqlen_q",
                      d_.max_seqlen_q);
      }
    }
    if (call_.batch < 0 || call_.batch > d_.max_batch) {
      return beyond(p_.ragged_q() ? "args.batch" : "args.q.shape[0]", "batch", call_.batch,
                    "max_batch", d_.max_batch);
    }
    return ATTN_OK;
  }

  int32_t keys() {
    int32_t status = key_tensor("args.k", a_.k, d_.k_dtype, {d_.head_dim_qk, "head_dim_qk"});
    if (status != ATTN_OK) return status;
    call_.seqlen_k = d_.max_seqlen_k;
    const int64_t extent = p_.ragged_k() ? a_.k.shape[0] : a_.k.shape[1];
    if (d_.kv_layout == ATTN_LAYOUT_DENSE) {
      call_.seqlen_k = extent;
      if (extent > d_.max_seqlen_k) {
        return beyond("args.k.shape[1]", "seqlen_k", extent, "max_seqlen_k", d_.max_seqlen_k);
      }
    } else if (p_.ragged_k() && extent > d_.max_total_k) {
      return beyond("args.k.shape[0]", "total_k", extent, "max_total_k", d_.max_total_k);
    }
    if (p_.latent()) {
      status = check_absent("args.v", a_.v, "separate v (LATENT_KV)", error_);
      if (status != ATTN_OK) return status;
      a_.v = a_.k;
      a_.v.shape[a_.v.rank - 1] = d_.head_dim_v;
      return ATTN_OK;
    }
    status = key_tensor("args.v", a_.v, d_.v_dtype, {d_.head_dim_v, "head_dim_v"});
    for (int i = 0; status == ATTN_OK && i < a_.k.rank - 1; i++) {
      if (a_.v.shape[i] != a_.k.shape[i]) {
        return error_.fail(ATTN_ERROR_INVALID_ARGUMENT, "args.v.shape",
                           "args.v.shape[%d] is %" PRId64 "; it must be k's, %" PRId64, i,
                           a_.v.shape[i], a_.k.shape[i]);
      }
    }
    return status;
  }

  int32_t key_tensor(const char *field, const attn_tensor &tensor, int32_t dtype, Extent dim) {
    const Extent heads = {d_.num_kv_heads, "num_kv_heads"};
    if (p_.ragged_k()) {
      return check_tensor(field, tensor, {dtype}, {{0, "total_k", false, true}, heads, dim},
                          error_);
    }
    if (p_.paged()) {
      return check_tensor(field, tensor, {dtype},
                          {{0, "num_pages", false, true}, {d_.page_size, "page_size"}, heads, dim},
                          error_);
    }
    return check_tensor(field, tensor, {dtype},
                        {{call_.batch, "batch"}, {0, "seqlen_k", false, true}, heads, dim}, error_);
  }

  int32_t lengths() {
    const bool table = d_.kv_layout == ATTN_LAYOUT_PAGED_TABLE;
    const bool csr = d_.kv_layout == ATTN_LAYOUT_PAGED_CSR;
    const struct {
      const char *field;
      const void *pointer;
      bool wanted;
      const char *needs;
    } arrays[] = {
        {"args.cu_seqlens_q", a_.cu_seqlens_q, p_.ragged_q(), "RAGGED q_layout"},
        {"args.cu_seqlens_k", a_.cu_seqlens_k, p_.ragged_k(), "RAGGED kv_layout"},
        {"args.seqused_q", a_.seqused_q, p_.has(ATTN_SDPA_SEQUSED_Q), "SEQUSED_Q flag"},
        {"args.seqused_k", a_.seqused_k, table || p_.has(ATTN_SDPA_SEQUSED_K),
         "PAGED_TABLE kv_layout or SEQUSED_K flag"},
        {"args.kv_page_indptr", a_.kv_page_indptr, csr, "PAGED_CSR kv_layout"},
        {"args.kv_last_page_len", a_.kv_last_page_len, csr, "PAGED_CSR kv_layout"},
        {"args.rng_state", a_.rng_state, p_.has(ATTN_SDPA_DROPOUT), "DROPOUT flag"},
    };
    // An empty batch has no entries to point to.
    const bool some = call_.batch > 0;
    for (const auto &array : arrays) {
      if (!some && array.wanted && array.pointer == nullptr) continue;
      const int32_t status =
          check_pointer(array.field, array.pointer, array.wanted, array.needs, error_);
      if (status != ATTN_OK) return status;
    }
    // Whether the batch has any page is known to those alone who can read its offsets, and on a
    // device that is not the host. So a list must be there unless no sequence can have a page.
    const bool may_list = some && d_.max_seqlen_k > 0;
    if (!csr || may_list || a_.kv_page_indices != nullptr) {
      const int32_t status = check_pointer("args.kv_page_indices", a_.kv_page_indices, csr,
                                           "PAGED_CSR kv_layout", error_);
      if (status != ATTN_OK) return status;
    }
    if (!table)
      return check_absent("args.block_table", a_.block_table, "PAGED_TABLE kv_layout", error_);
    return check_tensor("args.block_table", a_.block_table, {kInt32},
                        {{call_.batch, "batch"}, {0, "max_pages_per_seq", false, true}}, error_);
  }

  // A tensor over (batch, head, query, last), in the layout of the queries.
  int32_t query_tensor(const char *field, const attn_tensor &tensor,
                       std::initializer_list<int32_t> dtypes, Extent last, bool share_rows) {
    const Extent heads = {d_.num_q_heads, "num_q_heads", true};
    if (p_.ragged_q()) {
      return check_tensor(field, tensor, dtypes, {heads, {call_.total_q, "total_q"}, last}, error_);
    }
    return check_tensor(
        field, tensor, dtypes,
        {{call_.batch, "batch", true}, heads, {call_.seqlen_q, "seqlen_q", share_rows}, last},
        error_);
  }

  // The extent of a dimension over the keys of one sequence.
  Extent key_extent(int64_t extent, const char *meaning) const {
    return {extent, meaning, false, true};
  }

  int32_t masks() {
    int32_t status =
        p_.has(ATTN_SDPA_MASK)
            ? query_tensor("args.mask", a_.mask, {kUint8},
                           key_extent(ceil_div(call_.seqlen_k, 8), "bytes of seqlen_k bits"), false)
            : check_absent("args.mask", a_.mask, "MASK flag", error_);
    if (status != ATTN_OK) return status;
    status =
        p_.has(ATTN_SDPA_TAIL_MASK)
            ? query_tensor("args.tail_mask", a_.tail_mask, {kUint8},
                           key_extent(ceil_div(call_.seqlen_q, 8), "bytes of seqlen_q bits"), false)
            : check_absent("args.tail_mask", a_.tail_mask, "TAIL_MASK flag", error_);
    if (status != ATTN_OK) return status;
    if (!p_.has(ATTN_SDPA_SEGMENT_IDS)) {
      status = check_absent("args.q_segment_ids", a_.q_segment_ids, "SEGMENT_IDS flag", error_);
      if (status != ATTN_OK) return status;
      return check_absent("args.kv_segment_ids", a_.kv_segment_ids, "SEGMENT_IDS flag", error_);
    }
    const Extent batch = {call_.batch, "batch"};
    status = p_.ragged_q() ? check_tensor("args.q_segment_ids", a_.q_segment_ids, {kInt32},
                                          {{call_.total_q, "total_q"}}, error_)
                           : check_tensor("args.q_segment_ids", a_.q_segment_ids, {kInt32},
                                          {batch, {call_.seqlen_q, "seqlen_q"}}, error_);
    if (status != ATTN_OK) return status;
    return p_.ragged_k() ? check_tensor("args.kv_segment_ids", a_.kv_segment_ids, {kInt32},
                                        {{a_.k.shape[0], "total_k"}}, error_)
                         : check_tensor("args.kv_segment_ids", a_.kv_segment_ids, {kInt32},
                                        {batch, key_extent(call_.seqlen_k, "seqlen_k")}, error_);
  }

  int32_t score_terms() {
    int32_t status = p_.has(ATTN_SDPA_BIAS)
                         ? query_tensor("args.bias", a_.bias, {kFp32, kFp16, kBf16},
                                        d_.kv_layout == ATTN_LAYOUT_DENSE && !p_.ragged_q()
                                            ? Extent{call_.seqlen_k, "seqlen_k"}
                                            : key_extent(call_.seqlen_k, "seqlen_k"),
                                        true)
                         : check_absent("args.bias", a_.bias, "BIAS flag", error_);
    if (status != ATTN_OK) return status;
    const Extent heads = {d_.num_q_heads, "num_q_heads"};
    if (!p_.has(ATTN_SDPA_ALIBI)) {
      status = check_absent("args.alibi_slopes", a_.alibi_slopes, "ALIBI flag", error_);
    } else if (a_.alibi_slopes.rank == 2) {
      status = check_tensor("args.alibi_slopes", a_.alibi_slopes, {kFp32},
                            {{call_.batch, "batch"}, heads}, error_);
    } else {
      status = check_tensor("args.alibi_slopes", a_.alibi_slopes, {kFp32}, {heads}, error_);
    }
    if (status != ATTN_OK) return status;
    status = p_.has(ATTN_SDPA_SINK) ? check_tensor("args.sink", a_.sink, {kFp32}, {heads}, error_)
                                    : check_absent("args.sink", a_.sink, "SINK flag", error_);
    if (status != ATTN_OK) return status;
    if (!p_.has(ATTN_SDPA_GATE)) return check_absent("args.gate", a_.gate, "GATE flag", error_);
    return like_out("args.gate", a_.gate, {kFp32, kFp16, kBf16}, true);
  }

  int32_t blocks() {
    if (!p_.has(ATTN_SDPA_BLOCK_SPARSE)) {
      const int32_t status =
          check_absent("args.block_counts", a_.block_counts, "BLOCK_SPARSE flag", error_);
      if (status != ATTN_OK) return status;
      return check_absent("args.block_indices", a_.block_indices, "BLOCK_SPARSE flag", error_);
    }
    const Extent batch = {call_.batch, "batch", true};
    const Extent heads = {d_.num_q_heads, "num_q_heads", true};
    const Extent rows = {ceil_div(call_.seqlen_q, d_.block_size_q), "query blocks", false, true};
    const int32_t status =
        check_tensor("args.block_counts", a_.block_counts, {kInt32}, {batch, heads, rows}, error_);
    if (status != ATTN_OK) return status;
    return check_tensor("args.block_indices", a_.block_indices, {kInt32},
                        {batch, heads, rows, {0, "max_blocks", false, true}}, error_);
  }

  int32_t scales() {
    int32_t status = scale("args.q_scale", a_.q_scale, d_.q_quant, a_.q, p_.ragged_q());
    if (status == ATTN_OK) {
      status =
          scale("args.k_scale", a_.k_scale, d_.k_quant, a_.k, d_.kv_layout != ATTN_LAYOUT_DENSE);
    }
    if (status != ATTN_OK) return status;
    if (p_.latent()) {
      status = check_absent("args.v_scale", a_.v_scale, "separate v (LATENT_KV)", error_);
      a_.v_scale = a_.k_scale;
      return status;
    }
    return scale("args.v_scale", a_.v_scale, d_.v_quant, a_.v, d_.kv_layout != ATTN_LAYOUT_DENSE);
  }

  // A scale tensor beside `data`: each extent data's where the granularity varies, else 1.
  // `no_batch`: the dimensions before the head are all places of a token.
  int32_t scale(const char *field, const attn_tensor &tensor, const attn_quant &quant,
                const attn_tensor &data, bool no_batch) {
    if (quant.granularity == ATTN_QUANT_NONE) {
      return check_absent(field, tensor, "scale for this tensor (desc quant granularity)", error_);
    }
    const bool token = quant.granularity >= ATTN_QUANT_TOKEN;
    const bool head = quant.granularity == ATTN_QUANT_HEAD || quant.granularity > ATTN_QUANT_TOKEN;
    const bool block = quant.granularity == ATTN_QUANT_BLOCK;
    const bool batch = token || (head && !no_batch);
    const int64_t last = block ? ceil_div(data.shape[data.rank - 1], quant.block_size) : 1;
    const Extent e_head = {head ? data.shape[data.rank - 2] : 1, "heads or 1", true};
    const Extent e_last = {last, "scale blocks of head_dim"};
    const Extent e_token = {token ? data.shape[data.rank - 3] : 1, "tokens or 1", true};
    if (data.rank == 3) {
      return check_tensor(field, tensor, {quant.scale_dtype}, {e_token, e_head, e_last}, error_);
    }
    const Extent e_batch = {batch ? data.shape[0] : 1, "batch, pages or 1", true};
    return check_tensor(field, tensor, {quant.scale_dtype}, {e_batch, e_token, e_head, e_last},
                        error_);
  }

  int32_t out() {
    int32_t status = like_out("args.out", a_.out, {d_.out_dtype});
    if (status == ATTN_OK) {
      status = scale("args.out_scale", a_.out_scale, d_.out_quant, a_.out, p_.ragged_q());
    }
    return status;
  }

  int32_t like_out(const char *field, const attn_tensor &tensor,
                   std::initializer_list<int32_t> dtypes, bool or_one = false) {
    const Extent heads = {d_.num_q_heads, "num_q_heads"};
    const Extent dim = {d_.head_dim_v, "head_dim_v", or_one};
    if (p_.ragged_q()) {
      return check_tensor(field, tensor, dtypes, {{call_.total_q, "total_q"}, heads, dim}, error_);
    }
    return check_tensor(field, tensor, dtypes,
                        {{call_.batch, "batch"}, {call_.seqlen_q, "seqlen_q"}, heads, dim}, error_);
  }

  int32_t row_statistic(const char *field, const attn_tensor &tensor) {
    const Extent heads = {d_.num_q_heads, "num_q_heads"};
    if (p_.ragged_q()) {
      return check_tensor(field, tensor, {kFp32}, {heads, {call_.total_q, "total_q"}}, error_);
    }
    return check_tensor(field, tensor, {kFp32},
                        {{call_.batch, "batch"}, heads, {call_.seqlen_q, "seqlen_q"}}, error_);
  }

  // A gradient: the shape of what it is the gradient of, in FP32 or its dtype.
  int32_t like(const char *field, const attn_tensor &grad, const attn_tensor &of) {
    const auto extent = [&](int i) { return Extent{of.shape[i], "as in the forward pass"}; };
    switch (of.rank) {
      case 1:
        return check_tensor(field, grad, {kFp32, of.dtype}, {extent(0)}, error_);
      case 3:
        return check_tensor(field, grad, {kFp32, of.dtype}, {extent(0), extent(1), extent(2)},
                            error_);
      default:
        return check_tensor(field, grad, {kFp32, of.dtype},
                            {extent(0), extent(1), extent(2), extent(3)}, error_);
    }
  }

  int32_t apart(const Named &output, const Named &other) {
    if (!overlaps(*output.tensor, *other.tensor)) return ATTN_OK;
    return error_.fail(ATTN_ERROR_INVALID_ARGUMENT, output.field,
                       "%s overlaps %s in memory; an output needs memory of its own", output.field,
                       other.field);
  }

  int32_t no_overlap(const Named *outputs, int count) {
    const Named inputs[] = {{"args.q", &a_.q},
                            {"args.k", &a_.k},
                            {"args.v", &a_.v},
                            {"args.mask", &a_.mask},
                            {"args.tail_mask", &a_.tail_mask},
                            {"args.q_segment_ids", &a_.q_segment_ids},
                            {"args.kv_segment_ids", &a_.kv_segment_ids},
                            {"args.bias", &a_.bias},
                            {"args.alibi_slopes", &a_.alibi_slopes},
                            {"args.sink", &a_.sink},
                            {"args.gate", &a_.gate},
                            {"args.block_table", &a_.block_table},
                            {"args.block_counts", &a_.block_counts},
                            {"args.block_indices", &a_.block_indices},
                            {"args.q_scale", &a_.q_scale},
                            {"args.k_scale", &a_.k_scale},
                            {"args.v_scale", &a_.v_scale},
                            {"args.out_scale", &a_.out_scale}};
    for (int i = 0; i < count; i++) {
      if (!is_present(*outputs[i].tensor)) continue;
      for (int j = 0; j < i; j++) {
        const int32_t status = apart(outputs[i], outputs[j]);
        if (status != ATTN_OK) return status;
      }
      for (const Named &input : inputs) {
        if (!is_present(*input.tensor)) continue;
        const int32_t status = apart(outputs[i], input);
        if (status != ATTN_OK) return status;
      }
    }
    return ATTN_OK;
  }

  int32_t beyond(const char *field, const char *meaning, int64_t value, const char *limit_name,
                 int64_t limit) {
    return error_.fail(ATTN_ERROR_INVALID_ARGUMENT, field,
                       "%s (%s) is %" PRId64 "; the plan's limit desc.%s is %" PRId64, field,
                       meaning, value, limit_name, limit);
  }

  const Problem &p_;
  const attn_sdpa_desc &d_;
  Call &call_;
  attn_sdpa_args &a_;
  const ErrorSink &error_;
};

int32_t copy_args(const attn_sdpa_args *args, const char *name, Call &call,
                  const ErrorSink &error) {
  const int32_t status = copy_in(args, call.args, name, error);
  return status == ATTN_OK ? check_reserved("args.reserved", call.args.reserved, error) : status;
}

}  // namespace

int32_t make_call(const Problem &problem, const attn_sdpa_args *args, Call &call,
                  const ErrorSink &error) {
  int32_t status = copy_args(args, "args", call, error);
  Checker checker(problem, call, error);
  if (status == ATTN_OK) status = checker.inputs();
  if (status == ATTN_OK) status = checker.forward_outputs();
  return status;
}

int32_t make_backward_call(const Problem &problem, const attn_sdpa_backward_args *args, Call &call,
                           const ErrorSink &error) {
  int32_t status = copy_in(args, call.grads, "args", error);
  if (status == ATTN_OK) status = check_reserved("args.reserved", call.grads.reserved, error);
  if (status == ATTN_OK) status = copy_args(call.grads.forward, "args.forward", call, error);
  call.grads.forward = nullptr;
  Checker checker(problem, call, error);
  if (status == ATTN_OK) status = checker.inputs();
  if (status == ATTN_OK) status = checker.backward();
  return status;
}

}  // namespace attn::sdpa
