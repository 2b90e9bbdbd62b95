package attn

// #include "shim.h"
import "C"

import (
	"math/bits"
	"unsafe"
)

// MaxRank is the largest number of dimensions.
const MaxRank = C.ATTN_MAX_RANK

// Tensor is a view of memory with a shape and strides. The zero value is "no tensor".
//
// A view that is wrong (a shape that does not fit its slice) carries its error, which Err gives and
// every execute with it returns.
type Tensor struct {
	data   unsafe.Pointer
	dtype  DType
	rank   int
	shape  [MaxRank]int64
	stride [MaxRank]int64
	place  place
	err    error
}

// Of is a contiguous row-major view of the whole slice.
func Of[T Element](data []T, shape ...int) Tensor {
	return contiguous(pointer(data), len(data), dtypeOf[T](), shape)
}

// OfBytes is a contiguous view of bytes as elements of dtype, for types that Go has none of: fp8,
// and int4 and fp4, of which a byte holds two.
func OfBytes(data []byte, dtype DType, shape ...int) Tensor {
	size := dtype.Bits()
	if size != 4 && size != 8 {
		return Tensor{err: invalid("dtype", "%v is not a type of one byte or less; use Of", dtype)}
	}
	return contiguous(pointer(data), len(data)*8/size, dtype, shape)
}

// Strided is a view with strides in elements; element 0 is data[offset]. Strides may be 0 or
// negative, except that elements of an output must not overlap; every element must lie within the
// slice.
func Strided[T Element](data []T, offset int, shape, strides []int) Tensor {
	return strided(pointer(data), len(data), dtypeOf[T](), offset, shape, strides)
}

// FromPointer is a view of memory that Go does not know, such as C's. Nothing about it is checked. For
// a GPU's, see FromDevice.
func FromPointer(data unsafe.Pointer, dtype DType, shape, strides []int) Tensor {
	t := described(dtype, shape, strides)
	t.data = data
	return t
}

// Err is why the view is wrong, or nil.
func (t *Tensor) Err() error { return t.err }

// Shape gives the extents.
func (t *Tensor) Shape() []int64 { return append([]int64(nil), t.shape[:t.rank]...) }

// pointer is the address of the slice's first element; nil if it has none.
func pointer[T any](data []T) unsafe.Pointer {
	if len(data) == 0 {
		return nil
	}
	return unsafe.Pointer(&data[0])
}

func described(dtype DType, shape, strides []int) Tensor {
	t := Tensor{dtype: dtype, rank: len(shape)}
	if t.rank < 1 || t.rank > MaxRank {
		err := invalid("rank", "the shape has %d dimensions; 1 to %d are allowed", t.rank, MaxRank)
		return Tensor{err: err}
	}
	if len(strides) != t.rank {
		err := invalid("stride", "there are %d strides for %d dimensions", len(strides), t.rank)
		return Tensor{err: err}
	}
	for i, extent := range shape {
		if extent < 0 {
			return Tensor{err: invalid("shape", "shape[%d] is %d; it must not be negative", i, extent)}
		}
		t.shape[i], t.stride[i] = int64(extent), int64(strides[i])
	}
	return t
}

func contiguous(data unsafe.Pointer, length int, dtype DType, shape []int) Tensor {
	size, empty := uint64(1), false
	fits := true
	strides := make([]int, len(shape))
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] < 0 {
			return Tensor{err: invalid("shape", "shape[%d] is %d; it must not be negative", i, shape[i])}
		}
		empty = empty || shape[i] == 0
		strides[i] = int(size)
		if shape[i] > 1 {
			high, low := bits.Mul64(size, uint64(shape[i]))
			if high != 0 || low>>63 != 0 {
				fits, low = false, 1
			}
			size = low
		}
	}
	if empty {
		size = 0
	} else if !fits {
		size = ^uint64(0)
	}
	if size != uint64(length) {
		return Tensor{err: invalid("shape", "the shape %v does not hold the slice's %d elements", shape, length)}
	}
	return strided(data, length, dtype, 0, shape, strides)
}

func strided(data unsafe.Pointer, length int, dtype DType, offset int, shape, strides []int) Tensor {
	t := described(dtype, shape, strides)
	if t.err != nil {
		return t
	}
	for _, extent := range shape {
		if extent == 0 {
			return t // no element, no memory
		}
	}
	// The lowest and the highest element reached. A span beyond the slice is wrong already, so
	// nothing can overflow.
	low, high := offset, offset
	if offset >= length {
		low = -1
	}
	for i, extent := range shape {
		step := strides[i]
		distance := uint64(step)
		if step < 0 {
			distance = -distance
		}
		over, span := bits.Mul64(uint64(extent-1), distance)
		if over != 0 || span > uint64(length) {
			low = -1
			break
		}
		if step < 0 {
			low -= int(span)
		} else {
			high += int(span)
		}
	}
	if low < 0 || high >= length {
		return Tensor{err: invalid("stride",
			"the view of shape %v and strides %v from element %d reaches beyond the slice of %d elements",
			shape, strides, offset, length)}
	}
	t.place = inGo
	// Types below a byte have offset 0: only contiguous makes them.
	t.data = unsafe.Add(data, offset*dtype.Bits()/8)
	return t
}

// to fills the C struct, all but the data pointer, which travels as an argument.
func (t *Tensor) to(c *C.attn_tensor) {
	c.data = nil
	c.dtype = C.int32_t(t.dtype)
	c.rank = C.int32_t(t.rank)
	for i := range t.shape {
		c.shape[i] = C.int64_t(t.shape[i])
		c.stride[i] = C.int64_t(t.stride[i])
	}
}

// Int32s is an array of int32: lengths, offsets, page numbers. The zero value is "none".
type Int32s struct {
	data   unsafe.Pointer
	length int // -1: not known
	slice  []int32
	place  place
}

// OfInt32s is the whole slice.
func OfInt32s(data []int32) Int32s {
	return Int32s{data: pointer(data), length: len(data), slice: data, place: inGo}
}

// Int32sFromPointer is memory that Go does not know, such as C's. Its length is the caller's word.
func Int32sFromPointer(data unsafe.Pointer) Int32s { return Int32s{data: data, length: -1} }

// RNGState is the seed and the offset of dropout. The zero value is "none".
type RNGState struct {
	data  unsafe.Pointer
	place place
}

// NewRNGState keeps seed and offset in host memory.
func NewRNGState(seed, offset uint64) RNGState {
	return RNGState{unsafe.Pointer(&[2]uint64{seed, offset}), inGo}
}

// RNGStateFromPointer is two uint64 in memory that Go does not know.
func RNGStateFromPointer(data unsafe.Pointer) RNGState { return RNGState{data: data} }
