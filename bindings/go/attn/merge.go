package attn

// #include "shim.h"
import "C"

// MergeFlags are options of a merge, or'ed together.
type MergeFlags uint64

// Options of a merge.
const (
	MergeOther           MergeFlags = C.ATTN_MERGE_OTHER    // MergeArgs.Other, OtherLSE: one more part
	MergeRowMask         MergeFlags = C.ATTN_MERGE_ROW_MASK // MergeArgs.RowMask
	MergeSink            MergeFlags = C.ATTN_MERGE_SINK     // MergeArgs.Sink joins the denominator, once
	MergeLSEIncludesSink MergeFlags = C.ATTN_MERGE_LSE_INCLUDES_SINK
	MergeReturnLSE       MergeFlags = C.ATTN_MERGE_RETURN_LSE // MergeArgs.OutLSE is written
)

// MergeDesc is a merge of partial results by its limits.
type MergeDesc struct {
	DType    DType // required: of Partial and Other
	Flags    MergeFlags
	OutDType DType   // default DType
	LSEBase  LSEBase // of every lse, in and out
	NumHeads int32   // required
	HeadDim  int32   // required
	MaxRows  int64   // required
	MaxParts int64   // required; Other is not counted
}

func (d *MergeDesc) c() *C.attn_merge_desc {
	return &C.attn_merge_desc{
		struct_size: C.sizeof_attn_merge_desc,
		dtype:       C.int32_t(d.DType),
		flags:       C.uint64_t(d.Flags),
		out_dtype:   C.int32_t(d.OutDType),
		lse_base:    C.int32_t(d.LSEBase),
		num_heads:   C.int32_t(d.NumHeads),
		head_dim:    C.int32_t(d.HeadDim),
		max_rows:    C.int64_t(d.MaxRows),
		max_parts:   C.int64_t(d.MaxParts),
	}
}

// MergeArgs are the tensors of one merge of n rows and s parts.
type MergeArgs struct {
	Partial    Tensor // [n, s, num_heads, head_dim]
	PartialLSE Tensor // [n, s, num_heads], FP32
	// Other and OtherLSE are [n, num_heads, head_dim] and [n, num_heads]. Out and OutLSE may be exactly
	// these: merging in place.
	Other    Tensor
	OtherLSE Tensor
	RowMask  Tensor // Uint8 [n]; where 0, the row's partial parts are left out
	Sink     Tensor // FP32 [num_heads], natural units
	Out      Tensor // [n, num_heads, head_dim]
	OutLSE   Tensor // [n, num_heads], FP32
}

// MergePlan says how to merge. Any number of goroutines may use it.
type MergePlan struct{ *plan }

// NewMerge makes a plan for merges. options may be nil.
func (ctx *Context) NewMerge(desc *MergeDesc, options *PlanOptions) (*MergePlan, error) {
	if err := ctx.handle.acquire(); err != nil {
		return nil, err
	}
	var p *plan
	shared := false
	err := options.with(func(o *C.attn_plan_options) (err error) {
		shared = true // newPlan owns the reference now
		p, err = newPlan(ctx.handle, func(c **C.attn_plan, record *C.attn_error) C.int32_t {
			return C.attn_merge_plan_create(ctx.handle.c, desc.c(), o, c, record)
		})
		return err
	})
	if !shared {
		ctx.handle.release()
	}
	if err != nil {
		return nil, err
	}
	return &MergePlan{p}, nil
}

// MergeSupported says whether NewMerge would succeed, and why not.
func (ctx *Context) MergeSupported(desc *MergeDesc) error {
	if err := ctx.handle.acquire(); err != nil {
		return err
	}
	defer ctx.handle.release()
	return check(func(record *C.attn_error) C.int32_t {
		return C.attn_merge_supported(ctx.handle.c, desc.c(), nil, record)
	})
}

// Merge merges on the CPU; the outputs are written when it returns. With a nil workspace the plan
// lends one.
func (p *MergePlan) Merge(args *MergeArgs, workspace *Workspace) error {
	if err := p.onCPU("Merge"); err != nil {
		return err
	}
	return p.MergeOn(0, args, workspace)
}

// MergeOn enqueues a merge on a stream: see SDPAPlan.ForwardOn.
func (p *MergePlan) MergeOn(stream Stream, args *MergeArgs, workspace *Workspace) error {
	f := frames.Get().(*frame)
	defer frames.Put(f)
	c, a := &f.merge, args
	for _, tensor := range [...]struct {
		to   *C.attn_tensor
		from *Tensor
		name string
	}{
		{&c.partial, &a.Partial, "args.partial"}, {&c.partial_lse, &a.PartialLSE, "args.partial_lse"},
		{&c.other, &a.Other, "args.other"}, {&c.other_lse, &a.OtherLSE, "args.other_lse"},
		{&c.row_mask, &a.RowMask, "args.row_mask"}, {&c.sink, &a.Sink, "args.sink"},
		{&c.out, &a.Out, "args.out"}, {&c.out_lse, &a.OutLSE, "args.out_lse"},
	} {
		if err := p.set(tensor.to, tensor.from, tensor.name); err != nil {
			return err
		}
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
	return toError(C.attn_go_merge(p.c, c, a.Partial.data, a.PartialLSE.data, a.Other.data,
		a.OtherLSE.data, a.RowMask.data, a.Sink.data, a.Out.data, a.OutLSE.data,
		workspace.data, C.size_t(workspace.bytes), C.uintptr_t(stream), &f.record), &f.record)
}
