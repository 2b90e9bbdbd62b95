// The tuned backward pass on the CPU.
//
// A task is one sequence and key head, or, where those are fewer than threads, a piece of its
// queries or keys. It recomputes the weights from the forward pass's lse, block by block
// (FlashAttention-2), in five matrix products:
//
//   S^T = K Q^T    P^T = exp(S^T - lse)    dP^T = V dO^T    dS^T = P^T (dP^T - D),  D = <dout, out>
//   dV += P^T dO   dK += dS^T Q            dQ += dS K
//
// The scores are kept transposed, lanes along queries, so that lse, D and the masks' bounds are
// lane-wise. Gradients are summed in fp32 by one task in a fixed order, and rounded once. Those of
// paged keys are left in the workspace by each task, and summed for each page in the end.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/device.hpp"
#include "core/implementation.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::cpu {

Verdict backward_serves(const sdpa::Problem &problem, const Device &device);
size_t backward_workspace_bytes(const sdpa::Problem &problem, const Device &device);
int32_t backward_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                        const Resources &resources, const ErrorSink &error);

}  // namespace attn::cpu
