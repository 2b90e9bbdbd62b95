package attn

import "unsafe"

// Stream is a stream of the plan's device as its driver gives it: a CUstream or hipStream_t. 0 is the
// default stream, and the only one of the CPU.
type Stream uintptr

// place says whose memory a view is of.
type place int8

const (
	anywhere place = iota // FromPointer and zero values: the caller's word
	inGo
	onDevice
)

// devicePointer is the address of memory that is not Go's, which Go's collector passes over.
func devicePointer(address uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&address))
}

// FromDevice is a contiguous row-major view of memory on a GPU, at an address as its driver gives it
// (a CUdeviceptr). That the memory is there and stays is the caller's word.
func FromDevice(address uintptr, dtype DType, shape ...int) Tensor {
	strides, size := make([]int, len(shape)), 1
	for i := len(shape) - 1; i >= 0; i-- {
		strides[i] = size
		if shape[i] > 1 {
			size *= shape[i]
		}
	}
	return FromDeviceStrided(address, dtype, shape, strides)
}

// FromDeviceStrided is FromDevice with strides in elements; element 0 is at the address.
func FromDeviceStrided(address uintptr, dtype DType, shape, strides []int) Tensor {
	t := FromPointer(devicePointer(address), dtype, shape, strides)
	t.place = onDevice
	return t
}

// Int32sFromDevice is an array of so many int32 on a GPU.
func Int32sFromDevice(address uintptr, length int) Int32s {
	return Int32s{data: devicePointer(address), length: length, place: onDevice}
}

// RNGStateFromDevice is the seed and the offset, two uint64 on a GPU.
func RNGStateFromDevice(address uintptr) RNGState {
	return RNGState{data: devicePointer(address), place: onDevice}
}

// WorkspaceFromDevice is memory on a GPU, aligned as PlanInfo.WorkspaceAlignment says.
func WorkspaceFromDevice(address uintptr, bytes int) *Workspace {
	return &Workspace{data: devicePointer(address), bytes: bytes, place: onDevice}
}

// reach refuses memory that the plan's device cannot reach.
func (p *plan) reach(where place, name string) error {
	switch {
	case where == inGo && !p.context.cpu:
		return invalid(name, "%s is Go's memory, and the plan is for device %d of %v: copy it there and use "+
			"the functions with FromDevice in their names", name, p.context.index, p.context.backend)
	case where == onDevice && p.context.cpu:
		return invalid(name, "%s is memory of a GPU, and the plan is for the CPU", name)
	}
	return nil
}

// onCPU refuses what has no stream on a GPU: there, the work would not be done when the call returns.
func (p *plan) onCPU(what string) error {
	if p.context.cpu {
		return nil
	}
	return &Error{Status: ErrUnsupported, Message: what + " is for the CPU; on a GPU use " + what + "On, with " +
		"the device's memory and a stream"}
}
