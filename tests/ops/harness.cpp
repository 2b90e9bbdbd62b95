#include "harness.hpp"

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <stdexcept>

#include "allocations.hpp"

namespace check {
namespace {

constexpr size_t kGuard = 256;
constexpr uint8_t kGuardByte = 0xc5;

}  // namespace

Workspace::Workspace(const attn_plan_info &info) : bytes_(info.workspace_bytes) {
  const size_t alignment = std::max<size_t>(info.workspace_alignment, 1);
  memory_.assign(bytes_ + 2 * kGuard + 2 * alignment, kGuardByte);
  // Aligned to what was asked for and to no more, so that a hidden wish shows.
  auto at = reinterpret_cast<uintptr_t>(memory_.data()) + kGuard;
  at = (at + alignment - 1) / alignment * alignment;
  if (at / alignment % 2 == 0) at += alignment;
  data_ = reinterpret_cast<uint8_t *>(at);
}

void Workspace::poison(uint8_t byte) {
  std::fill(data_, data_ + bytes_, byte);
}

bool Workspace::guards_untouched() const {
  const auto intact = [](const uint8_t *from, const uint8_t *to) {
    return std::all_of(from, to, [](uint8_t byte) { return byte == kGuardByte; });
  };
  return intact(memory_.data(), data_) && intact(data_ + bytes_, memory_.data() + memory_.size());
}

Session::Session(const Options &o)
    : options(o),
      start_(std::chrono::steady_clock::now()),
      last_progress_(start_),
      terminal_(isatty(STDERR_FILENO) != 0) {}

Session::~Session() {
  for (auto &[threads, context] : contexts_) attn_context_destroy(context);
}

const attn_context *Session::context(int threads) {
  if (threads == 0) threads = options.threads;
  attn_context *&context = contexts_[threads];
  if (context != nullptr) return context;
  attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
  desc.backend = options.backend == "cpu"    ? ATTN_BACKEND_CPU
                 : options.backend == "cuda" ? ATTN_BACKEND_CUDA
                 : options.backend == "hip"  ? ATTN_BACKEND_HIP
                                             : ATTN_BACKEND_AUTO;
  desc.num_threads = threads;
  attn_error error = ATTN_ERROR_INIT;
  if (attn_context_create(&desc, &context, &error) != ATTN_OK) {
    throw std::runtime_error("no context: " + describe(error));
  }
  return context;
}

bool Session::wanted(const std::string &name) const {
  if (options.filters.empty()) return true;
  return std::any_of(options.filters.begin(), options.filters.end(), [&](const std::string &f) {
    if (f.starts_with('=')) return name == f.substr(1);
    if (f.find_first_of("*?[") != std::string::npos)
      return fnmatch(f.c_str(), name.c_str(), 0) == 0;
    return name.find(f) != std::string::npos;
  });
}

uint64_t Session::seed_of(const std::string &name, int round) const {
  uint64_t hash = options.seed * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(round);
  for (char letter : name) {
    hash = (hash ^ static_cast<uint8_t>(letter)) * 0x100000001b3;
    hash ^= hash >> 29;
  }
  return hash;
}

void Session::step(const std::string &name) {
  done_++;
  const auto now = std::chrono::steady_clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000);
  if (now - last_progress_ < pause) return;
  last_progress_ = now;
  std::fprintf(stderr,
               terminal_ ? "\r\033[K%zu of %zu, %zu failed: %s" : "%zu of %zu, %zu failed: %s\n",
               done_, expected_, failed_, name.c_str());
}

void Session::report(const std::string &name, const std::string &implementation,
                     const std::string &failure, nlohmann::json extra) {
  nlohmann::json row = {{"id", name}, {"implementation", implementation}, {"ok", failure.empty()}};
  if (!failure.empty()) row["failure"] = failure;
  if (extra.is_object()) row.update(extra);
  rows_.push_back(std::move(row));
  if (failure.empty()) {
    passed_++;
    return;
  }
  failed_++;
  std::string text = "FAILED " + name;
  if (!implementation.empty()) text += " [" + implementation + "]";
  text += ": " + failure + "\n  again: attn-check --backend " + options.backend + " --seed " +
          std::to_string(options.seed);
  if (options.threads != 0) text += " --threads " + std::to_string(options.threads);
  if (!implementation.empty()) text += " --implementation " + implementation;
  text += " --filter '=" + name + "'";
  if (failed_ <= 100) {
    std::fprintf(stderr, "%s%s\n", terminal_ ? "\r\033[K" : "", text.c_str());
  } else if (failed_ == 101) {
    std::fprintf(stderr, "further failures are only counted (see --json)\n");
  }
  failures_.push_back(std::move(text));
}

void Session::not_served(const std::string &name, const std::string &reason) {
  not_served_[reason]++;
  rows_.push_back({{"id", name}, {"not_served", reason}});
}

int Session::finish() {
  if (terminal_) std::fprintf(stderr, "\r\033[K");
  if (!not_served_.empty()) {
    std::printf("not served:\n");
    for (const auto &[reason, count] : not_served_) {
      std::printf("  %zu cases: %s\n", count, reason.c_str());
    }
  }
  if (!options.json.empty()) {
    std::time_t now = std::time(nullptr);
    char date[32];
    std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
    attn_device_info device = ATTN_DEVICE_INFO_INIT;
    attn_context_query(context(), &device, nullptr);
    const nlohmann::json file = {{"schema", 1},
                                 {"date", date},
                                 {"seed", options.seed},
                                 {"device", device.name},
                                 {"architecture", device.architecture},
                                 {"library", attn_version_string()},
                                 {"passed", passed_},
                                 {"failed", failed_},
                                 {"rows", rows_}};
    std::ofstream(options.json) << file.dump(1) << "\n";
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  if (!can_count_allocations()) {
    std::printf("allocations in execute are not counted in this build (sanitizer)\n");
  }
  std::printf("seed %llu, %.1f s\n", static_cast<unsigned long long>(options.seed), seconds);
  std::printf("%zu passed, %zu failed\n", passed_, failed_);
  return failed_ == 0 && passed_ > 0 ? 0 : 1;
}

std::string describe(const attn_error &error) {
  return std::string(attn_status_name(error.status)) + ": " + error.message;
}

double time_us(const std::function<void()> &run) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  const auto end = Clock::now() + std::chrono::milliseconds(60);
  do {
    const auto before = Clock::now();
    run();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - before).count());
  } while (Clock::now() < end || times.size() < 5);
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2),
                   times.end());
  return times[times.size() / 2];
}

}  // namespace check
