// Host memory that a device under test has a copy of.
//
// Tests keep their tensors on the host and check every byte there. For a device, whatever a call
// can see lies in memory from here, which DeviceMemory copies to the device before a call and back
// after it, gaps, guards and poison included; a pointer into it has its counterpart there. Unless
// mirror::begin was called this is ordinary heap memory, which sanitizers watch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace check {

namespace mirror {

struct Block {
  size_t bytes = 0;
  bool workspace = false;  // what it holds does not matter before a call
};

// From now on, allocations come from one region of this many bytes.
void begin(size_t capacity);
void *allocate(size_t bytes);
void release(void *memory) noexcept;
void mark_workspace(void *memory);

uint8_t *region();
size_t used();  // all blocks lie in the region's first so many bytes
// By address; stable between allocations.
const std::map<uintptr_t, Block> &blocks();

}  // namespace mirror

template <class T>
struct MirroredAllocator {
  using value_type = T;
  MirroredAllocator() = default;
  template <class U>
  MirroredAllocator(const MirroredAllocator<U> &) {}
  T *allocate(size_t n) { return static_cast<T *>(mirror::allocate(n * sizeof(T))); }
  void deallocate(T *memory, size_t) noexcept { mirror::release(memory); }
  bool operator==(const MirroredAllocator &) const { return true; }
};

template <class T>
using MirroredVector = std::vector<T, MirroredAllocator<T>>;

}  // namespace check
