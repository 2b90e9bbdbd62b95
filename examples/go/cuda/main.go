// Causal attention on a CUDA device, on a stream of its own; where there is none, on the CPU. Then it
// checks the result.
//
// Run it in this repository, where libattn is built in ./build, with
//
//	cd examples/go
//	CGO_CFLAGS=-I$PWD/../../include CGO_LDFLAGS="-L$PWD/../../build -Wl,-rpath,$PWD/../../build" \
//		go run -tags attn_nopkgconfig ./cuda
package main

import (
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/libattn/libattn/bindings/go/attn"
)

const (
	batch   = 2
	seqlen  = 48
	heads   = 8
	kvHeads = 2 // four query heads share a key head
	dim     = 64
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run() error {
	q := values(batch*seqlen*heads*dim, 1)
	k := values(batch*seqlen*kvHeads*dim, 2)
	v := values(batch*seqlen*kvHeads*dim, 3)
	out := make([]float32, len(q))

	ctx, err := attn.NewContext(&attn.ContextOptions{Backend: attn.CUDA, DeviceIndex: 0})
	attend := onGPU
	if errors.Is(err, attn.ErrBackendUnavailable) {
		fmt.Printf("no CUDA device: ran on the CPU (%v)\n", err)
		ctx, err = attn.NewContext(&attn.ContextOptions{Backend: attn.CPU})
		attend = onCPU
	}
	if err != nil {
		return err
	}
	defer ctx.Close()
	device, err := ctx.Device()
	if err != nil {
		return err
	}

	// The problem by its limits: the plan serves every batch and length up to them.
	plan, err := ctx.NewSDPA(&attn.SDPADesc{
		Flags:  attn.Causal,
		QDType: attn.FP32, NumQHeads: heads, NumKVHeads: kvHeads, HeadDimQK: dim,
		MaxBatch: batch, MaxSeqlenQ: seqlen, MaxSeqlenK: seqlen,
		SoftmaxScale: attn.DefaultScale(dim),
	}, nil)
	if err != nil {
		return err
	}
	defer plan.Close()
	info, err := plan.Info()
	if err != nil {
		return err
	}
	if err := attend(plan, info, q, k, v, out); err != nil {
		return err
	}

	largest := largestDifference(q, k, v, out)
	fmt.Printf("%s on %s: largest difference from plain loops %.2e\n", info.Implementation, device.Name, largest)
	if !(largest < 1e-5) { // so that NaN fails
		return errors.New("the result is wrong")
	}
	return nil
}

// onCPU works on Go's slices.
func onCPU(plan *attn.SDPAPlan, _ *attn.PlanInfo, q, k, v, out []float32) error {
	return plan.Forward(&attn.SDPAArgs{
		Q:   attn.Of(q, batch, seqlen, heads, dim),
		K:   attn.Of(k, batch, seqlen, kvHeads, dim),
		V:   attn.Of(v, batch, seqlen, kvHeads, dim),
		Out: attn.Of(out, batch, seqlen, heads, dim),
	}, nil)
}

// onGPU works on the device's memory, in the order of a stream.
func onGPU(plan *attn.SDPAPlan, info *attn.PlanInfo, q, k, v, out []float32) error {
	gpu, err := openGPU(0)
	if err != nil {
		return err
	}
	defer gpu.close()
	// Loads kernels now, not at the first execute.
	if err := plan.Prepare(); err != nil {
		return err
	}
	var addresses [4]uintptr
	for i, x := range [][]float32{q, k, v, out} {
		if addresses[i], err = gpu.allocate(4 * len(x)); err != nil {
			return err
		}
	}
	// cuMemAlloc aligns to 256 bytes; PlanInfo.WorkspaceAlignment says what the plan needs.
	alignment := uintptr(info.WorkspaceAlignment)
	memory, err := gpu.allocate(info.WorkspaceBytes + info.WorkspaceAlignment)
	if err != nil {
		return err
	}
	memory = (memory + alignment - 1) / alignment * alignment
	for i, x := range [][]float32{q, k, v} {
		if err := gpu.copyIn(addresses[i], x); err != nil {
			return err
		}
	}
	// In the stream's order, after the copies; it returns before the work is done.
	err = plan.ForwardOn(gpu.stream(), &attn.SDPAArgs{
		Q:   attn.FromDevice(addresses[0], attn.FP32, batch, seqlen, heads, dim),
		K:   attn.FromDevice(addresses[1], attn.FP32, batch, seqlen, kvHeads, dim),
		V:   attn.FromDevice(addresses[2], attn.FP32, batch, seqlen, kvHeads, dim),
		Out: attn.FromDevice(addresses[3], attn.FP32, batch, seqlen, heads, dim),
	}, attn.WorkspaceFromDevice(memory, info.WorkspaceBytes))
	if err != nil {
		return err
	}
	return gpu.copyOut(out, addresses[3])
}

// values gives reproducible numbers in [-1, 1).
func values(count int, state uint32) []float32 {
	result := make([]float32, count)
	for i := range result {
		state = state*1664525 + 1013904223
		result[i] = float32(state>>8)/(1<<23) - 1
	}
	return result
}

// largestDifference compares with the definition of attention.
func largestDifference(q, k, v, out []float32) float64 {
	row := func(x []float32, b, token, head, heads int) []float32 {
		return x[((b*seqlen+token)*heads+head)*dim:][:dim]
	}
	largest := 0.0
	for b := 0; b < batch; b++ {
		for i := 0; i < seqlen; i++ {
			for h := 0; h < heads; h++ {
				sums, total := [dim]float64{}, 0.0
				for j := 0; j <= i; j++ { // causal: query i sees keys 0 to i
					dot := 0.0
					for d, x := range row(q, b, i, h, heads) {
						dot += float64(x) * float64(row(k, b, j, h/(heads/kvHeads), kvHeads)[d])
					}
					weight := math.Exp(dot / math.Sqrt(dim))
					total += weight
					for d, x := range row(v, b, j, h/(heads/kvHeads), kvHeads) {
						sums[d] += weight * float64(x)
					}
				}
				for d, x := range row(out, b, i, h, heads) {
					// math.Max keeps NaN.
					largest = math.Max(largest, math.Abs(float64(x)-sums[d]/total))
				}
			}
		}
	}
	return largest
}
