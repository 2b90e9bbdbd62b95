// libFuzzer target: descriptors and options of any content. The planner must refuse or plan, read
// nothing past struct_size, and leave no plan behind an error.
#include <attn/attn.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "bytes.hpp"

namespace {

attn_context *context() {
  static attn_context *const made = [] {
    attn_context *result = nullptr;
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = ATTN_BACKEND_CPU;
    desc.num_threads = 2;
    if (attn_context_create(&desc, &result, nullptr) != ATTN_OK) std::abort();
    return result;
  }();
  return made;
}

void require(bool condition, const char *what) {
  if (condition) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

// A struct of `size` bytes in memory of just that size, so that any look past it is caught.
template <class T>
struct Exact {
  explicit Exact(size_t size) : memory(std::malloc(size == 0 ? 1 : size)) {
    std::memset(memory, 0, size);
  }
  ~Exact() { std::free(memory); }
  T *get() { return static_cast<T *>(memory); }
  void *memory;
};

template <class Desc>
using Create = int32_t (*)(const attn_context *, const Desc *, const attn_plan_options *,
                           attn_plan **, attn_error *);
template <class Desc>
using Supported = int32_t (*)(const attn_context *, const Desc *, const attn_plan_options *,
                              attn_error *);

template <class Desc>
void plan(const Desc *desc, const attn_plan_options *options, Create<Desc> create,
          Supported<Desc> supported) {
  attn_error error = ATTN_ERROR_INIT;
  attn_plan *plan = reinterpret_cast<attn_plan *>(1);
  const int32_t status = create(context(), desc, options, &plan, &error);
  require(supported(context(), desc, options, nullptr) == status, "supported agrees with create");
  if (status != ATTN_OK) {
    require(plan == nullptr, "no plan on error");
    require(error.status == status && error.message[0] != 0, "an error explains itself");
    return;
  }
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  require(attn_plan_query(plan, &info, nullptr) == ATTN_OK, "query works");
  require(info.num_implementations > 0 && info.implementation != nullptr, "a plan has a row");
  require(info.tune_workspace_bytes >= info.workspace_bytes, "tuning needs no less");
  size_t length = 0;
  require(attn_plan_export(plan, nullptr, 0, &length, nullptr) == ATTN_OK, "export measures");
  std::string line(length + 1, '\0');
  require(attn_plan_export(plan, line.data(), line.size(), &length, nullptr) == ATTN_OK,
          "export fits what it measured");
  attn_plan_options again = ATTN_PLAN_OPTIONS_INIT;
  again.tuning = line.c_str();
  require(supported(context(), desc, &again, nullptr) == ATTN_OK, "export imports");
  attn_plan_destroy(plan);
}

// A valid small problem, for the bytes to spoil.
void fill(attn_sdpa_desc &d) {
  d = ATTN_SDPA_DESC_INIT;
  d.q_dtype = ATTN_DTYPE_FP32;
  d.num_q_heads = 4;
  d.head_dim_qk = 16;
  d.max_batch = 2;
  d.max_seqlen_q = d.max_seqlen_k = 32;
  d.softmax_scale = 0.25f;
}

void fill(attn_merge_desc &d) {
  d = ATTN_MERGE_DESC_INIT;
  d.dtype = ATTN_DTYPE_FP32;
  d.num_heads = 4;
  d.head_dim = 16;
  d.max_rows = d.max_parts = 8;
}

template <class Desc>
void run(Bytes &bytes, Create<Desc> create, Supported<Desc> supported) {
  // Sizes around the true one, and any.
  const int64_t shift = bytes.below(8);
  const size_t size = shift < 4   ? sizeof(Desc)
                      : shift < 6 ? sizeof(Desc) + static_cast<size_t>(bytes.below(64))
                                  : 4 + static_cast<size_t>(bytes.below(255));
  Exact<Desc> desc(size);
  Desc base;
  fill(base);
  std::memcpy(desc.memory, &base, size < sizeof base ? size : sizeof base);
  auto *raw = static_cast<uint8_t *>(desc.memory);
  const auto declared = static_cast<uint32_t>(size);
  std::memcpy(raw, &declared, sizeof declared);
  const int64_t spoiled = bytes.below(24);
  for (int64_t i = 0; i < spoiled && size > 8; i++) {
    const size_t field = 1 + bytes.take<uint8_t>() % (size / 4 - 1);
    const auto small = static_cast<int32_t>(bytes.below(20));
    const int32_t value = bytes.one_in(3) ? static_cast<int32_t>(bytes.hostile())
                          : bytes.one_in(3) ? bytes.take<int32_t>()
                                            : small;
    std::memcpy(raw + field * 4, &value, sizeof value);
  }
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  const bool with_options = bytes.one_in(2);
  const bool with_name = bytes.one_in(4);
  const std::string text(reinterpret_cast<const char *>(bytes.rest()), bytes.size());
  if (with_name) options.implementation = text.c_str();
  options.tuning = text.c_str();
  plan(desc.get(), with_options ? &options : nullptr, create, supported);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Bytes bytes(data, size);
  if (bytes.one_in(3)) {
    run<attn_merge_desc>(bytes, attn_merge_plan_create, attn_merge_supported);
  } else {
    run<attn_sdpa_desc>(bytes, attn_sdpa_plan_create, attn_sdpa_supported);
  }
  return 0;
}
