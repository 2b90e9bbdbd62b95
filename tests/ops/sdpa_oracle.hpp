// The oracle: the formulas of include/attn/sdpa.h, written down once more as plainly as possible.
// It reads the descriptor and the caller's arrays, and shares no code with the library.
#pragma once

#include <vector>

#include "attn/attn.h"
#include "tensor.hpp"

namespace check {

// A call's inputs as real numbers (dequantised), with every length resolved.
struct SdpaInputs {
  attn_sdpa_desc desc{};  // defaults filled in
  attn_sdpa_args args{};  // for integer arrays and bit masks
  int64_t batch = 0;
  Array<double> q, k, v;  // with LATENT_KV, v is empty
  Array<double> bias, alibi, sink, gate;
  // How far to go back from a stored out: scale per element, empty if not quantised.
  Array<double> out_scale;

  bool has(uint64_t flag) const { return (desc.flags & flag) != 0; }
  bool softmax() const { return desc.activation == ATTN_ACTIVATION_SOFTMAX; }
  bool ragged_q() const { return desc.q_layout == ATTN_LAYOUT_RAGGED; }

  int64_t rows_q(int64_t b) const;    // places for queries of sequence b
  int64_t seqlen_q(int64_t b) const;  // queries in use
  int64_t seqlen_k(int64_t b) const;
  // Where key j of sequence b is: (batch, position), (0, token) or (page, slot); page < 0 = skip.
  void key_place(int64_t b, int64_t j, int64_t &outer, int64_t &inner) const;
  bool visible(int64_t b, int64_t h, int64_t i, int64_t j) const;
  bool kept(int64_t b, int64_t h, int64_t i, int64_t j) const;  // by dropout
};

// Fills in the descriptor's defaults and reads what the arguments point to, which must be valid.
SdpaInputs read_inputs(const attn_sdpa_desc &desc, const attn_sdpa_args &args);

// Stored values times their scales.
Array<double> dequantised(const attn_tensor &tensor, const attn_tensor &scale,
                          const attn_quant &quant);

// Results beside the bounds on what rounding to fp32 may do to each element (`slack`): see
// sdpa_oracle.cpp.
template <class T>
struct Result {
  Array<T> value;
  Array<double> slack;
};

template <class T>
struct SdpaOutputs {
  Result<T> out, lse, row_max;
  // q of 16 bits: out from weights rounded to q's dtype, exp(s - row_max), before they meet v: the
  // operand of a matrix unit.
  Array<T> out_of_rounded_weights;
};

template <class T>
SdpaOutputs<T> sdpa_forward(const SdpaInputs &inputs);

template <class T>
struct SdpaGrads {
  Result<T> dq, dk, dv, dbias, dsink, dgate;
  // q of 16 bits: from weights, and from gradients of scores, that are rounded to as many bits as
  // q's dtype has before they meet dout, k and q: the operands of a matrix unit.
  Array<T> dq_of_rounded, dk_of_rounded, dv_of_rounded;
};

// `out`, `lse`: what the forward pass gave. dlse may be absent.
template <class T>
SdpaGrads<T> sdpa_backward(const SdpaInputs &inputs, const Array<T> &out, const Array<T> &lse,
                           const Array<double> &dout, const Array<double> &dlse);

}  // namespace check
