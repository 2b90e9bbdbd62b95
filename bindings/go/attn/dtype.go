package attn

// #include "shim.h"
import "C"

import "math"

// DType is an element type.
type DType int32

// Element types. Zero asks for the default that a field documents.
const (
	FP32        DType = C.ATTN_DTYPE_FP32
	FP16        DType = C.ATTN_DTYPE_FP16         // Float16
	BF16        DType = C.ATTN_DTYPE_BF16         // BFloat16
	FP8E4M3FN   DType = C.ATTN_DTYPE_FP8_E4M3FN   // OCP: no infinity, largest 448
	FP8E5M2     DType = C.ATTN_DTYPE_FP8_E5M2     // OCP: with infinities, largest 57344
	FP8E4M3FNUZ DType = C.ATTN_DTYPE_FP8_E4M3FNUZ // AMD: no negative zero, largest 240
	FP8E8M0     DType = C.ATTN_DTYPE_FP8_E8M0     // OCP MX block scale: a power of two
	Int8        DType = C.ATTN_DTYPE_INT8
	Int4        DType = C.ATTN_DTYPE_INT4     // two a byte, the even element in the low nibble
	FP4E2M1     DType = C.ATTN_DTYPE_FP4_E2M1 // two a byte, the even element in the low nibble
	Uint8       DType = C.ATTN_DTYPE_UINT8    // masks
	Int32       DType = C.ATTN_DTYPE_INT32    // indices, lengths, ids
	Int64       DType = C.ATTN_DTYPE_INT64
)

// String gives the library's name, for example "bf16".
func (d DType) String() string { return C.GoString(C.attn_dtype_name(C.int32_t(d))) }

// Bits is the size of one element; 0 for an unknown type.
func (d DType) Bits() int { return int(C.attn_dtype_bits(C.int32_t(d))) }

// Float16 holds the bits of an IEEE binary16 number.
type Float16 uint16

// BFloat16 holds the bits of a bfloat16 number: the upper half of a float32.
type BFloat16 uint16

// Element are the types that slices of tensors may have.
type Element interface {
	float32 | Float16 | BFloat16 | int8 | uint8 | int32 | int64
}

func dtypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case float32:
		return FP32
	case Float16:
		return FP16
	case BFloat16:
		return BF16
	case int8:
		return Int8
	case uint8:
		return Uint8
	case int32:
		return Int32
	default:
		return Int64
	}
}

// NewBFloat16 rounds to nearest, ties to even.
func NewBFloat16(x float32) BFloat16 {
	bits := math.Float32bits(x)
	if x != x {
		return BFloat16(bits>>16 | 0x40) // a quiet NaN, whatever its lower bits were
	}
	return BFloat16((bits + 0x7fff + bits>>16&1) >> 16)
}

// Float32 is exact.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }

// NewFloat16 rounds to nearest, ties to even; what is too large becomes an infinity.
func NewFloat16(x float32) Float16 {
	bits := math.Float32bits(x)
	sign := Float16(bits >> 16 & 0x8000)
	magnitude := bits & 0x7fffffff
	switch {
	case magnitude > 0x7f800000: // NaN
		return sign | 0x7e00
	case magnitude >= 0x477ff000: // 65520 and more round to infinity
		return sign | 0x7c00
	case magnitude < 0x38800000: // below 2^-14: a multiple of 2^-24
		units := math.RoundToEven(math.Abs(float64(x)) * (1 << 24))
		return sign | Float16(units)
	}
	rounded := magnitude + 0xfff + magnitude>>13&1
	return sign | Float16((rounded-(112<<23))>>13)
}

// Float32 is exact.
func (h Float16) Float32() float32 {
	sign := uint32(h&0x8000) << 16
	exponent, fraction := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0:
		value := float32(fraction) / (1 << 24)
		return math.Float32frombits(math.Float32bits(value) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}
