// What differs between the variants: constants, since each is compiled by itself from its row of
// forward.toml.
#pragma once

#include "kernels/common/activation.hpp"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/common/softcap.hpp"
#include "kernels/cuda/common/tma.cuh"
#include "kernels/cuda/common/wgmma.cuh"
#include "kernels/cuda/sm90a/sdpa/forward_params.hpp"

namespace attn::cuda::sm90 {

// Names in the table.
using fp16 = Fp16;
using bf16 = Bf16;

using Element = ATTN_ELEMENT;
inline constexpr int kDqk = ATTN_HEAD_DIM_QK, kDv = ATTN_HEAD_DIM_V;
inline constexpr int kBlockM = ATTN_BLOCK_M, kBlockN = ATTN_BLOCK_N;
inline constexpr int kQStages = ATTN_Q_STAGES, kKvStages = ATTN_KV_STAGES;

inline constexpr ForwardConfig kConfig = {kDqk, kDv, kBlockM, kBlockN, kQStages, kKvStages};
inline constexpr int kConsumers = kConfig.consumers();
inline constexpr int kThreads = kConfig.threads();
static_assert(kConsumers == 2 || kConsumers == 3);
// What a call may have, apart from what is free where it is not asked for: nothing; keys in pages;
// ALiBi; softcap; any of these together. (Code that is not run costs time where it lies in the
// loop.)
enum class ForwardKind { plain, pages, alibi, softcap, options };
inline constexpr ForwardKind kKind = ForwardKind::ATTN_KIND;
inline constexpr bool kAny = kKind == ForwardKind::options;
inline constexpr bool kPages = kKind == ForwardKind::pages || kAny;
inline constexpr bool kAlibi = kKind == ForwardKind::alibi || kAny;
inline constexpr bool kSoftcap = kKind == ForwardKind::softcap || kAny;
// Whether scores compare as integers where that is right. (A second body of the loop: with options
// there are too few registers for it.)
inline constexpr bool kComparesBits = !kAlibi && !kSoftcap;
// Of keys in pages, tiles lie in groups of eight rows with all their columns, so that one box can
// bring a page: small boxes cost the copy engine as much as large ones.
inline constexpr bool kGrouped = kKind == ForwardKind::pages && ForwardConfig::groups(kDqk, kDv);
inline constexpr int kProducers = kPages ? 2 : 1;
// Where q has a stage to spare, results go out by way of the tile of queries that they are of.
inline constexpr bool kThroughQ = kQStages > 1;
// Whether a block's first products do not add to results, which then need not be cleared. (Of 256
// columns, there is no register for it.)
inline constexpr bool kStartsAnew = kDv <= 192;
// Registers of a thread: all there are, shared between one warpgroup that only asks for copies and
// those that compute.
inline constexpr int kProducerRegisters = kConsumers == 3 ? 32 : 40;
inline constexpr int kConsumerRegisters = kConsumers == 3 ? 160 : 232;

inline constexpr float kLog2EF = static_cast<float>(kLog2E);
inline constexpr float kLn2F = static_cast<float>(kLn2);

}  // namespace attn::cuda::sm90
