#include "device_memory.hpp"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "mirrored.hpp"

namespace check {

attn_sdpa_args DeviceMemory::on_device(const attn_sdpa_args &args) const {
  attn_sdpa_args a = args;
  for (attn_tensor *t : {&a.q,
                         &a.k,
                         &a.v,
                         &a.out,
                         &a.lse,
                         &a.row_max,
                         &a.block_table,
                         &a.mask,
                         &a.tail_mask,
                         &a.q_segment_ids,
                         &a.kv_segment_ids,
                         &a.bias,
                         &a.alibi_slopes,
                         &a.sink,
                         &a.gate,
                         &a.block_counts,
                         &a.block_indices,
                         &a.q_scale,
                         &a.k_scale,
                         &a.v_scale,
                         &a.out_scale}) {
    t->data = address(t->data);
  }
  for (const int32_t **array : {&a.cu_seqlens_q, &a.cu_seqlens_k, &a.seqused_q, &a.seqused_k,
                                &a.kv_page_indptr, &a.kv_page_indices, &a.kv_last_page_len}) {
    *array = static_cast<const int32_t *>(address(*array));
  }
  a.rng_state = static_cast<const uint64_t *>(address(a.rng_state));
  return a;
}

attn_sdpa_backward_args DeviceMemory::on_device(const attn_sdpa_backward_args &args) const {
  attn_sdpa_backward_args a = args;
  for (attn_tensor *t : {&a.dout, &a.dlse, &a.dq, &a.dk, &a.dv, &a.dbias, &a.dsink, &a.dgate}) {
    t->data = address(t->data);
  }
  return a;
}

attn_merge_args DeviceMemory::on_device(const attn_merge_args &args) const {
  attn_merge_args a = args;
  for (attn_tensor *t : {&a.partial, &a.partial_lse, &a.other, &a.other_lse, &a.row_mask, &a.sink,
                         &a.out, &a.out_lse}) {
    t->data = address(t->data);
  }
  return a;
}

namespace {

class PretendedGraph final : public Graph {
 public:
  explicit PretendedGraph(std::function<void()> work) : work_(std::move(work)) {}
  void launch() override { work_(); }
  size_t nodes() const override { return 1; }

 private:
  std::function<void()> work_;
};

class PretendedMemory final : public DeviceMemory {
 public:
  explicit PretendedMemory(size_t capacity) {
    mirror::begin(capacity);
    void *memory = mmap(nullptr, capacity, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<uint8_t *>(memory);
  }
  void upload() override { std::memcpy(base_, mirror::region(), mirror::used()); }
  void download() override { std::memcpy(mirror::region(), base_, mirror::used()); }
  void wait() override {}
  void *address(const void *host) const override {
    const auto *at = static_cast<const uint8_t *>(host);
    if (at < mirror::region() || at > mirror::region() + mirror::used()) {
      return const_cast<void *>(host);
    }
    return base_ + (at - mirror::region());
  }
  attn_stream stream(int) const override { return nullptr; }
  std::unique_ptr<Graph> capture(const std::function<void()> &work) override {
    return std::make_unique<PretendedGraph>(work);
  }
  double time_us(const std::function<void()> &enqueue) override {
    enqueue();
    return 0;
  }

 private:
  uint8_t *base_;
};

}  // namespace

std::unique_ptr<DeviceMemory> make_pretended_memory(size_t capacity) {
  return std::make_unique<PretendedMemory>(capacity);
}

}  // namespace check
