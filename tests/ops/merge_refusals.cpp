// Bad input to merge: every row breaks one rule of merge.h, and must get the right status, an error
// that names the field and says its value, and outputs as they were.
#include <cstring>
#include <functional>

#include "allocations.hpp"
#include "harness.hpp"
#include "tensor.hpp"

// A table reads best with a row a case.
// clang-format off

namespace check {
namespace {

constexpr int32_t kInvalid = ATTN_ERROR_INVALID_ARGUMENT, kVersion = ATTN_ERROR_VERSION;
constexpr int32_t kFloat = ATTN_DTYPE_FP32;
constexpr int64_t kRows = 3, kParts = 2, kHeads = 4, kDim = 8;
constexpr uint64_t kAll = ATTN_MERGE_OTHER | ATTN_MERGE_ROW_MASK | ATTN_MERGE_SINK |
                          ATTN_MERGE_LSE_INCLUDES_SINK | ATTN_MERGE_RETURN_LSE;

// A valid problem and call with every option, to be broken.
struct MergeAttempt {
  explicit MergeAttempt(Rng &rng)
      : partial(kFloat, {kRows, kParts, kHeads, kDim}, Strides::kContiguous, rng),
        partial_lse(kFloat, {kRows, kParts, kHeads}, Strides::kContiguous, rng),
        other(kFloat, {kRows, kHeads, kDim}, Strides::kContiguous, rng),
        other_lse(kFloat, {kRows, kHeads}, Strides::kContiguous, rng),
        row_mask(ATTN_DTYPE_UINT8, {kRows}, Strides::kContiguous, rng),
        sink(kFloat, {kHeads}, Strides::kContiguous, rng),
        out(kFloat, {kRows, kHeads, kDim}, Strides::kContiguous, rng),
        out_lse(kFloat, {kRows, kHeads}, Strides::kContiguous, rng) {
    for (HostTensor *t : {&partial, &partial_lse, &other, &other_lse, &sink}) {
      for (int64_t i = 0; i < t->elements(); i++) t->set(i, normal(rng));
    }
    for (int64_t i = 0; i < kRows; i++) row_mask.set(i, 1);
    desc.dtype = kFloat;
    desc.flags = kAll;
    desc.num_heads = kHeads;
    desc.head_dim = kDim;
    desc.max_rows = kRows;
    desc.max_parts = kParts;
    args.partial = partial.view;
    args.partial_lse = partial_lse.view;
    args.other = other.view;
    args.other_lse = other_lse.view;
    args.row_mask = row_mask.view;
    args.sink = sink.view;
    args.out = out.view;
    args.out_lse = out_lse.view;
  }

  attn_merge_desc desc = ATTN_MERGE_DESC_INIT;
  attn_merge_args args = ATTN_MERGE_ARGS_INIT;
  HostTensor partial, partial_lse, other, other_lse, row_mask, sink, out, out_lse;
};

struct MergeRefusal {
  std::string name;
  bool at_plan;  // else at execute
  int32_t status;
  std::string field, value;  // part of attn_error.field; part of the message
  std::function<void(MergeAttempt &)> break_it;
  uint64_t without = 0;  // flags that the plan leaves out; their tensors stay
};

std::vector<MergeRefusal> merge_refusals() {
  std::vector<MergeRefusal> rows;
  const auto desc = [&rows](const char *name, int32_t status, const char *field, const char *value,
                            std::function<void(MergeAttempt &)> break_it) {
    rows.push_back({name, true, status, field, value, std::move(break_it)});
  };
  const auto args = [&rows](const char *name, const char *field, const char *value,
                            std::function<void(MergeAttempt &)> break_it,
                            int32_t status = kInvalid) {
    rows.push_back({name, false, status, field, value, std::move(break_it)});
  };
#define BREAK(code) [](MergeAttempt &a) { code; }
  desc("desc-size", kInvalid, "desc", "8", BREAK(a.desc.struct_size = 8));
  desc("dtype-missing", kInvalid, "desc.dtype", "", BREAK(a.desc.dtype = ATTN_DTYPE_NONE));
  desc("dtype-int8", kInvalid, "desc.dtype", "int8", BREAK(a.desc.dtype = ATTN_DTYPE_INT8));
  desc("dtype-unknown", kInvalid, "desc.dtype", "999", BREAK(a.desc.dtype = 999));
  desc("out-dtype-fp8", kInvalid, "desc.out_dtype", "fp8", BREAK(a.desc.out_dtype = ATTN_DTYPE_FP8_E4M3FN));
  desc("out-dtype-unknown", kInvalid, "desc.out_dtype", "-3", BREAK(a.desc.out_dtype = -3));
  desc("flags-unknown", kVersion, "desc.flags", "", BREAK(a.desc.flags |= 1ull << 60));
  desc("lse-base-unknown", kInvalid, "desc.lse_base", "7", BREAK(a.desc.lse_base = 7));
  desc("heads-zero", kInvalid, "desc.num_heads", "0", BREAK(a.desc.num_heads = 0));
  desc("heads-many", kInvalid, "desc.num_heads", "65537", BREAK(a.desc.num_heads = 65537));
  desc("dim-zero", kInvalid, "desc.head_dim", "0", BREAK(a.desc.head_dim = 0));
  desc("dim-large", kInvalid, "desc.head_dim", "4097", BREAK(a.desc.head_dim = 4097));
  desc("rows-negative", kInvalid, "desc.max_rows", "-1", BREAK(a.desc.max_rows = -1));
  desc("parts-negative", kInvalid, "desc.max_parts", "-2", BREAK(a.desc.max_parts = -2));
  desc("lse-sink-without-sink", kInvalid, "desc.flags", "LSE_INCLUDES_SINK",
       BREAK(a.desc.flags &= ~uint64_t{ATTN_MERGE_SINK}));

  args("args-size", "args", "8", BREAK(a.args.struct_size = 8));
  args("args-reserved", "args.reserved", "5", BREAK(a.args.reserved = 5), kVersion);
  args("partial-missing", "args.partial", "", BREAK(a.args.partial.rank = 0));
  args("partial-null", "args.partial", "", BREAK(a.args.partial.data = nullptr));
  args("partial-dtype", "args.partial", "bf16", BREAK(a.args.partial.dtype = ATTN_DTYPE_BF16));
  args("partial-rank", "args.partial", "3", BREAK(a.args.partial.rank = 3));
  args("partial-rows", "args.partial.shape[0]", "4", BREAK(a.args.partial.shape[0] = 4));
  args("partial-parts", "args.partial.shape[1]", "3", BREAK(a.args.partial.shape[1] = 3));
  args("partial-heads", "args.partial.shape[2]", "5", BREAK(a.args.partial.shape[2] = 5));
  args("partial-dim", "args.partial.shape[3]", "7", BREAK(a.args.partial.shape[3] = 7));
  args("partial-lse-missing", "args.partial_lse", "", BREAK(a.args.partial_lse.rank = 0));
  args("partial-lse-dtype", "args.partial_lse", "fp16", BREAK(a.args.partial_lse.dtype = ATTN_DTYPE_FP16));
  args("partial-lse-parts", "args.partial_lse.shape[1]", "1", BREAK(a.args.partial_lse.shape[1] = 1));
  args("other-missing", "args.other", "", BREAK(a.args.other.rank = 0));
  args("other-rows", "args.other.shape[0]", "2", BREAK(a.args.other.shape[0] = 2));
  args("other-lse-missing", "args.other_lse", "", BREAK(a.args.other_lse.rank = 0));
  args("other-lse-heads", "args.other_lse.shape[1]", "3", BREAK(a.args.other_lse.shape[1] = 3));
  args("row-mask-missing", "args.row_mask", "", BREAK(a.args.row_mask.rank = 0));
  args("row-mask-dtype", "args.row_mask", "int8", BREAK(a.args.row_mask.dtype = ATTN_DTYPE_INT8));
  args("row-mask-rows", "args.row_mask.shape[0]", "2", BREAK(a.args.row_mask.shape[0] = 2));
  args("sink-missing", "args.sink", "", BREAK(a.args.sink.rank = 0));
  args("sink-heads", "args.sink.shape[0]", "3", BREAK(a.args.sink.shape[0] = 3));
  args("out-missing", "args.out", "", BREAK(a.args.out.rank = 0));
  args("out-dtype", "args.out", "fp16", BREAK(a.args.out.dtype = ATTN_DTYPE_FP16));
  args("out-dim", "args.out.shape[2]", "9", BREAK(a.args.out.shape[2] = 9));
  args("out-overlaps-itself", "args.out", "", BREAK(a.args.out.stride[0] = 0));
  args("out-lse-missing", "args.out_lse", "", BREAK(a.args.out_lse.rank = 0));
  args("out-lse-dtype", "args.out_lse", "bf16", BREAK(a.args.out_lse.dtype = ATTN_DTYPE_BF16));
  args("out-lse-rows", "args.out_lse.shape[0]", "1", BREAK(a.args.out_lse.shape[0] = 1));
  args("out-lse-overlaps-itself", "args.out_lse", "", BREAK(a.args.out_lse.stride[1] = 0));
  args("out-is-partial", "args.out", "args.partial", BREAK(a.args.out.data = a.args.partial.data));
  args("out-near-other", "args.out", "args.other",
       BREAK(a.args.out.data = static_cast<float *>(a.args.other.data) + 1));
  args("out-is-sink", "args.out", "args.sink", BREAK(a.args.out.data = a.args.sink.data));
  args("out-lse-is-partial-lse", "args.out_lse", "args.partial_lse",
       BREAK(a.args.out_lse.data = a.args.partial_lse.data));
  args("out-lse-is-out", "args.out_lse", "args.out", BREAK(a.args.out_lse.data = a.args.out.data));
#undef BREAK
  const auto nothing = [](MergeAttempt &) {};
  const auto unasked = [&](const char *name, const char *field, uint64_t flags) {
    rows.push_back({name, false, kInvalid, field, "", nothing, flags});
  };
  unasked("other-unasked", "args.other", ATTN_MERGE_OTHER);
  unasked("row-mask-unasked", "args.row_mask", ATTN_MERGE_ROW_MASK);
  unasked("sink-unasked", "args.sink", ATTN_MERGE_SINK | ATTN_MERGE_LSE_INCLUDES_SINK);
  unasked("out-lse-unasked", "args.out_lse", ATTN_MERGE_RETURN_LSE);
  rows.push_back({"other-lse-unasked", false, kInvalid, "args.other_lse", "",
                  [](MergeAttempt &a) { a.args.other = ATTN_TENSOR_INIT; }, ATTN_MERGE_OTHER});
  return rows;
}

// clang-format on

std::string refusal_failure(const MergeRefusal &row, int32_t status, const attn_error &error) {
  if (status == ATTN_OK) return "was accepted";
  const std::string field = error.field, message = error.message;
  if (status != row.status || error.status != status) {
    return std::string("status is ") + attn_status_name(status) + ", should be " +
           attn_status_name(row.status) + ": " + message;
  }
  if (field.find(row.field) == std::string::npos) {
    return "error.field is \"" + field + "\", should name " + row.field + ": " + message;
  }
  if (message.find(row.value) == std::string::npos) {
    return "the message does not say \"" + row.value + "\": " + message;
  }
  return {};
}

std::string plan_failure(Session &session, const MergeRefusal &row, MergeAttempt &a) {
  row.break_it(a);
  attn_plan *plan = reinterpret_cast<attn_plan *>(&a);  // to be overwritten with NULL
  attn_error error = ATTN_ERROR_INIT, probe_error = ATTN_ERROR_INIT;
  const int32_t status = attn_merge_plan_create(session.context(), &a.desc, nullptr, &plan, &error);
  const int32_t probe = attn_merge_supported(session.context(), &a.desc, nullptr, &probe_error);
  const std::string failure = refusal_failure(row, status, error);
  if (!failure.empty()) return failure;
  if (plan != nullptr) return "refused, but *plan is not NULL";
  if (probe != status || std::strcmp(error.message, probe_error.message) != 0) {
    return std::string("attn_merge_supported says otherwise: ") + probe_error.message;
  }
  return {};
}

// Nothing is launched, so it does not matter to a device where the tensors lie.
std::string call_failure(Session &session, const MergeRefusal &row, MergeAttempt &a) {
  a.desc.flags &= ~row.without;
  attn_plan *made = nullptr;
  attn_error error = ATTN_ERROR_INIT;
  if (attn_merge_plan_create(session.context(), &a.desc, nullptr, &made, &error) != ATTN_OK) {
    return "not served: " + describe(error);
  }
  const PlanPtr plan(made);
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_plan_query(made, &info, nullptr);
  Workspace workspace(info);
  const auto execute = [&](attn_error *into) {
    return attn_merge(made, &a.args, workspace.data(), workspace.bytes(), nullptr, into);
  };
  if (session.backend() == "cpu" && row.without == 0 && execute(&error) != ATTN_OK) {
    return "refused before it was broken: " + describe(error);
  }
  row.break_it(a);
  for (HostTensor *t : {&a.out, &a.out_lse}) {
    t->poison(0xa5a5a5a5a5a5a5a5);
    t->remember();
  }
  const uint64_t before = allocations();
  const int32_t status = execute(&error);
  if (allocations() != before) return "allocated while refusing";
  const std::string failure = refusal_failure(row, status, error);
  if (!failure.empty()) return failure;
  if (execute(nullptr) != status) return "without an attn_error the status differs";
  if (!a.out.untouched() || !a.out_lse.untouched()) return "refused, but wrote to an output";
  return {};
}

}  // namespace

void run_merge_refusals(Session &session) {
  if (session.options.bench) return;
  std::vector<MergeRefusal> rows = merge_refusals();
  for (MergeRefusal &row : rows) row.name = "refusal/merge/" + row.name;
  std::erase_if(rows, [&](const MergeRefusal &row) { return !session.wanted(row.name); });
  if (session.options.list) {
    for (const MergeRefusal &row : rows) std::printf("%s\n", row.name.c_str());
    return;
  }
  session.expect(rows.size());
  for (const MergeRefusal &row : rows) {
    if (session.is_finished(row.name)) continue;
    session.step(row.name);
    if (session.begin(row.name)) {
      Rng rng(session.seed_of(row.name, 0));
      MergeAttempt attempt(rng);
      session.report(
          row.name, "",
          row.at_plan ? plan_failure(session, row, attempt) : call_failure(session, row, attempt));
    }
    session.finished(row.name);
  }
}

}  // namespace check
