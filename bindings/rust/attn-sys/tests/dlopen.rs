//! Finding the library at run time: what goes wrong is said readably.
#![cfg(feature = "dlopen")]

use attn_sys::LoadError;
use std::path::PathBuf;
use std::process::Command;

/// Compiles a library of a few lines of C.
fn fake_library(name: &str, source: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (c, so) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    std::fs::write(&c, source).unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_string());
    let status = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&so).arg(&c).status();
    assert!(status.unwrap().success());
    so
}

/// All in one test: the process loads the library once, and the failures must come before.
#[test]
fn loading() {
    let error = attn_sys::load_from("/nowhere/libattn.so").unwrap_err();
    assert!(matches!(error, LoadError::NotFound(_)));
    let text = error.to_string();
    assert!(text.contains("/nowhere/libattn.so"), "{text}");
    assert!(text.contains("ATTN_LIBRARY"), "{text}");

    let so = fake_library("next_major", "unsigned attn_abi_version(void) { return 2u << 16; }");
    let error = attn_sys::load_from(&so).unwrap_err();
    let needed = (attn_sys::ATTN_ABI_MAJOR, attn_sys::ATTN_ABI_MINOR);
    assert_eq!(
        error,
        LoadError::Abi { file: so.to_str().unwrap().to_string(), found: (2, 0), needed }
    );
    assert!(error.to_string().contains("has ABI 2.0; this program needs ABI 1."), "{error}");

    let so = fake_library("not_attn", "int something_else(void) { return 0; }");
    let error = attn_sys::load_from(&so).unwrap_err();
    assert!(matches!(error, LoadError::Symbol { name: "attn_abi_version", .. }), "{error}");

    // The right version, but nothing else.
    let so = fake_library("hollow", "unsigned attn_abi_version(void) { return 1u << 16 | 99; }");
    let error = attn_sys::load_from(&so).unwrap_err();
    assert!(matches!(error, LoadError::Symbol { .. }), "{error}");
    assert!(error.to_string().contains("lacks the function attn_"), "{error}");

    attn_sys::load().unwrap();
    assert_eq!(unsafe { attn_sys::attn_abi_version() } >> 16, attn_sys::ATTN_ABI_MAJOR);
    assert_eq!(
        unsafe {
            attn_sys::attn_abi_check(attn_sys::ATTN_ABI_VERSION, &mut attn_sys::attn_error::new())
        },
        0
    );
}
