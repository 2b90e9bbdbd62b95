// The merge kernels, for attn_merge and for attention whose keys were split among blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/gpu/device.hpp"
#include "kernels/common/gpu/merge_params.hpp"
#include "ops/merge/problem.hpp"

namespace attn::gpu {

// Where a backend keeps its builds of the kernel, by the parts' element and by path: `stream` for
// the plain case, `any` for the rest.
enum class MergePath { stream, any };
using MergeKernelOf = const Kernel &(*)(int32_t element, MergePath path);

// One build, and the search for it: the last one if there is none, which does not happen.
struct MergeVariant {
  Kernel kernel;
  int32_t element;
  MergePath path;
};
template <size_t kCount>
const Kernel &find_merge(const MergeVariant (&variants)[kCount], int32_t element, MergePath path) {
  size_t n = 0;
  while (n + 1 < kCount && (variants[n].element != element || variants[n].path != path)) n++;
  return variants[n].kernel;
}

int32_t prepare_merge(const merge::Problem &problem, const GpuDevice &device,
                      MergeKernelOf kernel_of, const ErrorSink &error);
int32_t launch_merge(const merge::Problem &problem, const merge::Call &call,
                     const GpuDevice &device, MergeKernelOf kernel_of, attn_stream stream,
                     const ErrorSink &error);

// The functions of a row in a backend's list, which needs no workspace.
template <MergeKernelOf kKernelOf>
struct Merge {
  static Verdict serves(const merge::Problem &, const Device &) { return Verdict::serves(); }
  static size_t workspace(const merge::Problem &, const Device &) { return 0; }
  static int32_t prepare(const merge::Problem &problem, const Device &device,
                         const ErrorSink &error) {
    return prepare_merge(problem, gpu_of(device), kKernelOf, error);
  }
  static int32_t launch(const merge::Problem &problem, const merge::Call &call,
                        const Device &device, const Resources &resources, const ErrorSink &error) {
    return launch_merge(problem, call, gpu_of(device), kKernelOf, resources.stream, error);
  }
};

// Partial results of one sdpa: [part][place][head](head_dim), fp32, a place being a query's:
// batch entry * seqlen_q + position, or the token of ragged q. A part without a visible key has an
// lse of -inf (and what it holds otherwise is not read), as every part of padding has, but that
// the first of these is kPaddingLse. The lse is without the sink.
struct PartialResults {
  const float *out;  // [parts][places][heads][head_dim], 16-byte aligned
  const float *lse;  // [parts][places][heads]
  const float *max;  // as lse, natural; null unless row_max is wanted
  bool base2;        // of lse: not natural
  int64_t parts, places;
  int32_t heads, head_dim;
};

// Where the merged result goes. Padding gets 0 and -inf.
struct MergedResults {
  TokenView out;      // fp32, fp16 or bf16
  TokenView gate;     // data null: none
  QueryView lse;      // data null: not wanted
  QueryView row_max;  // data null: not wanted
  bool base2;         // of lse
  int64_t inner;      // places of one outer index: dense q seqlen_q, ragged q all of them
  const float *sink;  // null: none
  int64_t sink_head;
  bool lse_includes_sink;
};

// Merges the parts of an attention, on the stream after the kernel that computed them. The order
// of every sum depends on `parts` and `head_dim` only.
int32_t load_combine(const GpuDevice &device, MergeKernelOf kernel_of, const ErrorSink &error);
int32_t combine(const GpuDevice &device, MergeKernelOf kernel_of, const PartialResults &partial,
                const MergedResults &merged, attn_stream stream, const ErrorSink &error);

}  // namespace attn::gpu
