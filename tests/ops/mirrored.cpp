#include "mirrored.hpp"

#include <sys/mman.h>

#include <iterator>
#include <new>
#include <stdexcept>

namespace check::mirror {
namespace {

// As malloc aligns: what needs more must say so, and no tensor has more by luck.
constexpr size_t kAlignment = 16;

struct Region {
  uint8_t *base = nullptr;
  size_t capacity = 0, top = 0;
  std::map<uintptr_t, Block> blocks;
};

Region &the_region() {
  static Region region;
  return region;
}

}  // namespace

void begin(size_t capacity) {
  Region &r = the_region();
  if (r.base != nullptr) return;
  void *memory = mmap(nullptr, capacity, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  r.base = static_cast<uint8_t *>(memory);
  r.capacity = capacity;
}

void *allocate(size_t bytes) {
  Region &r = the_region();
  if (r.base == nullptr) return ::operator new(bytes);
  // A gap after each block: an address just past its end belongs to it alone.
  const size_t room = (bytes + kAlignment) / kAlignment * kAlignment;
  if (r.capacity - r.top < room) {
    throw std::runtime_error("a case needs more than the " + std::to_string(r.capacity >> 20) +
                             " MiB that are mirrored on the device");
  }
  uint8_t *memory = r.base + r.top;
  r.top += room;
  r.blocks[reinterpret_cast<uintptr_t>(memory)] = {bytes, false};
  return memory;
}

void release(void *memory) noexcept {
  Region &r = the_region();
  const auto at = reinterpret_cast<uintptr_t>(memory);
  const auto block = r.blocks.find(at);
  if (block == r.blocks.end()) {
    ::operator delete(memory);
    return;
  }
  r.blocks.erase(block);
  // Freed memory returns from the top down: cases come and go as a stack.
  if (r.blocks.empty()) {
    r.top = 0;
  } else {
    const auto &[last, info] = *std::prev(r.blocks.end());
    r.top = last - reinterpret_cast<uintptr_t>(r.base) +
            (info.bytes + kAlignment) / kAlignment * kAlignment;
  }
}

void mark_workspace(void *memory) {
  const auto block = the_region().blocks.find(reinterpret_cast<uintptr_t>(memory));
  if (block != the_region().blocks.end()) block->second.workspace = true;
}

uint8_t *region() {
  return the_region().base;
}
size_t used() {
  return the_region().top;
}
const std::map<uintptr_t, Block> &blocks() {
  return the_region().blocks;
}

}  // namespace check::mirror
