//! The committed bindings are what bindgen makes of the headers now.
//!
//! `ATTN_UPDATE_BINDINGS=1 cargo test -p attn-sys --features bindgen` writes them anew.
#![cfg(feature = "bindgen")]

use std::path::Path;

fn compare(name: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bindings").join(name);
    if std::env::var_os("ATTN_UPDATE_BINDINGS").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    let first = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "{} differs from what the headers give (first at line {}): run \
         ATTN_UPDATE_BINDINGS=1 cargo test -p attn-sys --features bindgen --test committed",
        path.display(),
        first.map_or(committed.lines().count().min(generated.lines().count()), |i| i) + 1
    );
}

#[test]
fn types_are_current() {
    compare("types.rs", include_str!(concat!(env!("OUT_DIR"), "/types.rs")));
}

#[test]
fn functions_are_current() {
    compare("functions.rs", include_str!(concat!(env!("OUT_DIR"), "/functions.rs")));
}
