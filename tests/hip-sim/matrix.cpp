// Matrix instructions: D = A B + C, of tiles that are spread over the lanes of a wave. A lane holds
// of A a part of one row, of B a part of one column, of D and C a part of one column: lane l those
// of number l % 16 (32); element e of its operands and register r of its result are
//
//   MFMA 16x16xK   k = K/4 (l / 16) + e                 row 4 (l / 16) + r
//   MFMA 32x32xK   k = K/2 (l / 32) + e                 row 8 (r / 4) + 4 (l / 32) + r % 4
//   WMMA, gfx11    k = e, the same in both halves       row 2 r + l / 16
//   WMMA, gfx12    k = 8 (l / 16) + e                   row 8 (l / 16) + r
#include <cmath>

#include "wave.hpp"

namespace sim {
namespace {

enum class Kind { half, bfloat };

float element(const Wave &w, const Operand &o, int lane, int e, Kind kind) {
  const u32 word = w.vgpr[o.index + e / 2][lane];
  const u16 bits = static_cast<u16>(e % 2 == 0 ? word : word >> 16);
  return kind == Kind::half ? static_cast<float>(from_bits<f16>(bits))
                            : from_bits<float>(static_cast<u32>(bits) << 16);
}

// Sizes of a tile, and where its parts are.
template <int kN, int kK, bool kShared>
struct Layout {
  static constexpr int kSide = kN, kDepth = kK;
  static constexpr int kGroups(int lanes) { return kShared ? 1 : lanes / kN; }
  // The lane, of those that hold row or column `n`, and its element, for k.
  static int lane_of(int n, int k, int lanes) { return n + kN * (k / (kK / kGroups(lanes))); }
  static int element_of(int k, int lanes) { return k % (kK / kGroups(lanes)); }
};

template <class L, Kind kKind, class RowOf>
void run_matrix(Wave &w, const Instruction &i) {
  float a[L::kSide][L::kDepth], b[L::kSide][L::kDepth];  // by row and k, by column and k
  for (int n = 0; n < L::kSide; n++) {
    for (int k = 0; k < L::kDepth; k++) {
      const int lane = L::lane_of(n, k, w.lanes), e = L::element_of(k, w.lanes);
      a[n][k] = element(w, i[1], lane, e, kKind);
      b[n][k] = element(w, i[2], lane, e, kKind);
    }
  }
  const int registers = L::kSide * L::kSide / w.lanes;
  u32 d[16][64];
  for (int r = 0; r < registers; r++) {
    for (int l = 0; l < w.lanes; l++) {
      const int row = RowOf{}(r, l), column = l % L::kSide;
      float sum = i[3].kind == Operand::vgpr ? from_bits<float>(w.vgpr[i[3].index + r][l])
                                             : scalar<float>(w, i[3]);
      for (int k = 0; k < L::kDepth; k++) sum = std::fma(a[row][k], b[column][k], sum);
      d[r][l] = to_bits(sum);
    }
  }
  // Whatever lanes are on.
  for (int r = 0; r < registers; r++) {
    std::memcpy(w.vgpr[i[0].index + r], d[r], static_cast<size_t>(w.lanes) * 4);
  }
}
void prepare(Instruction &i) {
  prepare_constant<float>(i.operands[3]);
}

struct RowOfMfma16 {
  int operator()(int r, int l) const { return 4 * (l / 16) + r; }
};
struct RowOfMfma32 {
  int operator()(int r, int l) const { return 8 * (r / 4) + 4 * (l / 32) + r % 4; }
};
struct RowOfWmma11 {
  int operator()(int r, int l) const { return 2 * r + l / 16; }
};
struct RowOfWmma12 {
  int operator()(int r, int l) const { return 8 * (l / 16) + r; }
};

// The name is the same on gfx11 and gfx12.
template <Kind kKind>
void run_wmma(Wave &w, const Instruction &i) {
  if (w.generation == 11) {
    run_matrix<Layout<16, 16, true>, kKind, RowOfWmma11>(w, i);
  } else {
    run_matrix<Layout<16, 16, false>, kKind, RowOfWmma12>(w, i);
  }
}

}  // namespace

void add_matrix_semantics() {
  constexpr Kind kHalf = Kind::half, kBfloat = Kind::bfloat;
  add({"v_mfma_f32_16x16x16f16|v_mfma_f32_16x16x16_f16", prepare,
       run_matrix<Layout<16, 16, false>, kHalf, RowOfMfma16>});
  add({"v_mfma_f32_16x16x16bf16_1k|v_mfma_f32_16x16x16_bf16", prepare,
       run_matrix<Layout<16, 16, false>, kBfloat, RowOfMfma16>});
  add({"v_mfma_f32_16x16x32_f16", prepare, run_matrix<Layout<16, 32, false>, kHalf, RowOfMfma16>});
  add({"v_mfma_f32_16x16x32_bf16", prepare,
       run_matrix<Layout<16, 32, false>, kBfloat, RowOfMfma16>});
  add({"v_mfma_f32_32x32x8f16|v_mfma_f32_32x32x8_f16", prepare,
       run_matrix<Layout<32, 8, false>, kHalf, RowOfMfma32>});
  add({"v_mfma_f32_32x32x8bf16_1k|v_mfma_f32_32x32x8_bf16", prepare,
       run_matrix<Layout<32, 8, false>, kBfloat, RowOfMfma32>});
  add({"v_wmma_f32_16x16x16_f16", prepare, run_wmma<kHalf>});
  add({"v_wmma_f32_16x16x16_bf16", prepare, run_wmma<kBfloat>});
}

}  // namespace sim
