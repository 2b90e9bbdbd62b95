// Merging partial results on the CPU, one row and head after the other. Inputs are read in full
// before an output of the same row and head is written, so that merging in place is safe.
#pragma once

#include "ops/merge/problem.hpp"

namespace attn::cpu {

Verdict merge_serves(const merge::Problem &problem, const Device &device);
size_t merge_workspace(const merge::Problem &problem, const Device &device);
int32_t merge_launch(const merge::Problem &problem, const merge::Call &call, const Device &device,
                     const Resources &resources, const ErrorSink &error);

}  // namespace attn::cpu
