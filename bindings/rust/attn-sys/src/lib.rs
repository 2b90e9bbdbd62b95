//! Raw bindings to [libattn](https://github.com/libattn/libattn), attention as a C library: its
//! functions, structs and constants, one to one. The crate `attn` is the safe interface.
//!
//! Enums are constants of type `i32` (for example [`ATTN_DTYPE_BF16`]), so a value that a newer
//! library returns is a number and never undefined behaviour. Structs that carry a `struct_size`
//! have a `new()` that sets it and leaves the rest zero, which means the defaults.
//!
//! # How the library is found
//!
//! - By default the crate links against `libattn.so`: in the folder that the environment variable
//!   `ATTN_LIB_DIR` names while building, else where `pkg-config attn` says, else where the linker
//!   looks.
//! - With the feature `dlopen` nothing is linked. `load` finds the library at run time, and says
//!   what it tried if it is missing. The functions have the same names and signatures.
//!
//! The feature `bindgen` generates the bindings from the headers (folder `ATTN_INCLUDE_DIR`)
//! instead of taking the committed ones; a test holds the two equal.
#![deny(missing_docs)]

#[cfg(feature = "dlopen")]
mod dynamic;
#[cfg(feature = "dlopen")]
pub use dynamic::{load, load_from, LoadError};

// The comments are the headers' own: not every constant has one, and brackets in them are shapes.
#[allow(missing_docs, non_camel_case_types)]
#[allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]
mod types {
    #[cfg(feature = "bindgen")]
    include!(concat!(env!("OUT_DIR"), "/types.rs"));
    #[cfg(not(feature = "bindgen"))]
    include!("bindings/types.rs");
}
pub use types::*;

/// Link mode: the functions are declarations that the linker resolves.
#[cfg(not(feature = "dlopen"))]
macro_rules! functions {
    ($(extern "C" {
        $(#[$doc:meta])*
        pub fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;
    })*) => {
        extern "C" {
            $($(#[$doc])* pub fn $name($($arg: $type),*) $(-> $result)?;)*
        }
    };
}

/// Dlopen mode: the functions call through a table that `load` fills.
#[cfg(feature = "dlopen")]
macro_rules! functions {
    ($(extern "C" {
        $(#[$doc:meta])*
        pub fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;
    })*) => {
        pub(crate) struct Functions {
            $($name: unsafe extern "C" fn($($type),*) $(-> $result)?,)*
        }

        impl Functions {
            /// Resolves every function of the ABI version that this crate was made for.
            pub(crate) unsafe fn resolve(library: &libloading::Library) -> Result<Self, LoadError> {
                Ok(Functions {
                    $($name: unsafe { crate::dynamic::symbol(library, stringify!($name))? },)*
                })
            }
        }

        $(
            $(#[$doc])*
            ///
            /// # Safety
            ///
            /// Pointers must be valid as the text above says.
            ///
            /// # Panics
            ///
            /// If the library is not loaded and cannot be: call [`load`](crate::load) first.
            #[allow(clippy::too_many_arguments)]
            pub unsafe fn $name($($arg: $type),*) $(-> $result)? {
                unsafe { (crate::dynamic::functions().$name)($($arg),*) }
            }
        )*
    };
}

#[allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]
mod functions {
    use crate::types::*;
    #[cfg(feature = "dlopen")]
    use crate::LoadError;

    #[cfg(feature = "bindgen")]
    include!(concat!(env!("OUT_DIR"), "/functions.rs"));
    #[cfg(not(feature = "bindgen"))]
    include!("bindings/functions.rs");
}
#[cfg(feature = "dlopen")]
use functions::Functions;
pub use functions::*;

/// `new()` for structs that begin with `struct_size`.
macro_rules! sized {
    ($($name:ident),* $(,)?) => {$(
        impl $name {
            /// The defaults: `struct_size` set, everything else zero.
            pub const fn new() -> Self {
                // SAFETY: plain C data, for which all zeros is a valid value (null, None, 0).
                let mut value: Self = unsafe { core::mem::zeroed() };
                value.struct_size = core::mem::size_of::<Self>() as u32;
                value
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }
    )*};
}

sized!(
    attn_context_desc,
    attn_device_info,
    attn_error,
    attn_merge_args,
    attn_merge_desc,
    attn_plan_info,
    attn_plan_options,
    attn_sdpa_args,
    attn_sdpa_backward_args,
    attn_sdpa_desc,
);

impl attn_tensor {
    /// No tensor: rank 0.
    pub const fn new() -> Self {
        // SAFETY: plain C data, for which all zeros is a valid value.
        unsafe { core::mem::zeroed() }
    }
}

impl Default for attn_tensor {
    fn default() -> Self {
        Self::new()
    }
}

impl attn_quant {
    /// Not quantised.
    pub const fn new() -> Self {
        // SAFETY: plain C data, for which all zeros is a valid value.
        unsafe { core::mem::zeroed() }
    }
}

impl Default for attn_quant {
    fn default() -> Self {
        Self::new()
    }
}
