// What all parts of attn-check share: options, contexts, counts, reports.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "attn/attn.h"

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

 private:
  std::vector<uint8_t> memory_;
  uint8_t *data_;
  size_t bytes_;
};

struct PlanDeleter {
  void operator()(attn_plan *plan) const { attn_plan_destroy(plan); }
};
using PlanPtr = std::unique_ptr<attn_plan, PlanDeleter>;

class Session {
 public:
  explicit Session(const Options &options);
  ~Session();

  // A context with this many threads (0: as --threads says); kept for the whole run.
  const attn_context *context(int threads = 0);

  bool wanted(const std::string &name) const;
  uint64_t seed_of(const std::string &name, int round) const;

  // Records one result. An empty `failure` means passed.
  void report(const std::string &name, const std::string &implementation,
              const std::string &failure, nlohmann::json extra = {});
  void not_served(const std::string &name, const std::string &reason);
  // Announces what will come, for progress.
  void expect(size_t cases) { expected_ += cases; }
  void step(const std::string &name);
  int finish();  // prints the counts; the exit code

  Options options;

 private:
  std::map<int, attn_context *> contexts_;
  size_t passed_ = 0, failed_ = 0, expected_ = 0, done_ = 0;
  std::map<std::string, size_t> not_served_;
  std::vector<std::string> failures_;
  nlohmann::json rows_ = nlohmann::json::array();
  std::chrono::steady_clock::time_point start_, last_progress_;
  bool terminal_;
};

std::string describe(const attn_error &error);

// The median time of `run` in microseconds.
double time_us(const std::function<void()> &run);

// The families' parts.
void run_sdpa(Session &session);
void run_merge(Session &session);
void run_refusals(Session &session);
void run_library(Session &session);

}  // namespace check
