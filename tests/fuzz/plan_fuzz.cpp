// Plan creation on hostile descriptors and options, for sdpa and merge: a plan or an error that
// says something, never more.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "any_case.hpp"
#include "attn/attn.h"
#include "sdpa_call.hpp"

namespace {

using fuzz::defect;
using fuzz::Reader;

const attn_context *context() {
  static attn_context *one = [] {
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = ATTN_BACKEND_CPU;
    desc.num_threads = 2;
    attn_context *made = nullptr;
    if (attn_context_create(&desc, &made, nullptr) != ATTN_OK) defect("no context");
    return made;
  }();
  return one;
}

// A struct in memory of exactly its struct_size bytes, so that reading past it shows.
template <class T>
std::unique_ptr<uint8_t[]> boxed(const T &value, uint32_t size, Reader &in) {
  const size_t room = size < 1u << 17 ? std::max<size_t>(size, sizeof(uint32_t)) : sizeof(T);
  auto box = std::make_unique<uint8_t[]>(room);
  std::memcpy(box.get(), &value, std::min(room, sizeof(T)));
  for (size_t i = sizeof(T); i < room && in.below(8) == 1; i++) box[i] = in.byte();
  std::memcpy(box.get(), &size, sizeof size);
  return box;
}

// Overwrites some 4- or 8-byte fields.
template <class T>
void scramble(T &value, Reader &in) {
  const uint32_t changes = in.below(5);
  for (uint32_t n = 0; n < changes; n++) {
    const bool wide = in.flag();
    const size_t step = wide ? 8 : 4;
    const size_t at = (size_t{in.byte()} | size_t{in.byte()} << 8) % (sizeof(T) / step) * step;
    const int64_t number = in.hostile();
    std::memcpy(reinterpret_cast<uint8_t *>(&value) + at, &number, step);
  }
}

template <class T>
uint32_t any_size(Reader &in) {
  constexpr uint32_t kSizes[] = {sizeof(T), sizeof(T), sizeof(T), sizeof(T),     sizeof(T) + 8,
                                 300,       4096,      0,         sizeof(T) - 4, UINT32_MAX,
                                 4,         65536,     65537,     sizeof(T) + 1};
  return in.choose(kSizes);
}

void check_outcome(int32_t status, int32_t probe, const attn_plan *plan, const attn_error &error) {
  if (status != probe) defect("supported and plan_create disagree");
  if ((status == ATTN_OK) != (plan != nullptr)) defect("plan pointer does not match the status");
  if (status != ATTN_OK) {
    if (error.status != status) defect("error.status differs from the returned status");
    if (error.message[0] == 0) defect("an error without a message");
    if (std::memchr(error.message, 0, sizeof error.message) == nullptr) defect("unterminated");
    if (std::strcmp(attn_status_name(status), "ATTN_ERROR_UNKNOWN") == 0) defect("unknown status");
    if (status == ATTN_ERROR_INTERNAL) defect("internal error:", error.message);
    return;
  }
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  if (attn_plan_query(plan, &info, nullptr) != ATTN_OK) defect("query failed");
  if (info.num_implementations < 1) defect("a plan without implementation");
  if ((info.workspace_alignment & (info.workspace_alignment - 1)) != 0) defect("alignment");
  if (info.workspace_bytes > info.tune_workspace_bytes) defect("tuning needs less than executing");
  for (int32_t i = -1; i <= info.num_implementations; i++) {
    const char *name = nullptr;
    const bool valid = i >= 0 && i < info.num_implementations;
    if ((attn_plan_implementation(plan, i, &name, nullptr) == ATTN_OK) != valid) defect("names");
  }
  char text[600];
  size_t length = 0;
  attn_plan_export(plan, text, sizeof text, &length, nullptr);
  if (length == 0) defect("export gives no length");
  attn_plan_prepare(plan, nullptr);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Reader in(data, size);
  const bool merge = in.below(4) == 3;
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  std::string name, tuning;
  if (in.below(4) == 1) {
    constexpr const char *kNames[] = {"cpu/sdpa/forward/reference",
                                      "cpu/sdpa/forward/tuned",
                                      "cpu/sdpa/backward/reference",
                                      "cpu/merge/reference",
                                      "",
                                      "cpu/sdpa/forward/decode"};
    name = in.choose(kNames);
    for (uint32_t n = in.below(3); n > 0; n--) name += static_cast<char>(in.byte());
    options.implementation = name.c_str();
  }
  if (in.below(4) == 1) {
    tuning = "libattn-tuning 1 ";
    for (uint32_t n = in.below(64); n > 0; n--) tuning += static_cast<char>(in.byte());
    options.tuning = tuning.c_str();
  }
  const uint32_t options_size = any_size<attn_plan_options>(in);
  attn_error error = ATTN_ERROR_INIT;
  attn_plan *plan = nullptr;
  int32_t status, probe;
  if (merge) {
    attn_merge_desc desc = ATTN_MERGE_DESC_INIT;
    desc.dtype = static_cast<int32_t>(in.below(5));
    desc.flags = in.byte() & 31;
    desc.num_heads = in.between(1, 100);
    desc.head_dim = in.between(1, 200);
    desc.max_rows = in.byte();
    desc.max_parts = in.byte();
    scramble(desc, in);
    const auto desc_box = boxed(desc, any_size<attn_merge_desc>(in), in);
    const auto options_box = boxed(options, options_size, in);
    const auto *d = reinterpret_cast<const attn_merge_desc *>(desc_box.get());
    const auto *o = reinterpret_cast<const attn_plan_options *>(options_box.get());
    status = attn_merge_plan_create(context(), d, o, &plan, &error);
    probe = attn_merge_supported(context(), d, o, nullptr);
  } else {
    const check::SdpaCase c = fuzz::any_case(in);
    attn_sdpa_desc desc = check::sdpa_desc_of(c);
    scramble(desc, in);
    const auto desc_box = boxed(desc, any_size<attn_sdpa_desc>(in), in);
    const auto options_box = boxed(options, options_size, in);
    const auto *d = reinterpret_cast<const attn_sdpa_desc *>(desc_box.get());
    const auto *o = reinterpret_cast<const attn_plan_options *>(options_box.get());
    status = attn_sdpa_plan_create(context(), d, o, &plan, &error);
    probe = attn_sdpa_supported(context(), d, o, nullptr);
  }
  check_outcome(status, probe, plan, error);
  attn_plan_destroy(plan);
  return 0;
}
