//! A GPU's streams and arrays. Tensors are in `tensor`, workspaces in `plan`.

use std::ffi::c_void;
use std::marker::PhantomData;

/// A stream of a plan's device: a CUstream or hipStream_t.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream(*mut c_void);

// SAFETY: a driver's handle, which any thread may use.
unsafe impl Send for Stream {}
unsafe impl Sync for Stream {}

impl Stream {
    /// The device's default stream, and the only one of the CPU.
    pub const DEFAULT: Stream = Stream(std::ptr::null_mut());

    /// A stream as its driver gives it.
    ///
    /// # Safety
    ///
    /// It is a stream of the device of the plans it is used with, and lives until they are done.
    pub unsafe fn from_raw(handle: *mut c_void) -> Stream {
        Stream(handle)
    }

    /// The driver's handle.
    pub fn as_ptr(self) -> *mut c_void {
        self.0
    }
}

/// Lengths, offsets or page numbers: a slice, or an array in a GPU's memory.
#[derive(Debug, Clone, Copy)]
pub struct Int32s<'a> {
    data: *const i32,
    length: usize,
    slice: Option<&'a [i32]>,
    memory: PhantomData<&'a [i32]>,
}

// SAFETY: a shared borrow of integers.
unsafe impl Send for Int32s<'_> {}
unsafe impl Sync for Int32s<'_> {}

impl<'a> Int32s<'a> {
    /// An array of so many int32 in a GPU's memory, at an address as its driver gives it (a
    /// CUdeviceptr).
    ///
    /// # Safety
    ///
    /// The memory is valid in the device of the plans it is used with, for reads for `'a`, and holds
    /// what the library documents: it is not checked.
    pub unsafe fn from_device(address: u64, length: usize) -> Self {
        let data = address as usize as *const i32;
        Int32s { data, length, slice: None, memory: PhantomData }
    }

    pub(crate) fn as_ptr(&self) -> *const i32 {
        self.data
    }

    /// How many numbers.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The numbers, unless a GPU has them.
    pub(crate) fn slice(&self) -> Option<&'a [i32]> {
        self.slice
    }
}

impl<'a> From<&'a [i32]> for Int32s<'a> {
    fn from(slice: &'a [i32]) -> Self {
        let (data, length) = (slice.as_ptr(), slice.len());
        Int32s { data, length, slice: Some(slice), memory: PhantomData }
    }
}

impl<'a, const N: usize> From<&'a [i32; N]> for Int32s<'a> {
    fn from(array: &'a [i32; N]) -> Self {
        array.as_slice().into()
    }
}

impl<'a> From<&'a Vec<i32>> for Int32s<'a> {
    fn from(vector: &'a Vec<i32>) -> Self {
        vector.as_slice().into()
    }
}
