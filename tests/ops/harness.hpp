// What all parts of attn-check share: options, contexts, counts, reports.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "attn/attn.h"
#include "device_memory.hpp"
#include "mirrored.hpp"

namespace check {

struct Options {
  std::string backend = "auto";
  std::string implementation;  // empty: every one that serves
  std::vector<std::string> filters;
  uint64_t seed = 0;
  int repeat = 1;
  int threads = 0;
  int fresh = 40;
  bool quick = false, bench = false, list = false;
  bool brief = false;       // two runs of a case that is not quick, and nothing more of it
  double work = 0;          // the most multiplications of a case that is not quick; 0: any
  int part = 0, parts = 1;  // of all: every so-manieth case of sdpa, the rest in the first part
  bool pretend = false;     // a pretended device's memory, with the CPU backend
  bool separate = false;    // for compute-sanitizer: see make_cuda_memory
  bool in_process = false;  // no child process
  int timeout = 60;         // seconds without a word from the child
  size_t memory = size_t{2} << 30;
  std::string json;
};

// A workspace of exactly the size and alignment asked for, guarded on both sides.
class Workspace {
 public:
  explicit Workspace(const attn_plan_info &info);
  void *data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void poison(uint8_t byte);
  bool guards_untouched() const;

  static size_t guard_bytes;  // 0 for compute-sanitizer, which sees writes outside by itself

 private:
  MirroredVector<uint8_t> memory_;
  uint8_t *data_;
  size_t bytes_;
};

struct PlanDeleter {
  void operator()(attn_plan *plan) const { attn_plan_destroy(plan); }
};
using PlanPtr = std::unique_ptr<attn_plan, PlanDeleter>;

// A device that faulted: nothing more can be done in this process.
struct LostDevice : std::runtime_error {
  using std::runtime_error::runtime_error;
};
constexpr int kStatusFatal = 2, kStatusLost = 3;

class Session {
 public:
  explicit Session(const Options &options);
  ~Session();

  // A context with this many threads (0: as --threads says); kept for the whole run.
  const attn_context *context(int threads = 0);

  // The memory of the device under test; null if that is the host.
  DeviceMemory *device() const { return device_.get(); }
  bool on_host() const { return device_ == nullptr; }
  // The name to plan for: "cpu", "cuda".
  const std::string &backend() const { return backend_; }

  bool wanted(const std::string &name) const;
  uint64_t seed_of(const std::string &name, int round) const;

  // Records one result. An empty `failure` means passed.
  void report(const std::string &name, const std::string &implementation,
              const std::string &failure, nlohmann::json extra = {});
  void not_served(const std::string &name, const std::string &reason);
  // Before each unit of work that ends in a report; false: a process before this one was at it.
  bool begin(const std::string &name, const std::string &implementation = "");
  // After all that belongs to a case, and whether a process before this one came so far.
  void finished(const std::string &name);
  bool is_finished(const std::string &name) const;
  // Reports an error of the device's driver, and ends this process's work if it is lost.
  void report(const std::string &name, const std::string &implementation, const DeviceError &error);
  // Announces what will come, for progress.
  void expect(size_t cases);
  void step(const std::string &name);
  int finish();  // prints the counts; the exit code

  // In a child: everything from here on is written to `descriptor`, not counted.
  void report_to(int descriptor) { descriptor_ = descriptor; }
  void complete() { say({{"message", "complete"}}); }
  // In a parent: one line of what a child wrote.
  void heard(const nlohmann::json &message);

  Options options;
  int round = 0;  // of the cases that repeat

 private:
  void say(const nlohmann::json &message) const;
  std::string unit(const std::string &name, const std::string &implementation) const {
    return std::to_string(round) + "|" + name + "|" + implementation;
  }

  std::map<int, attn_context *> contexts_;
  std::unique_ptr<DeviceMemory> device_;
  std::string backend_, device_name_ = "unknown", architecture_;
  std::set<std::string> begun_, finished_;
  int descriptor_ = -1;
  size_t passed_ = 0, failed_ = 0, expected_ = 0, done_ = 0;
  std::map<std::string, size_t> not_served_;
  std::vector<std::string> failures_;
  nlohmann::json rows_ = nlohmann::json::array();
  std::chrono::steady_clock::time_point start_, last_progress_;
  bool terminal_;
};

std::string describe(const attn_error &error);

// Calls of the library, with pointers as its device sees them and on a stream of that device. They
// copy nothing: see DeviceMemory::upload and download.
int32_t call_forward(const Session &session, const attn_plan *plan, const attn_sdpa_args &args,
                     const Workspace &workspace, attn_error *error, int stream = 0);
int32_t call_backward(const Session &session, const attn_plan *plan,
                      const attn_sdpa_backward_args &args, const Workspace &workspace,
                      attn_error *error, int stream = 0);
int32_t call_merge(const Session &session, const attn_plan *plan, const attn_merge_args &args,
                   const Workspace &workspace, attn_error *error, int stream = 0);

// The median time of `run` in microseconds.
double time_us(const std::function<void()> &run);

// The families' parts.
void run_sdpa(Session &session);
void run_merge(Session &session);
void run_merge_refusals(Session &session);
void run_refusals(Session &session);
void run_library(Session &session);

}  // namespace check
