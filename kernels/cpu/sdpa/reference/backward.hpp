// The backward reference: plain loops, fp64, every option.
//
//   P_j   = exp(s_j - L), L = the lse with the sink         dP_j = <dO, v_j>, dO = dout *
//   sigmoid(gate) ds_j  = P_j (dP_j - D) + dlse * d lse/d s_j             D    = <dout, out> dsink
//   = sum of P_sink (-D + dlse where the lse includes the sink), P_sink = exp(sink - L) dgate =
//   dout * out * (1 - sigmoid(gate)), out being what the forward pass stored, gated
//
// with dropout's factor on dP_j and on the weight that reaches dv. SiLU: ds_j = dP_j silu'(s_j) /
// N. As in the forward pass, a weight of 0 takes part in nothing, and keys whose s_j is +inf share
// the weight equally. Each gradient element is summed by one task in fp64, in a fixed order, and
// rounded once: keys' gradients by blocks of memory, so that a page that several sequences use is
// no special case.
#pragma once

#include "ops/sdpa/problem.hpp"

namespace attn::cpu::reference {

Verdict backward_serves(const sdpa::Problem &problem, const Device &device);
size_t backward_workspace(const sdpa::Problem &problem, const Device &device);
int32_t backward_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                        const Resources &resources, const ErrorSink &error);

}  // namespace attn::cpu::reference
