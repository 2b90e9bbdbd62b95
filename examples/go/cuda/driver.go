package main

// A few calls of the CUDA driver, opened at run time, so that the example needs no CUDA toolkit to be
// built. Yours would use a CUDA package.

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

static struct {
	int (*init)(unsigned);
	int (*device_get)(int *, int);
	int (*retain)(void **, int);
	int (*release)(int);
	int (*set_current)(void *);
	int (*alloc)(uint64_t *, size_t);
	int (*free)(uint64_t);
	int (*to_device)(uint64_t, const void *, size_t, void *);
	int (*to_host)(void *, uint64_t, size_t, void *);
	int (*stream_create)(void **, unsigned);
	int (*synchronize)(void *);
	int (*stream_destroy)(void *);
} driver;

// The name of what is missing, or NULL.
static const char *driver_open(void) {
	static const struct { const char *name; void *function; } functions[] = {
		{"cuInit", &driver.init},
		{"cuDeviceGet", &driver.device_get},
		{"cuDevicePrimaryCtxRetain", &driver.retain},
		{"cuDevicePrimaryCtxRelease_v2", &driver.release},
		{"cuCtxSetCurrent", &driver.set_current},
		{"cuMemAlloc_v2", &driver.alloc},
		{"cuMemFree_v2", &driver.free},
		{"cuMemcpyHtoDAsync_v2", &driver.to_device},
		{"cuMemcpyDtoHAsync_v2", &driver.to_host},
		{"cuStreamCreate", &driver.stream_create},
		{"cuStreamSynchronize", &driver.synchronize},
		{"cuStreamDestroy_v2", &driver.stream_destroy},
	};
	void *library = dlopen("libcuda.so.1", RTLD_NOW);
	if (library == NULL) return "libcuda.so.1";
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		void *found = dlsym(library, functions[i].name);
		if (found == NULL) return functions[i].name;
		*(void **)functions[i].function = found;
	}
	return NULL;
}

// The driver's handles are numbers to Go, whose collector does not know them.
static int driver_start(int index, int *device, uint64_t *context, uint64_t *stream) {
	void *primary = NULL, *made = NULL;
	int code = driver.init(0);
	if (code == 0) code = driver.device_get(device, index);
	if (code == 0) code = driver.retain(&primary, *device);
	if (code == 0) code = driver.set_current(primary);
	if (code == 0) code = driver.stream_create(&made, 1); // 1: not ordered with the default stream
	*context = (uintptr_t)primary;
	*stream = (uintptr_t)made;
	return code;
}

// A goroutine may come back on another thread: each call makes the context current on its own.
static int driver_use(uint64_t context) { return driver.set_current((void *)(uintptr_t)context); }

static int driver_alloc(uint64_t context, uint64_t *address, size_t bytes) {
	int code = driver_use(context);
	return code != 0 ? code : driver.alloc(address, bytes);
}

static int driver_free(uint64_t context, uint64_t address) {
	int code = driver_use(context);
	return code != 0 ? code : driver.free(address);
}

// Waits: Go's memory is C's only during the call.
static int driver_copy_in(uint64_t context, uint64_t stream, uint64_t to, const void *from, size_t bytes) {
	int code = driver_use(context);
	if (code == 0) code = driver.to_device(to, from, bytes, (void *)(uintptr_t)stream);
	return code != 0 ? code : driver.synchronize((void *)(uintptr_t)stream);
}

static int driver_copy_out(uint64_t context, uint64_t stream, void *to, uint64_t from, size_t bytes) {
	int code = driver_use(context);
	if (code == 0) code = driver.to_host(to, from, bytes, (void *)(uintptr_t)stream);
	return code != 0 ? code : driver.synchronize((void *)(uintptr_t)stream);
}

static void driver_stop(uint64_t context, uint64_t stream, int device) {
	if (driver_use(context) == 0) driver.stream_destroy((void *)(uintptr_t)stream);
	driver.release(device);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/libattn/libattn/bindings/go/attn"
)

// gpu is a device with a stream, and the memory that is freed with it.
type gpu struct {
	device          C.int
	context, handle C.uint64_t
	blocks          []C.uint64_t
}

func failed(code C.int, what string) error {
	if code == 0 {
		return nil
	}
	return fmt.Errorf("%s failed with CUDA error %d", what, code)
}

func openGPU(index int) (*gpu, error) {
	if missing := C.driver_open(); missing != nil {
		return nil, fmt.Errorf("%s is missing", C.GoString(missing))
	}
	g := &gpu{}
	return g, failed(C.driver_start(C.int(index), &g.device, &g.context, &g.handle), "opening the device")
}

func (g *gpu) stream() attn.Stream { return attn.Stream(g.handle) }

func (g *gpu) allocate(bytes int) (uintptr, error) {
	var address C.uint64_t
	if err := failed(C.driver_alloc(g.context, &address, C.size_t(bytes+1)), "cuMemAlloc"); err != nil {
		return 0, err
	}
	g.blocks = append(g.blocks, address)
	return uintptr(address), nil
}

func (g *gpu) copyIn(to uintptr, from []float32) error {
	return failed(C.driver_copy_in(g.context, g.handle, C.uint64_t(to), unsafe.Pointer(&from[0]), C.size_t(4*len(from))), "a copy to the device")
}

// copyOut waits for all work of the stream.
func (g *gpu) copyOut(to []float32, from uintptr) error {
	return failed(C.driver_copy_out(g.context, g.handle, unsafe.Pointer(&to[0]), C.uint64_t(from), C.size_t(4*len(to))), "a copy from the device")
}

func (g *gpu) close() {
	for _, address := range g.blocks {
		C.driver_free(g.context, address)
	}
	C.driver_stop(g.context, g.handle, g.device)
}
