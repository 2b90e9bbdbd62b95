package attn

// #include "shim.h"
import "C"

import (
	"runtime"
	"runtime/cgo"
	"strconv"
	"sync"
)

// Backend is where attention is computed.
type Backend int32

// Backends.
const (
	Auto Backend = C.ATTN_BACKEND_AUTO // the first of CUDA, HIP, CPU that is built in and has a device
	CPU  Backend = C.ATTN_BACKEND_CPU
	CUDA Backend = C.ATTN_BACKEND_CUDA
	HIP  Backend = C.ATTN_BACKEND_HIP
)

// String is the backend's name.
func (b Backend) String() string {
	switch b {
	case Auto:
		return "AUTO"
	case CPU:
		return "CPU"
	case CUDA:
		return "CUDA"
	case HIP:
		return "HIP"
	}
	return "backend " + strconv.Itoa(int(b))
}

// LogLevel says how much a log line matters.
type LogLevel int32

// Log levels, in rising detail.
const (
	LogError   LogLevel = C.ATTN_LOG_ERROR
	LogWarning LogLevel = C.ATTN_LOG_WARNING
	LogInfo    LogLevel = C.ATTN_LOG_INFO
	LogDebug   LogLevel = C.ATTN_LOG_DEBUG
)

// ContextOptions are the settings of a context. The zero value is the defaults.
type ContextOptions struct {
	// Backend; default Auto.
	Backend Backend
	// DeviceIndex is the device's number within its backend; default 0.
	DeviceIndex int32
	// NumThreads is for the CPU: threads that one execute may use, the caller's included; 0 is as
	// many as the process may run on.
	NumThreads int32
	// Log receives log lines up to LogLevel, from any goroutine that makes plans. It must not use
	// this package. A panic in it is swallowed: it cannot cross C.
	Log      func(level LogLevel, message string)
	LogLevel LogLevel
}

// DeviceInfo says what a device is.
type DeviceInfo struct {
	Backend      Backend // never Auto
	DeviceIndex  int32
	NumUnits     int32  // CPU: threads in use or usable; GPU: multiprocessors
	MemoryBytes  uint64 // memory of the device in all; 0 if unknown
	Name         string // the maker's name
	Architecture string // CPU: the SIMD target in use; GPU: for example "sm_90"
}

func newDeviceInfo(info *C.attn_device_info) *DeviceInfo {
	return &DeviceInfo{
		Backend:      Backend(info.backend),
		DeviceIndex:  int32(info.device_index),
		NumUnits:     int32(info.num_units),
		MemoryBytes:  uint64(info.memory_bytes),
		Name:         C.GoString(&info.name[0]),
		Architecture: C.GoString(&info.architecture[0]),
	}
}

// DeviceCount says how many devices a backend has.
func DeviceCount(backend Backend) (int, error) {
	if err := load(); err != nil {
		return 0, err
	}
	var count C.int32_t
	err := check(func(record *C.attn_error) C.int32_t {
		return C.attn_device_count(C.int32_t(backend), &count, record)
	})
	return int(count), err
}

// QueryDevice describes a device without creating a context.
func QueryDevice(backend Backend, index int32) (*DeviceInfo, error) {
	if err := load(); err != nil {
		return nil, err
	}
	info := C.attn_device_info{struct_size: C.sizeof_attn_device_info}
	err := check(func(record *C.attn_error) C.int32_t {
		return C.attn_device_query(C.int32_t(backend), C.int32_t(index), &info, record)
	})
	if err != nil {
		return nil, err
	}
	return newDeviceInfo(&info), nil
}

// Context is one device of one backend. Any number of goroutines may use it.
type Context struct {
	handle *contextHandle
	once   sync.Once
}

// contextHandle is the C object, which a context and its plans hold together.
type contextHandle struct {
	mu     sync.Mutex
	c      *C.attn_context
	refs   int
	closed bool // by the user: no new plans
	cpu    bool
	log    cgo.Handle
	// What error messages say of the device.
	backend Backend
	index   int32
}

// NewContext creates a context. options may be nil. Close it when done; a finalizer does if not.
func NewContext(options *ContextOptions) (*Context, error) {
	if err := load(); err != nil {
		return nil, err
	}
	if options == nil {
		options = &ContextOptions{}
	}
	desc := C.attn_context_desc{
		struct_size:  C.sizeof_attn_context_desc,
		backend:      C.int32_t(options.Backend),
		device_index: C.int32_t(options.DeviceIndex),
		num_threads:  C.int32_t(options.NumThreads),
		log_level:    C.int32_t(options.LogLevel),
	}
	handle := &contextHandle{refs: 1}
	if options.Log != nil {
		handle.log = cgo.NewHandle(options.Log)
	}
	err := check(func(record *C.attn_error) C.int32_t {
		return C.attn_go_context_create(&desc, C.uintptr_t(handle.log), &handle.c, record)
	})
	if err != nil {
		if handle.log != 0 {
			handle.log.Delete()
		}
		return nil, err
	}
	ctx := &Context{handle: handle}
	info, err := ctx.Device()
	if err != nil {
		handle.release()
		return nil, err
	}
	handle.cpu, handle.backend, handle.index = info.Backend == CPU, info.Backend, info.DeviceIndex
	runtime.SetFinalizer(ctx, (*Context).Close)
	return ctx, nil
}

// Close lets go of the context: it makes no plans any more. Plans that it made stay usable; the C
// object is freed with the last of them. Closing twice is allowed.
func (ctx *Context) Close() {
	ctx.once.Do(func() {
		runtime.SetFinalizer(ctx, nil)
		ctx.handle.mu.Lock()
		ctx.handle.closed = true
		ctx.handle.mu.Unlock()
		ctx.handle.release()
	})
}

// Device describes the device, with the thread count that it resolved to.
func (ctx *Context) Device() (*DeviceInfo, error) {
	if err := ctx.handle.acquire(); err != nil {
		return nil, err
	}
	defer ctx.handle.release()
	defer runtime.KeepAlive(ctx)
	info := C.attn_device_info{struct_size: C.sizeof_attn_device_info}
	err := check(func(record *C.attn_error) C.int32_t {
		return C.attn_context_query(ctx.handle.c, &info, record)
	})
	if err != nil {
		return nil, err
	}
	return newDeviceInfo(&info), nil
}

// acquire takes one more reference, unless the context is closed.
func (h *contextHandle) acquire() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return closed("a context")
	}
	h.refs++
	return nil
}

// share takes one more reference for a plan made from a living plan.
func (h *contextHandle) share() {
	h.mu.Lock()
	h.refs++
	h.mu.Unlock()
}

func (h *contextHandle) release() {
	h.mu.Lock()
	h.refs--
	last := h.refs == 0
	h.mu.Unlock()
	if last {
		C.attn_context_destroy(h.c)
		if h.log != 0 {
			h.log.Delete()
		}
	}
}

//export attnGoLog
func attnGoLog(handle C.uintptr_t, level C.int32_t, message *C.char) {
	defer func() { _ = recover() }()
	log := cgo.Handle(handle).Value().(func(LogLevel, string))
	log(LogLevel(level), C.GoString(message))
}
