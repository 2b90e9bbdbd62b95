package attn

// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"
)

// PlanOptions are wishes at plan creation. The zero value has none.
type PlanOptions struct {
	// Implementation is the name of the one to use, as Implementations gives it; "" = the best. A
	// name that cannot serve the problem is an error.
	Implementation string
	// Tuning is what Export wrote, any number of lines.
	Tuning string
}

// with calls f with the C struct, which holds C memory only; nil options are a NULL.
func (o *PlanOptions) with(f func(*C.attn_plan_options) error) error {
	if o == nil {
		return f(nil)
	}
	options := C.attn_plan_options{struct_size: C.sizeof_attn_plan_options}
	for _, text := range []struct {
		field, value string
		to           **C.char
	}{
		{"options.implementation", o.Implementation, &options.implementation},
		{"options.tuning", o.Tuning, &options.tuning},
	} {
		if text.value == "" {
			continue
		}
		if strings.IndexByte(text.value, 0) >= 0 {
			return invalid(text.field, "%s contains a NUL character", text.field)
		}
		*text.to = C.CString(text.value)
		defer C.free(unsafe.Pointer(*text.to))
	}
	return f(&options)
}

// PlanInfo says what a plan is.
type PlanInfo struct {
	Deterministic      bool   // the same inputs give the same bits, run after run
	Capturable         bool   // an execute may be captured into a graph; CPU: no
	Asynchronous       bool   // an execute returns before the work is done; CPU: no
	WorkspaceBytes     int    // what every execute needs; may be 0
	WorkspaceAlignment int    // a power of two
	TuneWorkspaceBytes int    // what tuning needs
	Implementation     string // the chosen one's name
}

// plan is what all plans share. It is embedded in the exported types.
type plan struct {
	context *contextHandle
	// Executes hold it for reading; Close waits for them.
	mu         sync.RWMutex
	c          *C.attn_plan
	bytes      int
	alignment  int
	workspaces sync.Pool
}

// newPlan calls a create function with a reference to the context taken.
func newPlan(context *contextHandle, create func(**C.attn_plan, *C.attn_error) C.int32_t) (*plan, error) {
	var c *C.attn_plan
	err := check(func(record *C.attn_error) C.int32_t { return create(&c, record) })
	if err != nil {
		context.release()
		return nil, err
	}
	p := &plan{context: context, c: c}
	info, err := p.query()
	if err != nil {
		p.Close()
		return nil, err
	}
	p.bytes, p.alignment = int(info.workspace_bytes), int(info.workspace_alignment)
	p.workspaces.New = func() any { return newWorkspace(p.bytes, p.alignment) }
	runtime.SetFinalizer(p, (*plan).Close)
	return p, nil
}

// Close frees the plan after the executes under way. Closing twice is allowed.
func (p *plan) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c == nil {
		return
	}
	runtime.SetFinalizer(p, nil)
	C.attn_plan_destroy(p.c)
	p.c = nil
	p.context.release()
}

// use runs f while the plan cannot be closed.
func (p *plan) use(f func(*C.attn_plan) error) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.c == nil {
		return closed("a plan")
	}
	return f(p.c)
}

func (p *plan) query() (*C.attn_plan_info, error) {
	info := &C.attn_plan_info{struct_size: C.sizeof_attn_plan_info}
	err := p.use(func(c *C.attn_plan) error {
		return check(func(record *C.attn_error) C.int32_t {
			return C.attn_plan_query(c, info, record)
		})
	})
	return info, err
}

// Info says what the plan is.
func (p *plan) Info() (*PlanInfo, error) {
	info, err := p.query()
	if err != nil {
		return nil, err
	}
	return &PlanInfo{
		Deterministic:      info.deterministic != 0,
		Capturable:         info.capturable != 0,
		Asynchronous:       info.asynchronous != 0,
		WorkspaceBytes:     int(info.workspace_bytes),
		WorkspaceAlignment: int(info.workspace_alignment),
		TuneWorkspaceBytes: int(info.tune_workspace_bytes),
		Implementation:     C.GoString(info.implementation),
	}, nil
}

// Implementations are the names of all that could serve the problem, best first.
func (p *plan) Implementations() ([]string, error) {
	info, err := p.query()
	if err != nil {
		return nil, err
	}
	names := make([]string, info.num_implementations)
	for i := range names {
		var name *C.char
		err := p.use(func(c *C.attn_plan) error {
			return check(func(record *C.attn_error) C.int32_t {
				return C.attn_plan_implementation(c, C.int32_t(i), &name, record)
			})
		})
		if err != nil {
			return nil, err
		}
		names[i] = C.GoString(name)
	}
	return names, nil
}

// Prepare loads modules ahead of the first execute; on the CPU it does nothing.
func (p *plan) Prepare() error {
	return p.use(func(c *C.attn_plan) error {
		return check(func(record *C.attn_error) C.int32_t { return C.attn_plan_prepare(c, record) })
	})
}

// Export gives the plan's choice as one line of text, which PlanOptions.Tuning takes.
func (p *plan) Export() (string, error) {
	var text []byte
	err := p.use(func(c *C.attn_plan) error {
		var length C.size_t
		err := check(func(record *C.attn_error) C.int32_t {
			return C.attn_plan_export(c, nil, 0, &length, record)
		})
		if err != nil {
			return err
		}
		text = make([]byte, length+1)
		err = check(func(record *C.attn_error) C.int32_t {
			return C.attn_plan_export(c, (*C.char)(unsafe.Pointer(&text[0])), C.size_t(len(text)), &length, record)
		})
		text = text[:length]
		return err
	})
	return string(text), err
}

// NewWorkspace gives scratch memory for executes of this plan on the CPU, one at a time. On a GPU, see
// WorkspaceFromDevice.
func (p *plan) NewWorkspace() (*Workspace, error) {
	if err := p.reach(inGo, "workspace"); err != nil {
		return nil, err
	}
	return newWorkspace(p.bytes, p.alignment), nil
}

// NewTuneWorkspace gives scratch memory for Tune, which needs more.
func (p *plan) NewTuneWorkspace() (*Workspace, error) {
	if err := p.reach(inGo, "workspace"); err != nil {
		return nil, err
	}
	info, err := p.query()
	if err != nil {
		return nil, err
	}
	bytes := int(info.tune_workspace_bytes)
	if bytes < p.bytes {
		bytes = p.bytes
	}
	return newWorkspace(bytes, p.alignment), nil
}

// borrow gives the workspace to use, and what gives it back.
func (p *plan) borrow(workspace *Workspace) (*Workspace, func(), error) {
	if workspace != nil {
		return workspace, func() {}, p.reach(workspace.place, "workspace")
	}
	if !p.context.cpu {
		if p.bytes > 0 {
			return nil, nil, &Error{Status: ErrWorkspace, Field: "workspace", Message: "this plan needs a " +
				"workspace of " + strconv.Itoa(p.bytes) + " bytes in the device's memory: see WorkspaceFromDevice"}
		}
		return &Workspace{}, func() {}, nil
	}
	own := p.workspaces.Get().(*Workspace)
	return own, func() { p.workspaces.Put(own) }, nil
}

// Workspace is scratch memory for one execute at a time. Its contents do not matter.
type Workspace struct {
	data  unsafe.Pointer
	bytes int
	place place
}

func newWorkspace(bytes, alignment int) *Workspace {
	if bytes == 0 {
		return &Workspace{}
	}
	if alignment < 1 {
		alignment = 1
	}
	memory := make([]byte, bytes+alignment-1)
	// Go's heap does not move what it holds.
	skip := -uintptr(unsafe.Pointer(&memory[0])) & uintptr(alignment-1)
	return &Workspace{data: unsafe.Pointer(&memory[skip]), bytes: bytes, place: inGo}
}

// WorkspaceFromPointer is memory that Go does not know, such as C's.
func WorkspaceFromPointer(data unsafe.Pointer, bytes int) *Workspace {
	return &Workspace{data: data, bytes: bytes}
}

// Bytes is its size.
func (w *Workspace) Bytes() int { return w.bytes }
