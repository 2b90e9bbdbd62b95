// Attention on a CUDA device through attn.hpp, on a stream; where there is none, on the CPU.
//
// Build:  c++ -std=c++11 sdpa_cuda.cpp $(pkg-config --cflags --libs attn) -ldl -o sdpa_cuda
//
// The program opens libcuda.so.1 itself, so that it needs no CUDA toolkit to be built; yours would
// include cuda.h or cuda_runtime.h instead. It checks its own result and exits with 1 if it is
// wrong.
#include <dlfcn.h>

#include <attn/attn.hpp>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// Where the attention is computed: memory, copies and a stream.
class Place {
 public:
  virtual ~Place() {}
  virtual attn_stream stream() const = 0;
  virtual void *allocate(std::size_t bytes) = 0;  // freed with the place
  virtual void copy_in(void *to, const std::vector<float> &from) = 0;
  virtual void copy_out(std::vector<float> &to, const void *from) = 0;  // waits
};

class Host : public Place {
 public:
  attn_stream stream() const override { return nullptr; }
  void *allocate(std::size_t bytes) override {
    blocks_.emplace_back(new char[bytes + 1]);
    return blocks_.back().get();
  }
  void copy_in(void *to, const std::vector<float> &from) override {
    std::memcpy(to, from.data(), from.size() * sizeof(float));
  }
  void copy_out(std::vector<float> &to, const void *from) override {
    std::memcpy(to.data(), from, to.size() * sizeof(float));
  }

 private:
  std::vector<std::unique_ptr<char[]>> blocks_;
};

class Cuda : public Place {
 public:
  explicit Cuda(int index) : library_(dlopen("libcuda.so.1", RTLD_NOW)) {
    if (library_ == nullptr) throw std::runtime_error(dlerror());
    call<unsigned>("cuInit", 0);
    call<int *, int>("cuDeviceGet", &device_, index);
    void *context = nullptr;  // the primary one, as the CUDA runtime uses it
    call<void **, int>("cuDevicePrimaryCtxRetain", &context, device_);
    call<void *>("cuCtxSetCurrent", context);
    call<void **, unsigned>("cuStreamCreate", &stream_, 1);  // not ordered with the default stream
  }
  ~Cuda() override {
    for (uint64_t address : blocks_) quiet<uint64_t>("cuMemFree_v2", address);
    quiet<void *>("cuStreamDestroy_v2", stream_);
    quiet<int>("cuDevicePrimaryCtxRelease_v2", device_);
  }
  Cuda(const Cuda &) = delete;
  Cuda &operator=(const Cuda &) = delete;

  attn_stream stream() const override { return stream_; }
  void *allocate(std::size_t bytes) override {
    uint64_t address = 0;
    call<uint64_t *, std::size_t>("cuMemAlloc_v2", &address, bytes + 1);
    blocks_.push_back(address);
    return attn::device_pointer(address);
  }
  void copy_in(void *to, const std::vector<float> &from) override {
    call<uint64_t, const void *, std::size_t, void *>(
        "cuMemcpyHtoDAsync_v2", address_of(to), from.data(), from.size() * sizeof(float), stream_);
  }
  void copy_out(std::vector<float> &to, const void *from) override {
    call<void *, uint64_t, std::size_t, void *>("cuMemcpyDtoHAsync_v2", to.data(), address_of(from),
                                                to.size() * sizeof(float), stream_);
    call<void *>("cuStreamSynchronize", stream_);
  }

 private:
  static uint64_t address_of(const void *data) { return reinterpret_cast<std::uintptr_t>(data); }

  template <class... Parameters>
  int quiet(const char *name, Parameters... arguments) const {
    using Function = int (*)(Parameters...);
    const Function function = reinterpret_cast<Function>(dlsym(library_, name));
    return function == nullptr ? -1 : function(arguments...);
  }
  template <class... Parameters>
  void call(const char *name, Parameters... arguments) const {
    const int code = quiet<Parameters...>(name, arguments...);
    if (code != 0) {
      throw std::runtime_error(std::string(name) + " failed with CUDA error " +
                               std::to_string(code));
    }
  }

  void *library_;
  int device_ = 0;
  void *stream_ = nullptr;
  std::vector<uint64_t> blocks_;
};

const int64_t kKeys = 500, kHeads = 4, kHeadDim = 32;

// Numbers in -1 .. 1, the same in every run.
std::vector<float> random_vector(int64_t size, uint32_t seed) {
  std::vector<float> x(static_cast<size_t>(size));
  for (float &value : x) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
  }
  return x;
}

// One query against all keys, head by head.
double largest_difference(const std::vector<float> &q, const std::vector<float> &k,
                          const std::vector<float> &v, const std::vector<float> &out) {
  double largest = 0;
  for (size_t h = 0; h < kHeads; h++) {
    double sum = 0, want[kHeadDim] = {};
    for (size_t j = 0; j < kKeys; j++) {
      const size_t key = (j * kHeads + h) * kHeadDim;
      double score = 0;
      for (size_t d = 0; d < kHeadDim; d++)
        score += double(q[h * kHeadDim + d]) * double(k[key + d]);
      const double weight = std::exp(score / std::sqrt(double(kHeadDim)));
      sum += weight;
      for (size_t d = 0; d < kHeadDim; d++) want[d] += weight * double(v[key + d]);
    }
    for (size_t d = 0; d < kHeadDim; d++) {
      const double difference = std::fabs(want[d] / sum - double(out[h * kHeadDim + d]));
      if (!(difference <= largest)) largest = difference;
    }
  }
  return largest;
}

int run() {
  attn::Context context(nullptr);
  attn_error error = attn::error_record();
  std::unique_ptr<Place> place;
  if (attn::Context::create(context, ATTN_BACKEND_CUDA, 0, &error) == ATTN_OK) {
    place.reset(new Cuda(0));
  } else {
    std::printf("no CUDA device: ran on the CPU (%s)\n", error.message);
    context = attn::Context::cpu();
    place.reset(new Host);
  }

  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.q_dtype = ATTN_DTYPE_FP32;
  desc.num_q_heads = kHeads;
  desc.head_dim_qk = kHeadDim;
  desc.max_batch = 1;
  desc.max_seqlen_q = 1;
  desc.max_seqlen_k = kKeys;
  desc.softmax_scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
  const attn::Plan plan(context, desc);
  plan.prepare();  // loads kernels now, not at the first execute
  const attn_plan_info info = plan.query();

  const std::vector<float> q = random_vector(kHeads * kHeadDim, 1);
  const std::vector<float> k = random_vector(kKeys * kHeads * kHeadDim, 2);
  const std::vector<float> v = random_vector(kKeys * kHeads * kHeadDim, 3);
  std::vector<float> out(q.size());
  const auto tensor = [&](const std::vector<float> &x, int64_t tokens) {
    return attn::tensor(place->allocate(x.size() * sizeof(float)), ATTN_DTYPE_FP32,
                        {1, tokens, kHeads, kHeadDim});
  };
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  args.q = tensor(q, 1);
  args.k = tensor(k, kKeys);
  args.v = tensor(v, kKeys);
  args.out = tensor(out, 1);
  place->copy_in(args.q.data, q);
  place->copy_in(args.k.data, k);
  place->copy_in(args.v.data, v);

  const std::size_t bytes = static_cast<std::size_t>(info.workspace_bytes);
  const std::uintptr_t alignment = static_cast<std::uintptr_t>(info.workspace_alignment);
  const std::uintptr_t memory =
      reinterpret_cast<std::uintptr_t>(place->allocate(bytes + alignment));
  void *workspace = attn::device_pointer((memory + alignment - 1) / alignment * alignment);
  // In the stream's order, after the copies. On a GPU it returns before the work is done.
  plan.forward(args, workspace, bytes, place->stream());
  place->copy_out(out, args.out.data);

  const double difference = largest_difference(q, k, v, out);
  std::printf("%s on %s: largest difference %.2g\n", info.implementation, context.query().name,
              difference);
  if (!(difference < 1e-5)) {
    std::fprintf(stderr, "the result is wrong\n");
    return 1;
  }
  return 0;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
