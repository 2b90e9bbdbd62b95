// Implementation lists: for each family, pass and backend one table, best first, the reference
// last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "attn/plan.h"
#include "core/device.hpp"
#include "core/error.hpp"

namespace attn {

// Whether a row serves a problem; if not, a sentence that says why (static storage).
class Verdict {
 public:
  static constexpr Verdict serves() { return Verdict(nullptr); }
  static constexpr Verdict refuses(const char *reason) { return Verdict(reason); }
  explicit operator bool() const { return reason_ == nullptr; }
  const char *reason() const { return reason_; }

 private:
  constexpr explicit Verdict(const char *reason) : reason_(reason) {}
  const char *reason_;
};

// What an execute may use: scratch of at least the bytes that the row asked for, and the stream.
struct Resources {
  void *workspace;
  attn_stream stream;
};

// One row. `Call` is a family's checked arguments for one execute.
template <class Problem, class Call>
struct Implementation {
  const char *name;  // as in the path: "cpu/sdpa/forward/tuned"
  bool deterministic;
  bool capturable;
  bool asynchronous;
  Verdict (*serves)(const Problem &problem, const Device &device);
  // Estimated seconds at the problem's limits; among rows that serve, the lowest goes first. Null:
  // the order of the table decides (0).
  double (*cost)(const Problem &problem, const Device &device);
  size_t (*workspace_bytes)(const Problem &problem, const Device &device);
  int32_t (*launch)(const Problem &problem, const Call &call, const Device &device,
                    const Resources &resources, const ErrorSink &error);
  // What attn_plan_prepare does ahead of the first launch; null: nothing.
  int32_t (*prepare)(const Problem &problem, const Device &device,
                     const ErrorSink &error) = nullptr;
};

template <class Problem, class Call>
using ImplementationList = std::span<const Implementation<Problem, Call>>;

}  // namespace attn
