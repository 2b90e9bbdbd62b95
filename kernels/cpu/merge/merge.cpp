#include "kernels/cpu/merge/merge.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/workspace.hpp"
#include "kernels/common/activation.hpp"
#include "kernels/common/dtype.hpp"
#include "kernels/cpu/common/device.hpp"

namespace attn::cpu {
namespace {

using merge::Call;
using merge::Problem;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kRowsPerTask = 16;

double fp32_at(const attn_tensor &t, int64_t offset) {
  return static_cast<double>(static_cast<const float *>(t.data)[offset]);
}

// The parts of one row and head: the partial ones, then `other`.
class Parts {
 public:
  Parts(const Problem &p, const Call &call, int64_t row, int64_t head)
      : a_(call.args),
        partial_(a_.partial.stride[0] * row + a_.partial.stride[2] * head),
        partial_lse_(a_.partial_lse.stride[0] * row + a_.partial_lse.stride[2] * head),
        count_(call.parts) {
    if (p.has(ATTN_MERGE_ROW_MASK) &&
        static_cast<const uint8_t *>(a_.row_mask.data)[row * a_.row_mask.stride[0]] == 0) {
      count_ = 0;
    }
    num_partial_ = count_;
    if (p.has(ATTN_MERGE_OTHER)) {
      other_ = a_.other.stride[0] * row + a_.other.stride[1] * head;
      other_lse_ = a_.other_lse.stride[0] * row + a_.other_lse.stride[1] * head;
      count_++;
    }
  }

  int64_t count() const { return count_; }
  double lse(int64_t s) const {
    return s < num_partial_ ? fp32_at(a_.partial_lse, partial_lse_ + s * a_.partial_lse.stride[1])
                            : fp32_at(a_.other_lse, other_lse_);
  }
  // sum += weight * values
  void add(int64_t s, double weight, double *sum, int64_t n) const {
    const bool partial = s < num_partial_;
    const attn_tensor &t = partial ? a_.partial : a_.other;
    const int64_t first = partial ? partial_ + s * t.stride[1] : other_;
    const int64_t step = t.stride[t.rank - 1];
    with_codec(t.dtype, [&](auto codec) {
      if (step == 1) {
        for (int64_t d = 0; d < n; d++) sum[d] += weight * codec.load(t.data, first + d);
      } else {
        for (int64_t d = 0; d < n; d++) sum[d] += weight * codec.load(t.data, first + d * step);
      }
    });
  }

 private:
  const attn_merge_args &a_;
  int64_t partial_, partial_lse_;
  int64_t count_, num_partial_ = 0;
  int64_t other_ = 0, other_lse_ = 0;
};

// Weights are relative to the largest lse. If that is +inf, the parts that have it share equally. A
// part of weight 0 is not multiplied in, whatever its values.
void merge_one(const Problem &p, const Call &call, int64_t row, int64_t head, double *sum) {
  const attn_merge_args &a = call.args;
  const Parts parts(p, call, row, head);
  const double to_natural = p.d.lse_base == ATTN_LSE_BASE_2 ? kLn2 : 1;
  double max = -kInfinity;
  bool nan = false;
  for (int64_t s = 0; s < parts.count(); s++) {
    nan = nan || std::isnan(parts.lse(s));
    max = std::max(max, parts.lse(s));
  }
  if (nan) max = std::nan("");
  std::fill(sum, sum + p.d.head_dim, 0.0);
  double total = 0;
  for (int64_t s = 0; s < parts.count(); s++) {
    const double lse = parts.lse(s);
    if (lse == -kInfinity) continue;
    const double weight =
        max == kInfinity ? (lse == kInfinity ? 1 : 0) : std::exp((lse - max) * to_natural);
    if (weight == 0) continue;
    total += weight;
    parts.add(s, weight, sum, p.d.head_dim);
  }

  double lse = std::isinf(max) ? max : max * to_natural + std::log(total);
  double share = max == -kInfinity ? 0 : 1 / total;
  if (p.has(ATTN_MERGE_SINK)) {
    const double sink = fp32_at(a.sink, head * a.sink.stride[0]);
    double with_sink = lse;
    if (lse == -kInfinity || std::isnan(sink)) {
      with_sink = sink;
      if (std::isnan(sink) && lse != -kInfinity) share = sink;
    } else if (sink == kInfinity) {
      with_sink = sink;
      share = 0;
    } else if (lse != kInfinity && sink != -kInfinity) {
      const double larger = std::max(lse, sink);
      with_sink = larger + std::log(std::exp(lse - larger) + std::exp(sink - larger));
      share *= std::exp(lse - with_sink);
    }
    if (p.has(ATTN_MERGE_LSE_INCLUDES_SINK)) lse = with_sink;
  }

  const int64_t out = a.out.stride[0] * row + a.out.stride[1] * head;
  with_codec(a.out.dtype, [&](auto codec) {
    for (int64_t d = 0; d < p.d.head_dim; d++) {
      codec.store(a.out.data, out + d * a.out.stride[2], share == 0 ? 0 : sum[d] * share);
    }
  });
  if (p.has(ATTN_MERGE_RETURN_LSE)) {
    const int64_t at = a.out_lse.stride[0] * row + a.out_lse.stride[1] * head;
    static_cast<float *>(a.out_lse.data)[at] = static_cast<float>(lse / to_natural);
  }
}

}  // namespace

Verdict merge_serves(const Problem &, const Device &) {
  return Verdict::serves();
}

size_t merge_workspace(const Problem &problem, const Device &device) {
  Carver carver;
  for (int t = 0; t < pool_of(device).num_threads(); t++) carver.take<double>(problem.d.head_dim);
  return carver.bytes();
}

int32_t merge_launch(const Problem &problem, const Call &call, const Device &device,
                     const Resources &resources, const ErrorSink &) {
  const int64_t tasks = (call.rows + kRowsPerTask - 1) / kRowsPerTask;
  pool_of(device).parallel_for(tasks, [&](int64_t task, int thread) {
    Carver carver(resources.workspace);
    double *sum = carver.take<double>(problem.d.head_dim);
    for (int t = 0; t < thread; t++) sum = carver.take<double>(problem.d.head_dim);
    const int64_t end = std::min(call.rows, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < end; row++) {
      for (int64_t head = 0; head < problem.d.num_heads; head++) {
        merge_one(problem, call, row, head, sum);
      }
    }
  });
  return ATTN_OK;
}

}  // namespace attn::cpu
