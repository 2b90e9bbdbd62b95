#include "harness.hpp"

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <stdexcept>

#include "allocations.hpp"
#include "tensor.hpp"

namespace check {
namespace {

constexpr uint8_t kGuardByte = 0xc5;

}  // namespace

size_t Workspace::guard_bytes = 256;

Workspace::Workspace(const attn_plan_info &info) : bytes_(info.workspace_bytes) {
  const size_t alignment = std::max<size_t>(info.workspace_alignment, 1);
  if (guard_bytes == 0) {  // the device's allocation is aligned by itself
    memory_.assign(std::max<size_t>(bytes_, 1), kGuardByte);
    data_ = memory_.data();
    mirror::mark_workspace(data_);
    return;
  }
  memory_.assign(bytes_ + 2 * guard_bytes + 2 * alignment, kGuardByte);
  // Aligned to what was asked for and to no more, so that a hidden wish shows.
  auto at = reinterpret_cast<uintptr_t>(memory_.data()) + guard_bytes;
  at = (at + alignment - 1) / alignment * alignment;
  if (at / alignment % 2 == 0) at += alignment;
  data_ = reinterpret_cast<uint8_t *>(at);
  mirror::mark_workspace(memory_.data());
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
  attn_device_info info = ATTN_DEVICE_INFO_INIT;
  if (attn_context_query(context, &info, &error) != ATTN_OK) {
    throw std::runtime_error("attn_context_query: " + describe(error));
  }
  backend_ = info.backend == ATTN_BACKEND_CUDA  ? "cuda"
             : info.backend == ATTN_BACKEND_HIP ? "hip"
                                                : "cpu";
  if (device_ == nullptr && (backend_ != "cpu" || options.pretend)) {
    if (options.separate && backend_ == "hip") throw std::runtime_error("--separate is for CUDA");
    if (options.separate) HostTensor::guard_bytes = Workspace::guard_bytes = 0;
    device_ = options.pretend     ? make_pretended_memory(options.memory)
              : backend_ == "hip" ? make_hip_memory(options.memory)
                                  : make_cuda_memory(options.memory, options.separate);
    if (!options.pretend) count_only_the_library();
  }
  device_name_ = info.name;
  architecture_ = info.architecture;
  if (descriptor_ >= 0) {
    say({{"message", "device"}, {"name", info.name}, {"architecture", info.architecture}});
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

bool Session::begin(const std::string &name, const std::string &implementation) {
  if (descriptor_ < 0) return true;
  const std::string it = unit(name, implementation);
  if (begun_.contains(it)) return false;
  say({{"message", "begin"}, {"unit", it}, {"id", name}, {"implementation", implementation}});
  return true;
}

void Session::finished(const std::string &name) {
  if (descriptor_ >= 0) say({{"message", "finished"}, {"unit", unit(name, "")}});
}

bool Session::is_finished(const std::string &name) const {
  return finished_.contains(unit(name, ""));
}

void Session::say(const nlohmann::json &message) const {
  const std::string line =
      message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  for (size_t at = 0; at < line.size();) {
    const ssize_t n = write(descriptor_, line.data() + at, line.size() - at);
    if (n <= 0) _exit(kStatusFatal);  // the parent is gone
    at += static_cast<size_t>(n);
  }
}

void Session::heard(const nlohmann::json &message) {
  const std::string kind = message["message"], id = message.value("id", "");
  const std::string implementation = message.value("implementation", "");
  if (kind == "begin") begun_.insert(message["unit"]);
  if (kind == "finished") finished_.insert(message["unit"]);
  if (kind == "step") step(id);
  if (kind == "expect") expected_ = std::max<size_t>(expected_, message["cases"]);
  if (kind == "not_served") not_served(id, message["reason"]);
  if (kind == "row") report(id, implementation, message["failure"], message["extra"]);
  if (kind == "device") {
    device_name_ = message["name"];
    architecture_ = message["architecture"];
  }
}

void Session::expect(size_t cases) {
  expected_ += cases;
  if (descriptor_ >= 0) say({{"message", "expect"}, {"cases", expected_}});
}

void Session::report(const std::string &name, const std::string &implementation,
                     const DeviceError &error) {
  report(name, implementation, error.what());
  if (error.lost) throw LostDevice(error.what());
}

void Session::step(const std::string &name) {
  if (descriptor_ >= 0) {
    say({{"message", "step"}, {"id", name}});
    return;
  }
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
  if (descriptor_ >= 0) {
    say({{"message", "row"},
         {"id", name},
         {"implementation", implementation},
         {"failure", failure},
         {"extra", std::move(extra)}});
    return;
  }
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
  if (descriptor_ >= 0) {
    say({{"message", "not_served"}, {"id", name}, {"reason", reason}});
    return;
  }
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
    const nlohmann::json file = {{"schema", 1},
                                 {"date", date},
                                 {"seed", options.seed},
                                 {"device", device_name_},
                                 {"architecture", architecture_},
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

namespace {

// A template: std::function allocates, which is counted around calls.
template <class Call>
int32_t on_device(const Session &session, attn_error *error, const Call &call) {
  DeviceMemory &device = *session.device();
  device.before_call();
  int32_t status = call(device);
  const std::string failure = device.after_call();
  if (status == ATTN_OK && !failure.empty()) {
    status = ATTN_ERROR_INTERNAL;
    if (error != nullptr) {
      error->status = status;
      std::snprintf(error->message, sizeof error->message, "%s", failure.c_str());
    }
  }
  return status;
}

}  // namespace

int32_t call_forward(const Session &session, const attn_plan *plan, const attn_sdpa_args &args,
                     const Workspace &workspace, attn_error *error, int stream) {
  if (session.on_host()) {
    return attn_sdpa_forward(plan, &args, workspace.data(), workspace.bytes(), nullptr, error);
  }
  return on_device(session, error, [&](DeviceMemory &device) {
    const attn_sdpa_args there = device.on_device(args);
    return attn_sdpa_forward(plan, &there, device.address(workspace.data()), workspace.bytes(),
                             device.stream(stream), error);
  });
}

int32_t call_backward(const Session &session, const attn_plan *plan,
                      const attn_sdpa_backward_args &args, const Workspace &workspace,
                      attn_error *error, int stream) {
  if (session.on_host()) {
    return attn_sdpa_backward(plan, &args, workspace.data(), workspace.bytes(), nullptr, error);
  }
  return on_device(session, error, [&](DeviceMemory &device) {
    const attn_sdpa_args forward = device.on_device(*args.forward);
    attn_sdpa_backward_args there = device.on_device(args);
    there.forward = &forward;
    return attn_sdpa_backward(plan, &there, device.address(workspace.data()), workspace.bytes(),
                              device.stream(stream), error);
  });
}

int32_t call_merge(const Session &session, const attn_plan *plan, const attn_merge_args &args,
                   const Workspace &workspace, attn_error *error, int stream) {
  if (session.on_host()) {
    return attn_merge(plan, &args, workspace.data(), workspace.bytes(), nullptr, error);
  }
  return on_device(session, error, [&](DeviceMemory &device) {
    const attn_merge_args there = device.on_device(args);
    return attn_merge(plan, &there, device.address(workspace.data()), workspace.bytes(),
                      device.stream(stream), error);
  });
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
