package attn

// #include "shim.h"
import "C"

import "reflect"

// layouts gives the structs as cgo sees them, for the test that compares them with the headers
// (which cannot use cgo itself).
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
