// The entry points that have been loaded on one device, found without a lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "backend/gpu/device.hpp"

namespace attn::gpu {

// A loaded entry point. Its image's functions on one device form a list that only grows.
template <class Handle>
struct Function {
  const char *entry;
  Handle handle;
  mutable std::atomic<uint32_t> dynamic_smem;  // bytes it may use
  const Function *next;
};

inline constexpr uint32_t kMaxImages = 4096;

// The image's id, given at its first use in this process. 0: there are too many.
inline uint32_t id_of(const Image &image) {
  static std::mutex mutex;
  static uint32_t last = 0;
  const std::lock_guard lock(mutex);
  uint32_t id = image.id.load(std::memory_order_relaxed);
  if (id == 0 && last + 1 < kMaxImages) {
    id = ++last;
    image.id.store(id, std::memory_order_release);
  }
  return id;
}

template <class Handle>
class FunctionTable {
 public:
  // Null if nobody has added it.
  const Function<Handle> *find(const Kernel &kernel) const {
    const uint32_t id = kernel.image->id.load(std::memory_order_acquire);
    const Function<Handle> *function = first_[id].load(std::memory_order_acquire);
    while (function != nullptr && function->entry != kernel.entry) function = function->next;
    return function;
  }
  // One at a time. Room is made beforehand, so that adding cannot fail.
  void reserve() { owned_.reserve(owned_.size() + 1); }
  const Function<Handle> *add(uint32_t id, const char *entry, Handle handle,
                              uint32_t dynamic_smem) {
    owned_.push_back(std::unique_ptr<const Function<Handle>>(new Function<Handle>{
        entry, handle, dynamic_smem, first_[id].load(std::memory_order_relaxed)}));
    first_[id].store(owned_.back().get(), std::memory_order_release);
    return owned_.back().get();
  }

 private:
  std::vector<std::unique_ptr<const Function<Handle>>> owned_;
  // By the image's id; place 0 is that of images which no device has loaded.
  std::array<std::atomic<const Function<Handle> *>, kMaxImages> first_ = {};
};

}  // namespace attn::gpu
