// A watch for races in global memory during one launch: who wrote and who read each byte.
//
// Blocks run one after the other here, but nothing orders them on a GPU, and waves of a block only
// by its barriers. So two accesses of a byte in one launch, one of them a write and not both
// atomic, are a race if they are of different blocks, or of different waves of a block with no
// barrier between them. What another launch did is over.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

namespace sim {

// Who accesses: a block by a number that no other block of the process has, how many barriers it
// has passed, and the wave.
struct Agent {
  uint32_t block, interval, wave;
};

enum class Access { read, write, atomic };

class RaceWatch {
 public:
  // Blocks that began before are over.
  void begin_launch() { first_ = next_; }
  uint32_t next_block() { return next_++; }

  // What is at `address` is no more.
  void forget(uint64_t begin) {
    shadows_.erase(begin);
    last_ = nullptr;
  }

  // Throws Fault. [begin, end): the region that the bytes lie in.
  void note(uint64_t begin, uint64_t end, uint64_t address, uint32_t bytes, const Agent &agent,
            Access access);

 private:
  // For each byte of a region its last writer and reader. Regions may be as large as a device's
  // memory: pages of this exist once they are touched.
  struct Shadow {
    Shadow() = default;
    explicit Shadow(uint64_t size);
    ~Shadow();
    Shadow(Shadow &&other) noexcept { *this = std::move(other); }
    Shadow &operator=(Shadow &&other) noexcept {
      std::swap(bytes, other.bytes);
      std::swap(writers, other.writers);
      std::swap(readers, other.readers);
      return *this;
    }

    uint64_t bytes = 0;
    uint64_t *writers = nullptr, *readers = nullptr;
  };

  bool over(uint64_t code) const;  // nobody, or of an earlier launch

  std::map<uint64_t, Shadow> shadows_;
  Shadow *last_ = nullptr;  // of the region that began at last_begin_
  uint64_t last_begin_ = 0;
  uint32_t first_ = 1, next_ = 1;  // blocks of this launch: first_ and following
};

}  // namespace sim
