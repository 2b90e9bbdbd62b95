// Causal attention with libattn: describe, plan, execute; then check the result.
//
// Run it in this repository, where libattn is built in ./build, with
//
//	cd examples/go
//	CGO_CFLAGS=-I$PWD/../../include CGO_LDFLAGS="-L$PWD/../../build -Wl,-rpath,$PWD/../../build" \
//		go run -tags attn_nopkgconfig .
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
	ctx, err := attn.NewContext(&attn.ContextOptions{Backend: attn.CPU})
	if err != nil {
		return err
	}
	defer ctx.Close()
	device, err := ctx.Device()
	if err != nil {
		return err
	}
	fmt.Printf("libattn %s on %s, %d threads\n", attn.Version(), device.Name, device.NumUnits)

	// The problem by its limits: the plan serves every batch and length up to them.
	desc := &attn.SDPADesc{
		Flags:  attn.Causal,
		QDType: attn.FP32, NumQHeads: heads, NumKVHeads: kvHeads, HeadDimQK: dim,
		MaxBatch: batch, MaxSeqlenQ: seqlen, MaxSeqlenK: seqlen,
		SoftmaxScale: attn.DefaultScale(dim),
	}
	plan, err := ctx.NewSDPA(desc, nil)
	if err != nil {
		return err
	}
	defer plan.Close()
	info, err := plan.Info()
	if err != nil {
		return err
	}
	fmt.Printf("plan: %s, %d bytes of workspace\n", info.Implementation, info.WorkspaceBytes)

	// Tensors are views of slices: [batch, seqlen, heads, head_dim].
	q := values(batch*seqlen*heads*dim, 1)
	k := values(batch*seqlen*kvHeads*dim, 2)
	v := values(batch*seqlen*kvHeads*dim, 3)
	out := make([]float32, len(q))
	err = plan.Forward(&attn.SDPAArgs{
		Q:   attn.Of(q, batch, seqlen, heads, dim),
		K:   attn.Of(k, batch, seqlen, kvHeads, dim),
		V:   attn.Of(v, batch, seqlen, kvHeads, dim),
		Out: attn.Of(out, batch, seqlen, heads, dim),
	}, nil) // nil: the plan lends a workspace
	if err != nil {
		return err
	}

	// Errors name the field, the value and the rule.
	desc.NumKVHeads = 3
	_, err = ctx.NewSDPA(desc, nil)
	var detail *attn.Error
	if !errors.Is(err, attn.ErrInvalidArgument) || !errors.As(err, &detail) {
		return fmt.Errorf("3 kv heads for 8 query heads were accepted, or refused for another reason: %v", err)
	}
	fmt.Println("as it should, 3 kv heads are refused:", detail.Message)

	largest := largestDifference(q, k, v, out)
	fmt.Printf("largest difference from plain loops in float64: %.2e\n", largest)
	if !(largest < 1e-5) { // so that NaN fails
		return errors.New("the result is wrong")
	}
	return nil
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
