// A case made real: descriptor, tensors, index arrays, expected results.
#pragma once

#include <memory>

#include "sdpa_case.hpp"
#include "sdpa_oracle.hpp"

namespace check {

// Not movable: args point into it.
class SdpaCall {
 public:
  // Only the descriptor: no tensor is made.
  explicit SdpaCall(const SdpaCase &c);
  SdpaCall(const SdpaCase &c, uint64_t seed);
  SdpaCall(const SdpaCall &) = delete;
  SdpaCall &operator=(const SdpaCall &) = delete;

  struct Output {
    const char *name;
    HostTensor tensor;
    attn_tensor *place;  // in args or grads
    // What it should be.
    Array<double> truth, slack;
    Array<float> naive;
    Array<float> naive_of_rounded_weights;  // present for out of 16-bit q
    Array<double> scale;
  };

  // Fills all outputs with a pattern; `pattern` differs from run to run.
  void poison_outputs(uint64_t pattern);
  // Fills in each output's truth, if it has not been done yet.
  void compute_truth();
  // Forward: other lengths, offsets and page lists in the same memory, as the next step of a server
  // would have them, and fresh K and V for them; false if the case has none of these. Truth is to
  // be computed anew.
  bool change_lengths();
  // Arguments for sequence b alone, and where its outputs are, as views of the same memory.
  attn_sdpa_args alone(int64_t b);

  const SdpaCase &c;
  attn_sdpa_desc desc;
  attn_sdpa_args args;
  attn_sdpa_backward_args grads;
  std::vector<Output> outputs;
  SdpaInputs inputs;
  HostTensor q, k, v, bias, alibi, sink, gate, mask, tail_mask, q_ids, kv_ids, block_table,
      block_counts, block_indices, q_scale, k_scale, v_scale, out_scale, dout, dlse;
  HostTensor given_out, given_lse;  // backward: the forward pass's results
  Array<double> dout_values, dlse_values;

 private:
  void describe();
  void lengths();
  void pages();
  void data_tensors();
  void masks();
  void score_terms();
  void blocks();
  void hide_unseen_keys();
  void fill_queries();
  void add_output(const char *name, attn_tensor *place, int32_t dtype, std::vector<int64_t> shape);
  std::vector<int64_t> q_shape(int64_t heads, int64_t dim) const;
  HostTensor scale_tensor(const attn_quant &quant, const std::vector<int64_t> &shape, bool no_batch,
                          double size);

  Rng rng_;
  int64_t batch_, max_q_ = 0, max_k_ = 0, total_q_ = 0, total_k_ = 0, extent_q_ = 0, extent_k_ = 0;
  MirroredVector<int32_t> cu_q_, cu_k_, used_q_, used_k_, indptr_, indices_, last_len_;
  MirroredVector<int32_t> alone_cu_q_, alone_cu_k_, alone_indptr_;
  MirroredVector<uint64_t> rng_state_;
  bool have_truth_ = false;
};

inline attn_sdpa_desc sdpa_desc_of(const SdpaCase &c) {
  return SdpaCall(c).desc;
}

// Relative difference between analytic gradients and central finite differences of the oracle's
// forward pass, over all differentiable inputs of a small backward call; a description if any
// element disagrees.
std::string finite_difference_failure(SdpaCall &call);

}  // namespace check
