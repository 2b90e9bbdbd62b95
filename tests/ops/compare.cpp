#include "compare.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "codec.hpp"

namespace check {
namespace {

// Real value -> what storage would give back.
double stored(double value, int32_t dtype, double scale) {
  return rounded(value / scale, dtype) * scale;
}

}  // namespace

Comparison compare(const std::string &name, const HostTensor &got, const Array<double> &truth,
                   const Array<double> &slack, const Array<float> &naive,
                   const Array<double> &scale) {
  const int32_t dtype = got.view.dtype;
  const bool float_like = is_float16_or_32(dtype);
  const auto scale_of = [&](size_t i) { return scale.present() ? scale.data[i] : 1.0; };
  // A quantised format saturates: the best it can hold is the nearest in range.
  const auto target_of = [&](double t, size_t i) {
    if (float_like || std::isnan(t)) return t;
    const double low = dtype == ATTN_DTYPE_INT8   ? -128
                       : dtype == ATTN_DTYPE_INT4 ? -8
                                                  : -largest(dtype);
    return std::clamp(t, low * scale_of(i), largest(dtype) * scale_of(i));
  };
  const auto target = [&](size_t i) { return target_of(truth.data[i], i); };
  double e = 0;
  for (size_t i = 0; i < truth.data.size(); i++) {
    const double t = target(i);
    if (!std::isfinite(t)) continue;
    const double n = static_cast<double>(naive.data[i]);
    if (!std::isfinite(n)) continue;
    const double saturated = target_of(n, i);
    e = std::max(e, std::fabs(saturated - t) + half_step(t / scale_of(i), dtype) * scale_of(i));
  }
  Comparison result;
  for (size_t i = 0; i < truth.data.size(); i++) {
    const double t = target(i), g = got.get(static_cast<int64_t>(i)) * scale_of(i);
    if (std::isnan(t)) continue;
    double ratio;
    const double allowed = 2 * e + slack.data[i];
    if (g == t) {
      ratio = 0;
    } else if (std::isinf(t) || !std::isfinite(g)) {
      // Equal infinities were dealt with; and beyond the format's range infinity is right.
      ratio = std::isinf(g) && g == stored(t, dtype, scale_of(i)) ? 0 : HUGE_VAL;
    } else {
      ratio = allowed > 0 ? std::fabs(g - t) / allowed : HUGE_VAL;
    }
    if (ratio > result.worst) {
      result.worst = ratio;
      if (ratio > 1) {
        result.ok = false;
        std::string index;
        int64_t rest = static_cast<int64_t>(i);
        for (size_t dim = truth.shape.size(); dim-- > 0;) {
          index = std::to_string(rest % truth.shape[dim]) + (index.empty() ? "" : ", ") + index;
          rest /= truth.shape[dim];
        }
        char text[256];
        std::snprintf(text, sizeof text, "%s[%s] is %.9g; should be %.9g +- %.3g", name.c_str(),
                      index.c_str(), g, t, allowed);
        result.detail = text;
      }
    }
  }
  return result;
}

}  // namespace check
