// What one forward execute needs, as plain data: filled once by forward.cpp, read by every task of
// forward_simd.cpp. No SIMD type appears here.
#pragma once

#include <attn/sdpa.h>

#include <cstddef>
#include <cstdint>

namespace attn::cpu::tuned {

// Rows of a bias or mask that are handled together; also the bits of a mask word.
inline constexpr int kMaskGroup = 32;
// Columns that pass through the staging rows at a time, where rows need a conversion.
inline constexpr int kStageColumns = 64;

// One thread's scratch, as offsets in floats from its base. The same function sizes and carves.
struct ForwardScratch {
  size_t q = 0;       // [rows / panel][dqk][panel]
  size_t o = 0;       // [rows / panel][dv][panel]
  size_t s = 0;       // [key_block][panel] scores, then weights
  size_t k = 0;       // [key_block][dqk] widened block
  size_t v = 0;       // [key_block][dv]
  size_t stage = 0;   // [panel][max(kStageColumns, kMaskGroup)] rows on their way in or out
  size_t bias = 0;    // [kMaskGroup][panel]
  size_t panels = 0;  // [rows / panel] PanelState, in forward_simd.cpp
  size_t hidden = 0;  // [key_block] bytes: keys of skipped pages
  size_t floats = 0;  // in all
};

struct ForwardCall {
  const attn_sdpa_desc *desc;
  const attn_sdpa_args *args;
  int64_t batch;
  int64_t seqlen_q;
  int64_t seqlen_k;
  int group;
  int key_block;
  int64_t rows_per_task;  // a multiple of the panel
  int64_t levels;         // tasks a (sequence, key head)
  // Ragged q: tokens after the last sequence are padding, too. Their tasks follow all others.
  int64_t rest = 0, rest_tokens = 0;
  ForwardScratch scratch;
  float *thread_scratch;  // [threads][scratch.floats]
};

// One SIMD target's copy of the kernel.
struct ForwardTarget {
  int panel;                 // rows a panel
  size_t panel_state_bytes;  // sizeof(PanelState)
  void (*task)(const ForwardCall &call, int64_t task, int thread);
};

const ForwardTarget &forward_target();

}  // namespace attn::cpu::tuned
