// The time of an execute on a stream, by events of either driver.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/error.hpp"

namespace attn::gpu {

// The median over a number of runs, in microseconds. Runs follow one another on the stream, with an
// event between: where the host is quick enough, no launch latency is in what is measured. An
// Event records, waits, and tells the time since another.
template <class Event, class Driver>
int32_t median_time(const Driver &driver, const std::function<int32_t()> &execute,
                    attn_stream stream, double &us, const ErrorSink &error) {
  constexpr double kEnough = 100e3;  // microseconds; a median that one interruption does not move
  constexpr double kLeast = 3, kMost = 101;
  int32_t status = ATTN_OK;
  const auto measure = [&](size_t runs) {
    std::vector<Event> events;
    events.reserve(runs + 1);
    for (size_t i = 0; i <= runs && status == ATTN_OK; i++) {
      if (i > 0) status = execute();
      events.emplace_back(driver);
      if (status == ATTN_OK) status = events.back().record(stream, error);
    }
    if (status == ATTN_OK) status = events.back().wait(error);
    std::vector<double> times(runs);
    for (size_t i = 0; i < runs && status == ATTN_OK; i++) {
      status = events[i + 1].microseconds_since(events[i], times[i], error);
    }
    const auto middle = times.begin() + static_cast<long>(runs / 2);
    std::nth_element(times.begin(), middle, times.end());
    us = *middle;
  };
  measure(2);  // loads, fills caches, and tells how many runs to make
  if (status == ATTN_OK) {
    measure(static_cast<size_t>(std::clamp(kEnough / std::max(us, 1.0), kLeast, kMost)));
  }
  return status;
}

}  // namespace attn::gpu
