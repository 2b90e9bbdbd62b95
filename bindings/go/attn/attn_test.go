package attn

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
)

var small = problem{batch: 2, seqlenQ: 13, seqlenK: 37, headsQ: 6, headsK: 2, dim: 32, dimV: 32}

func newContext(t testing.TB, options *ContextOptions) *Context {
	t.Helper()
	if options == nil {
		options = &ContextOptions{Backend: CPU}
	}
	ctx, err := NewContext(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ctx.Close)
	return ctx
}

func newSDPA(t testing.TB, desc *SDPADesc) *SDPAPlan {
	t.Helper()
	plan, err := newContext(t, nil).NewSDPA(desc, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plan.Close)
	return plan
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorkspaceOf(t testing.TB, p *plan) *Workspace {
	t.Helper()
	workspace, err := p.NewWorkspace()
	must(t, err)
	return workspace
}

// expect holds an error to a status, a field and a word of the message.
func expect(t testing.TB, err error, status Status, field, word string) {
	t.Helper()
	if !errors.Is(err, status) {
		t.Fatalf("the error is %v; want status %v", err, status)
	}
	var detail *Error
	if !errors.As(err, &detail) {
		t.Fatalf("%v is no *Error", err)
	}
	if !strings.HasPrefix(detail.Field, field) || !strings.Contains(detail.Message, word) {
		t.Fatalf("field %q, message %q; want %q and %q", detail.Field, detail.Message, field, word)
	}
}

// run computes one forward pass with lse; more adds arguments.
func run[T number](t testing.TB, p problem, desc *SDPADesc, q, k, v []T, more func(*SDPAArgs)) ([]T, []float32) {
	t.Helper()
	desc.Flags |= ReturnLSE
	plan := newSDPA(t, desc)
	out, lse := make([]T, size(p.out())), nans(size(p.lse()))
	args := &SDPAArgs{
		Q: Of(q, p.q()...), K: Of(k, p.k()...), V: Of(v, p.v()...), Out: Of(out, p.out()...),
		LSE: Of(lse, p.lse()...),
	}
	if more != nil {
		more(args)
	}
	must(t, plan.Forward(args, nil))
	return out, lse
}

func inputs[T number](p problem, seed random) (q, k, v []T) {
	return values[T](&seed, size(p.q())), values[T](&seed, size(p.k())), values[T](&seed, size(p.v()))
}

func testType[T number](t *testing.T) {
	q, k, v := inputs[T](small, 1)
	for _, c := range []struct {
		flags  SDPAFlags
		change score
	}{{0, full}, {Causal, small.causal}} {
		desc := small.desc(dtypeOf[T]())
		desc.Flags = c.flags
		out, lse := run(t, small, desc, q, k, v, nil)
		expected := small.forward(wideAll(q), wideAll(k), wideAll(v), c.change, nil)
		assertClose(t, "out", out, expected.out)
		assertClose(t, "lse", lse, expected.lse)
	}
}

func TestForwardFP32(t *testing.T) { testType[float32](t) }
func TestForwardFP16(t *testing.T) { testType[Float16](t) }
func TestForwardBF16(t *testing.T) { testType[BFloat16](t) }

// The CPU multiplies in fp32, which the permission to use TF32 allows.
func TestTF32IsAPermission(t *testing.T) {
	q, k, v := inputs[float32](small, 21)
	plain, _ := run(t, small, small.desc(FP32), q, k, v, nil)
	desc := small.desc(FP32)
	desc.Flags = AllowTF32
	allowed, _ := run(t, small, desc, q, k, v, nil)
	for i := range plain {
		if plain[i] != allowed[i] {
			t.Fatalf("element %d: %v without, %v with", i, plain[i], allowed[i])
		}
	}
}

// More queries than keys: bottom-right causal leaves the first queries without a key.
func TestRowsWithoutAKey(t *testing.T) {
	p := small
	p.seqlenQ, p.seqlenK = 9, 5
	q, k, v := inputs[float32](p, 2)
	desc := p.desc(FP32)
	desc.Flags = Causal
	out, lse := run(t, p, desc, q, k, v, nil)
	expected := p.forward(wideAll(q), wideAll(k), wideAll(v), p.causal, nil)
	if !math.IsInf(expected.lse[0], -1) {
		t.Fatal("the case has no empty row")
	}
	assertClose(t, "out", out, expected.out)
	assertClose(t, "lse", lse, expected.lse)
}

func TestWindowBiasALiBiSoftcapSink(t *testing.T) {
	p := small
	q, k, v := inputs[float32](p, 3)
	seed := random(30)
	bias := values[float32](&seed, p.headsQ*p.seqlenQ*p.seqlenK)
	sink := values[float32](&seed, p.headsQ)
	slopes := make([]float32, p.headsQ)
	for h := range slopes {
		slopes[h] = float32(math.Pow(0.5, float64(h+1)))
	}
	desc := p.desc(FP32)
	desc.Flags = Window | Bias | ALiBi | Sink
	desc.WindowLeft, desc.WindowRight, desc.Softcap = 9, 3, 1.5
	out, lse := run(t, p, desc, q, k, v, func(a *SDPAArgs) {
		a.Bias = Of(bias, 1, p.headsQ, p.seqlenQ, p.seqlenK)
		a.AlibiSlopes = Of(slopes, p.headsQ)
		a.Sink = Of(sink, p.headsQ)
	})
	change := func(_, h, i, j int, s float64) float64 {
		at := i + p.seqlenK - p.seqlenQ
		if j < at-9 || j > at+3 {
			return math.Inf(-1)
		}
		s = 1.5 * math.Tanh(s/1.5)
		return s + float64(bias[(h*p.seqlenQ+i)*p.seqlenK+j]) - float64(slopes[h])*math.Abs(float64(at-j))
	}
	expected := p.forward(wideAll(q), wideAll(k), wideAll(v), change, sink)
	assertClose(t, "out", out, expected.out)
	assertClose(t, "lse", lse, expected.lse)
}

func TestMaskAndSegmentIDs(t *testing.T) {
	p := small
	q, k, v := inputs[float32](p, 4)
	visible := func(b, i, j int) bool { return (b+3*i+5*j)%4 != 0 }
	row := (p.seqlenK + 7) / 8
	mask := make([]uint8, p.batch*p.seqlenQ*row)
	qIDs, kIDs := make([]int32, p.batch*p.seqlenQ), make([]int32, p.batch*p.seqlenK)
	for b := 0; b < p.batch; b++ {
		for i := 0; i < p.seqlenQ; i++ {
			qIDs[b*p.seqlenQ+i] = int32(i / 5)
			for j := 0; j < p.seqlenK; j++ {
				kIDs[b*p.seqlenK+j] = int32(j / 13)
				if visible(b, i, j) {
					mask[(b*p.seqlenQ+i)*row+j/8] |= 1 << (j % 8)
				}
			}
		}
	}
	desc := p.desc(FP32)
	desc.Flags = Mask | SegmentIDs
	out, lse := run(t, p, desc, q, k, v, func(a *SDPAArgs) {
		a.Mask = Of(mask, p.batch, 1, p.seqlenQ, row)
		a.QSegmentIDs = Of(qIDs, p.batch, p.seqlenQ)
		a.KVSegmentIDs = Of(kIDs, p.batch, p.seqlenK)
	})
	expected := p.forward(wideAll(q), wideAll(k), wideAll(v), func(b, _, i, j int, s float64) float64 {
		if visible(b, i, j) && i/5 == j/13 {
			return s
		}
		return math.Inf(-1)
	}, nil)
	assertClose(t, "out", out, expected.out)
	assertClose(t, "lse", lse, expected.lse)
}

// Two sequences of different lengths, packed; then the same keys in pages.
func TestRaggedAndPaged(t *testing.T) {
	const headsQ, headsK, dim, totalQ, totalK = 4, 2, 16, 8, 18
	seed := random(5)
	q := values[float32](&seed, totalQ*headsQ*dim)
	k, v := values[float32](&seed, totalK*headsK*dim), values[float32](&seed, totalK*headsK*dim)
	cuQ, cuK := []int32{0, 3, 8}, []int32{0, 7, 18}
	var expected []float64
	for b := 0; b < 2; b++ {
		p := problem{1, int(cuQ[b+1] - cuQ[b]), int(cuK[b+1] - cuK[b]), headsQ, headsK, dim, dim}
		part := func(x []float32, row int, cu []int32) []float64 {
			return wideAll(x[int(cu[b])*row : int(cu[b+1])*row])
		}
		r := p.forward(part(q, headsQ*dim, cuQ), part(k, headsK*dim, cuK), part(v, headsK*dim, cuK), p.causal, nil)
		expected = append(expected, r.out...)
	}
	desc := SDPADesc{
		Flags: Causal, QDType: FP32, QLayout: Ragged, NumQHeads: headsQ, NumKVHeads: headsK,
		HeadDimQK: dim, MaxBatch: 4, MaxSeqlenQ: 8, MaxSeqlenK: 16, SoftmaxScale: DefaultScale(dim),
	}
	forward := func(name string, desc SDPADesc, args SDPAArgs) {
		t.Helper()
		out := nans(len(q))
		args.Q, args.Out = Of(q, totalQ, headsQ, dim), Of(out, totalQ, headsQ, dim)
		args.CuSeqlensQ = OfInt32s(cuQ)
		must(t, newSDPA(t, &desc).Forward(&args, nil))
		assertClose(t, name, out, expected)
	}
	ragged := desc
	ragged.KVLayout = Ragged
	forward("ragged", ragged, SDPAArgs{
		K: Of(k, totalK, headsK, dim), V: Of(v, totalK, headsK, dim), CuSeqlensK: OfInt32s(cuK),
	})

	// Pages of 4 tokens, used in an odd order; the pool's unused slots hold NaN.
	const page, pages, row = 4, 8, headsK * dim
	table := []int32{6, 1, 7, 2, 0, 5}
	poolK, poolV := nans(pages*page*row), nans(pages*page*row)
	for b := 0; b < 2; b++ {
		for j := 0; j < int(cuK[b+1]-cuK[b]); j++ {
			to, from := (int(table[b*3+j/page])*page+j%page)*row, (int(cuK[b])+j)*row
			copy(poolK[to:to+row], k[from:])
			copy(poolV[to:to+row], v[from:])
		}
	}
	pool := func(x []float32) Tensor { return Of(x, pages, page, headsK, dim) }
	paged := desc
	paged.KVLayout, paged.PageSize = PagedTable, page
	forward("paged table", paged, SDPAArgs{
		K: pool(poolK), V: pool(poolV), SeqUsedK: OfInt32s([]int32{7, 11}), BlockTable: Of(table, 2, 3),
	})
	paged.KVLayout = PagedCSR
	forward("paged CSR", paged, SDPAArgs{
		K: pool(poolK), V: pool(poolV), KVPageIndptr: OfInt32s([]int32{0, 2, 5}),
		KVPageIndices: OfInt32s([]int32{6, 1, 2, 0, 5}), KVLastPageLen: OfInt32s([]int32{3, 3}),
	})

	// Without a page, the list of pages may be empty, but it must be there if there is one.
	idle := SDPAArgs{
		Q: Of(q, totalQ, headsQ, dim), K: pool(poolK), V: pool(poolV),
		CuSeqlensQ: OfInt32s(cuQ), KVPageIndptr: OfInt32s([]int32{0, 0, 0}),
		KVLastPageLen: OfInt32s([]int32{0, 0}),
	}
	for _, indices := range [][]int32{nil, {}} {
		out := nans(len(q))
		idle.Out, idle.KVPageIndices = Of(out, totalQ, headsQ, dim), OfInt32s(indices)
		must(t, newSDPA(t, &paged).Forward(&idle, nil))
		assertClose(t, "no page", out, make([]float64, len(q)))
	}
	idle.KVPageIndptr = OfInt32s([]int32{0, 1, 1})
	expect(t, newSDPA(t, &paged).Forward(&idle, nil), ErrInvalidArgument, "args.kv_page_indptr", "0 entries")
}

// Dropout with p = 0.5: seed and offset decide, and a pass with the same state is the same.
func TestDropoutState(t *testing.T) {
	q, k, v := inputs[float32](small, 6)
	pass := func(seed, offset uint64) []float32 {
		desc := small.desc(FP32)
		desc.Flags, desc.DropoutP = Dropout, 0.5
		out, _ := run(t, small, desc, q, k, v, func(a *SDPAArgs) { a.RNGState = NewRNGState(seed, offset) })
		return out
	}
	same := func(a, b []float32) bool {
		for i := range a {
			if a[i] != b[i] {
				return false
			}
		}
		return true
	}
	first := pass(1, 2)
	if !same(first, pass(1, 2)) || same(first, pass(3, 2)) || same(first, pass(1, 4)) {
		t.Fatal("the random state does not decide the result")
	}
}

func TestStridedViews(t *testing.T) {
	p := small
	q, k, v := inputs[float32](p, 7)
	// As [batch, heads, seqlen, dim] in memory, after 5 elements that are not used.
	transpose := func(x []float32, shape []int) ([]float32, []int) {
		seqlen, heads, dim := shape[1], shape[2], shape[3]
		result := nans(len(x) + 5)
		for index, value := range x {
			d, h, s, b := index%dim, index/dim%heads, index/dim/heads%seqlen, index/dim/heads/seqlen
			result[5+((b*heads+h)*seqlen+s)*dim+d] = value
		}
		return result, []int{heads * seqlen * dim, dim, seqlen * dim, 1}
	}
	view := func(x []float32, shape []int) Tensor {
		y, strides := transpose(x, shape)
		return Strided(y, 5, shape, strides)
	}
	out := nans(size(p.out()) + 5)
	_, strides := transpose(out[5:], p.out())
	must(t, newSDPA(t, p.desc(FP32)).Forward(&SDPAArgs{
		Q: view(q, p.q()), K: view(k, p.k()), V: view(v, p.v()), Out: Strided(out, 5, p.out(), strides),
	}, nil))
	expected := p.forward(wideAll(q), wideAll(k), wideAll(v), full, nil)
	turned := make([]float32, len(out)-5)
	for i, x := range expected.out {
		turned[i] = float32(x)
	}
	turned, _ = transpose(turned, p.out())
	assertClose(t, "out", out[5:], wideAll(turned[5:]))
}

func TestBackward(t *testing.T) {
	p := small
	p.dimV = 24
	q, k, v := inputs[float32](p, 8)
	seed := random(80)
	dout := values[float32](&seed, size(p.out()))
	f := p.forward(wideAll(q), wideAll(k), wideAll(v), p.causal, nil)
	dq, dk, dv := p.backward(wideAll(q), wideAll(k), wideAll(v), f, wideAll(dout))

	desc := p.desc(FP32)
	desc.Flags = Causal
	out, lse := run(t, p, desc, q, k, v, nil)
	desc.Flags = Causal
	ctx := newContext(t, nil)
	plan, err := ctx.NewSDPABackward(desc, nil)
	must(t, err)
	defer plan.Close()
	gq, gk, gv := nans(len(q)), nans(len(k)), nans(len(v))
	args := &SDPABackwardArgs{
		Forward: SDPAArgs{
			Q: Of(q, p.q()...), K: Of(k, p.k()...), V: Of(v, p.v()...), Out: Of(out, p.out()...),
			LSE: Of(lse, p.lse()...),
		},
		DOut: Of(dout, p.out()...), DQ: Of(gq, p.q()...), DK: Of(gk, p.k()...), DV: Of(gv, p.v()...),
	}
	must(t, plan.Backward(args, nil))
	assertClose(t, "dq", gq, dq)
	assertClose(t, "dk", gk, dk)
	assertClose(t, "dv", gv, dv)

	// Only what is asked for; the rest must be absent.
	desc.Grads = GradQ | GradV
	some, err := ctx.NewSDPABackward(desc, nil)
	must(t, err)
	defer some.Close()
	expect(t, some.Backward(args, nil), ErrInvalidArgument, "args.dk", "")
	gq, gv = nans(len(q)), nans(len(v))
	args.DQ, args.DK, args.DV = Of(gq, p.q()...), Tensor{}, Of(gv, p.v()...)
	must(t, some.Backward(args, newWorkspaceOf(t, some.plan)))
	assertClose(t, "dq", gq, dq)
	assertClose(t, "dv", gv, dv)

	workspace, err := plan.NewTuneWorkspace()
	must(t, err)
	args.DK = Of(gk, p.k()...)
	tuned, err := plan.Tune(args, workspace)
	must(t, err)
	defer tuned.Close()
	must(t, tuned.Backward(args, nil))
	assertClose(t, "dk", gk, dk)
}

// Attention over two halves of the keys, merged, is attention over all.
func TestMerge(t *testing.T) {
	p := small
	q, k, v := inputs[float32](p, 9)
	expected := p.forward(wideAll(q), wideAll(k), wideAll(v), full, nil)
	rows := p.batch * p.seqlenQ
	// Parts first in memory: [2, rows, heads, dim]; lse as [2, rows, heads].
	partial, partialLSE := nans(2*rows*p.headsQ*p.dim), nans(2*rows*p.headsQ)
	desc := p.desc(FP32)
	desc.Flags, desc.LSEBase = ReturnLSE, Base2
	plan := newSDPA(t, desc)
	strides := []int{p.seqlenK * p.headsK * p.dim, p.headsK * p.dim, p.dim, 1}
	for part, keys := range [][2]int{{0, 20}, {20, p.seqlenK}} {
		shape := []int{p.batch, keys[1] - keys[0], p.headsK, p.dim}
		offset := keys[0] * p.headsK * p.dim
		must(t, plan.Forward(&SDPAArgs{
			Q: Of(q, p.q()...), K: Strided(k, offset, shape, strides), V: Strided(v, offset, shape, strides),
			Out: Of(partial[part*rows*p.headsQ*p.dim:][:rows*p.headsQ*p.dim], p.out()...),
			LSE: Strided(partialLSE, part*rows*p.headsQ, p.lse(), []int{p.seqlenQ * p.headsQ, 1, p.headsQ}),
		}, nil))
	}
	lse := make([]float64, rows*p.headsQ)
	for x := range lse {
		h, i, b := x%p.headsQ, x/p.headsQ%p.seqlenQ, x/p.headsQ/p.seqlenQ
		lse[x] = expected.lse[(b*p.headsQ+h)*p.seqlenQ+i] / math.Ln2
	}
	ctx := newContext(t, nil)
	mergeDesc := &MergeDesc{
		DType: FP32, Flags: MergeReturnLSE, LSEBase: Base2, NumHeads: int32(p.headsQ),
		HeadDim: int32(p.dim), MaxRows: int64(rows), MaxParts: 2,
	}
	must(t, ctx.MergeSupported(mergeDesc))
	merge, err := ctx.NewMerge(mergeDesc, nil)
	must(t, err)
	defer merge.Close()
	out, outLSE := nans(rows*p.headsQ*p.dim), nans(rows*p.headsQ)
	must(t, merge.Merge(&MergeArgs{
		Partial: Strided(partial, 0, []int{rows, 2, p.headsQ, p.dim},
			[]int{p.headsQ * p.dim, rows * p.headsQ * p.dim, p.dim, 1}),
		PartialLSE: Strided(partialLSE, 0, []int{rows, 2, p.headsQ}, []int{p.headsQ, rows * p.headsQ, 1}),
		Out:        Of(out, rows, p.headsQ, p.dim), OutLSE: Of(outLSE, rows, p.headsQ),
	}, nil))
	assertClose(t, "out", out, expected.out)
	assertClose(t, "lse", outLSE, lse)

	// In place: the second part is merged into the first.
	mergeDesc.Flags |= MergeOther
	into, err := ctx.NewMerge(mergeDesc, nil)
	must(t, err)
	defer into.Close()
	half, halfLSE := rows*p.headsQ*p.dim, rows*p.headsQ
	first, firstLSE := Of(partial[:half], rows, p.headsQ, p.dim), Of(partialLSE[:halfLSE], rows, p.headsQ)
	must(t, into.Merge(&MergeArgs{
		Partial:    Of(partial[half:], rows, 1, p.headsQ, p.dim),
		PartialLSE: Of(partialLSE[halfLSE:], rows, 1, p.headsQ),
		Other:      first, OtherLSE: firstLSE, Out: first, OutLSE: firstLSE,
	}, nil))
	assertClose(t, "out in place", partial[:half], expected.out)
	assertClose(t, "lse in place", partialLSE[:halfLSE], lse)
}

func TestErrorsNameTheField(t *testing.T) {
	ctx := newContext(t, nil)
	plan := func(change func(*SDPADesc)) error {
		desc := small.desc(FP32)
		change(desc)
		plan, err := ctx.NewSDPA(desc, nil)
		if err == nil {
			plan.Close()
		}
		return err
	}
	expect(t, plan(func(d *SDPADesc) { d.NumKVHeads = 4 }), ErrInvalidArgument, "desc.num_kv_heads", "4")
	expect(t, plan(func(d *SDPADesc) { d.SoftmaxScale = 0 }), ErrInvalidArgument, "desc.softmax_scale", "0")
	expect(t, plan(func(d *SDPADesc) { d.Flags = 1 << 63 }), ErrVersion, "desc.flags", "")
	expect(t, plan(func(d *SDPADesc) { d.Flags, d.QDType = AllowTF32, FP16 }), ErrInvalidArgument, "desc.flags", "fp16")
	expect(t, plan(func(d *SDPADesc) { d.Flags, d.Activation, d.SiLUDivisor = ReturnLSE, SiLU, 4 }),
		ErrUnsupported, "desc.flags", "SILU")
	desc := small.desc(FP32)
	desc.DropoutP, desc.Flags = 1.5, Dropout
	expect(t, ctx.SDPASupported(desc), ErrInvalidArgument, "desc.dropout_p", "1.5")
	desc.Flags, desc.DropoutP, desc.NumKVHeads = 0, 0, 5
	expect(t, ctx.SDPABackwardSupported(desc), ErrInvalidArgument, "desc.num_kv_heads", "5")

	_, err := ctx.NewSDPA(small.desc(FP32), &PlanOptions{Implementation: "cpu/sdpa/forward/nonesuch"})
	expect(t, err, ErrInvalidArgument, "options.implementation", "nonesuch")
	_, err = ctx.NewSDPA(small.desc(FP32), &PlanOptions{Tuning: "a\x00b"})
	expect(t, err, ErrInvalidArgument, "options.tuning", "NUL")
	_, err = ctx.NewMerge(&MergeDesc{DType: FP32, NumHeads: 2}, nil)
	expect(t, err, ErrInvalidArgument, "desc.head_dim", "0")

	if errors.Is(err, ErrUnsupported) {
		t.Fatal("a status matches another")
	}
	if text := err.Error(); !strings.HasSuffix(text, "(ATTN_ERROR_INVALID_ARGUMENT)") {
		t.Fatal(text)
	}
	if text := Status(99).Error(); text != "ATTN_ERROR_UNKNOWN (99)" {
		t.Fatal(text)
	}
}

func TestWrongArgumentsLeaveTheOutputAlone(t *testing.T) {
	p := small
	q, k, v := inputs[float32](p, 10)
	plan := newSDPA(t, p.desc(FP32))
	out := make([]float32, size(p.out()))
	good := SDPAArgs{Q: Of(q, p.q()...), K: Of(k, p.k()...), V: Of(v, p.v()...), Out: Of(out, p.out()...)}
	for _, c := range []struct {
		change      func(*SDPAArgs)
		field, word string
	}{
		{func(a *SDPAArgs) { a.K = Of(k, p.batch, p.seqlenK, p.headsK*2, p.dim/2) }, "args.k", "4"},
		{func(a *SDPAArgs) { a.Bias = Of(out[:1], 1) }, "args.bias", ""},
		{func(a *SDPAArgs) { a.Q = Tensor{} }, "args.q", ""},
		{func(a *SDPAArgs) { a.Q = Of(q, 3, 5) }, "args.q.shape", "[3 5]"},
		{func(a *SDPAArgs) { a.SeqUsedK = OfInt32s([]int32{1, 2, 3}) }, "args.seqused_k", "3 entries"},
		{func(a *SDPAArgs) { a.SeqUsedK = OfInt32s([]int32{1, 2}) }, "args.seqused_k", ""},
	} {
		args := good
		c.change(&args)
		expect(t, plan.Forward(&args, nil), ErrInvalidArgument, c.field, c.word)
	}
	for _, x := range out {
		if x != 0 {
			t.Fatal("an output was written")
		}
	}
	must(t, plan.Forward(&good, nil))
}

// What arrays say is checked too, by the library or here: no read astray.
func TestHostileArrays(t *testing.T) {
	desc := SDPADesc{
		QDType: FP32, QLayout: Ragged, KVLayout: Ragged, NumQHeads: 4, HeadDimQK: 16, MaxBatch: 2,
		MaxSeqlenQ: 8, MaxSeqlenK: 8, SoftmaxScale: 1,
	}
	plan := newSDPA(t, &desc)
	data, out := make([]float32, 8*4*16), make([]float32, 8*4*16)
	view := Of(data, 8, 4, 16)
	for _, cu := range [][]int32{{0, 9, 8}, {0, -3, 8}, {1, 4, 8}, {0, 4, 1 << 30}} {
		for _, pair := range [][2][]int32{{cu, {0, 4, 8}}, {{0, 4, 8}, cu}} {
			err := plan.Forward(&SDPAArgs{
				Q: view, K: view, V: view, Out: Of(out, 8, 4, 16),
				CuSeqlensQ: OfInt32s(pair[0]), CuSeqlensK: OfInt32s(pair[1]),
			}, nil)
			expect(t, err, ErrInvalidArgument, "args.cu_seqlens", "")
		}
	}
	desc.QLayout, desc.KVLayout, desc.PageSize, desc.MaxBatch = Dense, PagedCSR, 2, 1
	plan = newSDPA(t, &desc)
	pool := Of(data, 4, 2, 4, 16)
	for _, c := range []struct{ indptr, indices, last []int32 }{
		{[]int32{0, 5}, []int32{0, 1, 2, 3}, []int32{2}},
		{[]int32{0, -1}, []int32{0, 1, 2, 3}, []int32{2}},
		{[]int32{0, 4}, []int32{0, 1, 2, 4}, []int32{2}},
		{[]int32{0, 4}, []int32{0, 1, 2, 3}, []int32{3}},
	} {
		err := plan.Forward(&SDPAArgs{
			Q: Of(data, 1, 8, 4, 16), K: pool, V: pool, Out: Of(out, 1, 8, 4, 16),
			KVPageIndptr: OfInt32s(c.indptr), KVPageIndices: OfInt32s(c.indices),
			KVLastPageLen: OfInt32s(c.last),
		}, nil)
		expect(t, err, ErrInvalidArgument, "args.kv_", "")
	}
}

func TestViews(t *testing.T) {
	data := make([]float32, 24)
	for _, good := range []Tensor{
		Of(data, 2, 3, 4), Of(data, 24), Of(data[:0], 0, 3), Of(data[:0], 3, 0, math.MaxInt),
		Strided(data, 5, []int{3, 6}, []int{6, -1}), Strided(data, 0, []int{5, 24}, []int{0, 1}),
		OfBytes(make([]byte, 12), Int4, 2, 12), OfBytes(make([]byte, 12), FP8E5M2, 12),
	} {
		if err := good.Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i, wrong := range []Tensor{
		Of(data, 2, 3, 5), Of(data), Of(data[:1], 1, 1, 1, 1, 1, 1, 1), Of(data, -2, -12),
		Of(data, math.MaxInt, math.MaxInt), Of(data, 1<<32, 1<<32, 24),
		Strided(data, 6, []int{3, 6}, []int{8, 1}), Strided(data, 4, []int{3, 6}, []int{6, -1}),
		Strided(data, 24, []int{1}, []int{1}), Strided(data, -1, []int{1}, []int{1}),
		Strided(data, 0, []int{2, 3}, []int{math.MinInt, 1}), Strided(data, 0, []int{2}, []int{1, 1}),
		Strided(data, math.MaxInt, []int{2}, []int{1}), OfBytes(make([]byte, 12), FP32, 3),
	} {
		if !errors.Is(wrong.Err(), ErrInvalidArgument) {
			t.Fatalf("view %d is accepted", i)
		}
	}
}

func TestPlanInfoAndTuning(t *testing.T) {
	p := small
	ctx := newContext(t, nil)
	plan, err := ctx.NewSDPA(p.desc(FP32), nil)
	must(t, err)
	defer plan.Close()
	must(t, plan.Prepare())
	info, err := plan.Info()
	must(t, err)
	names, err := plan.Implementations()
	must(t, err)
	if names[0] != info.Implementation || info.Capturable || info.Asynchronous {
		t.Fatalf("%+v of %v", info, names)
	}
	q, k, v := inputs[float32](p, 11)
	expected := p.forward(wideAll(q), wideAll(k), wideAll(v), full, nil)
	out := nans(size(p.out()))
	args := &SDPAArgs{Q: Of(q, p.q()...), K: Of(k, p.k()...), V: Of(v, p.v()...), Out: Of(out, p.out()...)}
	for _, name := range names {
		chosen, err := ctx.NewSDPA(p.desc(FP32), &PlanOptions{Implementation: name})
		must(t, err)
		must(t, chosen.Forward(args, nil))
		assertClose(t, name, out, expected.out)
		line, err := chosen.Export()
		must(t, err)
		chosen.Close()
		again, err := ctx.NewSDPA(p.desc(FP32), &PlanOptions{Tuning: line})
		must(t, err)
		if info, err := again.Info(); err != nil || info.Implementation != name {
			t.Fatalf("%q gives %+v (%v)", line, info, err)
		}
		again.Close()
	}
	workspace, err := plan.NewTuneWorkspace()
	must(t, err)
	out = nans(len(out))
	args.Out = Of(out, p.out()...)
	tuned, err := plan.Tune(args, workspace)
	must(t, err)
	defer tuned.Close()
	assertClose(t, "tuned", out, expected.out)
	must(t, tuned.Forward(args, nil))
}

func TestSmallWorkspace(t *testing.T) {
	p := small
	plan, err := newContext(t, nil).NewSDPABackward(p.desc(FP32), nil)
	must(t, err)
	defer plan.Close()
	info, err := plan.Info()
	must(t, err)
	if info.WorkspaceBytes == 0 {
		t.Fatal("the backward pass needs a workspace")
	}
	q, k, v := inputs[float32](p, 12)
	lse := make([]float32, size(p.lse()))
	args := &SDPABackwardArgs{
		Forward: SDPAArgs{
			Q: Of(q, p.q()...), K: Of(k, p.k()...), V: Of(v, p.v()...), Out: Of(q, p.out()...),
			LSE: Of(lse, p.lse()...),
		},
		DOut: Of(q, p.out()...), DQ: Of(nans(len(q)), p.q()...), DK: Of(nans(len(k)), p.k()...),
		DV: Of(nans(len(v)), p.v()...),
	}
	expect(t, plan.Backward(args, newWorkspace(info.WorkspaceBytes-1, 64)), ErrWorkspace, "", "")
	must(t, plan.Backward(args, newWorkspaceOf(t, plan.plan)))
}

// For -race: one plan, many goroutines, lent and own workspaces.
func TestGoroutinesShareAPlan(t *testing.T) {
	p := small
	ctx := newContext(t, &ContextOptions{Backend: CPU, NumThreads: 2})
	plan, err := ctx.NewSDPA(p.desc(FP32), nil)
	must(t, err)
	defer plan.Close()
	ctx.Close() // the plan keeps what it needs
	var group sync.WaitGroup
	for g := 0; g < 8; g++ {
		group.Add(1)
		go func(g int) {
			defer group.Done()
			var workspace *Workspace
			if g%2 == 0 {
				workspace = newWorkspaceOf(t, plan.plan)
			}
			q, k, v := inputs[float32](p, random(100+g))
			expected := p.forward(wideAll(q), wideAll(k), wideAll(v), full, nil)
			for round := 0; round < 10; round++ {
				out := nans(size(p.out()))
				err := plan.Forward(&SDPAArgs{
					Q: Of(q, p.q()...), K: Of(k, p.k()...), V: Of(v, p.v()...), Out: Of(out, p.out()...),
				}, workspace)
				if err != nil {
					t.Error(err)
					return
				}
				for i, x := range out {
					if !(math.Abs(float64(x)-expected.out[i]) < 1e-5) {
						t.Errorf("goroutine %d: out[%d] is %v, not %v", g, i, x, expected.out[i])
						return
					}
				}
			}
		}(g)
	}
	group.Wait()
}

// Close during executes waits for them, and what comes later gets ErrClosed.
func TestClose(t *testing.T) {
	p := small
	q, k, v := inputs[float32](p, 13)
	ctx, err := NewContext(&ContextOptions{Backend: CPU})
	must(t, err)
	plan, err := ctx.NewSDPA(p.desc(FP32), nil)
	must(t, err)
	ctx.Close()
	ctx.Close()
	_, err = ctx.NewSDPA(p.desc(FP32), nil)
	expect(t, err, ErrClosed, "", "context")
	_, err = ctx.Device()
	expect(t, err, ErrClosed, "", "context")
	var group sync.WaitGroup
	for g := 0; g < 4; g++ {
		group.Add(1)
		go func() {
			defer group.Done()
			out := nans(size(p.out()))
			args := &SDPAArgs{Q: Of(q, p.q()...), K: Of(k, p.k()...), V: Of(v, p.v()...), Out: Of(out, p.out()...)}
			for {
				if err := plan.Forward(args, nil); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		}()
	}
	plan.Close()
	plan.Close()
	group.Wait()
	_, err = plan.Info()
	expect(t, err, ErrClosed, "", "plan")
}

func TestDevices(t *testing.T) {
	count, err := DeviceCount(CPU)
	if err != nil || count != 1 {
		t.Fatal(count, err)
	}
	info, err := QueryDevice(CPU, 0)
	if err != nil || info.Name == "" || info.NumUnits < 1 || info.Backend != CPU {
		t.Fatalf("%+v, %v", info, err)
	}
	_, err = QueryDevice(CPU, 1)
	expect(t, err, ErrInvalidArgument, "", "1")
	_, err = NewContext(&ContextOptions{Backend: 77})
	expect(t, err, ErrInvalidArgument, "desc.backend", "77")
	_, err = NewContext(&ContextOptions{NumThreads: -1, Log: func(LogLevel, string) {}})
	expect(t, err, ErrInvalidArgument, "desc.num_threads", "-1")
	ctx := newContext(t, &ContextOptions{Backend: CPU, NumThreads: 1})
	if info, err := ctx.Device(); err != nil || info.NumUnits != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
}

func TestLog(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	ctx := newContext(t, &ContextOptions{Backend: CPU, LogLevel: LogDebug, Log: func(_ LogLevel, line string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, line)
		panic("a panic in the sink stays there")
	}})
	plan, err := ctx.NewSDPA(small.desc(FP32), nil)
	must(t, err)
	defer plan.Close()
	info, err := plan.Info()
	must(t, err)
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(strings.Join(lines, "\n"), info.Implementation) {
		t.Fatalf("%q does not name %s", lines, info.Implementation)
	}
}

// An execute of a plan allocates nothing to speak of: the C structs are used again.
func TestForwardAllocations(t *testing.T) {
	p := small
	q, k, v := inputs[float32](p, 14)
	out := nans(size(p.out()))
	plan := newSDPA(t, p.desc(FP32))
	args := &SDPAArgs{Q: Of(q, p.q()...), K: Of(k, p.k()...), V: Of(v, p.v()...), Out: Of(out, p.out()...)}
	var before, after runtime.MemStats
	const rounds = 100
	must(t, plan.Forward(args, nil))
	runtime.ReadMemStats(&before)
	for i := 0; i < rounds; i++ {
		must(t, plan.Forward(args, nil))
	}
	runtime.ReadMemStats(&after)
	bytes := (after.TotalAlloc - before.TotalAlloc) / rounds
	t.Logf("%d bytes an execute", bytes)
	// The race detector makes pools drop some of what they hold, workspaces among them.
	if info, _ := plan.Info(); bytes > 4<<10 && bytes > uint64(info.WorkspaceBytes) {
		t.Fatalf("%d bytes an execute", bytes)
	}
}

// The tests would not notice a broken pointer rule if cgo's checks were off: they are on.
func TestPointerChecksAreOn(t *testing.T) {
	const child = "ATTN_TEST_BREAK_POINTER_RULE"
	if os.Getenv(child) != "" {
		breakPointerRule(newSDPA(t, small.desc(FP32)).plan)
		return
	}
	command := exec.Command(os.Args[0], "-test.run=^TestPointerChecksAreOn$")
	command.Env = append(os.Environ(), child+"=1")
	output, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(output), "has Go pointer to") {
		t.Fatalf("the program was not ended by cgo's check (%v): %s", err, output)
	}
}
