use crate::sys;
use std::ffi::{c_char, CStr};
use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed. An integer and not a Rust enum: a newer library may know more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub i32);

impl Status {
    /// A field or argument breaks a documented rule.
    pub const INVALID_ARGUMENT: Status = Status(sys::ATTN_ERROR_INVALID_ARGUMENT);
    /// The request is well formed, but no implementation of the backend serves it.
    pub const UNSUPPORTED: Status = Status(sys::ATTN_ERROR_UNSUPPORTED);
    /// The program and the library disagree: the library is too old or of another major version.
    pub const VERSION: Status = Status(sys::ATTN_ERROR_VERSION);
    /// Host memory ran out.
    pub const OUT_OF_MEMORY: Status = Status(sys::ATTN_ERROR_OUT_OF_MEMORY);
    /// The workspace is too small or misaligned.
    pub const WORKSPACE: Status = Status(sys::ATTN_ERROR_WORKSPACE);
    /// The backend (or, with the feature `dlopen`, the library) is not there.
    pub const BACKEND_UNAVAILABLE: Status = Status(sys::ATTN_ERROR_BACKEND_UNAVAILABLE);
    /// A driver call failed: see [`Error::backend_code`].
    pub const DEVICE: Status = Status(sys::ATTN_ERROR_DEVICE);
    /// A defect in libattn.
    pub const INTERNAL: Status = Status(sys::ATTN_ERROR_INTERNAL);

    /// The C name, for example `ATTN_ERROR_VERSION`; `ATTN_ERROR_UNKNOWN` for an unknown number.
    pub fn name(self) -> &'static str {
        match self {
            Status::INVALID_ARGUMENT => "ATTN_ERROR_INVALID_ARGUMENT",
            Status::UNSUPPORTED => "ATTN_ERROR_UNSUPPORTED",
            Status::VERSION => "ATTN_ERROR_VERSION",
            Status::OUT_OF_MEMORY => "ATTN_ERROR_OUT_OF_MEMORY",
            Status::WORKSPACE => "ATTN_ERROR_WORKSPACE",
            Status::BACKEND_UNAVAILABLE => "ATTN_ERROR_BACKEND_UNAVAILABLE",
            Status::DEVICE => "ATTN_ERROR_DEVICE",
            Status::INTERNAL => "ATTN_ERROR_INTERNAL",
            Status(sys::ATTN_OK) => "ATTN_OK",
            _ => "ATTN_ERROR_UNKNOWN",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "ATTN_ERROR_UNKNOWN" => write!(f, "ATTN_ERROR_UNKNOWN ({})", self.0),
            name => f.write_str(name),
        }
    }
}

/// What went wrong, where, and what the rule is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    // Boxed: results stay one word wide.
    inner: Box<Inner>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    status: Status,
    backend_code: i32,
    field: String,
    message: String,
}

impl Error {
    /// The kind of failure.
    pub fn status(&self) -> Status {
        self.inner.status
    }

    /// The field at fault, such as `desc.num_kv_heads`; empty if no single field is.
    pub fn field(&self) -> &str {
        &self.inner.field
    }

    /// One sentence: field, value, rule, and what to do.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The driver's own error code where there is one, else 0.
    pub fn backend_code(&self) -> i32 {
        self.inner.backend_code
    }

    pub(crate) fn new(status: Status, field: &str, message: String) -> Error {
        let field = field.to_string();
        Error { inner: Box::new(Inner { status, backend_code: 0, field, message }) }
    }

    pub(crate) fn invalid(field: &str, message: String) -> Error {
        Error::new(Status::INVALID_ARGUMENT, field, message)
    }

    fn from_c(status: i32, error: &sys::attn_error) -> Error {
        Error {
            inner: Box::new(Inner {
                status: Status(status),
                backend_code: error.backend_code,
                field: text(&error.field),
                message: text(&error.message),
            }),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inner.message.is_empty() {
            return write!(f, "{}", self.inner.status);
        }
        write!(f, "{} ({})", self.inner.message, self.inner.status)
    }
}

impl std::error::Error for Error {}

/// The text of a char array, up to its NUL or its end.
pub(crate) fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text of a NUL-terminated string of the library; empty for NULL.
///
/// # Safety
/// `chars` is NULL or points to a NUL-terminated string that outlives the call.
pub(crate) unsafe fn string(chars: *const c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned()
}

/// Calls a C function with an error record and turns its status into a result.
pub(crate) fn check(call: impl FnOnce(*mut sys::attn_error) -> i32) -> Result<()> {
    let mut error = sys::attn_error::new();
    match call(&mut error) {
        sys::ATTN_OK => Ok(()),
        status => Err(Error::from_c(status, &error)),
    }
}
