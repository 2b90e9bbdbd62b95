package attn

import (
	"math"
	"testing"
)

func TestDTypes(t *testing.T) {
	if BF16.String() != "bf16" || FP16.Bits() != 16 || Int4.Bits() != 4 || DType(99).Bits() != 0 {
		t.Fatal("the names or sizes are not the library's")
	}
}

// Every value survives, and what lies between two values rounds to the nearer, ties to even.
func TestHalfConversions(t *testing.T) {
	check := func(name string, back func(uint16) float32, to func(float32) uint16) {
		for bits := 0; bits < 0x8000; bits++ {
			x := back(uint16(bits))
			if math.IsNaN(float64(x)) {
				if !math.IsNaN(float64(back(to(x)))) {
					t.Fatalf("%s: NaN %#x is lost", name, bits)
				}
				continue
			}
			if to(x) != uint16(bits) || to(-x) != uint16(bits)|0x8000 {
				t.Fatalf("%s: %#x becomes %#x", name, bits, to(x))
			}
			next := back(uint16(bits + 1))
			if math.IsInf(float64(x), 0) || math.IsInf(float64(next), 0) {
				continue
			}
			middle := float32((float64(x) + float64(next)) / 2)
			even := uint16(bits + bits&1)
			if to(middle) != even {
				t.Fatalf("%s: the middle after %#x becomes %#x", name, bits, to(middle))
			}
			if above := math.Nextafter32(middle, next); above > middle && to(above) != uint16(bits+1) {
				t.Fatalf("%s: above the middle after %#x comes %#x", name, bits, to(above))
			}
		}
	}
	check("fp16", func(b uint16) float32 { return Float16(b).Float32() },
		func(x float32) uint16 { return uint16(NewFloat16(x)) })
	check("bf16", func(b uint16) float32 { return BFloat16(b).Float32() },
		func(x float32) uint16 { return uint16(NewBFloat16(x)) })
	if NewFloat16(65519) != 0x7bff || NewFloat16(65520) != 0x7c00 || NewFloat16(float32(math.Inf(-1))) != 0xfc00 {
		t.Fatal("fp16 overflows wrongly")
	}
}
