package attn_test

import (
	"fmt"
	"log"

	"github.com/libattn/libattn/bindings/go/attn"
)

func Example() {
	ctx, err := attn.NewContext(&attn.ContextOptions{Backend: attn.CPU})
	if err != nil {
		log.Fatal(err)
	}
	defer ctx.Close()
	plan, err := ctx.NewSDPA(&attn.SDPADesc{
		Flags: attn.Causal, QDType: attn.FP32, NumQHeads: 1, HeadDimQK: 2,
		MaxBatch: 1, MaxSeqlenQ: 2, MaxSeqlenK: 2, SoftmaxScale: attn.DefaultScale(2),
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer plan.Close()

	// One sequence of two tokens, one head of two elements.
	q, k := []float32{1, 0, 0, 0}, []float32{1, 2, 3, 4}
	v, out := []float32{10, 20, 30, 40}, make([]float32, 4)
	err = plan.Forward(&attn.SDPAArgs{
		Q: attn.Of(q, 1, 2, 1, 2), K: attn.Of(k, 1, 2, 1, 2), V: attn.Of(v, 1, 2, 1, 2),
		Out: attn.Of(out, 1, 2, 1, 2),
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	// The first query sees the first key only; the second is zero and weighs both the same.
	fmt.Printf("%.3f\n", out)
	// Output: [10.000 20.000 20.000 30.000]
}
