// Causal attention with a key head for every four query heads, through the C++ header attn.hpp.
//
// Build:  c++ -std=c++11 sdpa.cpp $(pkg-config --cflags --libs attn) -o sdpa
//
// The program checks its own result and exits with 1 if it is wrong.
#include <attn/attn.hpp>
#include <cmath>
#include <cstdio>
#include <vector>

namespace {

const int64_t kBatch = 2, kSeqlen = 33, kHeads = 8, kKvHeads = 2, kHeadDim = 64;

// Numbers in -1 .. 1, the same in every run.
std::vector<float> random_vector(int64_t size, uint32_t seed) {
  std::vector<float> x(static_cast<size_t>(size));
  for (float &value : x) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
  }
  return x;
}

// What the library should give: softmax(scale * q k^T) v over the keys up to the query's own.
double largest_difference(const std::vector<float> &q, const std::vector<float> &k,
                          const std::vector<float> &v, const std::vector<float> &out) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(kHeadDim));
  double largest = 0;
  for (int64_t b = 0; b < kBatch; b++) {
    for (int64_t h = 0; h < kHeads; h++) {
      const int64_t g = h / (kHeads / kKvHeads);
      for (int64_t i = 0; i < kSeqlen; i++) {
        const size_t row = static_cast<size_t>(((b * kSeqlen + i) * kHeads + h) * kHeadDim);
        double sum = 0, want[kHeadDim] = {};
        for (int64_t j = 0; j <= i; j++) {
          const size_t key = static_cast<size_t>(((b * kSeqlen + j) * kKvHeads + g) * kHeadDim);
          double score = 0;
          for (size_t d = 0; d < kHeadDim; d++) score += double(q[row + d]) * double(k[key + d]);
          const double weight = std::exp(scale * score);
          sum += weight;
          for (size_t d = 0; d < kHeadDim; d++) want[d] += weight * double(v[key + d]);
        }
        for (size_t d = 0; d < kHeadDim; d++) {
          const double difference = std::fabs(want[d] / sum - double(out[row + d]));
          if (!(difference <= largest)) largest = difference;
        }
      }
    }
  }
  return largest;
}

int run() {
  const std::vector<float> q = random_vector(kBatch * kSeqlen * kHeads * kHeadDim, 1);
  const std::vector<float> k = random_vector(kBatch * kSeqlen * kKvHeads * kHeadDim, 2);
  const std::vector<float> v = random_vector(kBatch * kSeqlen * kKvHeads * kHeadDim, 3);
  std::vector<float> out(q.size());

  // The problem, by its limits: one plan serves every batch and length up to these.
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.flags = ATTN_SDPA_CAUSAL;
  desc.q_dtype = ATTN_DTYPE_FP32;
  desc.num_q_heads = kHeads;
  desc.num_kv_heads = kKvHeads;
  desc.head_dim_qk = kHeadDim;
  desc.max_batch = kBatch;
  desc.max_seqlen_q = kSeqlen;
  desc.max_seqlen_k = kSeqlen;
  desc.softmax_scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));

  const attn::Context context = attn::Context::cpu();
  const attn::Plan plan(context, desc);
  const attn::Workspace workspace(plan);

  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  args.q = attn::tensor(q.data(), {kBatch, kSeqlen, kHeads, kHeadDim});
  args.k = attn::tensor(k.data(), {kBatch, kSeqlen, kKvHeads, kHeadDim});
  args.v = attn::tensor(v.data(), {kBatch, kSeqlen, kKvHeads, kHeadDim});
  args.out = attn::tensor(out.data(), {kBatch, kSeqlen, kHeads, kHeadDim});
  plan.forward(args, workspace);

  const double difference = largest_difference(q, k, v, out);
  std::printf("%s on %s: largest difference %.2g\n", plan.query().implementation,
              context.query().name, difference);
  if (!(difference < 1e-5)) {
    std::fprintf(stderr, "the result is wrong\n");
    return 1;
  }

  // A mistake is an exception that names the field, the value and the rule.
  try {
    desc.num_kv_heads = 3;
    const attn::Plan impossible(context, desc);
    std::fprintf(stderr, "3 key heads for 8 query heads were accepted\n");
    return 1;
  } catch (const attn::Error &error) {
    std::printf("as expected: %s\n", error.what());
  }
  return 0;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
