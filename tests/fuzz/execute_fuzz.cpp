// Execute on hostile arguments: an error that changes nothing, or the right answer.
//
// A small valid call is made from the bytes, then some of it is broken: contents of index arrays
// and page tables, shapes, strides, dtypes, pointers, counts. Memory is allocated to the element,
// so that any access beyond it is caught by the address sanitizer. What a caller cannot get wrong
// without lying about memory (a stride or an extent that leaves the buffer, and that the library
// has no way to notice) is put back.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "any_case.hpp"
#include "attn/attn.h"
#include "compare.hpp"
#include "sdpa_call.hpp"

namespace {

using check::HostTensor;
using check::SdpaCall;
using fuzz::defect;
using fuzz::Reader;

const attn_context *context() {
  static attn_context *one = [] {
    attn_context_desc desc = ATTN_CONTEXT_DESC_INIT;
    desc.backend = ATTN_BACKEND_CPU;
    desc.num_threads = 2;
    attn_context *made = nullptr;
    if (attn_context_create(&desc, &made, nullptr) != ATTN_OK) defect("no context");
    HostTensor::guard_bytes = 0;
    return made;
  }();
  return one;
}

// An index array in memory of its own size, which the descriptor's limits bound.
class Numbers {
 public:
  void own(const int32_t *&pointer, int64_t count, int64_t known) {
    if (pointer == nullptr) return;
    count_ = std::max(count, known);
    data_ = std::make_unique<int32_t[]>(static_cast<size_t>(count_));
    for (int64_t i = 0; i < count_; i++) {
      data_[static_cast<size_t>(i)] = known == 0 ? 0 : pointer[std::min(i, known - 1)];
    }
    pointer = data_.get();
  }
  void scramble(Reader &in) {
    if (count_ == 0) return;
    data_[in.byte() % static_cast<uint64_t>(count_)] = static_cast<int32_t>(in.hostile());
  }

 private:
  std::unique_ptr<int32_t[]> data_;
  int64_t count_ = 0;
};

void scramble_view(attn_tensor &view, const HostTensor &home, Reader &in) {
  const attn_tensor before = view;
  switch (in.below(8)) {
    case 0:
      view.rank = static_cast<int32_t>(in.hostile());
      break;
    case 1:
      view.dtype = static_cast<int32_t>(in.hostile());
      break;
    case 2:
      view.data = nullptr;
      break;
    case 3:
      view = attn_tensor{};
      break;
    case 4:
      view.shape[in.below(ATTN_MAX_RANK)] = in.hostile();
      break;
    case 5:
      if (view.data == nullptr) break;
      view.data = static_cast<uint8_t *>(view.data) + static_cast<int8_t>(in.byte());
      break;
    default:
      view.stride[in.below(ATTN_MAX_RANK)] = in.hostile();
      break;
  }
  if (view.rank < 1 || view.rank > ATTN_MAX_RANK || view.data == nullptr ||
      view.dtype != before.dtype || !home.present()) {
    return;  // refused, whatever memory there is
  }
  for (int i = 0; i < view.rank; i++) {
    if (view.shape[i] < 0 || view.shape[i] > INT32_MAX) return;
  }
  if (!home.holds(view)) view = before;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  context();
  Reader in(data, size);
  const check::SdpaCase c = fuzz::any_case(in);
  // An over-large case says nothing new, and the oracle is slow.
  int64_t work = 0;
  for (size_t b = 0; b < c.sq.size(); b++) {
    work += int64_t{c.sq[b] + 3} * (c.sk[b] + 3) * c.hq * (c.dqk + 8);
  }
  if (work > 300000) return 0;

  SdpaCall call(c, in.byte());
  const bool backward = c.pass == ATTN_SDPA_BACKWARD;
  attn_error error = ATTN_ERROR_INIT;
  attn_plan *plan = nullptr;
  if (attn_sdpa_plan_create(context(), &call.desc, nullptr, &plan, &error) != ATTN_OK) {
    if (error.message[0] == 0 || error.status == ATTN_ERROR_INTERNAL)
      defect("plan:", error.message);
    return 0;
  }
  attn_plan_info info = ATTN_PLAN_INFO_INIT;
  attn_plan_query(plan, &info, nullptr);
  attn_plan_options options = ATTN_PLAN_OPTIONS_INIT;
  const auto pick = static_cast<int32_t>(in.below(static_cast<uint32_t>(info.num_implementations)));
  attn_plan_implementation(plan, pick, &options.implementation, nullptr);
  attn_plan_destroy(plan);
  plan = nullptr;
  if (attn_sdpa_plan_create(context(), &call.desc, &options, &plan, &error) != ATTN_OK) {
    defect("an implementation that serves does not plan:", error.message);
  }
  attn_plan_query(plan, &info, nullptr);
  if (backward) call.compute_truth();  // fills in the forward pass's results

  // --- break it ---
  attn_sdpa_args args = call.args;
  attn_sdpa_backward_args grads = call.grads;
  grads.forward = &args;
  const int64_t limit = call.desc.max_batch, batch = static_cast<int64_t>(c.sq.size());
  const int64_t most_pages =
      c.page_size > 0 ? (call.desc.max_seqlen_k + c.page_size - 1) / c.page_size : 0;
  Numbers cu_q, cu_k, used_q, used_k, indptr, indices, last;
  const int64_t listed = args.kv_page_indptr != nullptr ? args.kv_page_indptr[batch] : 0;
  cu_q.own(args.cu_seqlens_q, limit + 1, batch + 1);
  cu_k.own(args.cu_seqlens_k, limit + 1, batch + 1);
  used_q.own(args.seqused_q, limit, batch);
  used_k.own(args.seqused_k, limit, batch);
  indptr.own(args.kv_page_indptr, limit + 1, batch + 1);
  indices.own(args.kv_page_indices, limit * most_pages, listed);
  last.own(args.kv_last_page_len, limit, batch);
  struct View {
    attn_tensor *view;
    HostTensor *home;
  };
  std::vector<View> views = {{&args.q, &call.q},
                             {&args.k, &call.k},
                             {&args.v, &call.v},
                             {&args.block_table, &call.block_table},
                             {&args.mask, &call.mask},
                             {&args.tail_mask, &call.tail_mask},
                             {&args.q_segment_ids, &call.q_ids},
                             {&args.kv_segment_ids, &call.kv_ids},
                             {&args.bias, &call.bias},
                             {&args.alibi_slopes, &call.alibi},
                             {&args.sink, &call.sink},
                             {&args.gate, &call.gate},
                             {&args.block_counts, &call.block_counts},
                             {&args.block_indices, &call.block_indices},
                             {&args.k_scale, &call.k_scale},
                             {&args.v_scale, &call.v_scale}};
  if (backward) {
    views.push_back({&args.out, &call.given_out});
    views.push_back({&args.lse, &call.given_lse});
    views.push_back({&grads.dout, &call.dout});
    views.push_back({&grads.dlse, &call.dlse});
  }
  for (SdpaCall::Output &o : call.outputs) {
    // The outputs' places, in our copies of the structs.
    auto *place = reinterpret_cast<uint8_t *>(o.place);
    auto *old_args = reinterpret_cast<uint8_t *>(&call.args);
    attn_tensor *mine =
        place >= old_args && place < old_args + sizeof call.args
            ? reinterpret_cast<attn_tensor *>(reinterpret_cast<uint8_t *>(&args) +
                                              (place - old_args))
            : reinterpret_cast<attn_tensor *>(reinterpret_cast<uint8_t *>(&grads) +
                                              (place - reinterpret_cast<uint8_t *>(&call.grads)));
    views.push_back({mine, &o.tensor});
  }
  void *stream = nullptr;
  std::vector<uint8_t> arena(info.workspace_bytes + info.workspace_alignment);
  uint8_t *workspace = arena.data();
  while (reinterpret_cast<uintptr_t>(workspace) % std::max<uint64_t>(info.workspace_alignment, 1)) {
    workspace++;
  }
  size_t workspace_bytes = info.workspace_bytes;
  bool outputs_moved = false;
  const uint32_t changes = in.below(4);
  for (uint32_t n = 0; n < changes; n++) {
    switch (in.below(12)) {
      case 0:
        cu_q.scramble(in);
        break;
      case 1:
        cu_k.scramble(in);
        break;
      case 2:
        used_q.scramble(in);
        break;
      case 3:
        used_k.scramble(in);
        break;
      case 4:
        (in.flag() ? indptr : last).scramble(in);
        break;
      case 5:
        indices.scramble(in);
        break;
      case 6: {
        HostTensor *tables[] = {&call.block_table, &call.block_counts, &call.block_indices,
                                &call.q_ids, &call.kv_ids};
        HostTensor &table = *tables[in.below(5)];
        if (table.present() && table.elements() > 0) {
          table.set(in.byte() % table.elements(),
                    static_cast<double>(static_cast<int32_t>(in.hostile())));
        }
        break;
      }
      case 7:
        args.batch = in.hostile();
        break;
      case 8:
        switch (in.below(5)) {
          case 0:
            workspace_bytes = static_cast<size_t>(
                std::min<uint64_t>(static_cast<uint64_t>(in.hostile()), workspace_bytes));
            break;
          case 1: {
            if (workspace == nullptr) break;
            // Only as much as is left.
            const auto left = static_cast<size_t>(arena.data() + arena.size() - workspace);
            const size_t shift = std::min(left, static_cast<size_t>(in.below(64)));
            workspace += shift;
            workspace_bytes = std::min(workspace_bytes, left - shift);
            break;
          }
          case 2:
            workspace = nullptr;
            break;
          case 3:
            stream = &stream;
            break;
          default:
            (in.flag() ? args.struct_size : args.reserved) = in.byte();
            break;
        }
        break;
      default: {
        const View &v = views[in.byte() % views.size()];
        scramble_view(*v.view, *v.home, in);
        for (const SdpaCall::Output &o : call.outputs) outputs_moved |= v.home == &o.tensor;
        break;
      }
    }
  }

  // --- run it ---
  call.poison_outputs(0x5a5a5a5a5a5a5a5a);
  error = ATTN_ERROR_INIT;
  const int32_t status =
      backward ? attn_sdpa_backward(plan, &grads, workspace, workspace_bytes, stream, &error)
               : attn_sdpa_forward(plan, &args, workspace, workspace_bytes, stream, &error);
  attn_plan_destroy(plan);
  if (status != ATTN_OK) {
    if (changes == 0) defect("a valid call was refused:", error.message);
    if (error.message[0] == 0 || error.status != status) defect("an error without words");
    if (status == ATTN_ERROR_INTERNAL) defect("internal error:", error.message);
    for (const SdpaCall::Output &o : call.outputs) {
      if (!o.tensor.untouched()) defect("refused, but wrote to", o.name);
    }
    return 0;
  }
  if (outputs_moved || backward) return 0;  // no crash is all we ask
  call.args = args;
  call.inputs = check::read_inputs(call.desc, args);
  call.compute_truth();
  for (const SdpaCall::Output &o : call.outputs) {
    if (!o.tensor.gaps_untouched()) defect("wrote between the elements of", o.name);
    const check::Comparison result =
        check::compare(o.name, o.tensor, o.truth, o.slack, o.naive, o.scale);
    if (!result.ok) defect("wrong:", result.detail.c_str());
  }
  return 0;
}
