// libFuzzer target: plans of any option, executed with arguments that are right, subtly wrong or
// hostile, in memory of just the size that the tensors name. Under the sanitizers every stray access
// is caught; besides, an error must leave the outputs as they were.
#include <attn/attn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "bytes.hpp"

namespace {

constexpr uint8_t kPoison = 0xa5;

void require(bool condition, const char *what) {
  if (condition) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

attn_context *context() {
  static attn_context *const made = [] {
    attn_context *result = nullptr;
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = ATTN_BACKEND_CPU;
    desc.num_threads = 2;
    if (attn_context_create(&desc, &result, nullptr) != ATTN_OK) std::abort();
    return result;
  }();
  return made;
}

// Blocks of memory of exactly the sizes asked for.
class Arena {
 public:
  explicit Arena(Bytes &bytes) : bytes_(bytes) {}
  ~Arena() {
    for (void *block : blocks_) std::free(block);
  }
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;

  uint8_t *block(size_t size) {
    void *memory = std::malloc(size == 0 ? 1 : size);
    blocks_.push_back(memory);
    return static_cast<uint8_t *>(memory);
  }

  // Content: small numbers, with some of the worst.
  void fill(uint8_t *memory, size_t size, int32_t dtype) {
    const bool wild = bytes_.one_in(8);
    const uint32_t seed = bytes_.take<uint16_t>();
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < size; i++) {
      state = state * 1664525u + 1013904223u;
      memory[i] = wild ? static_cast<uint8_t>(state >> 24) : static_cast<uint8_t>(i % 5);
    }
    if (dtype != ATTN_DTYPE_FP32 || wild) return;
    for (size_t i = 0; i + 4 <= size; i += 4) {
      state = state * 1664525u + 1013904223u;
      const float value = static_cast<float>(static_cast<int32_t>(state >> 16) - 32768) / 16384;
      std::memcpy(memory + i, &value, 4);
    }
  }

  // Integers that are mostly legal.
  int32_t *integers(size_t count, int64_t below, bool hostile) {
    auto *memory = reinterpret_cast<int32_t *>(block(count * 4));
    for (size_t i = 0; i < count; i++) {
      memory[i] = static_cast<int32_t>(below <= 0 ? 0 : bytes_.below(below));
      if (hostile && bytes_.one_in(6)) memory[i] = static_cast<int32_t>(bytes_.hostile());
    }
    return memory;
  }

 private:
  Bytes &bytes_;
  std::vector<void *> blocks_;
};

struct Output {
  uint8_t *memory;
  size_t size;
};

// One fuzzed call.
class Call {
 public:
  explicit Call(Bytes &bytes) : bytes_(bytes), arena_(bytes) {}

  void run() {
    describe();
    attn_error error = ATTN_ERROR_INIT;
    attn_plan *plan = nullptr;
    if (attn_sdpa_plan_create(context(), &d_, nullptr, &plan, &error) != ATTN_OK) return;
    // The second-best implementation deserves a look, too.
    const char *name = nullptr;
    attn_plan_info info = ATTN_PLAN_INFO_INIT;
    attn_plan_query(plan, &info, nullptr);
    attn_plan_implementation(plan, static_cast<int32_t>(bytes_.below(info.num_implementations)),
                             &name, nullptr);
    attn_plan_destroy(plan);
    attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
    options.implementation = name;
    require(attn_sdpa_plan_create(context(), &d_, &options, &plan, nullptr) == ATTN_OK,
            "a listed implementation can be asked for");
    attn_plan_query(plan, &info, nullptr);
    if (info.workspace_bytes < (1u << 26)) execute(plan, info);
    attn_plan_destroy(plan);
  }

 private:
  void describe() {
    static constexpr int32_t kDtypes[] = {ATTN_DTYPE_FP32, ATTN_DTYPE_BF16, ATTN_DTYPE_FP16,
                                          ATTN_DTYPE_FP32, ATTN_DTYPE_INT8, ATTN_DTYPE_FP8_E4M3FN,
                                          ATTN_DTYPE_INT4, ATTN_DTYPE_FP4_E2M1};
    d_ = ATTN_SDPA_DESC_INIT;
    d_.pass = bytes_.one_in(3) ? ATTN_SDPA_BACKWARD : ATTN_SDPA_FORWARD;
    d_.flags = bytes_.take<uint32_t>() & ((ATTN_SDPA_RETURN_ROW_MAX << 1) - 1);
    if (bytes_.one_in(2)) d_.flags &= bytes_.take<uint32_t>();
    d_.q_dtype = kDtypes[bytes_.below(d_.pass == ATTN_SDPA_BACKWARD ? 4 : 8)];
    d_.k_dtype = bytes_.one_in(4) ? kDtypes[bytes_.below(8)] : 0;
    d_.v_dtype = bytes_.one_in(4) && (d_.flags & ATTN_SDPA_LATENT_KV) == 0
                     ? kDtypes[bytes_.below(8)]
                     : 0;
    d_.q_layout = static_cast<int32_t>(bytes_.below(2));
    d_.kv_layout = static_cast<int32_t>(bytes_.below(4));
    if (d_.kv_layout >= ATTN_LAYOUT_PAGED_TABLE) {
      d_.page_size = 1 + static_cast<int32_t>(bytes_.below(9));
    }
    if (d_.kv_layout == ATTN_LAYOUT_PAGED_CSR) d_.flags &= ~ATTN_SDPA_SEQUSED_K;
    if ((d_.flags & ATTN_SDPA_SINK) == 0) d_.flags &= ~ATTN_SDPA_LSE_INCLUDES_SINK;
    d_.num_kv_heads = 1 + static_cast<int32_t>(bytes_.below(3));
    d_.num_q_heads = d_.num_kv_heads * (1 + static_cast<int32_t>(bytes_.below(5)));
    d_.head_dim_qk = 1 + static_cast<int32_t>(bytes_.below(40));
    d_.head_dim_v = (d_.flags & ATTN_SDPA_LATENT_KV) != 0
                        ? 1 + static_cast<int32_t>(bytes_.below(d_.head_dim_qk))
                        : 1 + static_cast<int32_t>(bytes_.below(40));
    d_.max_batch = 4;
    d_.max_seqlen_q = bytes_.below(40);
    d_.max_seqlen_k = bytes_.below(80);
    d_.softmax_scale = 0.3f;
    d_.softcap = bytes_.one_in(4) ? 3.0f : 0;
    d_.alignment = static_cast<int32_t>(bytes_.below(2));
    if ((d_.flags & ATTN_SDPA_WINDOW) != 0) {
      d_.window_left = static_cast<int32_t>(bytes_.below(20)) - 1;
      d_.window_right = static_cast<int32_t>(bytes_.below(20)) - 1;
    }
    d_.chunk_size = bytes_.one_in(4) ? static_cast<int32_t>(bytes_.below(16)) : 0;
    if ((d_.flags & ATTN_SDPA_WINDOW) != 0 || d_.chunk_size > 0) {
      d_.sink_tokens = static_cast<int32_t>(bytes_.below(6));
    }
    if ((d_.flags & ATTN_SDPA_BLOCK_SPARSE) != 0) {
      d_.block_size_q = 1 + static_cast<int32_t>(bytes_.below(17));
      d_.block_size_k = 1 + static_cast<int32_t>(bytes_.below(17));
    }
    if ((d_.flags & ATTN_SDPA_DROPOUT) != 0) d_.dropout_p = 0.25f;
    if (bytes_.one_in(6)) {
      d_.activation = ATTN_ACTIVATION_SILU;
      d_.silu_divisor = 16;
      d_.flags &= ~(ATTN_SDPA_SINK | ATTN_SDPA_LSE_INCLUDES_SINK | ATTN_SDPA_RETURN_LSE |
                    ATTN_SDPA_RETURN_ROW_MAX);
    }
    d_.lse_base = static_cast<int32_t>(bytes_.below(2));
    d_.split_policy = static_cast<int32_t>(bytes_.below(3));
    d_.split_size = d_.split_policy == ATTN_SPLIT_FIXED ? 1 + static_cast<int32_t>(bytes_.below(30))
                                                        : 0;
    d_.determinism = static_cast<int32_t>(bytes_.below(3));
    const auto quant = [&](attn_quant &q, int32_t dtype) {
      if (attn_dtype_bits(dtype) > 8 || dtype == 0 || bytes_.one_in(3)) return;
      q.granularity = 1 + static_cast<int32_t>(bytes_.below(5));
      q.block_size = q.granularity == ATTN_QUANT_BLOCK ? 1 + static_cast<int32_t>(bytes_.below(20))
                                                       : 0;
    };
    quant(d_.q_quant, d_.q_dtype);
    k_dtype_ = d_.k_dtype == 0 ? d_.q_dtype : d_.k_dtype;
    v_dtype_ = d_.v_dtype == 0 ? k_dtype_ : d_.v_dtype;
    quant(d_.k_quant, k_dtype_);
    if ((d_.flags & ATTN_SDPA_LATENT_KV) == 0) quant(d_.v_quant, v_dtype_);
    if (d_.pass == ATTN_SDPA_BACKWARD) {
      d_.grads = bytes_.take<uint8_t>() & ((ATTN_SDPA_GRAD_LSE_IN << 1) - 1);
      if ((d_.flags & ATTN_SDPA_LATENT_KV) != 0) d_.grads &= ~ATTN_SDPA_GRAD_V;
      if ((d_.flags & ATTN_SDPA_BIAS) == 0) d_.grads &= ~ATTN_SDPA_GRAD_BIAS;
      if ((d_.flags & ATTN_SDPA_SINK) == 0) d_.grads &= ~ATTN_SDPA_GRAD_SINK;
      if ((d_.flags & ATTN_SDPA_GATE) == 0) d_.grads &= ~ATTN_SDPA_GRAD_GATE;
      if (d_.activation == ATTN_ACTIVATION_SILU) d_.grads &= ~ATTN_SDPA_GRAD_LSE_IN;
    }
  }

  // A tensor of this shape in memory of its own; now and then with a wrong extent, a wrong dtype, or
  // with other strides (which the memory still holds).
  attn_tensor tensor(int32_t dtype, std::vector<int64_t> shape, bool output) {
    if (bytes_.one_in(60)) return ATTN_TENSOR_INIT;
    if (bytes_.one_in(40) && !shape.empty()) {
      int64_t &extent = shape[static_cast<size_t>(bytes_.below(static_cast<int64_t>(shape.size())))];
      extent = bytes_.one_in(2) ? extent + bytes_.below(5) - 2 : bytes_.hostile();
    }
    if (bytes_.one_in(60)) dtype = static_cast<int32_t>(bytes_.below(15));
    attn_tensor result = ATTN_TENSOR_INIT;
    result.dtype = dtype;
    result.rank = static_cast<int32_t>(shape.size());
    for (size_t i = 0; i < shape.size(); i++) result.shape[i] = shape[i];
    // Dimensions in a random order in memory (the last stays last for two elements a byte).
    std::vector<size_t> order(shape.size());
    for (size_t i = 0; i < order.size(); i++) order[i] = i;
    if (bytes_.one_in(3) && order.size() > 1) {
      const auto last = static_cast<int64_t>(order.size()) - (attn_dtype_bits(dtype) == 4 ? 1 : 0);
      std::swap(order[static_cast<size_t>(bytes_.below(last))],
                order[static_cast<size_t>(bytes_.below(last))]);
    }
    const int64_t padding = bytes_.one_in(4) ? bytes_.below(4) * 2 : 0;
    __int128 stride = 1;
    bool real = true;
    for (size_t n = order.size(); n-- > 0;) {
      const size_t i = order[n];
      result.stride[i] = static_cast<int64_t>(stride);
      if (!output && bytes_.one_in(30)) result.stride[i] = 0;
      real = real && shape[i] >= 0;
      stride *= std::max<int64_t>(shape[i], 0);
      if (n + 1 == order.size()) stride += padding + (attn_dtype_bits(dtype) == 4 ? stride % 2 : 0);
      if (stride > (1 << 20)) {
        real = false;
        stride = 1 << 20;
      }
    }
    if (bytes_.one_in(80) && result.rank > 0) {
      result.stride[bytes_.below(result.rank)] = bytes_.hostile();
      real = false;
    }
    // Memory for what reaches beyond a megabyte does not exist: such a call is not made.
    if (!real) wrong_ = true;
    const auto bits = static_cast<size_t>(std::max(attn_dtype_bits(dtype), 1));
    const size_t size = (static_cast<size_t>(stride) * bits + 7) / 8;
    uint8_t *memory = arena_.block(size);
    if (output) {
      std::memset(memory, kPoison, size);
      outputs_.push_back({memory, size});
    } else {
      arena_.fill(memory, size, dtype);
      if (dtype == ATTN_DTYPE_INT32) {
        for (size_t i = 0; i + 4 <= size; i += 4) {
          auto value = static_cast<int32_t>(bytes_.below(5)) - (bytes_.one_in(8) ? 2 : 0);
          if (bytes_.one_in(40)) value = static_cast<int32_t>(bytes_.hostile());
          std::memcpy(memory + i, &value, 4);
        }
      }
    }
    result.data = memory;
    return result;
  }

  int32_t *offsets(int64_t batch, int64_t total, int64_t longest) {
    auto *memory = arena_.integers(static_cast<size_t>(batch + 1), 1, false);
    int64_t at = 0;
    for (int64_t b = 0; b < batch; b++) {
      memory[b] = static_cast<int32_t>(at);
      at = std::min(total, at + bytes_.below(longest + 1));
    }
    memory[batch] = static_cast<int32_t>(at);
    if (bytes_.one_in(12)) memory[bytes_.below(batch + 1)] = static_cast<int32_t>(bytes_.hostile());
    return memory;
  }

  attn_tensor scale(const attn_quant &quant, const attn_tensor &data, bool dense) {
    std::vector<int64_t> shape(static_cast<size_t>(std::max(data.rank, 1)), 1);
    const size_t rank = shape.size();
    for (size_t i = 0; i < rank && rank >= 3; i++) {
      const bool last = i + 1 == rank, head = i + 2 == rank;
      const bool batch = rank == 4 && i == 0;
      const int32_t g = quant.granularity;
      if (last) {
        if (g == ATTN_QUANT_BLOCK && data.shape[i] > 0 && data.shape[i] < 4096) {
          shape[i] = (data.shape[i] + quant.block_size - 1) / quant.block_size;
        }
      } else if (head ? g == ATTN_QUANT_HEAD || g >= ATTN_QUANT_TOKEN_HEAD
                      : g >= ATTN_QUANT_TOKEN || (g == ATTN_QUANT_HEAD && batch && dense)) {
        shape[i] = bytes_.one_in(3) ? 1 : data.shape[i];
      }
      if (shape[i] < 0 || shape[i] > 4096) shape[i] = 1;
    }
    return tensor(ATTN_DTYPE_FP32, shape, false);
  }

  void execute(attn_plan *plan, const attn_plan_info &info) {
    const bool ragged_q = d_.q_layout == ATTN_LAYOUT_RAGGED;
    const bool ragged_k = d_.kv_layout == ATTN_LAYOUT_RAGGED;
    const bool paged = d_.kv_layout >= ATTN_LAYOUT_PAGED_TABLE;
    const int64_t batch = bytes_.below(4);
    const int64_t sq = ragged_q ? d_.max_seqlen_q : bytes_.below(d_.max_seqlen_q + 1);
    const int64_t sk = d_.kv_layout == ATTN_LAYOUT_DENSE ? bytes_.below(d_.max_seqlen_k + 1)
                                                         : d_.max_seqlen_k;
    const int64_t tq = std::min<int64_t>(batch * sq, 90), tk = std::min<int64_t>(batch * sk, 150);
    const int64_t hq = d_.num_q_heads, hk = d_.num_kv_heads;
    const int64_t dv = d_.head_dim_v;
    const int64_t pages = 1 + bytes_.below(12);
    const auto has = [&](uint64_t flag) { return (d_.flags & flag) != 0; };
    const auto query = [&](int64_t last) {
      return ragged_q ? std::vector<int64_t>{tq, hq, last} : std::vector<int64_t>{batch, sq, hq, last};
    };
    const auto key = [&](int64_t last) {
      return ragged_k ? std::vector<int64_t>{tk, hk, last}
             : paged  ? std::vector<int64_t>{pages, d_.page_size, hk, last}
                      : std::vector<int64_t>{batch, sk, hk, last};
    };
    const auto by_head = [&](int64_t last, bool shared) {
      std::vector<int64_t> shape = ragged_q ? std::vector<int64_t>{hq, tq}
                                            : std::vector<int64_t>{batch, hq, sq};
      if (last >= 0) shape.push_back(last);
      if (shared && bytes_.one_in(2)) shape[ragged_q ? 0 : 1] = 1;
      if (shared && !ragged_q && bytes_.one_in(2)) shape[0] = 1;
      return shape;
    };
    const bool backward = d_.pass == ATTN_SDPA_BACKWARD;
    int32_t out_dtype = d_.q_dtype;
    if (attn_dtype_bits(out_dtype) < 16) out_dtype = ATTN_DTYPE_BF16;

    attn_sdpa_args a = ATTN_SDPA_ARGS_INIT;
    a.batch = ragged_q || bytes_.one_in(3) ? batch : 0;
    a.q = tensor(d_.q_dtype, query(d_.head_dim_qk), false);
    a.k = tensor(k_dtype_, key(d_.head_dim_qk), false);
    if (!has(ATTN_SDPA_LATENT_KV)) a.v = tensor(v_dtype_, key(dv), false);
    a.out = tensor(out_dtype, query(dv), !backward);
    if (has(ATTN_SDPA_RETURN_LSE) || (backward && d_.activation == 0)) {
      a.lse = tensor(ATTN_DTYPE_FP32, by_head(-1, false), !backward);
    }
    if (has(ATTN_SDPA_RETURN_ROW_MAX) && !backward) {
      a.row_max = tensor(ATTN_DTYPE_FP32, by_head(-1, false), true);
    }
    if (ragged_q) a.cu_seqlens_q = offsets(batch, tq, d_.max_seqlen_q);
    if (ragged_k) a.cu_seqlens_k = offsets(batch, tk, d_.max_seqlen_k);
    const auto count = static_cast<size_t>(batch);
    if (has(ATTN_SDPA_SEQUSED_Q)) a.seqused_q = arena_.integers(count, sq + 1, true);
    if (has(ATTN_SDPA_SEQUSED_K) || d_.kv_layout == ATTN_LAYOUT_PAGED_TABLE) {
      a.seqused_k = arena_.integers(count, sk + 1, true);
    }
    if (d_.kv_layout == ATTN_LAYOUT_PAGED_CSR) {
      const int64_t most = d_.max_seqlen_k / d_.page_size + 1;
      int32_t *indptr = offsets(batch, 40, most);
      // The index array has as many entries as the offsets say, if that is at all possible.
      int64_t entries = 0;
      for (int64_t b = 0; b <= batch; b++) entries = std::max<int64_t>(entries, indptr[b]);
      if (entries > 4096) wrong_ = true;
      a.kv_page_indptr = indptr;
      a.kv_page_indices =
          arena_.integers(static_cast<size_t>(std::min<int64_t>(entries, 4096)), pages, true);
      int32_t *last = arena_.integers(count, d_.page_size, true);
      for (size_t b = 0; b < count; b++) {
        if (last[b] < d_.page_size) last[b]++;
      }
      a.kv_last_page_len = last;
    } else if (d_.kv_layout == ATTN_LAYOUT_PAGED_TABLE) {
      a.block_table =
          tensor(ATTN_DTYPE_INT32, {batch, (d_.max_seqlen_k + d_.page_size - 1) / d_.page_size}, false);
    }
    uint64_t rng[2] = {bytes_.take<uint64_t>(), 3};
    if (has(ATTN_SDPA_DROPOUT)) a.rng_state = rng;
    if (has(ATTN_SDPA_MASK)) a.mask = tensor(ATTN_DTYPE_UINT8, by_head((sk + 7) / 8, true), false);
    if (has(ATTN_SDPA_TAIL_MASK)) {
      a.tail_mask = tensor(ATTN_DTYPE_UINT8, by_head((sq + 7) / 8, true), false);
    }
    if (has(ATTN_SDPA_SEGMENT_IDS)) {
      using Shape = std::vector<int64_t>;
      a.q_segment_ids = tensor(ATTN_DTYPE_INT32, ragged_q ? Shape{tq} : Shape{batch, sq}, false);
      a.kv_segment_ids = tensor(ATTN_DTYPE_INT32, ragged_k ? Shape{tk} : Shape{batch, sk}, false);
    }
    if (has(ATTN_SDPA_BIAS)) {
      a.bias = tensor(bytes_.one_in(2) ? ATTN_DTYPE_FP32 : ATTN_DTYPE_BF16, by_head(sk, true), false);
    }
    if (has(ATTN_SDPA_ALIBI)) a.alibi_slopes = tensor(ATTN_DTYPE_FP32, {hq}, false);
    if (has(ATTN_SDPA_SINK)) a.sink = tensor(ATTN_DTYPE_FP32, {hq}, false);
    if (has(ATTN_SDPA_GATE)) {
      a.gate = tensor(ATTN_DTYPE_FP32, query(bytes_.one_in(2) ? 1 : dv), false);
    }
    if (has(ATTN_SDPA_BLOCK_SPARSE)) {
      const int64_t rows = (sq + d_.block_size_q - 1) / d_.block_size_q;
      a.block_counts = tensor(ATTN_DTYPE_INT32, {batch, 1, rows}, false);
      a.block_indices = tensor(ATTN_DTYPE_INT32, {batch, 1, rows, 4}, false);
    }
    if (d_.q_quant.granularity != 0) a.q_scale = scale(d_.q_quant, a.q, !ragged_q);
    if (d_.k_quant.granularity != 0) a.k_scale = scale(d_.k_quant, a.k, !ragged_k && !paged);
    if (d_.v_quant.granularity != 0) a.v_scale = scale(d_.v_quant, a.v, !ragged_k && !paged);

    const size_t less = bytes_.one_in(20) ? 1 : 0;
    const size_t bytes = info.workspace_bytes - std::min<size_t>(less, info.workspace_bytes);
    void *workspace = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    attn_error error = ATTN_ERROR_INIT;
    int32_t status;
    if (backward) {
      attn_sdpa_backward_args g = ATTN_SDPA_BACKWARD_ARGS_INIT;
      g.forward = &a;
      uint32_t grads = d_.grads;
      if (grads == 0) {
        grads = ATTN_SDPA_GRAD_Q | ATTN_SDPA_GRAD_K |
                (has(ATTN_SDPA_LATENT_KV) ? 0 : ATTN_SDPA_GRAD_V);
      }
      const auto like = [&](const attn_tensor &t) {
        std::vector<int64_t> shape(t.shape, t.shape + std::max(t.rank, 0));
        for (int64_t &extent : shape) {
          if (extent < 0 || extent > 4096) extent = 1;
        }
        return tensor(ATTN_DTYPE_FP32, shape, true);
      };
      g.dout = tensor(ATTN_DTYPE_FP32, query(dv), false);
      if ((grads & ATTN_SDPA_GRAD_LSE_IN) != 0) {
        g.dlse = tensor(ATTN_DTYPE_FP32, by_head(-1, false), false);
      }
      if ((grads & ATTN_SDPA_GRAD_Q) != 0) g.dq = like(a.q);
      if ((grads & ATTN_SDPA_GRAD_K) != 0) g.dk = like(a.k);
      if ((grads & ATTN_SDPA_GRAD_V) != 0) g.dv = like(a.v);
      if ((grads & ATTN_SDPA_GRAD_BIAS) != 0) g.dbias = like(a.bias);
      if ((grads & ATTN_SDPA_GRAD_SINK) != 0) g.dsink = like(a.sink);
      if ((grads & ATTN_SDPA_GRAD_GATE) != 0) g.dgate = like(a.gate);
      status = wrong_ ? int32_t{ATTN_ERROR_INVALID_ARGUMENT}
                      : attn_sdpa_backward(plan, &g, workspace, bytes, nullptr, &error);
    } else {
      status = wrong_ ? int32_t{ATTN_ERROR_INVALID_ARGUMENT}
                      : attn_sdpa_forward(plan, &a, workspace, bytes, nullptr, &error);
    }
    std::free(workspace);
    require(status != ATTN_ERROR_INTERNAL, "no defect is reported");
    if (status == ATTN_OK) return;
    for (const Output &output : outputs_) {
      for (size_t i = 0; i < output.size; i++) {
        require(output.memory[i] == kPoison, "outputs are untouched on error");
      }
    }
  }

  Bytes &bytes_;
  Arena arena_;
  attn_sdpa_desc d_;
  int32_t k_dtype_ = 0, v_dtype_ = 0;
  bool wrong_ = false;  // the arguments name memory that does not exist
  std::vector<Output> outputs_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Bytes bytes(data, size);
  Call(bytes).run();
  return 0;
}
