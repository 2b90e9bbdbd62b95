// A device: its memory, and the launches on it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "instruction.hpp"
#include "races.hpp"
#include "wave.hpp"

namespace sim {

class CodeObject;

// One entry point.
struct Kernel {
  std::string name;
  const CodeObject *object = nullptr;
  uint64_t descriptor[8] = {};
  uint32_t entry = 0;  // index of its first instruction
  uint32_t lds_bytes = 0, scratch_bytes = 0, kernarg_bytes = 0, most_threads = 1024;
  int generation = 9, lanes = 64;
  uint32_t rsrc2 = 0, properties = 0;
  // Offset and size of each argument, and of the hidden ones by their kind.
  std::vector<std::pair<uint32_t, uint32_t>> arguments;
  std::map<std::string, uint32_t> hidden;

  uint64_t address_of(uint32_t index) const;
  uint32_t index_of(uint64_t address) const;
};

// An image, loaded.
class CodeObject {
 public:
  // Throws std::runtime_error if the image is not for `architecture`, or uses an instruction that
  // has no semantics here.
  CodeObject(const void *image, const std::string &architecture);

  const Kernel *find(const std::string &name) const;
  const std::vector<Instruction> &code() const { return code_; }
  const std::vector<uint8_t> &memory() const { return memory_; }
  uint64_t base() const { return reinterpret_cast<uint64_t>(memory_.data()); }
  uint64_t address_of(uint32_t index) const;
  uint32_t index_of(uint64_t address) const;

 private:
  std::vector<uint8_t> memory_;  // segments where the image wants them
  std::vector<Instruction> code_;
  std::unordered_map<uint64_t, uint32_t> index_;
  std::map<std::string, Kernel> kernels_;
};

enum class Order { forward, reverse, random };

class Device {
 public:
  Device(std::string architecture, Order order, uint64_t seed)
      : architecture_(std::move(architecture)), order_(order), random_(seed) {}

  const std::string &architecture() const { return architecture_; }
  int generation() const;
  int lanes() const { return generation() == 9 ? 64 : 32; }
  uint32_t lds_limit() const { return architecture_ == "gfx950" ? 160 * 1024 : 64 * 1024; }

  void allow(const void *memory, size_t bytes);  // accesses to it
  void forbid(const void *memory);
  // Throws Fault if what a kernel reads or writes is nobody's memory.
  void check(uint64_t address, size_t bytes, const char *doing) {
    if (address < last_begin_ || address + bytes > last_end_) find_region(address, bytes, doing);
  }
  void read(const Wave &w, uint64_t address, void *to, size_t bytes);
  // The bytes, checked against bounds and, in random order, for races.
  uint8_t *access(const Wave &w, uint64_t address, uint32_t bytes, Access access) {
    check(address, bytes, access == Access::read ? "reads" : "writes");
    if (order_ == Order::random) watch(w, address, bytes, access);
    return reinterpret_cast<uint8_t *>(address);
  }

  // Runs a kernel to its end. Throws Fault.
  void launch(const Kernel &kernel, const uint32_t (&grid)[3], const uint32_t (&block)[3],
              uint32_t dynamic_lds, const std::vector<uint8_t> &kernarg);
  uint64_t instructions() const { return instructions_; }

  Order order() const { return order_; }
  std::mt19937_64 &random() { return random_; }

 private:
  void find_region(uint64_t address, size_t bytes, const char *doing);
  void watch(const Wave &w, uint64_t address, uint32_t bytes, Access access);

  std::string architecture_;
  Order order_;
  std::mt19937_64 random_;
  std::map<uint64_t, uint64_t> regions_;  // begin to end
  uint64_t last_begin_ = 1, last_end_ = 0;
  uint64_t instructions_ = 0;
  RaceWatch races_;
  uint64_t constant_[2] = {};  // regions that a launch only reads: its parameters and code
};

// One workgroup: its waves and its LDS.
class Block {
 public:
  Block(Device &device, const Kernel &kernel, const uint32_t (&grid)[3], const uint32_t (&index)[3],
        const uint32_t (&threads)[3], uint32_t lds_bytes, const std::vector<uint8_t> &kernarg,
        uint32_t serial = 0);

  void run();
  Device &device() { return device_; }
  const Kernel &kernel() const { return kernel_; }
  uint64_t instructions() const;
  Wave &wave(size_t number) { return *waves_[number]; }

  Agent agent(const Wave &w) const { return {serial_, interval_, static_cast<uint32_t>(w.number)}; }
  // LDS of `bytes` at `address`, checked against its bounds and against races.
  uint8_t *lds(const Wave &w, uint32_t address, uint32_t bytes, Access access) {
    if (watched_ || address > lds_.size() || bytes > lds_.size() - address) {
      return lds_slowly(w, address, bytes, access);
    }
    return lds_.data() + address;
  }

 private:
  // Who touched a byte of LDS since the last barrier: a wave's number + 1, 0 for nobody, or this
  // for more than one.
  static constexpr uint8_t kMany = 255;

  uint8_t *lds_slowly(const Wave &w, uint32_t address, uint32_t bytes, Access access);

  Device &device_;
  const Kernel &kernel_;
  std::vector<uint8_t> lds_;
  uint32_t serial_ = 0, interval_ = 0;  // of all blocks; barriers passed
  bool watched_ = false;  // for races: where there is more than one wave, in random order
  std::vector<uint8_t> writers_, readers_, atomically_;
  std::vector<std::unique_ptr<Wave>> waves_;
};

}  // namespace sim
