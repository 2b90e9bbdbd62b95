// Package attn is attention for training and inference on Go slices: a cgo binding of libattn.
//
// Describe a problem by its limits, make a plan once, execute it as often as needed:
//
//	ctx, err := attn.NewContext(&attn.ContextOptions{Backend: attn.CPU})
//	defer ctx.Close()
//	plan, err := ctx.NewSDPA(&attn.SDPADesc{
//		Flags: attn.Causal, QDType: attn.FP32, NumQHeads: 8, NumKVHeads: 2, HeadDimQK: 64,
//		MaxBatch: 1, MaxSeqlenQ: 128, MaxSeqlenK: 128, SoftmaxScale: 0.125,
//	}, nil)
//	defer plan.Close()
//	err = plan.Forward(&attn.SDPAArgs{
//		Q:   attn.Of(q, 1, 128, 8, 64), // q, k, v, out are []float32
//		K:   attn.Of(k, 1, 128, 2, 64),
//		V:   attn.Of(v, 1, 128, 2, 64),
//		Out: attn.Of(out, 1, 128, 8, 64),
//	}, nil)
//
// # Building
//
// The package asks pkg-config for "attn". With the build tag attn_nopkgconfig it does not, and links
// with -lattn where CGO_CFLAGS and CGO_LDFLAGS say.
//
// # Errors
//
// Failures are *Error: the field at fault, a sentence for people, and a Status. Statuses are
// sentinels: errors.Is(err, attn.ErrUnsupported).
//
// # Goroutines
//
// Contexts and plans may be used by any number of goroutines at once. An execute needs scratch
// memory of its own: pass nil and the plan lends one from a pool, or pass a Workspace that no other
// goroutine uses at the time.
//
// # Memory
//
// On the CPU, tensors are views of Go slices, which the library reads and writes only during the
// call. Every pointer is handed over as an argument of its own, so the package keeps to cgo's
// pointer rules without pinning. A slice must not be part of a Go object that holds Go pointers.
//
// # GPUs
//
// A context of Backend CUDA takes memory of its device, which the caller allocates with any CUDA
// package: tensors come from FromDevice, arrays from Int32sFromDevice, scratch memory from
// WorkspaceFromDevice. ForwardOn and its like enqueue the work on a Stream and do not wait for it. Go's
// memory in a plan for a GPU is an error, and so is the reverse.
//
// # Closing
//
// Context, plans and nothing else hold C memory. Close frees it at once; what is not closed is freed
// by a finalizer some time after it is unreachable. A plan keeps its context alive, whatever the
// order of the Close calls; a Close waits for executes under way.
package attn
