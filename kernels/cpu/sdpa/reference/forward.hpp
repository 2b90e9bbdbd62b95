// The forward reference: plain loops, fp64, every option. It is the specification in code.
//
// What the headers leave open is settled here:
//   - A weight of exactly 0 (s_j = -inf, underflow, dropped) adds nothing: v_j is not multiplied
//   in,
//     so a NaN there has no effect.
//   - If the largest s_j is +inf, the keys with s_j = +inf share the weight equally, and
//     lse = +inf. A sink of +inf takes all weight, whatever the scores.
//   - A NaN in a visible key's score makes the row NaN: out, lse, row_max.
#pragma once

#include "ops/sdpa/problem.hpp"

namespace attn::cpu::reference {

Verdict forward_serves(const sdpa::Problem &problem, const Device &device);
size_t forward_workspace(const sdpa::Problem &problem, const Device &device);
int32_t forward_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                       const Resources &resources, const ErrorSink &error);

}  // namespace attn::cpu::reference
