//! The library itself: finding it, asking its version.

use crate::error::{check, string};
use crate::{sys, Result};
#[cfg(feature = "dlopen")]
use crate::{Error, Status};
use std::sync::OnceLock;

/// Makes sure that the library is there and serves this crate. Creating a [`Context`] does it too;
/// call it first if a missing library should be dealt with early.
///
/// [`Context`]: crate::Context
pub fn load() -> Result<()> {
    static CHECKED: OnceLock<()> = OnceLock::new();
    if CHECKED.get().is_some() {
        return Ok(());
    }
    #[cfg(feature = "dlopen")]
    sys::load().map_err(load_error)?;
    check_abi(sys::ATTN_ABI_VERSION)?;
    let _ = CHECKED.set(());
    Ok(())
}

/// As [`load`], from this file. If the library is loaded already, it stays as it is.
#[cfg(feature = "dlopen")]
pub fn load_from(file: impl AsRef<std::path::Path>) -> Result<()> {
    sys::load_from(file.as_ref().as_os_str()).map_err(load_error)?;
    load()
}

#[cfg(feature = "dlopen")]
fn load_error(error: sys::LoadError) -> Error {
    let status = match error {
        sys::LoadError::Abi { .. } => Status::VERSION,
        _ => Status::BACKEND_UNAVAILABLE,
    };
    Error::new(status, "", error.to_string())
}

/// Asks the library whether it serves a client of this ABI version.
pub(crate) fn check_abi(client: u32) -> Result<()> {
    check(|error| unsafe { sys::attn_abi_check(client, error) })
}

/// The library's version, for example `0.1.0`.
pub fn version() -> Result<String> {
    load()?;
    Ok(unsafe { string(sys::attn_version_string()) })
}

/// What the library's build holds, one `key: value` a line: for people and bug reports.
pub fn build_info() -> Result<String> {
    load()?;
    Ok(unsafe { string(sys::attn_build_info()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn a_newer_client_is_refused() {
        load().unwrap();
        check_abi(sys::ATTN_ABI_VERSION).unwrap();
        for client in [sys::ATTN_ABI_VERSION + 1, sys::ATTN_ABI_VERSION + (1 << 16)] {
            let error = check_abi(client).unwrap_err();
            assert_eq!(error.status(), Status::VERSION);
            assert!(error.message().contains("1."), "{error}");
        }
    }

    #[test]
    fn an_older_major_is_refused() {
        load().unwrap();
        assert_eq!(check_abi(0).unwrap_err().status(), Status::VERSION);
    }

    #[test]
    fn version_and_build_info_are_text() {
        let expected = format!(
            "{}.{}.{}",
            sys::ATTN_VERSION_MAJOR,
            sys::ATTN_VERSION_MINOR,
            sys::ATTN_VERSION_PATCH
        );
        assert_eq!(version().unwrap(), expected);
        assert!(build_info().unwrap().contains(&expected));
    }
}
