// What is not a computation: contexts, plans, structs that grow, errors, text functions.
#include <cstring>
#include <functional>

#include "harness.hpp"
#include "sdpa_call.hpp"

namespace check {
namespace {

#define EXPECT(condition) \
  if (!(condition)) return std::string("not so: " #condition)

const SdpaCase &small_case() {
  static const SdpaCase c{.name = "small", .flags = ATTN_SDPA_RETURN_LSE, .hq = 4, .hkv = 2};
  return c;
}

// A struct as a newer header would have it: `extra` more bytes.
template <class T>
struct Grown {
  T known;
  uint8_t extra[64];
};
template <class T>
Grown<T> grown(const T &from) {
  Grown<T> result;
  std::memset(&result, 0, sizeof result);
  result.known = from;
  result.known.struct_size = sizeof result;
  return result;
}

std::string grown_structs(Session &session) {
  SdpaCall call(small_case(), 1);
  attn_plan *plan = nullptr;
  attn_error error = ATTN_ERROR_INIT;
  auto desc = grown(call.desc);
  EXPECT(attn_sdpa_plan_create(session.context(), &desc.known, nullptr, &plan, &error) == ATTN_OK);
  PlanPtr owner(plan);
  desc.extra[60] = 1;
  attn_plan *none = plan;
  EXPECT(attn_sdpa_plan_create(session.context(), &desc.known, nullptr, &none, &error) ==
         ATTN_ERROR_VERSION);
  EXPECT(none == nullptr);
  EXPECT(std::string(error.field).find("desc") != std::string::npos);
  attn_plan_options plain = ATTN_PLAN_OPTIONS_INIT;
  auto options = grown(plain);
  EXPECT(attn_sdpa_supported(session.context(), &call.desc, &options.known, &error) == ATTN_OK);
  options.extra[0] = 1;
  EXPECT(attn_sdpa_supported(session.context(), &call.desc, &options.known, &error) ==
         ATTN_ERROR_VERSION);
  attn_plan_info plain_info = ATTN_PLAN_INFO_INIT;
  auto info = grown(plain_info);
  info.extra[5] = 77;
  EXPECT(attn_plan_query(plan, &info.known, &error) == ATTN_OK);
  EXPECT(info.extra[5] == 77);
  EXPECT(info.known.num_implementations >= 1);
  Workspace workspace(info.known);
  auto args = grown(call.args);
  DeviceMemory *const device = session.device();
  void *there = workspace.data();
  attn_stream stream = nullptr;
  if (device != nullptr) {
    args.known = device->on_device(args.known);
    there = device->address(there);
    stream = device->stream(0);
    device->upload();
  }
  EXPECT(attn_sdpa_forward(plan, &args.known, there, workspace.bytes(), stream, &error) == ATTN_OK);
  args.extra[0] = 1;
  call.poison_outputs(3);
  if (device != nullptr) device->upload();
  EXPECT(attn_sdpa_forward(plan, &args.known, there, workspace.bytes(), stream, &error) ==
         ATTN_ERROR_VERSION);
  if (device != nullptr) device->download();
  for (const auto &o : call.outputs) EXPECT(o.tensor.untouched());
  return {};
}

std::string error_record(Session &session) {
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  attn_plan *plan = nullptr;
  attn_error error = ATTN_ERROR_INIT;
  std::memset(error.message, 'x', sizeof error.message);
  EXPECT(attn_sdpa_plan_create(session.context(), &desc, nullptr, &plan, &error) != ATTN_OK);
  EXPECT(std::memchr(error.message, 0, sizeof error.message) != nullptr);
  EXPECT(std::memchr(error.field, 0, sizeof error.field) != nullptr);
  // Too small for a message: nothing is written.
  attn_error small = ATTN_ERROR_INIT;
  small.struct_size = 4;
  small.status = 1234;
  EXPECT(attn_sdpa_plan_create(session.context(), &desc, nullptr, &plan, &small) != ATTN_OK);
  EXPECT(small.status == 1234);
  EXPECT(small.message[0] == 0);
  // A longer record keeps its tail.
  attn_error plain = ATTN_ERROR_INIT;
  auto larger = grown(plain);
  larger.extra[0] = 9;
  EXPECT(attn_sdpa_plan_create(session.context(), &desc, nullptr, &plan, &larger.known) != ATTN_OK);
  EXPECT(larger.extra[0] == 9);
  EXPECT(larger.known.message[0] != 0);
  // Success leaves the record alone.
  SdpaCall call(small_case(), 1);
  attn_error untouched = ATTN_ERROR_INIT;
  untouched.backend_code = 55;
  EXPECT(attn_sdpa_plan_create(session.context(), &call.desc, nullptr, &plan, &untouched) ==
         ATTN_OK);
  PlanPtr owner(plan);
  EXPECT(untouched.backend_code == 55);
  EXPECT(untouched.status == 0);
  EXPECT(attn_sdpa_plan_create(session.context(), &call.desc, nullptr, nullptr, &error) ==
         ATTN_ERROR_INVALID_ARGUMENT);
  return {};
}

std::string contexts(Session &) {
  attn_context *context = nullptr;
  attn_error error = ATTN_ERROR_INIT;
  EXPECT(attn_context_create(nullptr, &context, &error) == ATTN_OK);
  attn_context_destroy(context);
  attn_context_destroy(nullptr);
  attn_plan_destroy(nullptr);
  const auto refused = [&](const std::function<void(attn_context_desc &)> &change, int32_t status,
                           const char *field) -> std::string {
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = ATTN_BACKEND_CPU;
    change(desc);
    attn_context *made = reinterpret_cast<attn_context *>(&desc);
    attn_error e = ATTN_ERROR_INIT;
    const int32_t got = attn_context_create(&desc, &made, &e);
    if (got != status) return std::string(field) + ": got " + attn_status_name(got);
    if (made != nullptr) return std::string(field) + ": *context is not NULL";
    if (std::string(e.field).find(field) == std::string::npos) {
      return std::string(field) + ": error.field is " + e.field;
    }
    return {};
  };
  using D = attn_context_desc;
  for (const std::string &failure :
       {refused([](D &d) { d.backend = 9; }, ATTN_ERROR_INVALID_ARGUMENT, "backend"),
        refused([](D &d) { d.backend = -1; }, ATTN_ERROR_INVALID_ARGUMENT, "backend"),
        refused([](D &d) { d.device_index = 1; }, ATTN_ERROR_INVALID_ARGUMENT, "device_index"),
        refused([](D &d) { d.device_index = -1; }, ATTN_ERROR_INVALID_ARGUMENT, "device_index"),
        refused([](D &d) { d.num_threads = -1; }, ATTN_ERROR_INVALID_ARGUMENT, "num_threads"),
        refused([](D &d) { d.num_threads = 1025; }, ATTN_ERROR_INVALID_ARGUMENT, "num_threads"),
        refused([](D &d) { d.log_level = 4; }, ATTN_ERROR_INVALID_ARGUMENT, "log_level"),
        refused([](D &d) { d.reserved = 1; }, ATTN_ERROR_VERSION, "reserved"),
        refused([](D &d) { d.struct_size = 1; }, ATTN_ERROR_INVALID_ARGUMENT, "desc")}) {
    if (!failure.empty()) return failure;
  }
  EXPECT(attn_context_create(nullptr, nullptr, &error) == ATTN_ERROR_INVALID_ARGUMENT);
  int32_t count = -1;
  EXPECT(attn_device_count(ATTN_BACKEND_CPU, &count, &error) == ATTN_OK);
  EXPECT(count == 1);
  EXPECT(attn_device_count(77, &count, &error) == ATTN_ERROR_INVALID_ARGUMENT);
  attn_device_info info = ATTN_DEVICE_INFO_INIT;
  EXPECT(attn_device_query(ATTN_BACKEND_CPU, 0, &info, &error) == ATTN_OK);
  EXPECT(info.backend == ATTN_BACKEND_CPU);
  EXPECT(info.num_units >= 1);
  EXPECT(info.name[0] != 0);
  EXPECT(attn_device_query(ATTN_BACKEND_CPU, 1, &info, &error) == ATTN_ERROR_INVALID_ARGUMENT);
  attn_context_desc three = ATTN_CONTEXT_DESC_INIT;
  three.backend = ATTN_BACKEND_CPU;
  three.num_threads = 3;
  EXPECT(attn_context_create(&three, &context, &error) == ATTN_OK);
  EXPECT(attn_context_query(context, &info, &error) == ATTN_OK);
  attn_context_destroy(context);
  EXPECT(info.num_units == 3);
  return {};
}

// attn_build_info says what is built in, or why not, and calls of a backend that is not say so too.
std::string build_info(Session &) {
  const std::string text = attn_build_info();
  const struct {
    int32_t backend;
    const char *line;
  } backends[] = {{ATTN_BACKEND_CPU, "\ncpu: "},
                  {ATTN_BACKEND_CUDA, "\ncuda: "},
                  {ATTN_BACKEND_HIP, "\nhip: "}};
  for (const auto &row : backends) {
    const size_t at = text.find(row.line);
    if (at == std::string::npos) return text + " has no" + row.line;
    const std::string said = text.substr(at + std::strlen(row.line));
    const bool built = said.starts_with("yes");
    if (!built && !said.starts_with("no")) return row.line + said + ": neither yes nor no";
    attn_error error = ATTN_ERROR_INIT;
    int32_t count = -1;
    const int32_t status = attn_device_count(row.backend, &count, &error);
    const bool no_build = std::strstr(error.message, "this build of libattn has no") != nullptr;
    if (built ? no_build : status != ATTN_ERROR_BACKEND_UNAVAILABLE || !no_build || count != 0) {
      return row.line + said + " attn_device_count says: " + error.message;
    }
  }
  return {};
}

std::string log_lines(Session &) {
  int lines = 0;
  attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
  desc.backend = ATTN_BACKEND_CPU;
  desc.log_level = ATTN_LOG_DEBUG;
  desc.log_user_data = &lines;
  desc.log_callback = [](void *user, int32_t, const char *message) {
    if (message != nullptr && message[0] != 0) ++*static_cast<int *>(user);
  };
  attn_context *context = nullptr;
  EXPECT(attn_context_create(&desc, &context, nullptr) == ATTN_OK);
  SdpaCall call(small_case(), 1);
  attn_plan *plan = nullptr;
  const int32_t status = attn_sdpa_plan_create(context, &call.desc, nullptr, &plan, nullptr);
  attn_plan_destroy(plan);
  attn_context_destroy(context);
  EXPECT(status == ATTN_OK);
  EXPECT(lines >= 1);
  return {};
}

std::string tuning_text(Session &session) {
  SdpaCall call(small_case(), 1);
  attn_error error = ATTN_ERROR_INIT;
  attn_plan *plan = nullptr;
  EXPECT(attn_sdpa_plan_create(session.context(), &call.desc, nullptr, &plan, &error) == ATTN_OK);
  PlanPtr owner(plan);
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  EXPECT(attn_plan_query(plan, &info, &error) == ATTN_OK);
  attn_plan_info wide = info;
  wide.workspace_bytes = info.tune_workspace_bytes;
  Workspace workspace(wide);
  attn_plan *tuned = nullptr;
  attn_sdpa_args args = call.args;
  void *there = workspace.data();
  attn_stream stream = nullptr;
  if (DeviceMemory *device = session.device()) {
    device->upload();
    args = device->on_device(args);
    there = device->address(there);
    stream = device->stream(0);
  }
  EXPECT(attn_sdpa_plan_tune(plan, &args, nullptr, there, workspace.bytes(), stream, &tuned,
                             &error) == ATTN_OK);
  PlanPtr tuned_owner(tuned);
  if (DeviceMemory *device = session.device()) device->download();
  EXPECT(workspace.guards_untouched());
  size_t length = 0;
  EXPECT(attn_plan_export(tuned, nullptr, 0, &length, &error) == ATTN_OK);
  EXPECT(length > 0);
  std::string text(length + 1, 'x');
  EXPECT(attn_plan_export(tuned, text.data(), length, &length, &error) ==
         ATTN_ERROR_INVALID_ARGUMENT);
  EXPECT(text == std::string(length + 1, 'x'));
  EXPECT(attn_plan_export(tuned, text.data(), length + 1, &length, &error) == ATTN_OK);
  EXPECT(std::strlen(text.c_str()) == length);
  EXPECT(attn_plan_query(tuned, &info, &error) == ATTN_OK);
  const std::string chosen = info.implementation;
  // The text decides, among junk, for this problem; for others it is passed over.
  const std::string lines = "junk\n\n" + text + "\nlibattn-tuning 1 \xff\n";
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  options.tuning = lines.c_str();
  attn_plan *again = nullptr;
  EXPECT(attn_sdpa_plan_create(session.context(), &call.desc, &options, &again, &error) == ATTN_OK);
  PlanPtr again_owner(again);
  EXPECT(attn_plan_query(again, &info, &error) == ATTN_OK);
  EXPECT(chosen == info.implementation);
  const char *name = nullptr;
  EXPECT(attn_plan_implementation(plan, 0, &name, &error) == ATTN_OK);
  EXPECT(name != nullptr);
  EXPECT(attn_plan_implementation(plan, info.num_implementations, &name, &error) ==
         ATTN_ERROR_INVALID_ARGUMENT);
  EXPECT(attn_plan_implementation(plan, -1, &name, &error) == ATTN_ERROR_INVALID_ARGUMENT);
  EXPECT(attn_plan_prepare(plan, &error) == ATTN_OK);
  EXPECT(attn_sdpa_plan_tune(plan, nullptr, nullptr, there, workspace.bytes(), stream, &tuned,
                             &error) == ATTN_ERROR_INVALID_ARGUMENT);
  return {};
}

std::string text_functions(Session &) {
  EXPECT(std::strcmp(attn_status_name(ATTN_ERROR_VERSION), "ATTN_ERROR_VERSION") == 0);
  EXPECT(std::strcmp(attn_status_name(12345), "ATTN_ERROR_UNKNOWN") == 0);
  EXPECT(std::strcmp(attn_dtype_name(ATTN_DTYPE_BF16), "bf16") == 0);
  EXPECT(std::strcmp(attn_dtype_name(-1), "unknown") == 0);
  EXPECT(attn_dtype_bits(ATTN_DTYPE_INT4) == 4);
  EXPECT(attn_dtype_bits(ATTN_DTYPE_INT64) == 64);
  EXPECT(attn_dtype_bits(1000) == 0);
  EXPECT(attn_abi_version() == ATTN_ABI_VERSION);
  EXPECT(attn_abi_check(ATTN_ABI_VERSION, nullptr) == ATTN_OK);
  EXPECT(attn_abi_check(ATTN_ABI_VERSION + 1, nullptr) == ATTN_ERROR_VERSION);
  EXPECT(attn_abi_check(ATTN_ABI_VERSION + (1 << 16), nullptr) == ATTN_ERROR_VERSION);
  attn_tensor t = ATTN_TENSOR_INIT;
  const int64_t shape[] = {2, 0, 5}, huge[] = {INT64_MAX, 3}, negative[] = {-1};
  EXPECT(attn_tensor_contiguous(&t, nullptr, ATTN_DTYPE_FP32, 3, shape, nullptr) == ATTN_OK);
  EXPECT(t.rank == 3 && t.shape[2] == 5 && t.stride[2] == 1);
  const attn_tensor before = t;
  EXPECT(attn_tensor_contiguous(&t, &t, ATTN_DTYPE_FP32, 2, huge, nullptr) ==
         ATTN_ERROR_INVALID_ARGUMENT);
  EXPECT(attn_tensor_contiguous(&t, &t, ATTN_DTYPE_FP32, 1, negative, nullptr) ==
         ATTN_ERROR_INVALID_ARGUMENT);
  EXPECT(attn_tensor_contiguous(&t, &t, 0, 1, shape, nullptr) == ATTN_ERROR_INVALID_ARGUMENT);
  EXPECT(attn_tensor_contiguous(&t, &t, ATTN_DTYPE_FP32, 7, shape, nullptr) ==
         ATTN_ERROR_INVALID_ARGUMENT);
  EXPECT(attn_tensor_contiguous(&t, &t, ATTN_DTYPE_FP32, -1, shape, nullptr) ==
         ATTN_ERROR_INVALID_ARGUMENT);
  EXPECT(std::memcmp(&t, &before, sizeof t) == 0);
  return {};
}

}  // namespace

void run_library(Session &session) {
  if (session.options.bench) return;
  const struct {
    const char *name;
    std::string (*run)(Session &);
  } tests[] = {{"library/grown-structs", grown_structs},
               {"library/error-record", error_record},
               {"library/contexts", contexts},
               {"library/build-info", build_info},
               {"library/log", log_lines},
               {"library/tuning", tuning_text},
               {"library/text-functions", text_functions}};
  for (const auto &test : tests) {
    if (!session.wanted(test.name)) continue;
    if (session.options.list) {
      std::printf("%s\n", test.name);
      continue;
    }
    if (!session.begin(test.name)) continue;
    try {
      session.report(test.name, "", test.run(session));
    } catch (const DeviceError &e) {
      session.report(test.name, "", e);
    }
  }
}

}  // namespace check
