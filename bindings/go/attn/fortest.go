package attn

// What the tests need of C: cgo cannot be used in test files themselves. Nothing else calls it, so
// it is in no program.

// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"reflect"
	"unsafe"
)

// layouts gives the structs as cgo sees them.
func layouts() map[string]reflect.Type {
	return map[string]reflect.Type{
		"attn_context_desc":       reflect.TypeOf(C.attn_context_desc{}),
		"attn_device_info":        reflect.TypeOf(C.attn_device_info{}),
		"attn_error":              reflect.TypeOf(C.attn_error{}),
		"attn_merge_args":         reflect.TypeOf(C.attn_merge_args{}),
		"attn_merge_desc":         reflect.TypeOf(C.attn_merge_desc{}),
		"attn_plan_info":          reflect.TypeOf(C.attn_plan_info{}),
		"attn_plan_options":       reflect.TypeOf(C.attn_plan_options{}),
		"attn_quant":              reflect.TypeOf(C.attn_quant{}),
		"attn_sdpa_args":          reflect.TypeOf(C.attn_sdpa_args{}),
		"attn_sdpa_backward_args": reflect.TypeOf(C.attn_sdpa_backward_args{}),
		"attn_sdpa_desc":          reflect.TypeOf(C.attn_sdpa_desc{}),
		"attn_tensor":             reflect.TypeOf(C.attn_tensor{}),
	}
}

// abiVersion is what the package was compiled against.
const abiVersion = uint32(C.ATTN_ABI_VERSION)

// foreign is memory that is not Go's, as a GPU's is not; zeroed, and freed with the process.
func foreign(bytes int) uintptr { return uintptr(C.calloc(C.size_t(bytes), 1)) }

// breakPointerRule hands C a struct in Go memory that holds a Go pointer, as this package never does:
// cgo's check must end the program.
func breakPointerRule(plan *plan) {
	args := &C.attn_sdpa_args{struct_size: C.sizeof_attn_sdpa_args}
	args.q.data = unsafe.Pointer(&make([]float32, 1)[0])
	C.attn_sdpa_forward(plan.c, args, nil, 0, nil, nil)
}
