#include "device.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>

namespace sim {
namespace {

constexpr uint8_t kPoison = 0xa5;
constexpr uint64_t kMostInstructions = 2'000'000'000;  // of a wave: it hangs

std::string hex(uint64_t x) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%" PRIx64, x);
  return text;
}

}  // namespace

int Device::generation() const {
  return architecture_.starts_with("gfx9") ? 9 : architecture_.starts_with("gfx11") ? 11 : 12;
}

void Device::allow(const void *memory, size_t bytes) {
  const auto begin = reinterpret_cast<uint64_t>(memory);
  regions_[begin] = begin + bytes;
}

void Device::forbid(const void *memory) {
  regions_.erase(reinterpret_cast<uint64_t>(memory));
  races_.forget(reinterpret_cast<uint64_t>(memory));
  last_begin_ = 1;
  last_end_ = 0;
}

void Device::find_region(uint64_t address, size_t bytes, const char *doing) {
  auto next = regions_.upper_bound(address);
  if (next != regions_.begin()) {
    --next;
    if (address + bytes <= next->second) {
      last_begin_ = next->first;
      last_end_ = next->second;
      return;
    }
  }
  throw Fault(std::string(doing) + " " + std::to_string(bytes) + " bytes at " + hex(address) +
              ", which nobody allocated");
}

void Device::read(const Wave &w, uint64_t address, void *to, size_t bytes) {
  check(address, bytes, "a scalar load reads");
  if (order_ == Order::random) watch(w, address, static_cast<uint32_t>(bytes), Access::read);
  std::memcpy(to, reinterpret_cast<const void *>(address), bytes);
}

void Device::watch(const Wave &w, uint64_t address, uint32_t bytes, Access access) {
  if (last_begin_ == constant_[0] || last_begin_ == constant_[1]) return;
  races_.note(last_begin_, last_end_, address, bytes, w.block->agent(w), access);
}

void Device::launch(const Kernel &kernel, const uint32_t (&grid)[3], const uint32_t (&block)[3],
                    uint32_t dynamic_lds, const std::vector<uint8_t> &kernarg) {
  allow(kernarg.data(), kernarg.size());
  allow(kernel.object->memory().data(), kernel.object->memory().size());
  constant_[0] = reinterpret_cast<uint64_t>(kernarg.data());
  constant_[1] = kernel.object->base();
  races_.begin_launch();
  std::vector<uint32_t> order(grid[0] * grid[1] * grid[2]);
  for (uint32_t n = 0; n < order.size(); n++) order[n] = n;
  if (order_ == Order::reverse) std::reverse(order.begin(), order.end());
  if (order_ == Order::random) std::shuffle(order.begin(), order.end(), random_);
  try {
    for (const uint32_t n : order) {
      const uint32_t index[3] = {n % grid[0], n / grid[0] % grid[1], n / grid[0] / grid[1]};
      Block running(*this, kernel, grid, index, block, kernel.lds_bytes + dynamic_lds, kernarg,
                    races_.next_block());
      running.run();
      instructions_ += running.instructions();
    }
  } catch (const Fault &) {
    forbid(kernarg.data());
    throw;
  }
  forbid(kernarg.data());
}

Block::Block(Device &device, const Kernel &kernel, const uint32_t (&)[3],
             const uint32_t (&index)[3], const uint32_t (&threads)[3], uint32_t lds_bytes,
             const std::vector<uint8_t> &kernarg, uint32_t serial)
    : device_(device),
      kernel_(kernel),
      lds_(lds_bytes, kPoison),
      serial_(serial),
      writers_(lds_bytes),
      readers_(lds_bytes),
      atomically_(lds_bytes) {
  const uint32_t count = threads[0] * threads[1] * threads[2];
  const uint32_t lanes = static_cast<uint32_t>(kernel.lanes);
  for (uint32_t first = 0; first < count; first += lanes) {
    auto wave = std::make_unique<Wave>();
    Wave &w = *wave;
    w.lanes = kernel.lanes;
    w.generation = kernel.generation;
    w.pc = kernel.entry;
    w.block = this;
    w.number = static_cast<int>(first / lanes);
    w.scratch_bytes = kernel.scratch_bytes;
    w.scratch.assign(static_cast<size_t>(kernel.scratch_bytes) * lanes, kPoison);
    std::memset(w.sgpr, kPoison, sizeof w.sgpr);
    std::memset(w.vgpr, kPoison, sizeof w.vgpr);
    w.set_pair(kNull, 0);
    w.set_pair(kSharedBase, static_cast<uint64_t>(kSharedHigh) << 32);
    w.set_pair(kPrivateBase, static_cast<uint64_t>(kPrivateHigh) << 32);

    const uint32_t here = std::min(lanes, count - first);
    w.set_pair(kExec, here == 64 ? ~uint64_t{0} : (uint64_t{1} << here) - 1);
    for (uint32_t l = 0; l < here; l++) {
      const uint32_t t = first + l;
      w.vgpr[0][l] =
          t % threads[0] | t / threads[0] % threads[1] << 10 | t / threads[0] / threads[1] << 20;
    }
    // User registers, in the order of the properties' bits, then the system's.
    int next = 0;
    const auto pair = [&](uint64_t value) {
      w.set_pair(next, value);
      next += 2;
    };
    const uint32_t p = kernel.properties;
    if (p & 1) {  // the private segment's buffer: found by its second word, see memory.cpp
      pair(uint64_t{0x80000000u} << 32);
      pair(0);
    }
    if (p & 2) pair(0);  // dispatch packet
    if (p & 4) pair(0);  // queue
    if (p & 8) pair(reinterpret_cast<uint64_t>(kernarg.data()));
    if (p & 16) pair(0);  // dispatch id
    if (p & 32) pair(0);  // flat scratch
    if (p & 64) w.sgpr[next++] = kernel.scratch_bytes;
    next = static_cast<int>(kernel.rsrc2 >> 1 & 31);
    if (kernel.generation == 12) {
      w.sgpr[kTtmp + 9] = index[0];
      w.sgpr[kTtmp + 7] = index[1] | index[2] << 16;
    } else {
      for (int axis = 0; axis < 3; axis++) {
        if (kernel.rsrc2 >> (7 + axis) & 1) w.sgpr[next++] = index[axis];
      }
      if (kernel.rsrc2 >> 10 & 1) w.sgpr[next++] = 0;
      if (kernel.rsrc2 & 1) w.sgpr[next++] = 0;  // where the wave's scratch begins
    }
    waves_.push_back(std::move(wave));
  }
  watched_ = waves_.size() > 1 && device.order() == Order::random;
}

uint64_t Block::instructions() const {
  uint64_t sum = 0;
  for (const auto &w : waves_) sum += w->instructions;
  return sum;
}

void Block::run() {
  const Instruction *code = kernel_.object->code().data();
  const size_t size = kernel_.object->code().size();
  std::vector<size_t> order(waves_.size());
  for (size_t n = 0; n < order.size(); n++) {
    order[n] = device_.order() == Order::reverse ? order.size() - 1 - n : n;
  }
  for (;;) {
    bool any = false;
    if (device_.order() == Order::random) {
      std::shuffle(order.begin(), order.end(), device_.random());
    }
    for (const size_t n : order) {
      Wave &w = *waves_[n];
      if (w.state != Wave::State::running) continue;
      any = true;
      // In random order a wave does not even come to its barrier in one go.
      uint64_t left = ~uint64_t{0};
      if (device_.order() == Order::random && order.size() > 1) left = device_.random()() % 400 + 1;
      const Instruction *at = nullptr;
      try {
        while (w.state == Wave::State::running && left-- > 0) {
          if (w.pc >= size) throw Fault("ran out of its code");
          at = &code[w.pc++];
          w.instructions++;
          if (!at->dual) {
            at->run(w, *at);
          } else {
            // Both read before either writes.
            const uint16_t to = at->operands[0].index;
            uint32_t before[64], after[64];
            std::memcpy(before, w.vgpr[to], sizeof before);
            at->run(w, *at);
            std::memcpy(after, w.vgpr[to], sizeof after);
            std::memcpy(w.vgpr[to], before, sizeof before);
            at->second[0].run(w, at->second[0]);
            std::memcpy(w.vgpr[to], after, sizeof after);
          }
          if (w.instructions > kMostInstructions) throw Fault("does not end");
        }
      } catch (const Fault &fault) {
        throw Fault(kernel_.name + ", wave " + std::to_string(w.number) + ", at " +
                    (at == nullptr ? "?" : hex(at->address) + " (" + at->text + ")") + ": " +
                    fault.what());
      }
    }
    if (any) continue;
    // All wait or have ended: the barrier opens.
    bool waiting = false;
    for (const auto &w : waves_) {
      if (w->state != Wave::State::at_barrier) continue;
      w->state = Wave::State::running;
      waiting = true;
    }
    if (!waiting) return;
    interval_++;
    std::fill(writers_.begin(), writers_.end(), uint8_t{0});
    std::fill(readers_.begin(), readers_.end(), uint8_t{0});
    std::fill(atomically_.begin(), atomically_.end(), uint8_t{0});
  }
}

uint8_t *Block::lds_slowly(const Wave &w, uint32_t address, uint32_t bytes, Access access) {
  if (address > lds_.size() || bytes > lds_.size() - address) {
    throw Fault("shared memory at " + std::to_string(address) + " of " +
                std::to_string(lds_.size()) + " bytes");
  }
  const auto me = static_cast<uint8_t>(w.number + 1);
  uint8_t *writer = &writers_[address], *reader = &readers_[address];
  // The usual case: words that are this wave's alone.
  if (bytes % 4 == 0 && access != Access::atomic) {
    bool alone = true;
    for (uint32_t b = 0; b < bytes; b += 4) {
      uint32_t written, read;
      std::memcpy(&written, writer + b, 4);
      std::memcpy(&read, reader + b, 4);
      const uint32_t mine = me * 0x01010101u;
      alone = alone && (written == 0 || written == mine) &&
              (access == Access::read || read == 0 || read == mine);
      if (access == Access::read && read != mine && read != 0) alone = false;
    }
    if (alone) {
      std::memset(access == Access::read ? reader : writer, me, bytes);
      return lds_.data() + address;
    }
  }
  for (uint32_t b = 0; b < bytes; b++) {
    const bool written = writer[b] != 0 && writer[b] != me &&
                         !(access == Access::atomic && atomically_[address + b] != 0);
    const bool read = access != Access::read && reader[b] != 0 && reader[b] != me;
    if (written || read) {
      const uint8_t other = written ? writer[b] : reader[b];
      throw Fault("a race in shared memory at " + std::to_string(address + b) + ": wave " +
                  std::to_string(w.number) + (access == Access::read ? " reads" : " writes") +
                  " what " + (other == kMany ? "others" : "wave " + std::to_string(other - 1)) +
                  (written ? " wrote" : " read") + " since the last barrier");
    }
    if (access == Access::read) {
      reader[b] = reader[b] == 0 || reader[b] == me ? me : kMany;
    } else {
      atomically_[address + b] = access == Access::atomic;
      writer[b] = writer[b] == 0 || writer[b] == me ? me : kMany;
    }
  }
  return lds_.data() + address;
}

}  // namespace sim
