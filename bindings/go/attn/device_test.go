package attn

import (
	"testing"
	"unsafe"
)

// newPretended is a context of the CPU that passes for a GPU whose memory is the host's: what comes
// from FromDevice and its like reaches the library, and Go's memory does not.
func newPretended(t testing.TB) *Context {
	ctx := newContext(t, nil)
	ctx.handle.cpu, ctx.handle.backend, ctx.handle.index = false, CUDA, 3
	return ctx
}

// upload copies to memory that is not Go's.
func upload[T any](data []T) uintptr {
	size := int(unsafe.Sizeof(data[0]))
	address := foreign(size*len(data) + 1)
	copy(foreignSlice[T](address, len(data)), data)
	return address
}

func foreignSlice[T any](address uintptr, length int) []T {
	return unsafe.Slice((*T)(devicePointer(address)), length)
}

func TestDeviceMemoryReachesTheLibrary(t *testing.T) {
	p := small
	q, k, v := inputs[float32](p, 31)
	desc := p.desc(FP32)
	desc.Flags = Causal | ReturnLSE
	plan, err := newPretended(t).NewSDPA(desc, nil)
	must(t, err)
	defer plan.Close()
	info, err := plan.Info()
	must(t, err)

	out, lse := foreign(4*size(p.out())), foreign(4*size(p.lse()))
	alignment := uintptr(info.WorkspaceAlignment)
	memory := foreign(info.WorkspaceBytes + info.WorkspaceAlignment)
	workspace := WorkspaceFromDevice((memory+alignment-1)/alignment*alignment, info.WorkspaceBytes)
	// k runs backwards through its tokens.
	row := p.headsK * p.dim
	last := upload(k) + uintptr(4*(p.seqlenK-1)*row)
	args := &SDPAArgs{
		Q: FromDevice(upload(q), FP32, p.q()...),
		K: FromDeviceStrided(last, FP32, p.k(), []int{p.seqlenK * row, -row, p.dim, 1}),
		V: FromDevice(upload(v), FP32, p.v()...), Out: FromDevice(out, FP32, p.out()...),
		LSE: FromDevice(lse, FP32, p.lse()...),
	}
	must(t, plan.ForwardOn(0, args, workspace))
	backwards := make([]float32, len(k))
	for b := 0; b < p.batch; b++ {
		for j := 0; j < p.seqlenK; j++ {
			copy(backwards[(b*p.seqlenK+j)*row:][:row], k[(b*p.seqlenK+p.seqlenK-1-j)*row:][:row])
		}
	}
	expected := p.forward(wideAll(q), wideAll(backwards), wideAll(v), p.causal, nil)
	assertClose(t, "out", foreignSlice[float32](out, size(p.out())), expected.out)
	assertClose(t, "lse", foreignSlice[float32](lse, size(p.lse())), expected.lse)

	// Streams too: any number, which the CPU refuses.
	for _, stream := range []Stream{1, 2, 0x7f0012345678} {
		expect(t, plan.ForwardOn(stream, args, workspace), ErrInvalidArgument, "stream", "CPU")
	}
	expect(t, plan.Forward(args, workspace), ErrUnsupported, "", "ForwardOn")
	_, err = plan.Tune(args, workspace)
	expect(t, err, ErrUnsupported, "", "TuneOn")
	tuneBytes := info.TuneWorkspaceBytes
	memory = (foreign(tuneBytes+info.WorkspaceAlignment) + alignment - 1) / alignment * alignment
	tuned, err := plan.TuneOn(0, args, WorkspaceFromDevice(memory, tuneBytes))
	must(t, err)
	tuned.Close()
	if info.WorkspaceBytes > 0 {
		expect(t, plan.ForwardOn(0, args, nil), ErrWorkspace, "workspace", "WorkspaceFromDevice")
	}
}

func TestDeviceArraysReachTheLibrary(t *testing.T) {
	p := problem{batch: 2, seqlenQ: 4, seqlenK: 8, headsQ: 2, headsK: 2, dim: 8, dimV: 8}
	q, k, v := inputs[float32](p, 32)
	desc := p.desc(FP32)
	desc.Flags = SeqUsedK | Dropout
	desc.DropoutP = 0.25
	run := func(ctx *Context, args *SDPAArgs) {
		t.Helper()
		plan, err := ctx.NewSDPA(desc, nil)
		must(t, err)
		defer plan.Close()
		info, err := plan.Info()
		must(t, err)
		var workspace *Workspace
		if !ctx.handle.cpu {
			workspace = WorkspaceFromDevice(foreign(info.WorkspaceBytes+4096)/4096*4096+4096, info.WorkspaceBytes)
		}
		must(t, plan.ForwardOn(0, args, workspace))
	}
	used := []int32{3, 8}
	expected := make([]float32, size(p.out()))
	run(newContext(t, nil), &SDPAArgs{
		Q: Of(q, p.q()...), K: Of(k, p.k()...), V: Of(v, p.v()...), Out: Of(expected, p.out()...),
		SeqUsedK: OfInt32s(used), RNGState: NewRNGState(5, 6),
	})
	out := foreign(4 * size(p.out()))
	args := &SDPAArgs{
		Q: FromDevice(upload(q), FP32, p.q()...), K: FromDevice(upload(k), FP32, p.k()...),
		V: FromDevice(upload(v), FP32, p.v()...), Out: FromDevice(out, FP32, p.out()...),
		SeqUsedK: Int32sFromDevice(upload(used), 2), RNGState: RNGStateFromDevice(upload([]uint64{5, 6})),
	}
	run(newPretended(t), args)
	for i, x := range foreignSlice[float32](out, size(p.out())) {
		if x != expected[i] {
			t.Fatalf("element %d is %v; Go's memory gave %v", i, x, expected[i])
		}
	}
	plan, err := newPretended(t).NewSDPA(desc, nil)
	must(t, err)
	defer plan.Close()
	args.SeqUsedK = Int32sFromDevice(upload(used), 1)
	expect(t, plan.ForwardOn(0, args, nil), ErrInvalidArgument, "args.seqused_k", "1 entries")
}

func TestMemoryOfTheWrongPlace(t *testing.T) {
	p := small
	q, k, v := inputs[float32](p, 33)
	out := make([]float32, size(p.out()))
	desc := p.desc(FP32)
	args := func() *SDPAArgs {
		return &SDPAArgs{
			Q: FromDevice(4096, FP32, p.q()...), K: FromDevice(4096, FP32, p.k()...),
			V: FromDevice(4096, FP32, p.v()...), Out: FromDevice(4096, FP32, p.out()...),
		}
	}
	gpu, err := newPretended(t).NewSDPA(desc, nil)
	must(t, err)
	defer gpu.Close()
	for field, change := range map[string]func(*SDPAArgs){
		"args.k":               func(a *SDPAArgs) { a.K = Of(k, p.k()...) },
		"args.out":             func(a *SDPAArgs) { a.Out = Of(out, p.out()...) },
		"args.seqused_k":       func(a *SDPAArgs) { a.SeqUsedK = OfInt32s([]int32{1, 2}) },
		"args.kv_page_indices": func(a *SDPAArgs) { a.KVPageIndices = OfInt32s([]int32{1, 2}) },
		"args.rng_state":       func(a *SDPAArgs) { a.RNGState = NewRNGState(1, 2) },
	} {
		a := args()
		change(a)
		expect(t, gpu.ForwardOn(0, a, nil), ErrInvalidArgument, field, "device 3 of CUDA")
	}
	expect(t, gpu.ForwardOn(0, args(), newWorkspace(64, 64)), ErrInvalidArgument, "workspace", "Go's memory")
	_, err = gpu.NewWorkspace()
	expect(t, err, ErrInvalidArgument, "workspace", "FromDevice")
	_, err = gpu.NewTuneWorkspace()
	expect(t, err, ErrInvalidArgument, "workspace", "FromDevice")

	cpu := newSDPA(t, desc)
	a := &SDPAArgs{Q: Of(q, p.q()...), K: Of(k, p.k()...), V: FromDevice(4096, FP32, p.v()...), Out: Of(out, p.out()...)}
	expect(t, cpu.Forward(a, nil), ErrInvalidArgument, "args.v", "memory of a GPU")
	a.V = Of(v, p.v()...)
	expect(t, cpu.Forward(a, WorkspaceFromDevice(4096, 64)), ErrInvalidArgument, "workspace", "memory of a GPU")
	must(t, cpu.Forward(a, nil))
	merge, err := newPretended(t).NewMerge(&MergeDesc{DType: FP32, NumHeads: 1, HeadDim: 4, MaxRows: 1, MaxParts: 1}, nil)
	must(t, err)
	defer merge.Close()
	one := []float32{1, 2, 3, 4}
	expect(t, merge.MergeOn(0, &MergeArgs{Partial: Of(one, 1, 1, 1, 4)}, nil), ErrInvalidArgument, "args.partial", "CUDA")
	expect(t, merge.Merge(&MergeArgs{}, nil), ErrUnsupported, "", "MergeOn")
}

// The device is chosen at the context, and a backend that is not there says why.
func TestDeviceSelection(t *testing.T) {
	if count, err := DeviceCount(CUDA); err == nil && count > 0 {
		for index := 0; index < count; index++ {
			ctx := newContext(t, &ContextOptions{Backend: CUDA, DeviceIndex: int32(index)})
			info, err := ctx.Device()
			must(t, err)
			if info.Backend != CUDA || info.DeviceIndex != int32(index) {
				t.Fatalf("%+v is not CUDA device %d", info, index)
			}
		}
		_, err = NewContext(&ContextOptions{Backend: CUDA, DeviceIndex: int32(count)})
		expect(t, err, ErrInvalidArgument, "", "")
		return
	}
	_, err := NewContext(&ContextOptions{Backend: CUDA})
	expect(t, err, ErrBackendUnavailable, "backend", "")
	if CUDA.String() != "CUDA" || Backend(9).String() != "backend 9" {
		t.Fatalf("names: %v, %v", CUDA, Backend(9))
	}
}
