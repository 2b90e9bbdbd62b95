// The tuned CPU forward kernel for many queries (prefill): blocked online softmax.
//
// How it works. Rows are (query, query head of a group), query-major, so that the heads that share
// a key head share what is loaded of it, whatever the group size. A task is up to rows_per_task
// rows of one (sequence, key head); it holds them as panels of two vectors of rows, transposed,
// lanes over rows (gemm-inl.hpp says why). For each block of keys and each panel:
//   1. S^T = K Q^T in register tiles, with the running maximum taken from the accumulators;
//      the softmax scale and log2(e) are in Q already.
//   2. Only where an option or a mask boundary asks for it: softcap, bias, ALiBi, masks on S^T.
//      Blocks, and rows of blocks, that no lane sees are never computed.
//   3. P^T = 2^(S^T - max) in place, with its sum, and the factor that old sums shrink by.
//   4. O^T = O^T * factor + V^T P^T in register tiles; each block is summed by itself first, which
//      keeps the error of long sums small.
// At the end O^T is normalised, transposed and stored.
//
// Rows of K and V are read in place if they are fp32 and lie close together. Otherwise a block is
// widened, or copied, to fp32 scratch in L2 once a task, which costs about one vector conversion
// per 2 * rows_per_task / lanes multiply-adds; meanwhile the block after it is fetched ahead.
//
// Tasks of one (sequence, key head) start with the last rows, which under a causal mask are the
// longest. They shrink, down to a panel, until there are four a thread.
//
// Masked keys never reach a result: hidden scores are overwritten with -inf whatever they were, and
// where a partly visible key has a value that is not finite, O is summed with a test of each
// weight.
//
// The result of a row depends on the problem alone, not on the batch, the tasks or the threads: key
// blocks start at multiples of key_block, and a row's lane does not matter.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/device.hpp"
#include "core/implementation.hpp"
#include "ops/sdpa/problem.hpp"

namespace attn::cpu {

Verdict forward_serves(const sdpa::Problem &problem, const Device &device);
size_t forward_workspace_bytes(const sdpa::Problem &problem, const Device &device);
int32_t forward_launch(const sdpa::Problem &problem, const sdpa::Call &call, const Device &device,
                       const Resources &resources, const ErrorSink &error);

}  // namespace attn::cpu
