use crate::sys;
use std::fmt;

/// An element type. An integer and not a Rust enum: a newer library may know more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DType(pub i32);

impl DType {
    /// `f32`.
    pub const FP32: DType = DType(sys::ATTN_DTYPE_FP32);
    /// IEEE binary16: `half::f16`.
    pub const FP16: DType = DType(sys::ATTN_DTYPE_FP16);
    /// `half::bf16`.
    pub const BF16: DType = DType(sys::ATTN_DTYPE_BF16);
    /// OCP float8: no infinity, largest 448.
    pub const FP8_E4M3FN: DType = DType(sys::ATTN_DTYPE_FP8_E4M3FN);
    /// OCP float8 with infinities, largest 57344.
    pub const FP8_E5M2: DType = DType(sys::ATTN_DTYPE_FP8_E5M2);
    /// AMD float8: no negative zero, largest 240.
    pub const FP8_E4M3FNUZ: DType = DType(sys::ATTN_DTYPE_FP8_E4M3FNUZ);
    /// OCP MX block scale: a power of two.
    pub const FP8_E8M0: DType = DType(sys::ATTN_DTYPE_FP8_E8M0);
    /// `i8`.
    pub const INT8: DType = DType(sys::ATTN_DTYPE_INT8);
    /// Signed, two a byte, the even element in the low nibble.
    pub const INT4: DType = DType(sys::ATTN_DTYPE_INT4);
    /// OCP float4, two a byte, the even element in the low nibble.
    pub const FP4_E2M1: DType = DType(sys::ATTN_DTYPE_FP4_E2M1);
    /// `u8`: masks.
    pub const UINT8: DType = DType(sys::ATTN_DTYPE_UINT8);
    /// `i32`: indices, lengths, ids.
    pub const INT32: DType = DType(sys::ATTN_DTYPE_INT32);
    /// `i64`.
    pub const INT64: DType = DType(sys::ATTN_DTYPE_INT64);

    /// Bits that one element takes; `None` for a number that this crate does not know.
    pub fn bits(self) -> Option<usize> {
        match self {
            DType::INT4 | DType::FP4_E2M1 => Some(4),
            DType::FP8_E4M3FN
            | DType::FP8_E5M2
            | DType::FP8_E4M3FNUZ
            | DType::FP8_E8M0
            | DType::INT8
            | DType::UINT8 => Some(8),
            DType::FP16 | DType::BF16 => Some(16),
            DType::FP32 | DType::INT32 => Some(32),
            DType::INT64 => Some(64),
            _ => None,
        }
    }

    /// The library's name for it, for example `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            DType::FP32 => "fp32",
            DType::FP16 => "fp16",
            DType::BF16 => "bf16",
            DType::FP8_E4M3FN => "fp8_e4m3fn",
            DType::FP8_E5M2 => "fp8_e5m2",
            DType::FP8_E4M3FNUZ => "fp8_e4m3fnuz",
            DType::FP8_E8M0 => "fp8_e8m0",
            DType::INT8 => "int8",
            DType::INT4 => "int4",
            DType::FP4_E2M1 => "fp4_e2m1",
            DType::UINT8 => "uint8",
            DType::INT32 => "int32",
            DType::INT64 => "int64",
            _ => "unknown",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Rust types that a tensor may hold.
///
/// # Safety
///
/// The type has the size and the bit patterns of [`Element::DTYPE`], and every bit pattern is
/// valid.
pub unsafe trait Element: Copy + Send + Sync + 'static {
    /// The element type that the library sees.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),* $(,)?) => {
        // SAFETY: same size as the dtype, and every bit pattern is a value.
        $(unsafe impl Element for $type { const DTYPE: DType = DType::$dtype; })*
    };
}

elements!(
    f32 => FP32,
    half::f16 => FP16,
    half::bf16 => BF16,
    i8 => INT8,
    u8 => UINT8,
    i32 => INT32,
    i64 => INT64,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_names_are_the_librarys() {
        crate::load().unwrap();
        for number in 1..=13 {
            let dtype = DType(number);
            assert_eq!(dtype.bits(), Some(unsafe { sys::attn_dtype_bits(number) } as usize));
            let name = unsafe { crate::error::string(sys::attn_dtype_name(number)) };
            assert_eq!(dtype.name(), name);
        }
        assert_eq!(DType(99).bits(), None);
    }
}
