//go:build attn_nopkgconfig

package attn

// #cgo LDFLAGS: -lattn
import "C"
