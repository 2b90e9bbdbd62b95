// The merge kernels, for attn_merge and for attention whose keys were split among blocks.
#pragma once

#include <cstdint>

#include "backend/cuda/device.hpp"
#include "kernels/cuda/sm80/merge/merge_params.hpp"

namespace attn::cuda {

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
int32_t load_combine(const CudaDevice &device, const ErrorSink &error);
int32_t combine(const CudaDevice &device, const PartialResults &partial,
                const MergedResults &merged, attn_stream stream, const ErrorSink &error);

}  // namespace attn::cuda
