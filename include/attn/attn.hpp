/* libattn for C++: RAII over the C ABI, header-only, C++11 and later.
 *
 * Nothing here is exported by the library and nothing is added to the ABI: each function is an
 * inline call of the C one, whose header documents it. Handles are move-only classes, plain structs
 * stay the C structs, started from their _INIT macros.
 *
 * Each fallible operation comes in two forms:
 *
 *   - one that throws attn::Error and returns the result, if the compiler has exceptions enabled;
 *   - one that returns the status, is noexcept, and takes an optional attn_error * last. Those that
 *     make an object are static functions `create`, whose result is an argument.
 *
 *     attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
 *     ...
 *     attn::Context context = attn::Context::cpu();  // or cuda(0)
 *     attn::Plan plan(context, desc);
 *     attn::Workspace workspace(plan);               // host memory, for a CPU context
 *     attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
 *     args.q = attn::tensor(q.data(), {batch, seqlen, heads, head_dim});
 *     ...
 *     plan.forward(args, workspace);
 *
 * On a GPU, memory and streams are the caller's: plan.forward(args, memory, bytes, stream).
 * examples/cpp/sdpa.cpp is a complete program, examples/c/sdpa_cuda.c one for both. */
#ifndef ATTN_ATTN_HPP
#define ATTN_ATTN_HPP

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "attn.h"

/* 1 if the throwing forms exist. */
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#define ATTN_HPP_EXCEPTIONS 1
#include <exception>
#else
#define ATTN_HPP_EXCEPTIONS 0
#endif

namespace attn {
/* A name of its own for what user code compiles, apart from anything inside a static libattn. */
inline namespace client {

/* An empty error record, ready to be handed to a call. */
inline attn_error error_record() noexcept {
  attn_error error = ATTN_ERROR_INIT;
  return error;
}

/* Fills a record as the library does, for the few failures that arise in this header. */
inline int32_t fail(attn_error *error, int32_t status, const char *field,
                    const char *message) noexcept {
  if (error != nullptr) {
    *error = error_record();
    error->status = status;
    for (std::size_t i = 0; field[i] != '\0' && i + 1 < sizeof error->field; i++) {
      error->field[i] = field[i];
    }
    for (std::size_t i = 0; message[i] != '\0' && i + 1 < sizeof error->message; i++) {
      error->message[i] = message[i];
    }
  }
  return status;
}

#if ATTN_HPP_EXCEPTIONS

/* A call of the library that failed. what() reads "ATTN_ERROR_...: the library's sentence"; the
 * whole record is there for code that decides on it. Copying it never throws. */
class Error : public std::exception {
 public:
  explicit Error(const attn_error &record) noexcept : record_(record) {
    const char *name = attn_status_name(record.status);
    std::size_t n = 0;
    append(n, name);
    append(n, ": ");
    append(n, record_.message);
    what_[n] = '\0';
  }

  const char *what() const noexcept override { return what_; }
  int32_t status() const noexcept { return record_.status; }             /* attn_status */
  int32_t backend_code() const noexcept { return record_.backend_code; } /* the driver's, or 0 */
  const char *field() const noexcept { return record_.field; } /* "desc.head_dim_qk", or "" */
  const char *message() const noexcept { return record_.message; }
  const attn_error &record() const noexcept { return record_; }

 private:
  void append(std::size_t &n, const char *text) noexcept {
    while (*text != '\0' && n + 1 < sizeof what_) what_[n++] = *text++;
  }

  attn_error record_;
  char what_[ATTN_ERROR_MESSAGE_SIZE + 64];
};

/* Throws if `status`, which a call that was given `record` returned, is not ATTN_OK. */
inline void check(int32_t status, const attn_error &record) {
  if (status == ATTN_OK) return;
  attn_error failure = record;
  failure.status = status;
  throw Error(failure);
}

#endif

/* ATTN_OK if the library that is loaded serves programs compiled with these headers. */
inline int32_t compatible(attn_error *error = nullptr) noexcept {
  return attn_abi_check(static_cast<uint32_t>(ATTN_ABI_VERSION), error);
}

/* --- tensors -------------------------------------------------------------------------------- */

/* The attn_dtype of a C++ element type. Specialise it for your own half, bfloat16 or fp8 type:
 *
 *   template <> struct attn::dtype_of<my::bf16> {
 *     static constexpr int32_t value = ATTN_DTYPE_BF16;
 *   }; */
template <class T>
struct dtype_of;
template <class T>
struct dtype_of<const T> : dtype_of<T> {};
template <>
struct dtype_of<float> {
  static constexpr int32_t value = ATTN_DTYPE_FP32;
};
template <>
struct dtype_of<int8_t> {
  static constexpr int32_t value = ATTN_DTYPE_INT8;
};
template <>
struct dtype_of<uint8_t> {
  static constexpr int32_t value = ATTN_DTYPE_UINT8;
};
template <>
struct dtype_of<int32_t> {
  static constexpr int32_t value = ATTN_DTYPE_INT32;
};
template <>
struct dtype_of<int64_t> {
  static constexpr int32_t value = ATTN_DTYPE_INT64;
};

/* A list of extents or strides, outermost dimension first. */
using Extents = std::initializer_list<int64_t>;

/* Makes `out` a contiguous row-major view of `data`. The library only reads what it documents as
 * an input, so data may be const. */
inline int32_t make_tensor(attn_tensor &out, const void *data, int32_t dtype, Extents shape,
                           attn_error *error = nullptr) noexcept {
  return attn_tensor_contiguous(&out, const_cast<void *>(data), dtype,
                                static_cast<int32_t>(shape.size()), shape.begin(), error);
}

/* The same with strides, in elements. shape and stride must have as many entries. */
inline int32_t make_tensor(attn_tensor &out, const void *data, int32_t dtype, Extents shape,
                           Extents stride, attn_error *error = nullptr) noexcept {
  attn_tensor view = ATTN_TENSOR_INIT;
  const int32_t status = make_tensor(view, data, dtype, shape, error);
  if (status != ATTN_OK) return status;
  if (stride.size() != shape.size()) {
    return fail(error, ATTN_ERROR_INVALID_ARGUMENT, "stride",
                "make_tensor: stride must have as many entries as shape");
  }
  std::size_t i = 0;
  for (int64_t extent : stride) view.stride[i++] = extent;
  out = view;
  return ATTN_OK;
}

#if ATTN_HPP_EXCEPTIONS

/* A contiguous row-major view of `data`, whose dtype is given or follows from its type. */
inline attn_tensor tensor(const void *data, int32_t dtype, Extents shape) {
  attn_tensor view = ATTN_TENSOR_INIT;
  attn_error error = error_record();
  check(make_tensor(view, data, dtype, shape, &error), error);
  return view;
}

template <class T>
attn_tensor tensor(T *data, Extents shape) {
  return tensor(data, dtype_of<T>::value, shape);
}

/* A view with strides, in elements. */
inline attn_tensor tensor(const void *data, int32_t dtype, Extents shape, Extents stride) {
  attn_tensor view = ATTN_TENSOR_INIT;
  attn_error error = error_record();
  check(make_tensor(view, data, dtype, shape, stride, &error), error);
  return view;
}

template <class T>
attn_tensor tensor(T *data, Extents shape, Extents stride) {
  return tensor(data, dtype_of<T>::value, shape, stride);
}

#endif

/* The address of a device's memory as the CUDA driver gives it, a CUdeviceptr, for tensors, arrays
 * and workspaces. */
inline void *device_pointer(uint64_t address) noexcept {
  return reinterpret_cast<void *>(static_cast<std::uintptr_t>(address));
}

/* --- context -------------------------------------------------------------------------------- */

/* One device of one backend. Threads may share it. It must outlive the plans made from it. */
class Context {
 public:
  /* Holds nothing; for use with create(). */
  explicit Context(std::nullptr_t) noexcept {}

  static int32_t create(Context &out, const attn_context_desc *desc = nullptr,
                        attn_error *error = nullptr) noexcept {
    attn_context *handle = nullptr;
    const int32_t status = attn_context_create(desc, &handle, error);
    if (status == ATTN_OK) out = Context(handle);
    return status;
  }

  /* Device `device_index` of a backend. */
  static int32_t create(Context &out, int32_t backend, int32_t device_index = 0,
                        attn_error *error = nullptr) noexcept {
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = backend;
    desc.device_index = device_index;
    return create(out, &desc, error);
  }

  int32_t query(attn_device_info &info, attn_error *error = nullptr) const noexcept {
    return attn_context_query(handle_, &info, error);
  }

#if ATTN_HPP_EXCEPTIONS
  /* The best device that there is. */
  Context() : Context(nullptr) {
    attn_error error = error_record();
    check(create(*this, nullptr, &error), error);
  }

  explicit Context(const attn_context_desc &desc) : Context(nullptr) {
    attn_error error = error_record();
    check(create(*this, &desc, &error), error);
  }

  /* The CPU with `num_threads` threads; 0: all that the process may use. */
  static Context cpu(int32_t num_threads = 0) {
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = ATTN_BACKEND_CPU;
    desc.num_threads = num_threads;
    return Context(desc);
  }

  /* An NVIDIA GPU. Tensors, arrays and workspaces are then in its memory, and calls take its
   * streams: see device_pointer. */
  static Context cuda(int32_t device_index = 0) {
    Context context(nullptr);
    attn_error error = error_record();
    check(create(context, ATTN_BACKEND_CUDA, device_index, &error), error);
    return context;
  }

  attn_device_info query() const {
    attn_device_info info = ATTN_DEVICE_INFO_INIT;
    attn_error error = error_record();
    check(query(info, &error), error);
    return info;
  }
#endif

  Context(Context &&other) noexcept : handle_(other.release()) {}
  Context &operator=(Context &&other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  Context(const Context &) = delete;
  Context &operator=(const Context &) = delete;
  ~Context() {
    attn_context_destroy(handle_);
  }

  /* Takes a handle over. */
  explicit Context(attn_context *handle) noexcept : handle_(handle) {}
  /* Gives the handle away; the caller destroys it. */
  attn_context *release() noexcept {
    attn_context *handle = handle_;
    handle_ = nullptr;
    return handle;
  }
  void reset(attn_context *handle = nullptr) noexcept {
    attn_context_destroy(handle_);
    handle_ = handle;
  }
  attn_context *get() const noexcept {
    return handle_;
  }
  explicit operator bool() const noexcept {
    return handle_ != nullptr;
  }

 private:
  attn_context *handle_ = nullptr;
};

/* --- plan ----------------------------------------------------------------------------------- */

class Workspace;

/* How to compute one described problem. Threads may share it and execute it at once, each with a
 * workspace of its own. */
class Plan {
 public:
  /* Holds nothing; for use with create() and tune(). */
  Plan() noexcept {}

  static int32_t create(Plan &out, const Context &context, const attn_sdpa_desc &desc,
                        const attn_plan_options *options = nullptr,
                        attn_error *error = nullptr) noexcept {
    attn_plan *handle = nullptr;
    const int32_t status = attn_sdpa_plan_create(context.get(), &desc, options, &handle, error);
    if (status == ATTN_OK) out.reset(handle);
    return status;
  }

  static int32_t create(Plan &out, const Context &context, const attn_merge_desc &desc,
                        const attn_plan_options *options = nullptr,
                        attn_error *error = nullptr) noexcept {
    attn_plan *handle = nullptr;
    const int32_t status = attn_merge_plan_create(context.get(), &desc, options, &handle, error);
    if (status == ATTN_OK) out.reset(handle);
    return status;
  }

  int32_t query(attn_plan_info &info, attn_error *error = nullptr) const noexcept {
    return attn_plan_query(handle_, &info, error);
  }

  int32_t try_prepare(attn_error *error = nullptr) const noexcept {
    return attn_plan_prepare(handle_, error);
  }

  int32_t try_forward(const attn_sdpa_args &args, void *workspace, std::size_t workspace_bytes,
                      attn_stream stream = nullptr, attn_error *error = nullptr) const noexcept {
    return attn_sdpa_forward(handle_, &args, workspace, workspace_bytes, stream, error);
  }

  int32_t try_backward(const attn_sdpa_backward_args &args, void *workspace,
                       std::size_t workspace_bytes, attn_stream stream = nullptr,
                       attn_error *error = nullptr) const noexcept {
    return attn_sdpa_backward(handle_, &args, workspace, workspace_bytes, stream, error);
  }

  int32_t try_merge(const attn_merge_args &args, void *workspace, std::size_t workspace_bytes,
                    attn_stream stream = nullptr, attn_error *error = nullptr) const noexcept {
    return attn_merge(handle_, &args, workspace, workspace_bytes, stream, error);
  }

  /* Times the candidates on real tensors; `tuned` gets a plan with the fastest. Exactly one of
   * args and backward_args is given, as the plan's pass asks. */
  int32_t try_tune(Plan &tuned, const attn_sdpa_args *args,
                   const attn_sdpa_backward_args *backward_args, void *workspace,
                   std::size_t workspace_bytes, attn_stream stream = nullptr,
                   attn_error *error = nullptr) const noexcept {
    attn_plan *handle = nullptr;
    const int32_t status = attn_sdpa_plan_tune(handle_, args, backward_args, workspace,
                                               workspace_bytes, stream, &handle, error);
    if (status == ATTN_OK) tuned.reset(handle);
    return status;
  }

#if ATTN_HPP_EXCEPTIONS
  Plan(const Context &context, const attn_sdpa_desc &desc,
       const attn_plan_options *options = nullptr) {
    attn_error error = error_record();
    check(create(*this, context, desc, options, &error), error);
  }

  Plan(const Context &context, const attn_merge_desc &desc,
       const attn_plan_options *options = nullptr) {
    attn_error error = error_record();
    check(create(*this, context, desc, options, &error), error);
  }

  attn_plan_info query() const {
    attn_plan_info info = ATTN_PLAN_INFO_INIT;
    attn_error error = error_record();
    check(query(info, &error), error);
    return info;
  }

  /* The names of all implementations that could serve, best first. */
  std::vector<std::string> implementations() const {
    std::vector<std::string> names;
    const int32_t count = query().num_implementations;
    for (int32_t i = 0; i < count; i++) {
      const char *name = nullptr;
      attn_error error = error_record();
      check(attn_plan_implementation(handle_, i, &name, &error), error);
      names.push_back(name);
    }
    return names;
  }

  /* The plan's choice as a line for attn_plan_options.tuning. */
  std::string export_tuning() const {
    std::size_t length = 0;
    attn_error error = error_record();
    check(attn_plan_export(handle_, nullptr, 0, &length, &error), error);
    std::vector<char> text(length + 1);
    check(attn_plan_export(handle_, text.data(), text.size(), &length, &error), error);
    return std::string(text.data(), length);
  }

  void prepare() const {
    attn_error error = error_record();
    check(try_prepare(&error), error);
  }

  /* Execution in memory that the caller brings, as a GPU needs it ... */
  void forward(const attn_sdpa_args &args, void *workspace, std::size_t workspace_bytes,
               attn_stream stream = nullptr) const {
    attn_error error = error_record();
    check(try_forward(args, workspace, workspace_bytes, stream, &error), error);
  }

  void backward(const attn_sdpa_backward_args &args, void *workspace, std::size_t workspace_bytes,
                attn_stream stream = nullptr) const {
    attn_error error = error_record();
    check(try_backward(args, workspace, workspace_bytes, stream, &error), error);
  }

  void merge(const attn_merge_args &args, void *workspace, std::size_t workspace_bytes,
             attn_stream stream = nullptr) const {
    attn_error error = error_record();
    check(try_merge(args, workspace, workspace_bytes, stream, &error), error);
  }

  Plan tune(const attn_sdpa_args &args, void *workspace, std::size_t workspace_bytes,
            attn_stream stream = nullptr) const {
    Plan tuned;
    attn_error error = error_record();
    check(try_tune(tuned, &args, nullptr, workspace, workspace_bytes, stream, &error), error);
    return tuned;
  }

  Plan tune(const attn_sdpa_backward_args &args, void *workspace, std::size_t workspace_bytes,
            attn_stream stream = nullptr) const {
    Plan tuned;
    attn_error error = error_record();
    check(try_tune(tuned, nullptr, &args, workspace, workspace_bytes, stream, &error), error);
    return tuned;
  }

  /* ... and in host memory, on the CPU. */
  inline void forward(const attn_sdpa_args &args, const Workspace &workspace) const;
  inline void backward(const attn_sdpa_backward_args &args, const Workspace &workspace) const;
  inline void merge(const attn_merge_args &args, const Workspace &workspace) const;
  inline Plan tune(const attn_sdpa_args &args) const;
  inline Plan tune(const attn_sdpa_backward_args &args) const;
#endif

  Plan(Plan &&other) noexcept : handle_(other.release()) {}
  Plan &operator=(Plan &&other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  Plan(const Plan &) = delete;
  Plan &operator=(const Plan &) = delete;
  ~Plan() {
    attn_plan_destroy(handle_);
  }

  /* Takes a handle over. */
  explicit Plan(attn_plan *handle) noexcept : handle_(handle) {}
  /* Gives the handle away; the caller destroys it. */
  attn_plan *release() noexcept {
    attn_plan *handle = handle_;
    handle_ = nullptr;
    return handle;
  }
  void reset(attn_plan *handle = nullptr) noexcept {
    attn_plan_destroy(handle_);
    handle_ = handle;
  }
  attn_plan *get() const noexcept {
    return handle_;
  }
  explicit operator bool() const noexcept {
    return handle_ != nullptr;
  }

 private:
  attn_plan *handle_ = nullptr;
};

/* ATTN_OK if Plan::create would succeed; else the reason why not. */
inline int32_t supported(const Context &context, const attn_sdpa_desc &desc,
                         attn_error *error = nullptr) noexcept {
  return attn_sdpa_supported(context.get(), &desc, nullptr, error);
}
inline int32_t supported(const Context &context, const attn_merge_desc &desc,
                         attn_error *error = nullptr) noexcept {
  return attn_merge_supported(context.get(), &desc, nullptr, error);
}

/* --- workspace ------------------------------------------------------------------------------ */

/* Host memory for the plans of a CPU context, aligned as they ask. One thread uses it at a time; it
 * may serve several plans in turn. Execution never allocates: make it once. */
class Workspace {
 public:
  Workspace() noexcept {}

  /* Grows, if need be, to at least `bytes` at `alignment`, a power of two. Its content is lost.
   * False if memory ran out; it is then as it was. */
  bool reserve(std::size_t bytes, std::size_t alignment) noexcept {
    if (alignment == 0) alignment = 1;
    if (bytes <= bytes_ && (address() & (alignment - 1)) == 0) return true;
    if (bytes > static_cast<std::size_t>(-1) - alignment) return false;
    char *block = static_cast<char *>(::operator new(bytes + alignment, std::nothrow));
    if (block == nullptr) return false;
    ::operator delete(block_);
    block_ = block;
    const std::size_t past = reinterpret_cast<std::uintptr_t>(block) & (alignment - 1);
    data_ = block + (past == 0 ? 0 : alignment - past);
    bytes_ = bytes;
    return true;
  }

  /* Makes it large enough for every execution of `plan`, which must be a plan for the CPU. */
  int32_t try_fit(const Plan &plan, attn_error *error = nullptr) noexcept {
    attn_plan_info info = ATTN_PLAN_INFO_INIT;
    const int32_t status = plan.query(info, error);
    if (status != ATTN_OK) return status;
    if (info.asynchronous != 0) {
      return fail(error, ATTN_ERROR_UNSUPPORTED, "workspace",
                  "attn::Workspace is host memory, and the plan is for a GPU: give the call memory "
                  "of its device");
    }
    return reserve(static_cast<std::size_t>(info.workspace_bytes),
                   static_cast<std::size_t>(info.workspace_alignment))
               ? ATTN_OK
               : fail(error, ATTN_ERROR_OUT_OF_MEMORY, "", "no memory for the plan's workspace");
  }

#if ATTN_HPP_EXCEPTIONS
  explicit Workspace(const Plan &plan) {
    fit(plan);
  }

  Workspace &fit(const Plan &plan) {
    attn_error error = error_record();
    const int32_t status = try_fit(plan, &error);
    if (status == ATTN_ERROR_OUT_OF_MEMORY) throw std::bad_alloc();
    check(status, error);
    return *this;
  }
#endif

  Workspace(Workspace &&other) noexcept {
    swap(other);
  }
  Workspace &operator=(Workspace &&other) noexcept {
    swap(other);
    return *this;
  }
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  ~Workspace() {
    ::operator delete(block_);
  }

  void *data() const noexcept {
    return data_;
  }
  std::size_t size() const noexcept {
    return bytes_;
  }

 private:
  std::uintptr_t address() const noexcept {
    return reinterpret_cast<std::uintptr_t>(data_);
  }
  void swap(Workspace &other) noexcept {
    std::swap(block_, other.block_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  void *block_ = nullptr;
  char *data_ = nullptr;
  std::size_t bytes_ = 0;
};

#if ATTN_HPP_EXCEPTIONS
inline void Plan::forward(const attn_sdpa_args &args, const Workspace &workspace) const {
  forward(args, workspace.data(), workspace.size());
}
inline void Plan::backward(const attn_sdpa_backward_args &args, const Workspace &workspace) const {
  backward(args, workspace.data(), workspace.size());
}
inline void Plan::merge(const attn_merge_args &args, const Workspace &workspace) const {
  merge(args, workspace.data(), workspace.size());
}
inline Plan Plan::tune(const attn_sdpa_args &args) const {
  const attn_plan_info info = query();
  Workspace workspace;
  if (!workspace.reserve(static_cast<std::size_t>(info.tune_workspace_bytes),
                         static_cast<std::size_t>(info.workspace_alignment))) {
    throw std::bad_alloc();
  }
  return tune(args, workspace.data(), workspace.size());
}
inline Plan Plan::tune(const attn_sdpa_backward_args &args) const {
  const attn_plan_info info = query();
  Workspace workspace;
  if (!workspace.reserve(static_cast<std::size_t>(info.tune_workspace_bytes),
                         static_cast<std::size_t>(info.workspace_alignment))) {
    throw std::bad_alloc();
  }
  return tune(args, workspace.data(), workspace.size());
}
#endif

}  // namespace client
}  // namespace attn

#endif /* ATTN_ATTN_HPP */
