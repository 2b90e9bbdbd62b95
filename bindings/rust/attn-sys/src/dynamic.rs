//! Finding libattn at run time.

use crate::{Functions, ATTN_ABI_MAJOR, ATTN_ABI_MINOR};
use libloading::Library;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::{Mutex, OnceLock};

/// Why libattn could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// No candidate could be opened: each file name tried, with the loader's own words.
    NotFound(Vec<(String, String)>),
    /// The library's ABI does not serve this crate. Versions are (major, minor).
    Abi {
        /// The file that was opened.
        file: String,
        /// What it offers.
        found: (u32, u32),
        /// What this crate was made for.
        needed: (u32, u32),
    },
    /// The file is not libattn, or not a whole one: a function is missing.
    Symbol {
        /// The function that is missing.
        name: &'static str,
        /// The loader's own words.
        reason: String,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::NotFound(tried) => {
                write!(f, "libattn was not found; tried")?;
                for (i, (file, reason)) in tried.iter().enumerate() {
                    write!(f, "{} {file} ({reason})", if i == 0 { "" } else { "," })?;
                }
                write!(f, ". Install libattn, or set ATTN_LIBRARY to the path of its libattn.so")
            }
            LoadError::Abi { file, found, needed } => write!(
                f,
                "{file} has ABI {}.{}; this program needs ABI {}.{} or a later {}.x",
                found.0, found.1, needed.0, needed.1, needed.0
            ),
            LoadError::Symbol { name, reason } => {
                write!(f, "the library lacks the function {name}: {reason}")
            }
        }
    }
}

impl std::error::Error for LoadError {}

static LOADED: OnceLock<(Library, Functions)> = OnceLock::new();

/// Loads libattn once for the process: the file that the environment variable `ATTN_LIBRARY` names,
/// else the system's libattn of this crate's ABI. Further calls return at once.
///
/// The library's ABI version is asked before anything else is resolved.
pub fn load() -> Result<(), LoadError> {
    match std::env::var_os("ATTN_LIBRARY") {
        Some(file) if !file.is_empty() => load_first(&[file]),
        _ => load_first(&default_names()),
    }
}

/// As [`load`], from this file. If a library is loaded already, that one stays.
pub fn load_from(file: impl AsRef<OsStr>) -> Result<(), LoadError> {
    load_first(&[file.as_ref().to_os_string()])
}

fn default_names() -> Vec<OsString> {
    let names = if cfg!(target_os = "macos") {
        vec![format!("libattn.{ATTN_ABI_MAJOR}.dylib"), "libattn.dylib".to_string()]
    } else if cfg!(target_os = "windows") {
        vec![format!("attn-{ATTN_ABI_MAJOR}.dll"), "attn.dll".to_string()]
    } else {
        vec![format!("libattn.so.{ATTN_ABI_MAJOR}"), "libattn.so".to_string()]
    };
    names.into_iter().map(OsString::from).collect()
}

fn load_first(files: &[OsString]) -> Result<(), LoadError> {
    // One loader at a time: two libraries in one process would be two sets of thread pools.
    static LOADING: Mutex<()> = Mutex::new(());
    let _guard = LOADING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if LOADED.get().is_some() {
        return Ok(());
    }
    let mut tried = Vec::new();
    for file in files {
        // SAFETY: libattn's initialisers have no preconditions; that the file is libattn is the
        // user's word, which linking against it would take as well.
        match unsafe { Library::new(file) } {
            Ok(library) => {
                // SAFETY: the ABI version has been checked, so the signatures are the headers'.
                let functions = unsafe {
                    check_abi(&library, file)?;
                    Functions::resolve(&library)?
                };
                let _ = LOADED.set((library, functions));
                return Ok(());
            }
            Err(error) => tried.push((file.to_string_lossy().into_owned(), error.to_string())),
        }
    }
    Err(LoadError::NotFound(tried))
}

unsafe fn check_abi(library: &Library, file: &OsStr) -> Result<(), LoadError> {
    let version: unsafe extern "C" fn() -> u32 = unsafe { symbol(library, "attn_abi_version")? };
    let version = unsafe { version() };
    let (major, minor) = (version >> 16, version & 0xffff);
    // The subtraction says `minor < ATTN_ABI_MINOR` also where that constant is 0.
    if major != ATTN_ABI_MAJOR || minor.checked_sub(ATTN_ABI_MINOR).is_none() {
        return Err(LoadError::Abi {
            file: file.to_string_lossy().into_owned(),
            found: (major, minor),
            needed: (ATTN_ABI_MAJOR, ATTN_ABI_MINOR),
        });
    }
    Ok(())
}

pub(crate) unsafe fn symbol<T: Copy>(
    library: &Library,
    name: &'static str,
) -> Result<T, LoadError> {
    match unsafe { library.get::<T>(name.as_bytes()) } {
        Ok(function) => Ok(*function),
        Err(error) => Err(LoadError::Symbol { name, reason: error.to_string() }),
    }
}

pub(crate) fn functions() -> &'static Functions {
    if LOADED.get().is_none() {
        if let Err(error) = load() {
            panic!("{error}");
        }
    }
    match LOADED.get() {
        Some((_, functions)) => functions,
        None => unreachable!("load succeeded"),
    }
}
