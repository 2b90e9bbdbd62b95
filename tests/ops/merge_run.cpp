// The merge family: its table of cases, its oracle, and the test that split, then merged attention
// equals whole attention.
#include <algorithm>
#include <cmath>
#include <limits>

#include "allocations.hpp"
#include "codec.hpp"
#include "compare.hpp"
#include "harness.hpp"
#include "sdpa_oracle.hpp"
#include "tensor.hpp"

namespace check {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kLn2 = 0.693147180559945309417232121458;
constexpr int32_t kFp32 = ATTN_DTYPE_FP32, kFp16 = ATTN_DTYPE_FP16, kBf16 = ATTN_DTYPE_BF16;
constexpr uint64_t kOther = ATTN_MERGE_OTHER, kRowMask = ATTN_MERGE_ROW_MASK,
                   kSink = ATTN_MERGE_SINK, kLseSink = ATTN_MERGE_LSE_INCLUDES_SINK,
                   kLse = ATTN_MERGE_RETURN_LSE;

enum MergeData : uint32_t {
  kPlain = 0,
  kIdentityParts = 1 << 0,  // some parts are (anything, -inf)
  kNanInIdentity = 1 << 1,  // and hold NaN
  kAllIdentity = 1 << 2,    // whole rows of them
  kHugeLse = 1 << 3,        // lse around +-1e4
  kSinkMinusInf = 1 << 4,
  kSinkPlusInf = 1 << 5,
};

struct MergeCase {
  std::string name;
  uint64_t flags = kLse;
  int32_t dtype = kFp32, out_dtype = 0, lse_base = ATTN_LSE_BASE_E;
  int64_t rows = 7, parts = 3;
  int32_t heads = 4, dim = 32;
  uint32_t data = kPlain;
  Strides strides = Strides::kContiguous;
  bool in_place = false, loose_limits = false;
};

std::vector<MergeCase> merge_cases() {
  std::vector<MergeCase> rows;
  for (int32_t base : {ATTN_LSE_BASE_E, ATTN_LSE_BASE_2}) {
    const std::vector<MergeCase> table = {
        {.name = "plain"},
        {.name = "bf16", .dtype = kBf16},
        {.name = "fp16", .dtype = kFp16, .rows = 33, .dim = 128},
        {.name = "bf16-to-fp32", .dtype = kBf16, .out_dtype = kFp32},
        {.name = "fp32-to-bf16", .out_dtype = kBf16, .dim = 72},
        {.name = "no-lse", .flags = 0},
        {.name = "no-rows", .rows = 0},
        {.name = "no-parts", .parts = 0},
        {.name = "no-parts-other", .flags = kLse | kOther, .parts = 0},
        {.name = "one-part", .parts = 1},
        {.name = "many-parts", .parts = 300, .dim = 64},
        {.name = "odd", .rows = 5, .parts = 2, .heads = 3, .dim = 1},
        {.name = "large-dim", .rows = 2, .parts = 2, .heads = 1, .dim = 4096},
        {.name = "identity-parts", .parts = 6, .data = kIdentityParts},
        {.name = "nan-in-identity-parts",
         .dtype = kBf16,
         .parts = 6,
         .data = kIdentityParts | kNanInIdentity},
        {.name = "all-identity", .data = kIdentityParts | kNanInIdentity | kAllIdentity},
        {.name = "all-identity-other",
         .flags = kLse | kOther,
         .data = kIdentityParts | kNanInIdentity | kAllIdentity},
        {.name = "huge-lse", .data = kHugeLse},
        {.name = "huge-lse-sink", .flags = kLse | kSink | kLseSink, .data = kHugeLse},
        {.name = "other", .flags = kLse | kOther},
        {.name = "other-in-place", .flags = kLse | kOther, .in_place = true},
        {.name = "other-in-place-bf16-masked",
         .flags = kLse | kOther | kRowMask,
         .dtype = kBf16,
         .in_place = true},
        {.name = "row-mask", .flags = kLse | kRowMask, .rows = 20},
        {.name = "row-mask-other",
         .flags = kLse | kRowMask | kOther,
         .rows = 20,
         .data = kIdentityParts},
        {.name = "sink", .flags = kLse | kSink},
        {.name = "sink-in-lse", .flags = kLse | kSink | kLseSink},
        {.name = "sink-all-identity", .flags = kLse | kSink | kLseSink, .data = kAllIdentity},
        {.name = "sink-excluded-all-identity", .flags = kLse | kSink, .data = kAllIdentity},
        {.name = "sink-minus-inf", .flags = kLse | kSink | kLseSink, .data = kSinkMinusInf},
        {.name = "sink-plus-inf", .flags = kLse | kSink, .data = kSinkPlusInf},
        {.name = "sink-plus-inf-in-lse", .flags = kLse | kSink | kLseSink, .data = kSinkPlusInf},
        {.name = "everything",
         .flags = kLse | kSink | kLseSink | kOther | kRowMask,
         .dtype = kBf16,
         .rows = 40,
         .parts = 5,
         .data = kIdentityParts | kNanInIdentity,
         .strides = Strides::kPermuted,
         .loose_limits = true},
        {.name = "parts-first", .rows = 20, .parts = 4, .strides = Strides::kPermuted},
        {.name = "padded", .dtype = kFp16, .rows = 20, .parts = 4, .strides = Strides::kPadded},
        {.name = "padded-bf16",
         .dtype = kBf16,
         .rows = 20,
         .parts = 4,
         .strides = Strides::kPadded},
        {.name = "odd-dim-bf16", .dtype = kBf16, .rows = 9, .parts = 2, .dim = 37},
        {.name = "odd-dim-fp16", .dtype = kFp16, .rows = 9, .parts = 2, .dim = 37},
        {.name = "negative-strides", .rows = 20, .parts = 4, .strides = Strides::kNegative},
    };
    for (MergeCase row : table) {
      row.name = "merge/" + row.name + (base == ATTN_LSE_BASE_2 ? "-base2" : "");
      row.lse_base = base;
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

class MergeCall {
 public:
  MergeCall(const MergeCase &row, uint64_t seed)
      : c(row), desc(ATTN_MERGE_DESC_INIT), args(ATTN_MERGE_ARGS_INIT), rng_(seed) {
    desc.dtype = c.dtype;
    desc.out_dtype = c.out_dtype;
    desc.flags = c.flags;
    desc.lse_base = c.lse_base;
    desc.num_heads = c.heads;
    desc.head_dim = c.dim;
    desc.max_rows = c.rows + (c.loose_limits ? 9 : 0);
    desc.max_parts = c.parts + (c.loose_limits ? 3 : 0);
    const double unit = c.lse_base == ATTN_LSE_BASE_2 ? 1 / kLn2 : 1;
    partial = HostTensor(c.dtype, {c.rows, c.parts, c.heads, c.dim}, c.strides, rng_);
    partial_lse = HostTensor(kFp32, {c.rows, c.parts, c.heads}, c.strides, rng_);
    const auto fill = [&](HostTensor &v, HostTensor &lse, bool all_identity) {
      for (int64_t i = 0; i < lse.elements(); i++) {
        const bool identity = (all_identity && i / (c.parts * c.heads + (c.parts == 0)) % 2 == 0) ||
                              ((c.data & kIdentityParts) && chance(rng_, 0.4));
        const double size = c.data & kHugeLse ? 1e4 : 3;
        lse.set(i, identity ? -kInf : size * normal(rng_) * unit);
        for (int64_t d = 0; d < c.dim; d++) {
          v.set(i * c.dim + d, identity && (c.data & kNanInIdentity) ? std::nan("") : normal(rng_));
        }
      }
    };
    fill(partial, partial_lse, (c.data & kAllIdentity) != 0);
    args.partial = partial.view;
    args.partial_lse = partial_lse.view;
    if (c.flags & kOther) {
      other = HostTensor(c.dtype, {c.rows, c.heads, c.dim}, c.strides, rng_);
      other_lse = HostTensor(kFp32, {c.rows, c.heads}, c.strides, rng_);
      fill(other, other_lse, false);
      args.other = other.view;
      args.other_lse = other_lse.view;
    }
    if (c.flags & kRowMask) {
      row_mask = HostTensor(ATTN_DTYPE_UINT8, {c.rows}, c.strides, rng_);
      for (int64_t n = 0; n < c.rows; n++) {
        row_mask.set(n, chance(rng_, 0.5) ? 0 : static_cast<double>(uniform(rng_, 1, 255)));
      }
      args.row_mask = row_mask.view;
    }
    if (c.flags & kSink) {
      sink = HostTensor(kFp32, {c.heads}, c.strides, rng_);
      for (int64_t h = 0; h < c.heads; h++) {
        sink.set(h, (c.data & kSinkPlusInf) && h % 2 == 0    ? kInf
                    : (c.data & kSinkMinusInf) && h % 2 == 0 ? -kInf
                                                             : 2 * normal(rng_));
      }
      args.sink = sink.view;
    }
    out = HostTensor(c.out_dtype != 0 ? c.out_dtype : c.dtype, {c.rows, c.heads, c.dim}, c.strides,
                     rng_);
    out_lse = HostTensor(kFp32, {c.rows, c.heads}, c.strides, rng_);
    args.out = out.view;
    if (c.flags & kLse) args.out_lse = out_lse.view;
    if (c.in_place) {
      args.out = other.view;
      args.out_lse = other_lse.view;
    }
  }

  template <class T>
  void oracle(Result<T> &value, Result<T> &lse_out) const {
    value = {Array<T>({c.rows, c.heads, c.dim}), Array<double>({c.rows, c.heads, c.dim})};
    lse_out = {Array<T>({c.rows, c.heads}), Array<double>({c.rows, c.heads})};
    const T unit = c.lse_base == ATTN_LSE_BASE_2 ? static_cast<T>(kLn2) : T(1);
    const auto v = converted<T>(partial.load()), l = converted<T>(partial_lse.load());
    const auto ov = converted<T>(other.load()), ol = converted<T>(other_lse.load());
    for (int64_t n = 0; n < c.rows; n++) {
      const bool masked = row_mask.present() && row_mask.get(n) == 0;
      for (int64_t h = 0; h < c.heads; h++) {
        // Parts as (lse, first element).
        std::vector<std::pair<T, const T *>> parts;
        for (int64_t s = 0; s < c.parts && !masked; s++) {
          parts.emplace_back(l.at(n, s, h) * unit, &v.at(n, s, h, 0));
        }
        if (other.present()) parts.emplace_back(ol.at(n, h) * unit, &ov.at(n, h, 0));
        std::erase_if(parts, [](const auto &part) { return std::isinf(part.first); });
        T m = -std::numeric_limits<T>::infinity(), sum = 0;
        double size = 0;
        for (const auto &part : parts) {
          m = std::max(m, part.first);
          size = std::max(size, std::fabs(static_cast<double>(part.first)));
        }
        for (const auto &part : parts) sum += std::exp(part.first - m);
        const T lse = parts.empty() ? m : m + std::log(sum);
        T total = lse;
        if (sink.present()) {
          const T x = static_cast<T>(sink.get(h)), top = std::max(lse, x);
          if (std::isfinite(x)) size = std::max(size, std::fabs(static_cast<double>(x)));
          total = std::isinf(top) ? top : top + std::log(std::exp(lse - top) + std::exp(x - top));
        }
        const T reported = c.flags & kLseSink ? total : lse;
        lse_out.value.at(n, h) = reported / unit;
        lse_out.slack.at(n, h) = 8 * 0x1p-24 * (size + 1) / static_cast<double>(unit);
        for (int64_t d = 0; d < c.dim; d++) {
          T x = 0;
          double terms = 0;
          for (const auto &part : parts) {
            if (std::isinf(total)) continue;
            const T term = std::exp(part.first - total) * part.second[d];
            x += term;
            terms += std::fabs(static_cast<double>(term));
          }
          value.value.at(n, h, d) = x;
          value.slack.at(n, h, d) = 8 * 0x1p-24 * (size + 1) * terms;
        }
      }
    }
  }

  HostTensor &result() { return c.in_place ? other : out; }
  HostTensor &result_lse() { return c.in_place ? other_lse : out_lse; }

  const MergeCase &c;
  attn_merge_desc desc;
  attn_merge_args args;
  HostTensor partial, partial_lse, other, other_lse, row_mask, sink, out, out_lse;

 private:
  Rng rng_;
};

PlanPtr merge_plan(const attn_context *context, const attn_merge_desc &desc,
                   const char *implementation, std::string &failure) {
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  options.implementation = implementation;
  attn_error error = ATTN_ERROR_INIT;
  attn_plan *plan = nullptr;
  if (attn_merge_plan_create(context, &desc, &options, &plan, &error) != ATTN_OK) {
    failure = describe(error);
  } else if (attn_merge_supported(context, &desc, &options, &error) != ATTN_OK) {
    failure = "attn_merge_supported refuses what attn_merge_plan_create takes";
  }
  return PlanPtr(plan);
}

std::string merge_failure(Session &session, const MergeCase &c, uint64_t seed,
                          const char *implementation, nlohmann::json &extra) {
  std::vector<uint8_t> bits[2];
  double worst = 0;
  for (int run = 0; run < 3; run++) {
    MergeCall call(c, seed);  // new each time: in place, the call changes its inputs
    Result<double> truth, truth_lse;
    Result<float> naive, naive_lse;
    call.oracle(truth, truth_lse);
    call.oracle(naive, naive_lse);
    std::string failure;
    const PlanPtr plan = merge_plan(session.context(run == 2 && session.backend() == "cpu" ? 1 : 0),
                                    call.desc, implementation, failure);
    if (!failure.empty()) return failure;
    attn_plan_info info = ATTN_PLAN_INFO_INIT;
    attn_plan_query(plan.get(), &info, nullptr);
    Workspace workspace(info);
    if (!c.in_place) {
      call.out.poison(run == 0 ? ~UINT64_C(0) : 0x5a5a5a5a5a5a5a5a);
      call.out_lse.poison(run == 0 ? ~UINT64_C(0) : 0x5a5a5a5a5a5a5a5a);
    }
    call.result().remember();
    call.result_lse().remember();
    call.partial.remember();
    workspace.poison(static_cast<uint8_t>(run));
    attn_error error = ATTN_ERROR_INIT;
    if (attn_plan_prepare(plan.get(), &error) != ATTN_OK) return describe(error);
    DeviceMemory *const device = session.device();
    if (device != nullptr) device->upload();
    std::unique_ptr<Graph> graph;
    int32_t status = ATTN_OK;
    const uint64_t before = allocations();
    const auto execute = [&] {
      status = call_merge(session, plan.get(), call.args, workspace, &error);
    };
    if (device != nullptr && device->stable() && run == 2) {
      graph = device->capture(execute);
      if (status == ATTN_OK) graph->launch();
    } else {
      execute();
    }
    const uint64_t allocated = allocations() - before;
    if (device != nullptr) device->download();
    if (status != ATTN_OK) return describe(error);
    if (allocated != 0 && graph == nullptr)
      return std::to_string(allocated) + " heap allocations in execute";
    if (!workspace.guards_untouched()) return "wrote outside the workspace";
    if (!call.result().gaps_untouched() || !call.result_lse().gaps_untouched()) {
      return "wrote outside the elements of its outputs";
    }
    if (!(c.flags & kLse) && !call.out_lse.untouched()) return "wrote an lse it was not asked for";
    if (!call.partial.untouched()) return "changed its input";
    Comparison result = compare("out", call.result(), truth.value, truth.slack, naive.value);
    worst = std::max(worst, result.worst);
    if (!result.ok) return result.detail;
    if (c.flags & kLse) {
      result =
          compare("out_lse", call.result_lse(), truth_lse.value, truth_lse.slack, naive_lse.value);
      worst = std::max(worst, result.worst);
      if (!result.ok) return result.detail;
    }
    if (run < 2) bits[run] = call.result().element_bytes();
    if (run == 1 && info.deterministic != 0 && bits[0] != bits[1]) {
      return "the second run gives other bits, though the plan says it is deterministic";
    }
  }
  extra["worst"] = worst;
  return {};
}

// Attention over all keys against attention over pieces of them, merged: through every layer a
// cascade or a context-parallel run goes. With a sink, it enters once, in the merge.
std::string split_merge_failure(Session &session, uint64_t seed, int32_t lse_base, bool sink,
                                int32_t pieces, bool ranks_first) {
  constexpr int64_t kSq = 5, kSk = 61, kHq = 4, kHkv = 2, kD = 32;
  Rng rng(seed);
  HostTensor q(kFp32, {1, kSq, kHq, kD}, Strides::kContiguous, rng);
  HostTensor k(kFp32, {1, kSk, kHkv, kD}, Strides::kContiguous, rng);
  HostTensor v(kFp32, {1, kSk, kHkv, kD}, Strides::kContiguous, rng);
  HostTensor sinks(kFp32, {kHq}, Strides::kContiguous, rng);
  for (HostTensor *t : {&q, &k, &v, &sinks}) {
    for (int64_t i = 0; i < t->elements(); i++) t->set(i, normal(rng));
  }
  SdpaInputs in;
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.flags = ATTN_SDPA_RETURN_LSE;
  desc.q_dtype = kFp32;
  desc.num_q_heads = kHq;
  desc.num_kv_heads = kHkv;
  desc.head_dim_qk = desc.head_dim_v = kD;
  desc.max_batch = 1;
  desc.max_seqlen_q = kSq;
  desc.max_seqlen_k = kSk;
  desc.softmax_scale = 0.2f;
  desc.lse_base = lse_base;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  args.q = q.view;
  args.k = k.view;
  args.v = v.view;
  in.desc = desc;
  in.args = args;
  in.batch = 1;
  in.q = q.load();
  in.k = k.load();
  in.v = v.load();
  if (sink) {
    in.desc.flags |= ATTN_SDPA_SINK | ATTN_SDPA_LSE_INCLUDES_SINK;
    in.sink = sinks.load();
  }
  const auto truth = sdpa_forward<double>(in);
  const auto naive = sdpa_forward<float>(in);

  // One slab a rank ([s, n, h, d], as ranks gather them) or one row after the other.
  HostTensor partial(kFp32,
                     ranks_first ? std::vector<int64_t>{pieces, kSq, kHq, kD}
                                 : std::vector<int64_t>{kSq, pieces, kHq, kD},
                     Strides::kContiguous, rng);
  HostTensor partial_lse(
      kFp32,
      ranks_first ? std::vector<int64_t>{pieces, kSq, kHq} : std::vector<int64_t>{kSq, pieces, kHq},
      Strides::kContiguous, rng);
  attn_merge_args m = ATTN_MERGE_ARGS_INIT;
  m.partial = partial.view;
  m.partial_lse = partial_lse.view;
  if (ranks_first) {
    for (attn_tensor *t : {&m.partial, &m.partial_lse}) {
      std::swap(t->shape[0], t->shape[1]);
      std::swap(t->stride[0], t->stride[1]);
    }
  }
  attn_error error = ATTN_ERROR_INIT;
  attn_plan *made = nullptr;
  if (attn_sdpa_plan_create(session.context(), &desc, nullptr, &made, &error) != ATTN_OK) {
    return describe(error);
  }
  const PlanPtr plan(made);
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_plan_query(plan.get(), &info, nullptr);
  Workspace workspace(info);
  attn_merge_desc merge = ATTN_MERGE_DESC_INIT;
  merge.dtype = kFp32;
  merge.flags = kLse | (sink ? kSink | kLseSink : 0);
  merge.lse_base = lse_base;
  merge.num_heads = kHq;
  merge.head_dim = kD;
  merge.max_rows = kSq;
  merge.max_parts = pieces;
  HostTensor out(kFp32, {1, kSq, kHq, kD}, Strides::kContiguous, rng);
  HostTensor lse(kFp32, {1, kHq, kSq}, Strides::kContiguous, rng);
  m.out = {out.view.data, kFp32, 3, {kSq, kHq, kD}, {kHq * kD, kD, 1}};
  m.out_lse = {lse.view.data, kFp32, 2, {kSq, kHq}, {1, kSq}};
  if (sink) m.sink = sinks.view;
  std::string failure;
  const PlanPtr joining = merge_plan(session.context(), merge, nullptr, failure);
  if (!failure.empty()) return failure;
  attn_plan_query(joining.get(), &info, nullptr);
  Workspace merge_workspace(info);
  if (DeviceMemory *device = session.device()) device->upload();
  for (int64_t piece = 0; piece < pieces; piece++) {
    const int64_t first = kSk * piece / pieces, end = kSk * (piece + 1) / pieces;
    attn_sdpa_args a = args;
    for (attn_tensor *t : {&a.k, &a.v}) {
      t->data = static_cast<float *>(t->data) + first * t->stride[1];
      t->shape[1] = end - first;
    }
    // out [1, n, h, d] and lse [1, h, n] are views into the merge's inputs.
    a.out = {static_cast<float *>(m.partial.data) + piece * m.partial.stride[1],
             kFp32,
             4,
             {1, kSq, kHq, kD},
             {0, m.partial.stride[0], m.partial.stride[2], m.partial.stride[3]}};
    a.lse = {static_cast<float *>(m.partial_lse.data) + piece * m.partial_lse.stride[1],
             kFp32,
             3,
             {1, kHq, kSq},
             {0, m.partial_lse.stride[2], m.partial_lse.stride[0]}};
    if (call_forward(session, plan.get(), a, workspace, &error) != ATTN_OK) return describe(error);
  }
  if (call_merge(session, joining.get(), m, merge_workspace, &error) != ATTN_OK) {
    return describe(error);
  }
  if (DeviceMemory *device = session.device()) device->download();
  Comparison result = compare("out", out, truth.out.value, truth.out.slack, naive.out.value);
  if (!result.ok) return result.detail;
  result = compare("lse", lse, truth.lse.value, truth.lse.slack, naive.lse.value);
  return result.detail;
}

}  // namespace

void run_merge(Session &session) {
  std::vector<MergeCase> rows = merge_cases();
  if (session.options.bench) return;  // its cases are too small to be worth timing
  std::erase_if(rows, [&](const MergeCase &c) { return !session.wanted(c.name); });
  if (session.options.list) {
    for (const MergeCase &c : rows) std::printf("%s\n", c.name.c_str());
  }
  session.expect(session.options.list ? 0 : rows.size());
  for (const MergeCase &c : rows) {
    if (session.options.list) break;
    if (session.is_finished(c.name)) continue;
    session.step(c.name);
    const uint64_t seed = session.seed_of(c.name, 0);
    const MergeCall call(c, seed);
    std::string failure;
    const PlanPtr plan = merge_plan(session.context(), call.desc, nullptr, failure);
    if (!failure.empty()) {
      session.report(c.name, "", "not served: " + failure);
      continue;
    }
    attn_plan_info info = ATTN_PLAN_INFO_INIT;
    attn_plan_query(plan.get(), &info, nullptr);
    for (int32_t i = 0; i < info.num_implementations; i++) {
      const char *name = nullptr;
      attn_plan_implementation(plan.get(), i, &name, nullptr);
      if (!session.options.implementation.empty() && session.options.implementation != name)
        continue;
      if (!session.begin(c.name, name)) continue;
      nlohmann::json extra = nlohmann::json::object();
      try {
        const std::string result = merge_failure(session, c, seed, name, extra);
        session.report(c.name, name, result, extra);
      } catch (const DeviceError &e) {
        session.report(c.name, name, e);
      }
    }
    session.finished(c.name);
  }
  for (int32_t base : {ATTN_LSE_BASE_E, ATTN_LSE_BASE_2}) {
    for (bool sink : {false, true}) {
      for (int32_t pieces : {1, 3, 61}) {
        for (bool ranks_first : {false, true}) {
          const std::string name = std::string("merge/split-then-merge/") +
                                   (base == ATTN_LSE_BASE_2 ? "base2" : "natural") +
                                   (sink ? "-sink" : "") + (ranks_first ? "-ranks-first" : "") +
                                   "-" + std::to_string(pieces);
          if (!session.wanted(name)) continue;
          if (session.options.list) {
            std::printf("%s\n", name.c_str());
            continue;
          }
          if (!session.begin(name)) continue;
          try {
            session.report(name, "",
                           split_merge_failure(session, session.seed_of(name, 0), base, sink,
                                               pieces, ranks_first));
          } catch (const DeviceError &e) {
            session.report(name, "", e);
          }
        }
      }
    }
  }
}

}  // namespace check
