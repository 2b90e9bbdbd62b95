//! Views of slices as the library takes them.

use crate::{sys, DType, Element, Error, Result};
use std::ffi::c_void;
use std::marker::PhantomData;

/// A tensor that is read: a view of a slice, with a shape and strides.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    raw: sys::attn_tensor,
    memory: PhantomData<&'a [u8]>,
}

/// A tensor that is written: a view of a mutable slice, with a shape and strides.
#[derive(Debug)]
pub struct TensorMut<'a> {
    raw: sys::attn_tensor,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: they are a shared and an exclusive borrow of memory whose elements are Send and Sync.
unsafe impl Send for Tensor<'_> {}
unsafe impl Sync for Tensor<'_> {}
unsafe impl Send for TensorMut<'_> {}
unsafe impl Sync for TensorMut<'_> {}

impl<'a> Tensor<'a> {
    /// A contiguous row-major view of the whole slice.
    pub fn new<T: Element>(data: &'a [T], shape: impl AsRef<[usize]>) -> Result<Self> {
        let raw = contiguous(data.as_ptr().cast(), data.len(), T::DTYPE, shape.as_ref())?;
        Ok(Tensor { raw, memory: PhantomData })
    }

    /// A view with strides in elements; element 0 is `data[offset]`. Strides may be 0 or negative;
    /// every element must lie within the slice.
    pub fn strided<T: Element>(
        data: &'a [T],
        offset: usize,
        shape: impl AsRef<[usize]>,
        strides: impl AsRef<[isize]>,
    ) -> Result<Self> {
        let (shape, strides) = (shape.as_ref(), strides.as_ref());
        let memory = Memory { data: data.as_ptr().cast(), length: data.len(), dtype: T::DTYPE };
        Ok(Tensor { raw: strided(memory, offset, shape, strides)?, memory: PhantomData })
    }

    /// A contiguous view of bytes as elements of `dtype`, for types that Rust has none of (fp8, and
    /// int4 and fp4, of which a byte holds two).
    pub fn from_bytes(data: &'a [u8], dtype: DType, shape: impl AsRef<[usize]>) -> Result<Self> {
        let raw =
            contiguous(data.as_ptr().cast(), elements(data.len(), dtype)?, dtype, shape.as_ref())?;
        Ok(Tensor { raw, memory: PhantomData })
    }

    /// A contiguous row-major view of a GPU's memory, at an address as its driver gives it (a
    /// CUdeviceptr).
    ///
    /// # Safety
    ///
    /// The memory is valid in the device of the plans it is used with, for reads for `'a`; for a
    /// pass that is enqueued on a stream, until it is done.
    pub unsafe fn from_device(
        address: u64,
        dtype: DType,
        shape: impl AsRef<[usize]>,
    ) -> Result<Self> {
        let raw = on_device(address, dtype, shape.as_ref(), None)?;
        Ok(Tensor { raw, memory: PhantomData })
    }

    /// As [`Tensor::from_device`], with strides in elements; element 0 is at the address.
    ///
    /// # Safety
    ///
    /// As [`Tensor::from_device`].
    pub unsafe fn from_device_strided(
        address: u64,
        dtype: DType,
        shape: impl AsRef<[usize]>,
        strides: impl AsRef<[isize]>,
    ) -> Result<Self> {
        let raw = on_device(address, dtype, shape.as_ref(), Some(strides.as_ref()))?;
        Ok(Tensor { raw, memory: PhantomData })
    }

    /// A view of memory that Rust does not know.
    ///
    /// # Safety
    ///
    /// The memory that the view reaches is valid in the context's device for reads for `'a`.
    pub unsafe fn from_raw(raw: sys::attn_tensor) -> Self {
        Tensor { raw, memory: PhantomData }
    }

    /// The C struct.
    pub fn raw(&self) -> &sys::attn_tensor {
        &self.raw
    }

    /// The extents.
    pub fn shape(&self) -> &[i64] {
        &self.raw.shape[..self.raw.rank as usize]
    }
}

impl<'a> TensorMut<'a> {
    /// A contiguous row-major view of the whole slice.
    pub fn new<T: Element>(data: &'a mut [T], shape: impl AsRef<[usize]>) -> Result<Self> {
        let raw = contiguous(data.as_mut_ptr().cast(), data.len(), T::DTYPE, shape.as_ref())?;
        Ok(TensorMut { raw, memory: PhantomData })
    }

    /// A view with strides in elements; element 0 is `data[offset]`. Every element must lie within
    /// the slice, and no two may be the same.
    pub fn strided<T: Element>(
        data: &'a mut [T],
        offset: usize,
        shape: impl AsRef<[usize]>,
        strides: impl AsRef<[isize]>,
    ) -> Result<Self> {
        let (shape, strides) = (shape.as_ref(), strides.as_ref());
        let memory = Memory { data: data.as_mut_ptr().cast(), length: data.len(), dtype: T::DTYPE };
        let raw = strided(memory, offset, shape, strides)?;
        if overlaps(&raw) {
            return Err(Error::invalid(
                "stride",
                format!(
                    "the strides {strides:?} of shape {shape:?} are not those of an output: each \
                     dimension must step over the whole of the smaller ones"
                ),
            ));
        }
        Ok(TensorMut { raw, memory: PhantomData })
    }

    /// A contiguous view of bytes as elements of `dtype`: see [`Tensor::from_bytes`].
    pub fn from_bytes(
        data: &'a mut [u8],
        dtype: DType,
        shape: impl AsRef<[usize]>,
    ) -> Result<Self> {
        let length = elements(data.len(), dtype)?;
        let raw = contiguous(data.as_mut_ptr().cast(), length, dtype, shape.as_ref())?;
        Ok(TensorMut { raw, memory: PhantomData })
    }

    /// A contiguous row-major view of a GPU's memory: see [`Tensor::from_device`].
    ///
    /// # Safety
    ///
    /// The memory is valid in the device of the plans it is used with, for writes for `'a`, and
    /// nothing else uses it; for a pass that is enqueued on a stream, until it is done.
    pub unsafe fn from_device(
        address: u64,
        dtype: DType,
        shape: impl AsRef<[usize]>,
    ) -> Result<Self> {
        let raw = on_device(address, dtype, shape.as_ref(), None)?;
        Ok(TensorMut { raw, memory: PhantomData })
    }

    /// As [`TensorMut::from_device`], with strides in elements; element 0 is at the address.
    ///
    /// # Safety
    ///
    /// As [`TensorMut::from_device`]; and no two elements are the same.
    pub unsafe fn from_device_strided(
        address: u64,
        dtype: DType,
        shape: impl AsRef<[usize]>,
        strides: impl AsRef<[isize]>,
    ) -> Result<Self> {
        let raw = on_device(address, dtype, shape.as_ref(), Some(strides.as_ref()))?;
        Ok(TensorMut { raw, memory: PhantomData })
    }

    /// A view of memory that Rust does not know.
    ///
    /// # Safety
    ///
    /// The memory that the view reaches is valid in the context's device for writes for `'a`, and
    /// no two elements are the same.
    pub unsafe fn from_raw(raw: sys::attn_tensor) -> Self {
        TensorMut { raw, memory: PhantomData }
    }

    /// The C struct.
    pub fn raw(&self) -> &sys::attn_tensor {
        &self.raw
    }

    /// The extents.
    pub fn shape(&self) -> &[i64] {
        &self.raw.shape[..self.raw.rank as usize]
    }
}

/// What a view looks into; `length` in elements.
struct Memory {
    data: *const c_void,
    length: usize,
    dtype: DType,
}

fn elements(bytes: usize, dtype: DType) -> Result<usize> {
    match dtype.bits() {
        Some(bits @ (4 | 8)) => Ok(bytes * 8 / bits),
        _ => Err(Error::invalid(
            "dtype",
            format!("{dtype} is not a type of one byte or less; use Tensor::new"),
        )),
    }
}

fn contiguous(
    data: *const c_void,
    length: usize,
    dtype: DType,
    shape: &[usize],
) -> Result<sys::attn_tensor> {
    let size = shape.iter().try_fold(1usize, |size, extent| size.checked_mul(*extent));
    if size != Some(length) {
        return Err(Error::invalid(
            "shape",
            format!("the shape {shape:?} does not hold the slice's {length} elements"),
        ));
    }
    let strides = row_major(shape);
    let strides = &strides[..shape.len().min(sys::ATTN_MAX_RANK)];
    strided(Memory { data, length, dtype }, 0, shape, strides)
}

fn row_major(shape: &[usize]) -> [isize; sys::ATTN_MAX_RANK] {
    let mut strides = [1isize; sys::ATTN_MAX_RANK];
    for i in (1..shape.len().min(sys::ATTN_MAX_RANK)).rev() {
        // Extents of 0 count as 1, so that the strides of an empty tensor are distinct; a product
        // that overflows can only belong to one, and its strides are never used.
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1) as isize);
    }
    strides
}

/// A view of memory whose extent is not known here.
fn on_device(
    address: u64,
    dtype: DType,
    shape: &[usize],
    strides: Option<&[isize]>,
) -> Result<sys::attn_tensor> {
    let own = row_major(shape);
    let strides = strides.unwrap_or(&own[..shape.len().min(sys::ATTN_MAX_RANK)]);
    let mut raw = described(dtype, shape, strides)?;
    raw.data = address as usize as *mut c_void;
    Ok(raw)
}

/// A view without memory.
fn described(dtype: DType, shape: &[usize], strides: &[isize]) -> Result<sys::attn_tensor> {
    let rank = shape.len();
    if rank == 0 || rank > sys::ATTN_MAX_RANK {
        return Err(Error::invalid(
            "rank",
            format!("the shape has {rank} dimensions; 1 to {} are allowed", sys::ATTN_MAX_RANK),
        ));
    }
    if strides.len() != rank {
        return Err(Error::invalid(
            "stride",
            format!("there are {} strides for {rank} dimensions", strides.len()),
        ));
    }
    let mut raw = sys::attn_tensor::new();
    raw.dtype = dtype.0;
    raw.rank = rank as i32;
    for i in 0..rank {
        raw.shape[i] = i64::try_from(shape[i]).map_err(|_| {
            Error::invalid("shape", format!("the extent {} is larger than an int64", shape[i]))
        })?;
        raw.stride[i] = strides[i] as i64;
    }
    Ok(raw)
}

fn strided(
    memory: Memory,
    offset: usize,
    shape: &[usize],
    strides: &[isize],
) -> Result<sys::attn_tensor> {
    let mut raw = described(memory.dtype, shape, strides)?;
    // The lowest and the highest element reached, in i128: nothing overflows.
    let (mut low, mut high) = (offset as i128, offset as i128);
    for i in 0..shape.len() {
        let span = (shape[i] as i128 - 1) * strides[i] as i128;
        low += span.min(0);
        high += span.max(0);
    }
    if shape.contains(&0) {
        raw.data = memory.data.cast_mut();
        return Ok(raw);
    }
    if low < 0 || high >= memory.length as i128 {
        return Err(Error::invalid(
            "stride",
            format!(
                "the view of shape {shape:?} and strides {strides:?} from element {offset} reaches \
                 elements {low} to {high} of a slice of {}",
                memory.length
            ),
        ));
    }
    // Types below a byte have offset 0: only `contiguous` makes them.
    let bytes = offset * memory.dtype.bits().unwrap_or(0) / 8;
    raw.data = memory.data.cast_mut().cast::<u8>().wrapping_add(bytes).cast();
    Ok(raw)
}

/// Whether two elements may be the same: some dimension's step is not larger than all that the
/// smaller steps reach. (Sufficient, and every layout in use passes it.)
fn overlaps(raw: &sys::attn_tensor) -> bool {
    let rank = raw.rank as usize;
    if raw.shape[..rank].contains(&0) {
        return false;
    }
    let mut dims: Vec<(i128, i128)> = (0..rank)
        .filter(|i| raw.shape[*i] > 1)
        .map(|i| ((raw.stride[i] as i128).abs(), raw.shape[i] as i128))
        .collect();
    dims.sort_unstable();
    let mut reached = 0;
    for (stride, extent) in dims {
        if stride <= reached {
            return true;
        }
        reached += stride * (extent - 1);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_views() {
        let data = [0f32; 24];
        let view = Tensor::new(&data, [2, 3, 4]).unwrap();
        assert_eq!(view.raw.stride[..3], [12, 4, 1]);
        assert_eq!(view.shape(), [2, 3, 4]);
        assert_eq!(view.raw.dtype, sys::ATTN_DTYPE_FP32);
        let error = Tensor::new(&data, [2, 3, 5]).unwrap_err();
        assert_eq!(error.field(), "shape");
        assert_eq!(Tensor::new(&data, [1; 7]).unwrap_err().field(), "shape");
        assert_eq!(Tensor::new(&data[..1], [1; 7]).unwrap_err().field(), "rank");
        assert_eq!(Tensor::new(&data[..1], []).unwrap_err().field(), "rank");
        assert!(Tensor::new(&data[..0], [0, 3]).is_ok());
        assert!(Tensor::new(&data, [usize::MAX, 3]).is_err());
    }

    #[test]
    fn strided_views_stay_within_the_slice() {
        let data = [0f32; 24];
        let view = Tensor::strided(&data, 5, [3, 6], [6, -1]).unwrap();
        assert_eq!(view.raw.data as usize, data.as_ptr() as usize + 20);
        assert!(Tensor::strided(&data, 6, [3, 6], [8, 1]).is_err());
        assert!(Tensor::strided(&data, 4, [3, 6], [6, -1]).is_err());
        assert!(Tensor::strided(&data, 24, [1], [1]).is_err());
        assert!(Tensor::strided(&data, 0, [2, 3], [isize::MAX, 1]).is_err());
        assert!(Tensor::strided(&data, 0, [5, 24], [0, 1]).is_ok());
    }

    #[test]
    fn views_of_a_device() {
        // SAFETY: nothing reads them.
        unsafe {
            let address = 0x7f00_1234_5600;
            let view = Tensor::from_device(address, DType::BF16, [2, 3, 4]).unwrap();
            assert_eq!(view.raw.data as usize as u64, address);
            assert_eq!((view.raw.stride[..3].to_vec(), view.raw.dtype), (vec![12, 4, 1], 3));
            let view =
                TensorMut::from_device_strided(address, DType::FP32, [2, 3], [1, -2]).unwrap();
            assert_eq!(view.raw.stride[..2], [1, -2]);
            assert_eq!(Tensor::from_device(0, DType::FP32, []).unwrap_err().field(), "rank");
            let error = Tensor::from_device_strided(0, DType::FP32, [2], [1, 1]).unwrap_err();
            assert_eq!(error.field(), "stride");
        }
    }

    #[test]
    fn outputs_may_not_overlap() {
        let mut data = [0f32; 24];
        assert!(TensorMut::strided(&mut data, 0, [4, 6], [1, 4]).is_ok());
        assert!(TensorMut::strided(&mut data, 23, [4, 6], [-6, -1]).is_ok());
        assert!(TensorMut::strided(&mut data, 0, [1, 24], [0, 1]).is_ok());
        let error = TensorMut::strided(&mut data, 0, [2, 12], [0, 1]).unwrap_err();
        assert_eq!(error.field(), "stride");
        assert!(TensorMut::strided(&mut data, 0, [3, 6], [5, 1]).is_err());
    }

    #[test]
    fn bytes_of_small_types() {
        let data = [0u8; 12];
        let view = Tensor::from_bytes(&data, DType::INT4, [2, 12]).unwrap();
        assert_eq!(view.raw.stride[..2], [12, 1]);
        assert!(Tensor::from_bytes(&data, DType::FP8_E5M2, [12]).is_ok());
        assert!(Tensor::from_bytes(&data, DType::FP32, [3]).is_err());
    }
}
