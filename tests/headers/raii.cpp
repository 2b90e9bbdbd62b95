// attn.hpp at work: ownership, both forms of each call, and errors. Compiled as C++11 twice: with
// exceptions, and with -fno-exceptions, where only the status-returning forms exist.
#include <attn/attn.hpp>
#include <attn/attn.hpp>  // twice is once
#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <vector>

namespace {

int passed = 0, failed = 0;

void check(bool ok, const char *what) {
  (ok ? passed : failed)++;
  if (!ok) std::printf("raii: %s\n", what);
}

attn_sdpa_desc description() {
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.flags = ATTN_SDPA_RETURN_LSE;
  desc.q_dtype = ATTN_DTYPE_FP32;
  desc.num_q_heads = 1;
  desc.head_dim_qk = 4;
  desc.max_batch = 1;
  desc.max_seqlen_q = 1;
  desc.max_seqlen_k = 2;
  desc.softmax_scale = 0.5f;
  return desc;
}

attn_merge_desc merge_description() {
  attn_merge_desc desc = ATTN_MERGE_DESC_INIT;
  desc.dtype = ATTN_DTYPE_FP32;
  desc.num_heads = 1;
  desc.head_dim = 4;
  desc.max_rows = 1;
  desc.max_parts = 2;
  return desc;
}

// One query, two keys of equal score: the result is the mean of their values.
struct Data {
  float q[4] = {1, 2, 3, 4};
  float k[8] = {};
  const float v[8] = {1, 2, 3, 4, 5, 6, 7, 8};  // inputs may be const
  float out[4] = {};
  float lse[1] = {};

  bool right() const {
    for (int d = 0; d < 4; d++) {
      if (!(std::fabs(out[d] - (v[d] + v[4 + d]) / 2) < 1e-5f)) return false;
    }
    return std::fabs(lse[0] - std::log(2.0f)) < 1e-5f;
  }
};

void ownership() {
  static_assert(!std::is_copy_constructible<attn::Context>::value, "");
  static_assert(!std::is_copy_constructible<attn::Plan>::value, "");
  static_assert(!std::is_copy_constructible<attn::Workspace>::value, "");
  static_assert(std::is_nothrow_move_constructible<attn::Context>::value, "");
  static_assert(std::is_nothrow_move_assignable<attn::Plan>::value, "");
  static_assert(std::is_nothrow_move_assignable<attn::Workspace>::value, "");

  attn::Context context(nullptr), other(nullptr);
  check(!context && context.get() == nullptr, "an empty context holds nothing");
  check(attn::Context::create(context, ATTN_BACKEND_CPU) == ATTN_OK && context, "Context::create");
  attn_context *handle = context.get();
  other = std::move(context);
  check(!context && other.get() == handle, "a move hands the context on");
  attn::Context &itself = other;
  other = std::move(itself);
  check(other.get() == handle, "a move to itself keeps the context");
  attn::Context taken(other.release());
  check(!other && taken.get() == handle, "release and take over");

  attn::Plan plan;
  const attn_sdpa_desc desc = description();
  check(attn::Plan::create(plan, taken, desc) == ATTN_OK && plan, "Plan::create");
  attn::Plan second(std::move(plan));
  check(!plan && second, "a move hands the plan on");
  check(attn::Plan::create(second, taken, desc) == ATTN_OK, "create replaces a plan");

  attn::Workspace workspace;
  check(workspace.data() == nullptr && workspace.size() == 0, "an empty workspace");
  check(workspace.reserve(100, 256), "reserve");
  check(reinterpret_cast<std::uintptr_t>(workspace.data()) % 256 == 0, "the alignment is kept");
  void *data = workspace.data();
  check(workspace.reserve(50, 64) && workspace.data() == data && workspace.size() == 100,
        "a smaller wish changes nothing");
  check(!workspace.reserve(static_cast<std::size_t>(-1), 64), "too much is refused");
  check(workspace.data() == data && workspace.size() == 100, "and leaves what there was");
  attn::Workspace moved(std::move(workspace));
  check(moved.data() == data, "a move hands the memory on");
}

// The forms without exceptions, from end to end.
void statuses() {
  attn_error error = attn::error_record();
  check(attn::compatible(&error) == ATTN_OK, "compatible");
  attn::Context context(nullptr);
  attn_context_desc context_desc = ATTN_CONTEXT_DESC_INIT;
  context_desc.backend = ATTN_BACKEND_CPU;
  context_desc.num_threads = 1;
  check(attn::Context::create(context, &context_desc, &error) == ATTN_OK, "Context::create");
  attn_device_info device = ATTN_DEVICE_INFO_INIT;
  check(context.query(device, &error) == ATTN_OK && device.num_units == 1, "Context::query");

  attn_sdpa_desc desc = description();
  check(attn::supported(context, desc, &error) == ATTN_OK, "supported");
  attn::Plan plan;
  check(attn::Plan::create(plan, context, desc, nullptr, &error) == ATTN_OK, "Plan::create");
  check(plan.try_prepare(&error) == ATTN_OK, "try_prepare");
  attn::Workspace workspace;
  check(workspace.try_fit(plan, &error) == ATTN_OK, "try_fit");

  Data data;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  check(attn::make_tensor(args.q, data.q, ATTN_DTYPE_FP32, {1, 1, 1, 4}, &error) == ATTN_OK &&
            attn::make_tensor(args.k, data.k, ATTN_DTYPE_FP32, {1, 2, 1, 4}) == ATTN_OK &&
            attn::make_tensor(args.v, data.v, ATTN_DTYPE_FP32, {1, 2, 1, 4}, {8, 4, 4, 1}) ==
                ATTN_OK &&
            attn::make_tensor(args.out, data.out, ATTN_DTYPE_FP32, {1, 1, 1, 4}) == ATTN_OK &&
            attn::make_tensor(args.lse, data.lse, ATTN_DTYPE_FP32, {1, 1, 1}) == ATTN_OK,
        "make_tensor");
  check(plan.try_forward(args, workspace.data(), workspace.size(), nullptr, &error) == ATTN_OK,
        "try_forward");
  check(data.right(), "the result of try_forward");

  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  check(plan.query(info, &error) == ATTN_OK, "Plan::query");
  attn::Workspace large;
  check(large.reserve(static_cast<std::size_t>(info.tune_workspace_bytes),
                      static_cast<std::size_t>(info.workspace_alignment)),
        "reserve for tuning");
  attn::Plan tuned;
  check(plan.try_tune(tuned, &args, nullptr, large.data(), large.size(), nullptr, &error) ==
                ATTN_OK &&
            tuned,
        "try_tune");

  // Two parts of equal weight merge to their mean.
  const attn_merge_desc merge_desc = merge_description();
  check(attn::supported(context, merge_desc, &error) == ATTN_OK, "supported, merge");
  attn::Plan merge;
  check(attn::Plan::create(merge, context, merge_desc, nullptr, &error) == ATTN_OK,
        "Plan::create, merge");
  check(workspace.try_fit(merge, &error) == ATTN_OK, "one workspace for several plans");
  const float parts_lse[2] = {0, 0};
  Data merged;
  attn_merge_args merge_args = ATTN_MERGE_ARGS_INIT;
  check(attn::make_tensor(merge_args.partial, data.v, ATTN_DTYPE_FP32, {1, 2, 1, 4}) == ATTN_OK &&
            attn::make_tensor(merge_args.partial_lse, parts_lse, ATTN_DTYPE_FP32, {1, 2, 1}) ==
                ATTN_OK &&
            attn::make_tensor(merge_args.out, merged.out, ATTN_DTYPE_FP32, {1, 1, 4}) == ATTN_OK,
        "make_tensor, merge");
  check(merge.try_merge(merge_args, workspace.data(), workspace.size(), nullptr, &error) == ATTN_OK,
        "try_merge");
  merged.lse[0] = std::log(2.0f);
  check(merged.right(), "the result of try_merge");

  // Failures say what is wrong and leave their result alone.
  desc.num_kv_heads = -1;
  check(attn::Plan::create(plan, context, desc, nullptr, &error) == ATTN_ERROR_INVALID_ARGUMENT &&
            std::strcmp(error.field, "desc.num_kv_heads") == 0 && plan,
        "a failed create names the field and keeps the plan");
  check(attn::make_tensor(args.q, data.q, ATTN_DTYPE_FP32, {1, -1}, &error) ==
                ATTN_ERROR_INVALID_ARGUMENT &&
            args.q.rank == 4,
        "a negative extent is refused and the tensor left alone");
  check(attn::make_tensor(args.q, data.q, ATTN_DTYPE_FP32, {1, 4}, {4}, &error) ==
                ATTN_ERROR_INVALID_ARGUMENT &&
            std::strcmp(error.field, "stride") == 0 && args.q.rank == 4,
        "strides of another rank are refused");
  check(plan.try_forward(args, workspace.data(), workspace.size(), &data, &error) ==
                ATTN_ERROR_INVALID_ARGUMENT &&
            std::strcmp(error.field, "stream") == 0,
        "the stream reaches the library, whose CPU has none");
  check(plan.try_forward(args, nullptr, 0, nullptr, &error) != ATTN_OK || info.workspace_bytes == 0,
        "a missing workspace is refused");
  attn::Plan none;
  check(none.query(info, &error) == ATTN_ERROR_INVALID_ARGUMENT, "an empty plan is refused");
}

// A GPU, where there is one: no memory of its is touched here.
void gpu() {
  check(attn::device_pointer(0x7f0012345600) == reinterpret_cast<void *>(0x7f0012345600),
        "device_pointer");
  attn_error error = attn::error_record();
  int32_t count = 0;
  const bool there = attn_device_count(ATTN_BACKEND_CUDA, &count, &error) == ATTN_OK && count > 0;
  attn::Context context(nullptr);
  const int32_t status = attn::Context::create(context, ATTN_BACKEND_CUDA, 0, &error);
  if (!there) {
    check(status == ATTN_ERROR_BACKEND_UNAVAILABLE && !context && error.message[0] != '\0',
          "no CUDA device: the status and the reason");
    std::printf("raii: no CUDA device, so none was used: %s\n", error.message);
    return;
  }
  attn_device_info device = ATTN_DEVICE_INFO_INIT;
  check(status == ATTN_OK && context.query(device) == ATTN_OK &&
            device.backend == ATTN_BACKEND_CUDA && device.device_index == 0,
        "the CUDA device that was asked for");
  check(attn::Context::create(context, ATTN_BACKEND_CUDA, count, &error) ==
            ATTN_ERROR_INVALID_ARGUMENT,
        "a device too many");
  attn::Plan plan;
  check(attn::Plan::create(plan, context, description(), nullptr, &error) == ATTN_OK,
        "a plan for CUDA");
  attn::Workspace workspace;
  check(workspace.try_fit(plan, &error) == ATTN_ERROR_UNSUPPORTED &&
            std::strcmp(error.field, "workspace") == 0,
        "host memory is no workspace of a GPU");
}

#if ATTN_HPP_EXCEPTIONS

template <class F>
bool throws(F f, int32_t status, const char *field) {
  try {
    f();
  } catch (const attn::Error &error) {
    return error.status() == status && std::strcmp(error.field(), field) == 0 &&
           std::strncmp(error.what(), attn_status_name(status),
                        std::strlen(attn_status_name(status))) == 0 &&
           std::strstr(error.what(), error.message()) != nullptr;
  }
  return false;
}

void exceptions() {
  const attn::Context context = attn::Context::cpu(1);
  check(context.query().backend == ATTN_BACKEND_CPU && context.query().num_units == 1,
        "Context::cpu");
  const attn::Context best;
  check(static_cast<bool>(best), "the default context");

  Data data;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  args.q = attn::tensor(data.q, {1, 1, 1, 4});
  args.k = attn::tensor(data.k, {1, 2, 1, 4}, {8, 4, 4, 1});
  args.v = attn::tensor(data.v, {1, 2, 1, 4});
  args.out = attn::tensor(data.out, ATTN_DTYPE_FP32, {1, 1, 1, 4});
  args.lse = attn::tensor(data.lse, {1, 1, 1});
  check(args.v.dtype == ATTN_DTYPE_FP32, "const float is FP32");

  const attn::Plan plan(context, description());
  plan.prepare();
  const attn::Workspace workspace(plan);
  plan.forward(args, workspace);
  check(data.right(), "the result of forward");

  const std::vector<std::string> names = plan.implementations();
  check(!names.empty() && names.size() == size_t(plan.query().num_implementations),
        "implementations");
  const std::string line = plan.export_tuning();
  check(!line.empty(), "export_tuning");
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  options.tuning = line.c_str();
  check(std::strcmp(attn::Plan(context, description(), &options).query().implementation,
                    plan.query().implementation) == 0,
        "what was exported is imported");

  data.out[0] = 0;
  const attn::Plan tuned = plan.tune(args);
  check(data.right(), "tuning leaves the right result");
  tuned.forward(args, attn::Workspace(tuned));

  attn_sdpa_desc backward_desc = description();
  backward_desc.pass = ATTN_SDPA_BACKWARD;
  backward_desc.flags = 0;
  backward_desc.grads = ATTN_SDPA_GRAD_V;
  const attn::Plan backward(context, backward_desc);
  const float dout[4] = {2, 4, 6, 8};
  float dv[8] = {};
  attn_sdpa_backward_args backward_args = ATTN_SDPA_BACKWARD_ARGS_INIT;
  backward_args.forward = &args;
  backward_args.dout = attn::tensor(dout, {1, 1, 1, 4});
  backward_args.dv = attn::tensor(dv, {1, 2, 1, 4});
  backward.backward(backward_args, attn::Workspace(backward));
  bool right = true;
  for (int d = 0; d < 8; d++) right = right && std::fabs(dv[d] - dout[d % 4] / 2) < 1e-5f;
  check(right, "the result of backward");
  check(static_cast<bool>(backward.tune(backward_args)), "tuning the backward pass");

  const attn::Plan merge(context, merge_description());
  const float parts_lse[2] = {0, 0};
  Data merged;
  attn_merge_args merge_args = ATTN_MERGE_ARGS_INIT;
  merge_args.partial = attn::tensor(data.v, {1, 2, 1, 4});
  merge_args.partial_lse = attn::tensor(parts_lse, {1, 2, 1});
  merge_args.out = attn::tensor(merged.out, {1, 1, 4});
  merge.merge(merge_args, attn::Workspace(merge));
  merged.lse[0] = std::log(2.0f);
  check(merged.right(), "the result of merge");

  check(throws([&] { attn::tensor(data.q, {-1}); }, ATTN_ERROR_INVALID_ARGUMENT, "shape"),
        "a wrong shape throws");
  attn_sdpa_desc wrong = description();
  wrong.head_dim_qk = 0;
  check(
      throws([&] { attn::Plan(context, wrong); }, ATTN_ERROR_INVALID_ARGUMENT, "desc.head_dim_qk"),
      "a wrong description throws");
  attn_context_desc absent = ATTN_CONTEXT_DESC_INIT;
  absent.backend = 99;
  check(throws([&] { attn::Context c(absent); }, ATTN_ERROR_INVALID_ARGUMENT, "desc.backend"),
        "an unknown backend throws");
  int32_t count = 0;
  if (attn_device_count(ATTN_BACKEND_CUDA, &count, nullptr) == ATTN_OK && count > 0) {
    check(attn::Context::cuda().query().backend == ATTN_BACKEND_CUDA, "Context::cuda");
  } else {
    check(throws([] { attn::Context::cuda(); }, ATTN_ERROR_BACKEND_UNAVAILABLE, "backend"),
          "Context::cuda without a device");
  }
}

#endif

}  // namespace

int main() {
  ownership();
  statuses();
  gpu();
#if ATTN_HPP_EXCEPTIONS
  exceptions();
#endif
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
