//! Tells cargo how to link libattn, and generates the bindings if the feature `bindgen` asks.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(attn_offset_of)");
    if rust_minor_version() >= 77 {
        println!("cargo:rustc-cfg=attn_offset_of");
    }
    #[cfg(feature = "bindgen")]
    generate::run();
    if env::var_os("CARGO_FEATURE_DLOPEN").is_none() && env::var_os("DOCS_RS").is_none() {
        link();
    }
}

/// 85 of Rust 1.85; 0 if the compiler does not say.
fn rust_minor_version() -> u32 {
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(compiler).arg("--version").output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .strip_prefix("rustc 1.")
        .and_then(|rest| rest.split('.').next()?.parse().ok())
        .unwrap_or(0)
}

/// Link mode: `ATTN_LIB_DIR` if it is set, else pkg-config, else the linker's own search path.
fn link() {
    println!("cargo:rerun-if-env-changed=ATTN_LIB_DIR");
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    let folders = match env::var_os("ATTN_LIB_DIR") {
        Some(folder) => {
            let folder = PathBuf::from(folder);
            if !has_library(&folder) {
                let name = library_name();
                eprintln!("ATTN_LIB_DIR is {}, which holds no {name}", folder.display());
                std::process::exit(1);
            }
            vec![folder]
        }
        None => pkg_config(),
    };
    for folder in &folders {
        println!("cargo:rustc-link-search=native={}", folder.display());
    }
    println!("cargo:rustc-link-lib=dylib=attn");
    if let Some(folder) = folders.first() {
        // Dependents' build scripts see it as DEP_ATTN_LIB_DIR, to set an rpath if they want one.
        println!("cargo:lib_dir={}", folder.display());
    }
}

fn library_name() -> &'static str {
    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => "libattn.dylib",
        Ok("windows") => "attn.lib",
        _ => "libattn.so",
    }
}

fn has_library(folder: &Path) -> bool {
    folder.join(library_name()).exists()
}

/// The library folders that `pkg-config --libs-only-L attn` names; none if it knows no attn.
fn pkg_config() -> Vec<PathBuf> {
    let tool = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = std::process::Command::new(tool).args(["--libs-only-L", "attn"]).output();
    let Ok(output) = output else { return Vec::new() };
    if !output.status.success() {
        return Vec::new();
    }
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("-L"))
        .map(PathBuf::from)
        .collect()
}

#[cfg(feature = "bindgen")]
mod generate {
    use bindgen::callbacks::{IntKind, ParseCallbacks};
    use std::env;
    use std::path::{Path, PathBuf};

    /// Gives macros the types that the structs' fields have.
    #[derive(Debug)]
    struct Types;

    impl ParseCallbacks for Types {
        fn int_macro(&self, name: &str, _value: i64) -> Option<IntKind> {
            Some(if name.starts_with("ATTN_SDPA_GRAD_") || name.starts_with("ATTN_ABI_") {
                IntKind::U32
            } else if name.starts_with("ATTN_SDPA_") || name.starts_with("ATTN_MERGE_") {
                IntKind::U64
            } else if name.starts_with("ATTN_VERSION_") {
                IntKind::U32
            } else {
                IntKind::Custom { name: "usize", is_signed: false }
            })
        }
    }

    pub fn run() {
        println!("cargo:rerun-if-env-changed=ATTN_INCLUDE_DIR");
        let include = match env::var_os("ATTN_INCLUDE_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../include"),
        };
        let header = include.join("attn/attn.h");
        if !header.exists() {
            eprintln!(
                "{} does not exist: set ATTN_INCLUDE_DIR to the folder that holds attn/attn.h",
                header.display()
            );
            std::process::exit(1);
        }
        for entry in std::fs::read_dir(include.join("attn")).unwrap() {
            println!("cargo:rerun-if-changed={}", entry.unwrap().path().display());
        }
        let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
        let mark = "// Generated from include/attn/*.h by bindgen (see build.rs). Do not edit.\n\n";

        let types = builder(&include, &header).ignore_functions().generate().unwrap().to_string();
        // C enums have the type unsigned int, but every struct and function takes them as int32_t.
        let types: String = types
            .lines()
            .map(|line| match line.split_once(" = ::core::ffi::c_uint;") {
                Some((alias, "")) if alias.starts_with("pub type ") => format!("{alias} = i32;\n"),
                // What checks the layout while compiling needs offset_of, of Rust 1.77.
                _ if line == "const _: () = {" => format!("#[cfg(attn_offset_of)]\n{line}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        std::fs::write(out.join("types.rs"), format!("{mark}{types}")).unwrap();

        let functions = builder(&include, &header)
            .with_codegen_config(bindgen::CodegenConfig::FUNCTIONS)
            .generate()
            .unwrap();
        // The macro makes link-time declarations or a run-time table of them: see lib.rs.
        let functions = format!("{mark}functions! {{\n{functions}}}\n");
        std::fs::write(out.join("functions.rs"), functions).unwrap();
    }

    fn builder(include: &Path, header: &Path) -> bindgen::Builder {
        bindgen::Builder::default()
            .header(header.to_str().unwrap())
            .clang_arg(format!("-I{}", include.display()))
            .clang_arg("-fparse-all-comments")
            .allowlist_item("(attn|ATTN)_.*")
            // Initialisers are `attn_sdpa_desc::new()` and its like here: see lib.rs.
            .blocklist_item("ATTN_.*_INIT")
            .default_enum_style(bindgen::EnumVariation::Consts)
            .prepend_enum_name(false)
            .use_core()
            .derive_default(false)
            .derive_debug(true)
            .layout_tests(true)
            .disable_header_comment()
            .clang_macro_fallback()
            .clang_macro_fallback_build_dir(env::var_os("OUT_DIR").unwrap())
            .rust_target(bindgen::RustTarget::stable(77, 0).unwrap_or_else(|_| unreachable!()))
            .formatter(bindgen::Formatter::Prettyplease)
            .parse_callbacks(Box::new(Types))
    }
}
