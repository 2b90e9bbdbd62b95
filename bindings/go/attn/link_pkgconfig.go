//go:build !attn_nopkgconfig

package attn

// #cgo pkg-config: attn
import "C"
