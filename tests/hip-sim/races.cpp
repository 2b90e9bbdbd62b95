#include "races.hpp"

#include <sys/mman.h>

#include <string>

#include "wave.hpp"

namespace sim {
namespace {

// An agent in one number: block, barriers passed, whether it was atomic, wave. 0: nobody.
constexpr uint64_t kWaves = 0x7ff, kAtomic = 0x800;
constexpr int kIntervalShift = 12, kBlockShift = 32;
constexpr uint64_t kManyWaves = kWaves;  // in this interval
constexpr uint64_t kIntervals = 0xfffff;
constexpr uint32_t kManyBlocks = ~uint32_t{0};

uint64_t code_of(const Agent &a) {
  return uint64_t{a.block} << kBlockShift | (a.interval & kIntervals) << kIntervalShift |
         (a.wave & kWaves);
}
uint32_t block_of(uint64_t code) {
  return static_cast<uint32_t>(code >> kBlockShift);
}

}  // namespace

RaceWatch::Shadow::Shadow(uint64_t size) : bytes(size) {
  void *memory = mmap(nullptr, 2 * size * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    bytes = 0;
    throw Fault("there is no memory for the watch for races");
  }
  writers = static_cast<uint64_t *>(memory);
  readers = writers + size;
}
RaceWatch::Shadow::~Shadow() {
  if (writers != nullptr) munmap(writers, 2 * bytes * sizeof(uint64_t));
}

bool RaceWatch::over(uint64_t code) const {
  const uint32_t block = block_of(code);
  // Of readers in many blocks, the launch is what the lower half has.
  return code == 0 ||
         (block == kManyBlocks ? static_cast<uint32_t>(code) != first_ : block < first_);
}

void RaceWatch::note(uint64_t begin, uint64_t end, uint64_t address, uint32_t bytes,
                     const Agent &agent, Access access) {
  if (last_ == nullptr || last_begin_ != begin) {
    last_ = &shadows_[begin];
    last_begin_ = begin;
  }
  Shadow &shadow = *last_;
  if (shadow.bytes != end - begin) shadow = Shadow(end - begin);
  const uint64_t me = code_of(agent), mine = me | (access == Access::atomic ? kAtomic : 0);
  uint64_t *writer = &shadow.writers[address - begin], *reader = &shadow.readers[address - begin];
  // Whether an earlier access is not ordered before this one.
  const auto unordered = [&](uint64_t other) {
    if (over(other)) return false;
    if (block_of(other) != agent.block) return true;
    return (other ^ me) >> kIntervalShift == 0 && ((other ^ me) & kWaves) != 0;
  };
  const auto race = [&](uint32_t b, const char *did) {
    throw Fault("a race in global memory, byte " + std::to_string(address + b - begin) + " of " +
                std::to_string(end - begin) + ": it " +
                (access == Access::read ? "reads" : "writes") + " what another " +
                (block_of(did[0] == 'w' ? writer[b] : reader[b]) == agent.block
                     ? "wave of its block "
                     : "block ") +
                did + (access == Access::atomic ? " (not both atomic)" : ""));
  };
  // The usual case: it reads what it has read before, or what an earlier launch left and nobody has
  // read since.
  if (access == Access::read) {
    bool plain = true;
    for (uint32_t b = 0; b < bytes; b++) {
      plain = plain && block_of(writer[b]) < first_ &&
              (reader[b] == me || block_of(reader[b]) < first_);
    }
    if (plain) {
      for (uint32_t b = 0; b < bytes; b++) reader[b] = me;
      return;
    }
  }
  for (uint32_t b = 0; b < bytes; b++) {
    const bool both_atomic = access == Access::atomic && (writer[b] & kAtomic) != 0;
    if (writer[b] != me && !both_atomic && unordered(writer[b])) race(b, "wrote");
    if (access != Access::read) {
      if (reader[b] != me && unordered(reader[b])) race(b, "read");
      writer[b] = mine;
      continue;
    }
    uint64_t &r = reader[b];
    if (r == me) continue;
    if (over(r)) {
      r = me;
    } else if (block_of(r) != agent.block) {
      r = uint64_t{kManyBlocks} << kBlockShift | first_;
    } else if ((r ^ me) >> kIntervalShift != 0) {
      r = me;  // whoever read before the last barrier is ordered before all that follows
    } else {
      r |= kManyWaves;
    }
  }
}

}  // namespace sim
