// The workspace and its carving. Size query and carving are one piece of code: run it on a Carver
// without memory to count, on one with memory to carve.
#pragma once

#include <cstddef>
#include <cstdint>

namespace attn {

inline constexpr size_t kWorkspaceAlignment = 64;  // a cache line, and the widest SIMD register

class Carver {
 public:
  Carver() = default;  // counts only: take() gives null
  explicit Carver(void *memory) : base_(static_cast<unsigned char *>(memory)) {}

  template <class T>
  T *take(int64_t count, size_t alignment = kWorkspaceAlignment) {
    offset_ = (offset_ + alignment - 1) / alignment * alignment;
    T *result = base_ == nullptr ? nullptr : reinterpret_cast<T *>(base_ + offset_);
    offset_ += static_cast<size_t>(count) * sizeof(T);
    return result;
  }

  size_t bytes() const { return offset_; }

 private:
  unsigned char *base_ = nullptr;
  size_t offset_ = 0;
};

}  // namespace attn
