package attn

// #include "shim.h"
import "C"

import (
	"math"
	"sync"
	"unsafe"
)

// SDPAFlags are options of a problem, or'ed together.
type SDPAFlags uint64

// Options of a problem.
const (
	Causal          SDPAFlags = C.ATTN_SDPA_CAUSAL            // j <= p_i
	Window          SDPAFlags = C.ATTN_SDPA_WINDOW            // WindowLeft and WindowRight
	Mask            SDPAFlags = C.ATTN_SDPA_MASK              // SDPAArgs.Mask
	TailMask        SDPAFlags = C.ATTN_SDPA_TAIL_MASK         // SDPAArgs.TailMask: tree attention
	SegmentIDs      SDPAFlags = C.ATTN_SDPA_SEGMENT_IDS       // visible if equal and not negative
	Bias            SDPAFlags = C.ATTN_SDPA_BIAS              // SDPAArgs.Bias is added to the scores
	ALiBi           SDPAFlags = C.ATTN_SDPA_ALIBI             // SDPAArgs.AlibiSlopes
	Sink            SDPAFlags = C.ATTN_SDPA_SINK              // one more logit a head, without a value
	LSEIncludesSink SDPAFlags = C.ATTN_SDPA_LSE_INCLUDES_SINK // the returned lse includes the sink
	Dropout         SDPAFlags = C.ATTN_SDPA_DROPOUT           // DropoutP, SDPAArgs.RNGState
	BlockSparse     SDPAFlags = C.ATTN_SDPA_BLOCK_SPARSE      // SDPAArgs.BlockCounts, BlockIndices
	Gate            SDPAFlags = C.ATTN_SDPA_GATE              // out *= sigmoid(SDPAArgs.Gate)
	SeqUsedQ        SDPAFlags = C.ATTN_SDPA_SEQUSED_Q         // SDPAArgs.SeqUsedQ is given
	SeqUsedK        SDPAFlags = C.ATTN_SDPA_SEQUSED_K         // SDPAArgs.SeqUsedK is given
	LatentKV        SDPAFlags = C.ATTN_SDPA_LATENT_KV         // V is the first columns of K (MLA)
	ReturnLSE       SDPAFlags = C.ATTN_SDPA_RETURN_LSE        // SDPAArgs.LSE is written
	ReturnRowMax    SDPAFlags = C.ATTN_SDPA_RETURN_ROW_MAX    // SDPAArgs.RowMax is written
	AllowTF32       SDPAFlags = C.ATTN_SDPA_ALLOW_TF32        // fp32: products may round to TF32
)

// Gradients that a backward pass computes, or'ed together.
type Gradients uint32

// Gradients.
const (
	GradQ     Gradients = C.ATTN_SDPA_GRAD_Q
	GradK     Gradients = C.ATTN_SDPA_GRAD_K
	GradV     Gradients = C.ATTN_SDPA_GRAD_V
	GradBias  Gradients = C.ATTN_SDPA_GRAD_BIAS
	GradSink  Gradients = C.ATTN_SDPA_GRAD_SINK
	GradGate  Gradients = C.ATTN_SDPA_GRAD_GATE
	GradLSEIn Gradients = C.ATTN_SDPA_GRAD_LSE_IN // SDPABackwardArgs.DLSE is given
)

// Layout is how the tokens of a batch lie in memory.
type Layout int32

// Layouts.
const (
	Dense      Layout = C.ATTN_LAYOUT_DENSE       // [batch, seqlen, heads, head_dim]
	Ragged     Layout = C.ATTN_LAYOUT_RAGGED      // [total_tokens, heads, head_dim]
	PagedTable Layout = C.ATTN_LAYOUT_PAGED_TABLE // K and V: a pool of pages and a block table
	PagedCSR   Layout = C.ATTN_LAYOUT_PAGED_CSR   // K and V: a pool of pages and CSR lists
)

// Alignment is where the diagonal of causal, window, chunk and ALiBi lies.
type Alignment int32

// Alignments.
const (
	BottomRight Alignment = C.ATTN_ALIGN_BOTTOM_RIGHT // the last query sees the last key
	TopLeft     Alignment = C.ATTN_ALIGN_TOP_LEFT     // query 0 sees key 0
)

// Activation turns scores into weights.
type Activation int32

// Activations.
const (
	Softmax Activation = C.ATTN_ACTIVATION_SOFTMAX
	SiLU    Activation = C.ATTN_ACTIVATION_SILU // silu(score) / SiLUDivisor, without normalisation
)

// LSEBase is the base of the logarithm in lse.
type LSEBase int32

// Bases.
const (
	BaseE LSEBase = C.ATTN_LSE_BASE_E
	Base2 LSEBase = C.ATTN_LSE_BASE_2
)

// SplitPolicy says whether the keys of a sequence are split among units.
type SplitPolicy int32

// Split policies.
const (
	SplitAuto  SplitPolicy = C.ATTN_SPLIT_AUTO
	SplitNone  SplitPolicy = C.ATTN_SPLIT_NONE
	SplitFixed SplitPolicy = C.ATTN_SPLIT_FIXED // pieces of SplitSize keys
)

// Determinism says what repeated runs have in common.
type Determinism int32

// Levels of determinism.
const (
	Fast           Determinism = C.ATTN_DETERMINISM_FAST
	RunToRun       Determinism = C.ATTN_DETERMINISM_RUN_TO_RUN
	BatchInvariant Determinism = C.ATTN_DETERMINISM_BATCH_INVARIANT
)

// QuantGranularity is how a tensor's scales are shared.
type QuantGranularity int32

// Granularities.
const (
	QuantNone      QuantGranularity = C.ATTN_QUANT_NONE
	QuantTensor    QuantGranularity = C.ATTN_QUANT_TENSOR
	QuantHead      QuantGranularity = C.ATTN_QUANT_HEAD
	QuantToken     QuantGranularity = C.ATTN_QUANT_TOKEN
	QuantTokenHead QuantGranularity = C.ATTN_QUANT_TOKEN_HEAD
	QuantBlock     QuantGranularity = C.ATTN_QUANT_BLOCK
)

// Quant is how one of q, k, v, out is quantised. The zero value: not at all.
type Quant struct {
	Granularity QuantGranularity
	BlockSize   int32 // QuantBlock: elements of the head dim that a scale covers; else 0
	ScaleDType  DType // default FP32
}

// SDPADesc is a problem by its limits: lengths and counts at execute must stay within them. Zero in
// a field means its default; fields without one are marked "required".
type SDPADesc struct {
	Flags SDPAFlags
	Grads Gradients // backward plans; 0 = q, k and v

	QDType   DType // required
	KDType   DType // default QDType
	VDType   DType // default KDType
	OutDType DType // default QDType

	QLayout  Layout // Dense or Ragged; also of out, lse, gate and all that is a query's
	KVLayout Layout
	PageSize int32 // paged layouts: required

	NumQHeads  int32 // required
	NumKVHeads int32 // default NumQHeads; must divide it
	HeadDimQK  int32 // required
	HeadDimV   int32 // default HeadDimQK

	MaxBatch   int64 // required
	MaxSeqlenQ int64 // required
	MaxSeqlenK int64 // required
	MaxTotalQ  int64 // ragged q: tokens in all; default MaxBatch * MaxSeqlenQ
	MaxTotalK  int64 // ragged k: tokens in all; default MaxBatch * MaxSeqlenK

	SoftmaxScale float32 // required; DefaultScale gives the usual one
	Softcap      float32 // 0 = none

	Alignment   Alignment
	WindowLeft  int32 // Window: keys left of p_i; -1 = unbounded
	WindowRight int32 // Window: keys right of p_i; -1 = unbounded
	ChunkSize   int32 // 0 = none
	SinkTokens  int32 // so many first keys are visible whatever window and chunk say
	BlockSizeQ  int32 // BlockSparse
	BlockSizeK  int32 // BlockSparse

	DropoutP    float32 // Dropout
	Activation  Activation
	SiLUDivisor float32 // SiLU: required
	LSEBase     LSEBase

	SplitPolicy SplitPolicy
	SplitSize   int32 // SplitFixed
	Determinism Determinism

	QQuant, KQuant, VQuant, OutQuant Quant
}

// DefaultScale is 1 / sqrt(headDim).
func DefaultScale(headDim int) float32 { return float32(1 / math.Sqrt(float64(headDim))) }

func (d *SDPADesc) c(pass C.int32_t) *C.attn_sdpa_desc {
	quant := func(q Quant) C.attn_quant {
		return C.attn_quant{
			granularity: C.int32_t(q.Granularity),
			block_size:  C.int32_t(q.BlockSize),
			scale_dtype: C.int32_t(q.ScaleDType),
		}
	}
	return &C.attn_sdpa_desc{
		struct_size: C.sizeof_attn_sdpa_desc,
		pass:        pass,
		flags:       C.uint64_t(d.Flags),
		grads:       C.uint32_t(d.Grads),

		q_dtype:   C.int32_t(d.QDType),
		k_dtype:   C.int32_t(d.KDType),
		v_dtype:   C.int32_t(d.VDType),
		out_dtype: C.int32_t(d.OutDType),

		q_layout:  C.int32_t(d.QLayout),
		kv_layout: C.int32_t(d.KVLayout),
		page_size: C.int32_t(d.PageSize),

		num_q_heads:  C.int32_t(d.NumQHeads),
		num_kv_heads: C.int32_t(d.NumKVHeads),
		head_dim_qk:  C.int32_t(d.HeadDimQK),
		head_dim_v:   C.int32_t(d.HeadDimV),

		max_batch:    C.int64_t(d.MaxBatch),
		max_seqlen_q: C.int64_t(d.MaxSeqlenQ),
		max_seqlen_k: C.int64_t(d.MaxSeqlenK),
		max_total_q:  C.int64_t(d.MaxTotalQ),
		max_total_k:  C.int64_t(d.MaxTotalK),

		softmax_scale: C.float(d.SoftmaxScale),
		softcap:       C.float(d.Softcap),

		alignment:    C.int32_t(d.Alignment),
		window_left:  C.int32_t(d.WindowLeft),
		window_right: C.int32_t(d.WindowRight),
		chunk_size:   C.int32_t(d.ChunkSize),
		sink_tokens:  C.int32_t(d.SinkTokens),
		block_size_q: C.int32_t(d.BlockSizeQ),
		block_size_k: C.int32_t(d.BlockSizeK),

		dropout_p:    C.float(d.DropoutP),
		activation:   C.int32_t(d.Activation),
		silu_divisor: C.float(d.SiLUDivisor),
		lse_base:     C.int32_t(d.LSEBase),

		split_policy: C.int32_t(d.SplitPolicy),
		split_size:   C.int32_t(d.SplitSize),
		determinism:  C.int32_t(d.Determinism),

		q_quant:   quant(d.QQuant),
		k_quant:   quant(d.KQuant),
		v_quant:   quant(d.VQuant),
		out_quant: quant(d.OutQuant),
	}
}

// SDPAArgs are the tensors of one forward pass. "[B, Sq]" stands for a query's place: dense
// [batch, seqlen_q], ragged [total_q]. What belongs to an option that the plan does not have must be
// left zero.
type SDPAArgs struct {
	Q      Tensor // [B, Sq, num_q_heads, head_dim_qk]
	K      Tensor // [B, Sk, num_kv_heads, head_dim_qk], or the pool of a paged layout
	V      Tensor // [B, Sk, num_kv_heads, head_dim_v], or the pool; absent with LatentKV
	Out    Tensor // [B, Sq, num_q_heads, head_dim_v]; written, in a backward pass read
	LSE    Tensor // [B, num_q_heads, Sq] FP32; written, in a backward pass read
	RowMax Tensor // as LSE; written

	Batch int64 // only for ragged q whose CuSeqlensQ has no known length

	CuSeqlensQ    Int32s // Ragged q: [batch + 1]
	CuSeqlensK    Int32s // Ragged k: [batch + 1]
	SeqUsedQ      Int32s // SeqUsedQ: [batch]
	SeqUsedK      Int32s // SeqUsedK, PagedTable: [batch]
	KVPageIndptr  Int32s // PagedCSR: [batch + 1]
	KVPageIndices Int32s // PagedCSR: [kv_page_indptr[batch]]; negative = skip
	KVLastPageLen Int32s // PagedCSR: [batch]
	RNGState      RNGState

	BlockTable   Tensor // PagedTable: Int32 [batch, max_pages_per_seq]; negative = skip
	Mask         Tensor // Uint8 [1|B, 1|Hq, Sq, ceil(Sk / 8)]; bit 1 = visible
	TailMask     Tensor // Uint8 [1|B, 1|Hq, Sq, ceil(Sq / 8)]
	QSegmentIDs  Tensor // Int32 [B, Sq]
	KVSegmentIDs Tensor // Int32 [B, Sk]
	Bias         Tensor // [1|B, 1|Hq, 1|Sq, Sk]
	AlibiSlopes  Tensor // FP32 [Hq] or [B, Hq]
	Sink         Tensor // FP32 [Hq]
	Gate         Tensor // [B, Sq, Hq, 1|head_dim_v]
	BlockCounts  Tensor // Int32 [1|B, 1|Hq, nbq]
	BlockIndices Tensor // Int32 [1|B, 1|Hq, nbq, max_blocks]
	QScale       Tensor
	KScale       Tensor
	VScale       Tensor
	OutScale     Tensor
}

// SDPABackwardArgs are the tensors of one backward pass. Gradients are written in full; those that
// the plan does not compute must be left zero.
type SDPABackwardArgs struct {
	Forward SDPAArgs // what the forward pass was given and gave
	DOut    Tensor   // the gradient that reaches out
	DLSE    Tensor   // GradLSEIn: the gradient that reaches lse
	DQ      Tensor
	DK      Tensor
	DV      Tensor
	DBias   Tensor
	DSink   Tensor
	DGate   Tensor
}

// frame holds the C structs of one call. They are large and escape to the heap, so they are used
// again. None of their pointers is ever set: see shim.h.
type frame struct {
	args   C.attn_sdpa_args
	grads  C.attn_sdpa_backward_args
	merge  C.attn_merge_args
	record C.attn_error
}

var frames = sync.Pool{New: func() any {
	f := new(frame)
	f.args.struct_size = C.sizeof_attn_sdpa_args
	f.grads.struct_size = C.sizeof_attn_sdpa_backward_args
	f.merge.struct_size = C.sizeof_attn_merge_args
	f.record.struct_size = C.sizeof_attn_error
	return f
}}

// set fills the C struct from a view that the plan's device can reach; the error of a wrong view gets
// the argument's name.
func (p *plan) set(c *C.attn_tensor, t *Tensor, name string) error {
	if t.err != nil {
		return named(t.err, name)
	}
	t.to(c)
	return p.reach(t.place, name)
}

func named(err error, name string) error {
	inner := err.(*Error)
	return &Error{
		Status:  inner.Status,
		Field:   name + "." + inner.Field,
		Message: name + ": " + inner.Message,
	}
}

// pageIndices is the list's address. The library wants one even if there is no page, and an empty slice
// may have none: then it gets one that it will not read, as the offsets in Go's memory say.
func (a *SDPAArgs) pageIndices() unsafe.Pointer {
	if a.KVPageIndices.length == 0 && a.KVPageIndptr.slice != nil {
		return a.KVPageIndptr.data
	}
	return a.KVPageIndices.data
}

func (a *SDPAArgs) to(c *C.attn_sdpa_args, p *plan) error {
	batch := a.Batch
	if a.CuSeqlensQ.length > 0 {
		batch = int64(a.CuSeqlensQ.length) - 1
	}
	c.batch = C.int64_t(batch)
	if a.CuSeqlensQ.length == 0 && a.Q.rank > 0 {
		batch = a.Q.shape[0]
	}
	// The library takes bare pointers, so their lengths are checked here. It checks what they say.
	for _, array := range [...]struct {
		name   string
		array  *Int32s
		length int64
	}{
		{"args.cu_seqlens_q", &a.CuSeqlensQ, batch + 1},
		{"args.cu_seqlens_k", &a.CuSeqlensK, batch + 1},
		{"args.seqused_q", &a.SeqUsedQ, batch},
		{"args.seqused_k", &a.SeqUsedK, batch},
		{"args.kv_page_indptr", &a.KVPageIndptr, batch + 1},
		{"args.kv_last_page_len", &a.KVLastPageLen, batch},
	} {
		if given := array.array.length; given > 0 && int64(given) != array.length {
			return invalid(array.name, "%s has %d entries; with %d sequences it must have %d",
				array.name, given, batch, array.length)
		}
		if err := p.reach(array.array.place, array.name); err != nil {
			return err
		}
	}
	if err := p.reach(a.KVPageIndices.place, "args.kv_page_indices"); err != nil {
		return err
	}
	if err := p.reach(a.RNGState.place, "args.rng_state"); err != nil {
		return err
	}
	if indptr := a.KVPageIndptr.slice; len(indptr) > 0 && a.KVPageIndices.length >= 0 {
		good := indptr[0] == 0 && int(indptr[batch]) <= a.KVPageIndices.length
		for i := 1; i < len(indptr); i++ {
			good = good && indptr[i-1] <= indptr[i]
		}
		if !good {
			return invalid("args.kv_page_indptr", "args.kv_page_indptr must start with 0, never fall and "+
				"end within the %d entries of args.kv_page_indices", a.KVPageIndices.length)
		}
	}
	for _, tensor := range [...]struct {
		to   *C.attn_tensor
		from *Tensor
		name string
	}{
		{&c.q, &a.Q, "args.q"}, {&c.k, &a.K, "args.k"}, {&c.v, &a.V, "args.v"},
		{&c.out, &a.Out, "args.out"}, {&c.lse, &a.LSE, "args.lse"},
		{&c.row_max, &a.RowMax, "args.row_max"},
		{&c.block_table, &a.BlockTable, "args.block_table"}, {&c.mask, &a.Mask, "args.mask"},
		{&c.tail_mask, &a.TailMask, "args.tail_mask"},
		{&c.q_segment_ids, &a.QSegmentIDs, "args.q_segment_ids"},
		{&c.kv_segment_ids, &a.KVSegmentIDs, "args.kv_segment_ids"},
		{&c.bias, &a.Bias, "args.bias"}, {&c.alibi_slopes, &a.AlibiSlopes, "args.alibi_slopes"},
		{&c.sink, &a.Sink, "args.sink"}, {&c.gate, &a.Gate, "args.gate"},
		{&c.block_counts, &a.BlockCounts, "args.block_counts"},
		{&c.block_indices, &a.BlockIndices, "args.block_indices"},
		{&c.q_scale, &a.QScale, "args.q_scale"}, {&c.k_scale, &a.KScale, "args.k_scale"},
		{&c.v_scale, &a.VScale, "args.v_scale"}, {&c.out_scale, &a.OutScale, "args.out_scale"},
	} {
		if err := p.set(tensor.to, tensor.from, tensor.name); err != nil {
			return err
		}
	}
	return nil
}

func (a *SDPABackwardArgs) to(c *C.attn_sdpa_backward_args, p *plan) error {
	for _, tensor := range [...]struct {
		to   *C.attn_tensor
		from *Tensor
		name string
	}{
		{&c.dout, &a.DOut, "args.dout"}, {&c.dlse, &a.DLSE, "args.dlse"},
		{&c.dq, &a.DQ, "args.dq"}, {&c.dk, &a.DK, "args.dk"}, {&c.dv, &a.DV, "args.dv"},
		{&c.dbias, &a.DBias, "args.dbias"}, {&c.dsink, &a.DSink, "args.dsink"},
		{&c.dgate, &a.DGate, "args.dgate"},
	} {
		if err := p.set(tensor.to, tensor.from, tensor.name); err != nil {
			return err
		}
	}
	return nil
}

// SDPAPlan says how to compute forward passes of one problem. Any number of goroutines may use it.
type SDPAPlan struct{ *plan }

// SDPABackwardPlan says how to compute backward passes. Any number of goroutines may use it.
type SDPABackwardPlan struct{ *plan }

func (ctx *Context) sdpa(desc *C.attn_sdpa_desc, options *PlanOptions) (p *plan, err error) {
	if err := ctx.handle.acquire(); err != nil {
		return nil, err
	}
	shared := false
	err = options.with(func(o *C.attn_plan_options) error {
		shared = true // newPlan owns the reference now
		p, err = newPlan(ctx.handle, func(c **C.attn_plan, record *C.attn_error) C.int32_t {
			return C.attn_sdpa_plan_create(ctx.handle.c, desc, o, c, record)
		})
		return err
	})
	if !shared {
		ctx.handle.release()
	}
	return p, err
}

// NewSDPA makes a plan for forward passes. options may be nil.
func (ctx *Context) NewSDPA(desc *SDPADesc, options *PlanOptions) (*SDPAPlan, error) {
	p, err := ctx.sdpa(desc.c(C.ATTN_SDPA_FORWARD), options)
	if err != nil {
		return nil, err
	}
	return &SDPAPlan{p}, nil
}

// NewSDPABackward makes a plan for backward passes. options may be nil.
func (ctx *Context) NewSDPABackward(desc *SDPADesc, options *PlanOptions) (*SDPABackwardPlan, error) {
	p, err := ctx.sdpa(desc.c(C.ATTN_SDPA_BACKWARD), options)
	if err != nil {
		return nil, err
	}
	return &SDPABackwardPlan{p}, nil
}

// SDPASupported says whether NewSDPA would succeed, and why not.
func (ctx *Context) SDPASupported(desc *SDPADesc) error {
	return ctx.supported(desc.c(C.ATTN_SDPA_FORWARD))
}

// SDPABackwardSupported says whether NewSDPABackward would succeed, and why not.
func (ctx *Context) SDPABackwardSupported(desc *SDPADesc) error {
	return ctx.supported(desc.c(C.ATTN_SDPA_BACKWARD))
}

func (ctx *Context) supported(desc *C.attn_sdpa_desc) error {
	if err := ctx.handle.acquire(); err != nil {
		return err
	}
	defer ctx.handle.release()
	return check(func(record *C.attn_error) C.int32_t {
		return C.attn_sdpa_supported(ctx.handle.c, desc, nil, record)
	})
}

// Forward computes one forward pass on the CPU; the outputs are written when it returns. With a nil
// workspace the plan lends one.
func (p *SDPAPlan) Forward(args *SDPAArgs, workspace *Workspace) error {
	if err := p.onCPU("Forward"); err != nil {
		return err
	}
	return p.ForwardOn(0, args, workspace)
}

// ForwardOn enqueues one forward pass on a stream and does not wait for it. All memory must be the
// device's: see FromDevice. It must stay untouched until the stream has done the work. On the CPU the
// stream must be 0.
func (p *SDPAPlan) ForwardOn(stream Stream, args *SDPAArgs, workspace *Workspace) error {
	return p.forward(stream, args, workspace, nil)
}

func (p *plan) forward(stream Stream, a *SDPAArgs, workspace *Workspace, tuned **C.attn_plan) error {
	f := frames.Get().(*frame)
	defer frames.Put(f)
	if err := a.to(&f.args, p); err != nil {
		return err
	}
	workspace, giveBack, err := p.borrow(workspace)
	if err != nil {
		return err
	}
	defer giveBack()
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.c == nil {
		return closed("a plan")
	}
	return toError(C.attn_go_sdpa_forward(p.c, &f.args,
		a.Q.data, a.K.data, a.V.data, a.Out.data, a.LSE.data, a.RowMax.data,
		a.CuSeqlensQ.data, a.CuSeqlensK.data, a.SeqUsedQ.data, a.SeqUsedK.data,
		a.KVPageIndptr.data, a.pageIndices(), a.KVLastPageLen.data, a.RNGState.data,
		a.BlockTable.data, a.Mask.data, a.TailMask.data, a.QSegmentIDs.data, a.KVSegmentIDs.data,
		a.Bias.data, a.AlibiSlopes.data, a.Sink.data, a.Gate.data,
		a.BlockCounts.data, a.BlockIndices.data, a.QScale.data, a.KScale.data, a.VScale.data, a.OutScale.data,
		workspace.data, C.size_t(workspace.bytes), C.uintptr_t(stream), tuned, &f.record), &f.record)
}

// Backward computes one backward pass on the CPU; the gradients are written when it returns. With a
// nil workspace the plan lends one.
func (p *SDPABackwardPlan) Backward(args *SDPABackwardArgs, workspace *Workspace) error {
	if err := p.onCPU("Backward"); err != nil {
		return err
	}
	return p.BackwardOn(0, args, workspace)
}

// BackwardOn enqueues one backward pass on a stream: see SDPAPlan.ForwardOn.
func (p *SDPABackwardPlan) BackwardOn(stream Stream, args *SDPABackwardArgs, workspace *Workspace) error {
	return p.backward(stream, args, workspace, nil)
}

func (p *plan) backward(stream Stream, args *SDPABackwardArgs, workspace *Workspace, tuned **C.attn_plan) error {
	f := frames.Get().(*frame)
	defer frames.Put(f)
	a := &args.Forward
	if err := a.to(&f.args, p); err != nil {
		return err
	}
	if err := args.to(&f.grads, p); err != nil {
		return err
	}
	workspace, giveBack, err := p.borrow(workspace)
	if err != nil {
		return err
	}
	defer giveBack()
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.c == nil {
		return closed("a plan")
	}
	return toError(C.attn_go_sdpa_backward(p.c, &f.args, &f.grads,
		a.Q.data, a.K.data, a.V.data, a.Out.data, a.LSE.data, a.RowMax.data,
		a.CuSeqlensQ.data, a.CuSeqlensK.data, a.SeqUsedQ.data, a.SeqUsedK.data,
		a.KVPageIndptr.data, a.pageIndices(), a.KVLastPageLen.data, a.RNGState.data,
		a.BlockTable.data, a.Mask.data, a.TailMask.data, a.QSegmentIDs.data, a.KVSegmentIDs.data,
		a.Bias.data, a.AlibiSlopes.data, a.Sink.data, a.Gate.data,
		a.BlockCounts.data, a.BlockIndices.data, a.QScale.data, a.KScale.data, a.VScale.data, a.OutScale.data,
		args.DOut.data, args.DLSE.data, args.DQ.data, args.DK.data, args.DV.data, args.DBias.data,
		args.DSink.data, args.DGate.data,
		workspace.data, C.size_t(workspace.bytes), C.uintptr_t(stream), tuned, &f.record), &f.record)
}

// Tune times every implementation on these tensors, on the CPU, and gives a new plan with the
// fastest. The outputs hold a right result afterwards. workspace comes from NewTuneWorkspace.
func (p *SDPAPlan) Tune(args *SDPAArgs, workspace *Workspace) (*SDPAPlan, error) {
	if err := p.onCPU("Tune"); err != nil {
		return nil, err
	}
	return p.TuneOn(0, args, workspace)
}

// TuneOn is Tune on a stream, for which it waits. On a GPU, workspace is PlanInfo.TuneWorkspaceBytes
// of the device's memory.
func (p *SDPAPlan) TuneOn(stream Stream, args *SDPAArgs, workspace *Workspace) (*SDPAPlan, error) {
	tuned, err := p.tune(func(c **C.attn_plan) error { return p.forward(stream, args, workspace, c) })
	if err != nil {
		return nil, err
	}
	return &SDPAPlan{tuned}, nil
}

// Tune times every implementation: see SDPAPlan.Tune.
func (p *SDPABackwardPlan) Tune(args *SDPABackwardArgs, workspace *Workspace) (*SDPABackwardPlan, error) {
	if err := p.onCPU("Tune"); err != nil {
		return nil, err
	}
	return p.TuneOn(0, args, workspace)
}

// TuneOn is Tune on a stream: see SDPAPlan.TuneOn.
func (p *SDPABackwardPlan) TuneOn(stream Stream, args *SDPABackwardArgs, workspace *Workspace) (*SDPABackwardPlan, error) {
	tuned, err := p.tune(func(c **C.attn_plan) error { return p.backward(stream, args, workspace, c) })
	if err != nil {
		return nil, err
	}
	return &SDPABackwardPlan{tuned}, nil
}

func (p *plan) tune(run func(**C.attn_plan) error) (*plan, error) {
	var c *C.attn_plan
	if err := run(&c); err != nil {
		return nil, err
	}
	p.context.share()
	return newPlan(p.context, func(to **C.attn_plan, _ *C.attn_error) C.int32_t {
		*to = c
		return C.ATTN_OK
	})
}
