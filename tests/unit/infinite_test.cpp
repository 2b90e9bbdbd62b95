// Rows with scores of +inf, whose keys share all weight: the implementations agree.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "attn/attn.h"

namespace {

constexpr int64_t kQueries = 20, kKeys = 40, kHeads = 2, kDim = 16;

struct Buffers {
  std::vector<float> q = noise(kQueries), k = noise(kKeys), v = noise(kKeys);
  std::vector<float> dout = noise(kQueries);
  std::vector<float> out = std::vector<float>(q.size()),
                     lse = std::vector<float>(kQueries * kHeads);
  std::vector<float> bias = std::vector<float>(kQueries * kKeys);

  static std::vector<float> noise(int64_t tokens) {
    static uint32_t state = 1;
    std::vector<float> values(static_cast<size_t>(tokens * kHeads * kDim));
    for (float &x : values) {
      state = state * 1664525 + 1013904223;
      x = static_cast<float>(state >> 8) * 0x1p-23f - 1;
    }
    return values;
  }
};

void view(attn_tensor &t, std::vector<float> &data, std::vector<int64_t> shape) {
  REQUIRE(attn_tensor_contiguous(&t, data.data(), ATTN_DTYPE_FP32,
                                 static_cast<int32_t>(shape.size()), shape.data(),
                                 nullptr) == ATTN_OK);
}

// dq, dk and dv by one implementation.
std::vector<std::vector<float>> gradients(const attn_context *context, attn_sdpa_desc desc,
                                          attn_sdpa_args &args, Buffers &b, const char *name) {
  attn_error error = ATTN_ERROR_INIT;
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  options.implementation = name;
  desc.pass = ATTN_SDPA_BACKWARD;
  attn_plan *plan = nullptr;
  INFO(name, ": ", error.message);
  REQUIRE(attn_sdpa_plan_create(context, &desc, &options, &plan, &error) == ATTN_OK);
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_plan_query(plan, &info, nullptr);
  void *workspace = std::aligned_alloc(4096, (info.workspace_bytes + 4095) / 4096 * 4096);
  std::vector<std::vector<float>> grads = {std::vector<float>(b.q.size()),
                                           std::vector<float>(b.k.size()),
                                           std::vector<float>(b.v.size())};
  attn_sdpa_backward_args backward = ATTN_SDPA_BACKWARD_ARGS_INIT;
  backward.forward = &args;
  view(backward.dout, b.dout, {1, kQueries, kHeads, kDim});
  view(backward.dq, grads[0], {1, kQueries, kHeads, kDim});
  view(backward.dk, grads[1], {1, kKeys, kHeads, kDim});
  view(backward.dv, grads[2], {1, kKeys, kHeads, kDim});
  CHECK(attn_sdpa_backward(plan, &backward, workspace, info.workspace_bytes, nullptr, &error) ==
        ATTN_OK);
  std::free(workspace);
  attn_plan_destroy(plan);
  return grads;
}

}  // namespace

TEST_CASE("rows with scores of +inf have the same gradients in all implementations") {
  const float infinity = std::numeric_limits<float>::infinity();
  Buffers b;
  b.bias[3 * kKeys + 5] = b.bias[3 * kKeys + 9] = b.bias[7 * kKeys] = infinity;
  attn_error error = ATTN_ERROR_INIT;
  attn_context_desc where = ATTN_CONTEXT_DESC_INIT;
  where.backend = ATTN_BACKEND_CPU;
  attn_context *context = nullptr;
  REQUIRE(attn_context_create(&where, &context, &error) == ATTN_OK);
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  desc.flags = ATTN_SDPA_BIAS | ATTN_SDPA_RETURN_LSE;
  desc.q_dtype = ATTN_DTYPE_FP32;
  desc.num_q_heads = kHeads;
  desc.head_dim_qk = kDim;
  desc.max_batch = 1;
  desc.max_seqlen_q = kQueries;
  desc.max_seqlen_k = kKeys;
  desc.softmax_scale = 0.25f;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
  view(args.q, b.q, {1, kQueries, kHeads, kDim});
  view(args.k, b.k, {1, kKeys, kHeads, kDim});
  view(args.v, b.v, {1, kKeys, kHeads, kDim});
  view(args.out, b.out, {1, kQueries, kHeads, kDim});
  view(args.lse, b.lse, {1, kHeads, kQueries});
  view(args.bias, b.bias, {1, 1, kQueries, kKeys});
  attn_plan *plan = nullptr;
  REQUIRE(attn_sdpa_plan_create(context, &desc, nullptr, &plan, &error) == ATTN_OK);
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_plan_query(plan, &info, nullptr);
  void *workspace = std::aligned_alloc(4096, (info.workspace_bytes + 4095) / 4096 * 4096);
  REQUIRE(attn_sdpa_forward(plan, &args, workspace, info.workspace_bytes, nullptr, &error) ==
          ATTN_OK);
  std::free(workspace);
  attn_plan_destroy(plan);
  CHECK(b.lse[3] == infinity);
  CHECK(b.out[3 * kHeads * kDim] ==
        doctest::Approx((b.v[5 * kHeads * kDim] + b.v[9 * kHeads * kDim]) / 2));

  desc.flags &= ~uint64_t{ATTN_SDPA_RETURN_LSE};
  const auto reference = gradients(context, desc, args, b, "cpu/sdpa/backward/reference");
  const auto tuned = gradients(context, desc, args, b, "cpu/sdpa/backward/tuned");
  for (size_t n = 0; n < 3; n++) {
    for (size_t i = 0; i < reference[n].size(); i++) {
      REQUIRE(std::isfinite(reference[n][i]));
      REQUIRE(tuned[n][i] == doctest::Approx(reference[n][i]).epsilon(1e-5));
    }
  }
  attn_context_destroy(context);
}

TEST_CASE("rows with scores of +inf have the same results in all implementations") {
  const float infinity = std::numeric_limits<float>::infinity();
  constexpr int64_t kRows = 2, kGroup = 4, kLong = 80;
  Buffers b;
  attn_error error = ATTN_ERROR_INIT;
  attn_context_desc where = ATTN_CONTEXT_DESC_INIT;
  where.backend = ATTN_BACKEND_CPU;
  attn_context *context = nullptr;
  REQUIRE(attn_context_create(&where, &context, &error) == ATTN_OK);

  // Infinite queries: most of a row's scores are +inf or -inf. Infinite biases: two keys of a row.
  for (const bool biased : {false, true}) {
    std::vector<float> q = Buffers::noise(kRows * kGroup), k = Buffers::noise(kLong);
    std::vector<float> v = Buffers::noise(kLong), bias(kRows * kLong), sink(kHeads * kGroup, 0.5f);
    if (biased) {
      bias[kLong + 5] = bias[kLong + 70] = infinity;
    } else {
      for (int64_t head : {1, 6}) {
        for (int64_t i = 0; i < kDim; i++) {
          q[static_cast<size_t>(head * kDim + i)] = i == 0 ? infinity : 0.5f;
        }
      }
    }
    attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
    desc.flags = ATTN_SDPA_RETURN_LSE | ATTN_SDPA_SINK | (biased ? ATTN_SDPA_BIAS : 0);
    desc.q_dtype = ATTN_DTYPE_FP32;
    desc.num_q_heads = kHeads * kGroup;
    desc.num_kv_heads = kHeads;
    desc.head_dim_qk = kDim;
    desc.max_batch = 1;
    desc.max_seqlen_q = kRows;
    desc.max_seqlen_k = kLong;
    desc.softmax_scale = 0.25f;
    for (const int32_t piece : {0, 32}) {
      desc.split_policy = piece == 0 ? ATTN_SPLIT_NONE : ATTN_SPLIT_FIXED;
      desc.split_size = piece;
      std::vector<std::vector<float>> outs, lses;
      for (const char *name :
           {"cpu/sdpa/forward/reference", "cpu/sdpa/forward/tuned", "cpu/sdpa/forward/decode"}) {
        std::vector<float> out(q.size()), lse(kRows * kHeads * kGroup);
        attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;
        view(args.q, q, {1, kRows, kHeads * kGroup, kDim});
        view(args.k, k, {1, kLong, kHeads, kDim});
        view(args.v, v, {1, kLong, kHeads, kDim});
        view(args.out, out, {1, kRows, kHeads * kGroup, kDim});
        view(args.lse, lse, {1, kHeads * kGroup, kRows});
        view(args.sink, sink, {kHeads * kGroup});
        if (biased) view(args.bias, bias, {1, 1, kRows, kLong});
        attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
        options.implementation = name;
        attn_plan *plan = nullptr;
        REQUIRE(attn_sdpa_plan_create(context, &desc, &options, &plan, &error) == ATTN_OK);
        attn_plan_info info = ATTN_PLAN_INFO_INIT;
        attn_plan_query(plan, &info, nullptr);
        void *workspace = std::aligned_alloc(4096, (info.workspace_bytes + 4095) / 4096 * 4096);
        CHECK(attn_sdpa_forward(plan, &args, workspace, info.workspace_bytes, nullptr, &error) ==
              ATTN_OK);
        std::free(workspace);
        attn_plan_destroy(plan);
        outs.push_back(out);
        lses.push_back(lse);
      }
      CHECK(std::count(lses[0].begin(), lses[0].end(), infinity) > 0);
      for (size_t n = 1; n < outs.size(); n++) {
        INFO("implementation ", n, biased ? ", bias" : ", queries", ", pieces of ", piece);
        for (size_t i = 0; i < outs[0].size(); i++) {
          REQUIRE(std::isfinite(outs[0][i]));
          REQUIRE(outs[n][i] == doctest::Approx(outs[0][i]).epsilon(1e-5));
        }
        for (size_t i = 0; i < lses[0].size(); i++) {
          if (lses[0][i] == infinity) {
            REQUIRE(lses[n][i] == infinity);
          } else {
            REQUIRE(lses[n][i] == doctest::Approx(lses[0][i]).epsilon(1e-5));
          }
        }
      }
    }
  }
  attn_context_destroy(context);
}
