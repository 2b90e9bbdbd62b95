package attn

// #include "shim.h"
import "C"

import (
	"fmt"
	"sync"
)

// Status says why a call failed. Statuses are errors themselves, to be used with errors.Is.
type Status int32

const (
	// ErrInvalidArgument: a field or argument breaks a documented rule.
	ErrInvalidArgument Status = C.ATTN_ERROR_INVALID_ARGUMENT
	// ErrUnsupported: the request is well formed, but no implementation of the backend serves it.
	ErrUnsupported Status = C.ATTN_ERROR_UNSUPPORTED
	// ErrVersion: the program and the library disagree; the library is too old or of another major
	// version.
	ErrVersion Status = C.ATTN_ERROR_VERSION
	// ErrOutOfMemory: host memory ran out.
	ErrOutOfMemory Status = C.ATTN_ERROR_OUT_OF_MEMORY
	// ErrWorkspace: the workspace is too small or misaligned.
	ErrWorkspace Status = C.ATTN_ERROR_WORKSPACE
	// ErrBackendUnavailable: the backend is not in this build, or its driver or device is absent.
	ErrBackendUnavailable Status = C.ATTN_ERROR_BACKEND_UNAVAILABLE
	// ErrDevice: a driver call failed; see Error.BackendCode.
	ErrDevice Status = C.ATTN_ERROR_DEVICE
	// ErrInternal: a defect in libattn.
	ErrInternal Status = C.ATTN_ERROR_INTERNAL
	// ErrClosed: the context or plan was closed. It comes from this package, never from the library.
	ErrClosed Status = -1
)

// Error gives the name, for example "ATTN_ERROR_VERSION".
func (s Status) Error() string {
	if s == ErrClosed {
		return "closed"
	}
	name := C.GoString(C.attn_status_name(C.int32_t(s)))
	if name == "ATTN_ERROR_UNKNOWN" {
		return fmt.Sprintf("%s (%d)", name, int32(s))
	}
	return name
}

// Error is what went wrong, where, and what the rule is.
type Error struct {
	// Status is the kind of failure.
	Status Status
	// Field is the field at fault as C spells it, such as "desc.num_kv_heads"; empty if no single
	// field is.
	Field string
	// Message is one sentence: field, value, rule, and what to do.
	Message string
	// BackendCode is the driver's own code where there is one, else 0.
	BackendCode int
}

// Error gives the message and the status.
func (e *Error) Error() string {
	if e.Message == "" {
		return "attn: " + e.Status.Error()
	}
	return fmt.Sprintf("attn: %s (%s)", e.Message, e.Status.Error())
}

// Unwrap gives the status, so that errors.Is(err, ErrUnsupported) works.
func (e *Error) Unwrap() error { return e.Status }

func invalid(field, format string, args ...any) error {
	return &Error{Status: ErrInvalidArgument, Field: field, Message: fmt.Sprintf(format, args...)}
}

func closed(what string) error {
	return &Error{Status: ErrClosed, Message: what + " was used after Close"}
}

// Error records are 512 bytes and escape to the heap: they are used again.
var records = sync.Pool{New: func() any {
	record := new(C.attn_error)
	record.struct_size = C.sizeof_attn_error
	return record
}}

// check runs a call with an error record and turns its status into an error.
func check(call func(record *C.attn_error) C.int32_t) error {
	record := records.Get().(*C.attn_error)
	defer records.Put(record)
	return toError(call(record), record)
}

func toError(status C.int32_t, record *C.attn_error) error {
	if status == C.ATTN_OK {
		return nil
	}
	return &Error{
		Status:      Status(status),
		Field:       C.GoString(&record.field[0]),
		Message:     C.GoString(&record.message[0]),
		BackendCode: int(record.backend_code),
	}
}

// The ABI is asked once, before anything else.
var (
	abiOnce sync.Once
	abiErr  error
)

func load() error {
	abiOnce.Do(func() { abiErr = checkABI(C.ATTN_ABI_VERSION) })
	return abiErr
}

// checkABI asks the library whether it serves a client of this ABI version.
func checkABI(client uint32) error {
	return check(func(record *C.attn_error) C.int32_t {
		return C.attn_abi_check(C.uint32_t(client), record)
	})
}

// Version is the library's version, for example "0.1.0".
func Version() string { return C.GoString(C.attn_version_string()) }

// BuildInfo is what the library's build holds, one "key: value" a line: for people and bug reports.
func BuildInfo() string { return C.GoString(C.attn_build_info()) }
