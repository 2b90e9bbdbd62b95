// What differs between the variants of the forward kernel: constants, since each is compiled by
// itself from its row of forward.toml.
#pragma once

#include "kernels/common/activation.hpp"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/tile.cuh"
#include "kernels/cuda/sm80/sdpa/forward_params.hpp"

namespace attn::cuda {

// The plain kind serves what most calls are: rows that can be copied 16 bytes at a time, and keys
// whose visibility is an interval of each query. Some kinds have one thing more, known to the
// compiler. The general one serves every option and combination, chosen at run time by branches
// that all threads of a block take together.
enum class ForwardKind { plain, paged, mask, segments, alibi, bias, softcap, general };

// Names in the table.
using fp16 = Fp16;
using bf16 = Bf16;
using fp32 = Fp32;  // on TF32 tensor cores, as exact as fp32
using tf32 = Fp32;
enum class Precision { fp16, bf16, fp32, tf32 };

using Element = ATTN_ELEMENT;
inline constexpr bool kPrecise = Precision::ATTN_ELEMENT == Precision::fp32;
inline constexpr int kDqk = ATTN_HEAD_DIM_QK, kDv = ATTN_HEAD_DIM_V;
inline constexpr int kBlockM = ATTN_BLOCK_M, kBlockN = ATTN_BLOCK_N;
inline constexpr int kWarps = ATTN_WARPS;
inline constexpr int kHeldSteps = ATTN_HELD_STEPS;  // steps of 16 columns of q kept in registers
inline constexpr ForwardKind kKind = ForwardKind::ATTN_KIND;

inline constexpr int kBytes = Element::kBytes;
inline constexpr ForwardConfig kConfig = {kBytes, kDqk, kDv, kBlockM, kBlockN, kWarps};
inline constexpr int kThreads = kWarps * 32;
inline constexpr int kTiles = kBlockM / (16 * kWarps);  // 16-row tiles of a warp

// A thread's keys of a tile are neighbours, kOwnKeys of them, so that what belongs to a key (bias,
// mask, segment) can be read many at a time. Fragments of matrices do not mind: the order of keys
// is free, as long as it is the same for k and v. s[tile][n][2 half + e] is the score of the
// thread's key 2 n + e.
inline constexpr int kOwnKeys = kBlockN / 4;
template <int kRowBytes>
using QueryTile = Tile<kRowBytes, 2>;
template <int kRowBytes>
using KeyTile = Tile<kRowBytes, kOwnKeys>;

inline constexpr bool kGeneral = kKind == ForwardKind::general;
// Options beyond the plain kind's: those that a kind always has, and those it may have.
inline constexpr uint32_t kAlways = kKind == ForwardKind::alibi      ? kForwardAlibi
                                    : kKind == ForwardKind::bias     ? kForwardBias
                                    : kKind == ForwardKind::softcap  ? kForwardSoftcap
                                    : kKind == ForwardKind::segments ? kForwardSegments
                                                                     : 0u;
inline constexpr uint32_t kMaybe = kKind == ForwardKind::mask ? kForwardMask | kForwardTailMask
                                   : kGeneral                 ? ~0u
                                                              : 0u;
// Scores are in units of 1 / softmax_scale until the exponential; else in units of log 2.
inline constexpr bool kBare = !kGeneral;
// Where the weights' sums come from. The tensor cores give sums of the rounded weights, as one more
// column of v: that takes fewer registers and instructions, and where one key has nearly all the
// weight its rounding cancels; but the log-sum-exp is not exact.
enum class Sums { exact, products };
inline constexpr bool kSumsAreProducts = Sums::ATTN_SUMS == Sums::products;
// Whether the first tile of k can be asked for as soon as it is known where it is.
inline constexpr bool kLoadsEarly =
    kKind != ForwardKind::paged && kKind != ForwardKind::segments && !kGeneral;

// Whether the compiler may mix softmax and product, for which not all kinds have registers.
inline constexpr bool kMixes = kKind != ForwardKind::segments;

inline constexpr float kLog2EF = static_cast<float>(kLog2E);
inline constexpr float kLn2F = static_cast<float>(kLn2);

}  // namespace attn::cuda
