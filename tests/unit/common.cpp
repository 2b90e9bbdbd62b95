// kernels/common: what every backend's kernels build on.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>

#include "kernels/common/activation.hpp"
#include "kernels/common/dtype.hpp"
#include "kernels/common/philox.hpp"
#include "kernels/common/sequence.hpp"
#include "kernels/common/visibility.hpp"

namespace {

using namespace attn;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

TEST_CASE("every finite code of a format survives decoding and encoding") {
  int wrong = 0;
  for (uint32_t code = 0; code < 0x10000; code++) {
    const auto half = static_cast<uint16_t>(code);
    const float fp16 = decode_fp16(half), bf16 = decode_bf16(half);
    if (!std::isnan(fp16)) wrong += encode_fp16(static_cast<double>(fp16)) != half;
    if (!std::isnan(bf16)) wrong += encode_bf16(static_cast<double>(bf16)) != half;
  }
  for (uint32_t code = 0; code < 0x100; code++) {
    const auto byte = static_cast<uint8_t>(code);
    const float e4m3 = decode_e4m3fn(byte), e5m2 = decode_e5m2(byte), fnuz = decode_e4m3fnuz(byte);
    if (!std::isnan(e4m3)) wrong += encode_e4m3fn(static_cast<double>(e4m3)) != byte;
    if (std::isfinite(e5m2)) wrong += encode_e5m2(static_cast<double>(e5m2)) != byte;
    if (!std::isnan(fnuz)) wrong += encode_e4m3fnuz(static_cast<double>(fnuz)) != byte;
  }
  for (uint8_t code = 0; code < 16; code++) {
    wrong += encode_e2m1(static_cast<double>(decode_e2m1(code))) != code;
    uint8_t pair = 0;
    Codec<ATTN_DTYPE_INT4>::store(&pair, 1, static_cast<double>(decode_int4(code)));
    wrong += pair != code << 4;
  }
  CHECK(wrong == 0);
}

TEST_CASE("known values of the small formats") {
  CHECK(decode_e4m3fn(0x7e) == 448);
  CHECK(decode_e4m3fn(0x01) == std::ldexp(1.0f, -9));
  CHECK(std::isnan(decode_e4m3fn(0xff)));
  CHECK(decode_e5m2(0x7b) == 57344);
  CHECK(std::isinf(decode_e5m2(0x7c)));
  CHECK(decode_e4m3fnuz(0x7f) == 240);
  CHECK(decode_e4m3fnuz(0x01) == std::ldexp(1.0f, -10));
  CHECK(std::isnan(decode_e4m3fnuz(0x80)));
  CHECK(decode_e8m0(0) == std::ldexp(1.0f, -127));
  CHECK(decode_e8m0(127) == 1);
  CHECK(decode_e8m0(254) == std::ldexp(1.0f, 127));
  CHECK(std::isnan(decode_e8m0(255)));
  const float e2m1[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (uint8_t code = 0; code < 8; code++) {
    CHECK(decode_e2m1(code) == e2m1[code]);
    CHECK(decode_e2m1(static_cast<uint8_t>(code + 8)) == -e2m1[code]);
  }
  CHECK(decode_fp16(0x3c00) == 1);
  CHECK(decode_fp16(0x7bff) == 65504);
  CHECK(decode_fp16(0x8001) == -std::ldexp(1.0f, -24));
}

TEST_CASE("rounding is to nearest, ties to even") {
  CHECK(encode_fp16(2049) == encode_fp16(2048));
  CHECK(encode_fp16(2051) == encode_fp16(2052));
  // Through float, this would be a tie and round the other way.
  CHECK(encode_fp16(2049.0 + 1e-12) == encode_fp16(2050));
  CHECK(encode_bf16(257) == encode_bf16(256));
  CHECK(encode_bf16(259) == encode_bf16(260));
  CHECK(encode_fp16(65519.99) == 0x7bff);
  CHECK(encode_fp16(65520) == 0x7c00);
  CHECK(encode_fp16(std::ldexp(1.0, -25)) == 0);
  CHECK(encode_fp16(std::ldexp(1.0, -25) * 1.001) == 1);
  CHECK(encode_e2m1(2.5) == encode_e2m1(2));
  CHECK(encode_e2m1(5) == encode_e2m1(4));
  CHECK(encode_e2m1(0.25) == 0);
  CHECK(encode_e2m1(0.75) == encode_e2m1(1));
  CHECK(saturate_to_int(2.5, -128, 127) == 2);
  CHECK(saturate_to_int(3.5, -128, 127) == 4);
  CHECK(saturate_to_int(-2.5, -128, 127) == -2);
  CHECK(saturate_to_int(-0.4, -8, 7) == 0);
}

TEST_CASE("quantised formats saturate, and keep a NaN where they can") {
  CHECK(encode_e4m3fn(1e9) == 0x7e);
  CHECK(encode_e4m3fn(-kInfinity) == 0xfe);
  CHECK((encode_e4m3fn(kNan) & 0x7f) == 0x7f);
  CHECK(encode_e5m2(kInfinity) == 0x7b);
  CHECK((encode_e5m2(kNan) & 0x7f) == 0x7e);
  CHECK(encode_e4m3fnuz(-1e9) == 0xff);
  CHECK(encode_e4m3fnuz(-1e-9) == 0);  // there is no negative zero
  CHECK(encode_e4m3fnuz(kNan) == 0x80);
  CHECK(encode_e2m1(-100) == 0xf);
  CHECK(saturate_to_int(kInfinity, -8, 7) == 7);
  CHECK(saturate_to_int(-1e300, -128, 127) == -128);
  CHECK(saturate_to_int(kNan, -128, 127) == 0);
  // The floating formats of results do not saturate.
  CHECK(encode_fp16(1e9) == 0x7c00);
  CHECK(encode_bf16(1e39) == 0x7f80);
}

TEST_CASE("nibbles lie low first, and leave their neighbour alone") {
  uint8_t bytes[2] = {0xab, 0xcd};
  CHECK(load_nibble(bytes, 0) == 0xb);
  CHECK(load_nibble(bytes, 1) == 0xa);
  store_nibble(bytes, 2, 0x1);
  CHECK(bytes[1] == 0xc1);
  store_nibble(bytes, 3, 0x2);
  CHECK(bytes[1] == 0x21);
  CHECK(load_nibble(bytes + 1, -1) == 0xa);
}

TEST_CASE("Philox4x32-10 gives the published known answers") {
  const struct {
    uint32_t key[2], counter[4], answer[4];
  } rows[] = {
      {{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0xa4093822, 0x299f31d0},
       {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const auto &row : rows) {
    PhiloxWords counter;
    std::memcpy(counter.word, row.counter, sizeof counter.word);
    const PhiloxWords words = philox4x32_10(row.key[0], row.key[1], counter);
    for (int n = 0; n < 4; n++) CHECK(words.word[n] == row.answer[n]);
  }
}

TEST_CASE("dropout keeps exactly where u >= p, with the documented counter and key") {
  const uint64_t rng[2] = {0x0123456789abcdef, 0xfedcba9876543210};
  for (const float p : {0.0f, 0.25f, 0.3f, 0.999f, 1e-9f}) {
    const Dropout dropout = make_dropout(rng, p);
    int wrong = 0;
    for (uint32_t i = 0; i < 40; i++) {
      for (uint32_t j = 0; j < 40; j++) {
        const PhiloxWords counter = {{j / 4, i, 5, 0x76543210}};
        const uint32_t word =
            philox4x32_10(0x89abcdef, 0x01234567 ^ 0xfedcba98, counter).word[j % 4];
        const double u = (word >> 8) / 16777216.0;
        wrong += dropout.keeps(5, i, j) != (u >= static_cast<double>(p));
      }
    }
    CHECK(wrong == 0);
    // The boundary itself: no rounding between p and the threshold.
    const double scaled = static_cast<double>(p) * 16777216.0;
    CHECK(static_cast<double>(dropout.threshold) >= scaled);
    CHECK(static_cast<double>(dropout.threshold) < scaled + 1);
  }
}

TEST_CASE("a band has exactly the keys that the position rules allow") {
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  int wrong = 0, rows = 0;
  for (int variant = 0; variant < 2 * 2 * 2 * 4 * 3 * 3 * 3; variant++) {
    int v = variant;
    const auto pick = [&](int n) {
      const int value = v % n;
      v /= n;
      return value;
    };
    const bool causal = pick(2) != 0, window = pick(2) != 0;
    desc.alignment = pick(2) != 0 ? ATTN_ALIGN_TOP_LEFT : ATTN_ALIGN_BOTTOM_RIGHT;
    desc.chunk_size = pick(4);
    desc.window_left = pick(3) - 1;
    desc.window_right = pick(3) - 1;
    desc.sink_tokens = pick(3);
    desc.flags = (causal ? ATTN_SDPA_CAUSAL : 0) | (window ? ATTN_SDPA_WINDOW : 0);
    for (int64_t seqlen_q : {0, 1, 4, 9}) {
      for (int64_t seqlen_k : {0, 1, 5, 8}) {
        const PositionRules rules = position_rules(desc, seqlen_q, seqlen_k);
        for (int64_t i = 0; i < seqlen_q; i++) {
          rows++;
          const Band band = band_of(rules, i);
          const int64_t p =
              i + (desc.alignment == ATTN_ALIGN_BOTTOM_RIGHT ? seqlen_k - seqlen_q : 0);
          wrong += band.begin < 0 || band.begin > band.end || band.end > seqlen_k;
          wrong += band.sink_end < 0 || band.sink_end > seqlen_k;
          for (int64_t j = 0; j < seqlen_k; j++) {
            bool near = true;
            if (window && desc.window_left >= 0) near = near && j >= p - desc.window_left;
            if (window && desc.window_right >= 0) near = near && j <= p + desc.window_right;
            if (desc.chunk_size > 0) {
              near = near &&
                     j / desc.chunk_size == std::floor(static_cast<double>(p) / desc.chunk_size);
            }
            const bool visible = (near || j < desc.sink_tokens) && (!causal || j <= p);
            wrong += band.contains(j) != visible;
          }
        }
      }
    }
  }
  CHECK(rows > 1000);
  CHECK(wrong == 0);
}

TEST_CASE("a tail mask covers the last keys alone") {
  const uint8_t none[1] = {0}, second[1] = {2};
  CHECK(tail_bit(none, 1, 3, 10, 6));
  CHECK_FALSE(tail_bit(none, 1, 3, 10, 7));
  CHECK(tail_bit(second, 1, 3, 10, 8));
  // More queries than keys: key 0 is not bit 0.
  CHECK(tail_bit(second, 1, 3, 2, 0));
  CHECK_FALSE(tail_bit(second, 1, 3, 2, 1));
}

TEST_CASE("places of queries and keys in every layout") {
  attn_sdpa_desc desc = ATTN_SDPA_DESC_INIT;
  attn_sdpa_args args = ATTN_SDPA_ARGS_INIT;

  SUBCASE("dense") {
    const int32_t used[2] = {3, 0};
    args.seqused_k = used;
    desc.flags = ATTN_SDPA_SEQUSED_K;
    const Sequence s = make_sequence_table(desc, args, 4, 9).sequence(1);
    CHECK(s.seqlen_q == 4);
    CHECK(s.rows_q == 4);
    CHECK(s.seqlen_k == 0);
    CHECK(s.query(2).outer == 1);
    CHECK(s.query(2).inner == 2);
  }
  SUBCASE("ragged") {
    const int32_t cu_q[3] = {0, 2, 5}, cu_k[3] = {0, 7, 11}, used_q[2] = {2, 1};
    desc.q_layout = ATTN_LAYOUT_RAGGED;
    desc.kv_layout = ATTN_LAYOUT_RAGGED;
    desc.flags = ATTN_SDPA_SEQUSED_Q;
    args.cu_seqlens_q = cu_q;
    args.cu_seqlens_k = cu_k;
    args.seqused_q = used_q;
    const Sequence s = make_sequence_table(desc, args, 0, 0).sequence(1);
    CHECK(s.seqlen_q == 1);
    CHECK(s.rows_q == 3);
    CHECK(s.seqlen_k == 4);
    CHECK(s.query(1).inner == 3);
    CHECK(s.key(3).outer == 0);
    CHECK(s.key(3).inner == 10);
  }
  SUBCASE("paged table") {
    int32_t table[2 * 3] = {5, 1, 0, 2, -1, 4};
    const int32_t used[2] = {12, 10};
    desc.kv_layout = ATTN_LAYOUT_PAGED_TABLE;
    desc.page_size = 4;
    args.seqused_k = used;
    args.block_table.data = table;
    args.block_table.rank = 2;
    args.block_table.stride[0] = 3;
    args.block_table.stride[1] = 1;
    const Sequence s = make_sequence_table(desc, args, 1, 0).sequence(1);
    CHECK(s.seqlen_k == 10);
    CHECK(s.key(3).outer == 2);
    CHECK(s.key(3).inner == 3);
    CHECK(s.key(4).skipped());
    CHECK(s.key(9).outer == 4);
    CHECK(s.key(9).inner == 1);
  }
  SUBCASE("paged CSR") {
    const int32_t indptr[3] = {0, 2, 2}, indices[2] = {7, 3}, last[2] = {1, 0};
    desc.kv_layout = ATTN_LAYOUT_PAGED_CSR;
    desc.page_size = 16;
    args.kv_page_indptr = indptr;
    args.kv_page_indices = indices;
    args.kv_last_page_len = last;
    const SequenceTable table = make_sequence_table(desc, args, 1, 0);
    CHECK(table.sequence(0).seqlen_k == 17);
    CHECK(table.sequence(0).key(16).outer == 3);
    CHECK(table.sequence(0).key(16).inner == 0);
    CHECK(table.sequence(1).seqlen_k == 0);
  }
}

TEST_CASE("offsets are computed in 64 bits") {
  attn_tensor pool = ATTN_TENSOR_INIT;
  pool.rank = 4;
  const int64_t shape[] = {1 << 20, 64, 8, 128};
  int64_t stride = 1;
  for (int n = 3; n >= 0; n--) {
    pool.shape[n] = shape[n];
    pool.stride[n] = stride;
    stride *= shape[n];
  }
  CHECK(token_view(pool).offset({(1 << 20) - 1, 63}, 7) == (int64_t{1} << 36) - 128);
}

TEST_CASE("sigmoid and silu at their ends, and their slopes") {
  CHECK(sigmoid(-kInfinity) == 0);
  CHECK(sigmoid(kInfinity) == 1);
  CHECK(sigmoid(-1000.0) == 0);
  CHECK(silu(800.0) == 800);
  for (const double x : {-30.0, -1.5, 0.0, 0.7, 20.0}) {
    const double h = 1e-5;
    CHECK(silu_derivative(x) ==
          doctest::Approx((silu(x + h) - silu(x - h)) / (2 * h)).epsilon(1e-6));
    const double slope = (softcap(x + h, 2.0) - softcap(x - h, 2.0)) / (2 * h);
    CHECK(softcap_derivative(softcap(x, 2.0), 2.0) == doctest::Approx(slope).epsilon(1e-6));
  }
}

}  // namespace
