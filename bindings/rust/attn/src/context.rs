//! Devices and contexts.

use crate::error::{check, string, text};
use crate::{sys, Error, Result};
use std::ffi::{c_char, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Where attention is computed. An integer and not a Rust enum: a newer library may know more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Backend(pub i32);

impl Backend {
    /// The first of CUDA, HIP, CPU that is built in and has a device.
    pub const AUTO: Backend = Backend(sys::ATTN_BACKEND_AUTO);
    /// The host's processors.
    pub const CPU: Backend = Backend(sys::ATTN_BACKEND_CPU);
    /// An NVIDIA GPU.
    pub const CUDA: Backend = Backend(sys::ATTN_BACKEND_CUDA);
    /// An AMD GPU.
    pub const HIP: Backend = Backend(sys::ATTN_BACKEND_HIP);
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogLevel(pub i32);

impl LogLevel {
    /// Failures.
    pub const ERROR: LogLevel = LogLevel(sys::ATTN_LOG_ERROR);
    /// What is probably not meant.
    pub const WARNING: LogLevel = LogLevel(sys::ATTN_LOG_WARNING);
    /// Which implementation a plan chose and why others could not serve.
    pub const INFO: LogLevel = LogLevel(sys::ATTN_LOG_INFO);
    /// Everything else.
    pub const DEBUG: LogLevel = LogLevel(sys::ATTN_LOG_DEBUG);
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The backend, never `AUTO`.
    pub backend: Backend,
    /// The device's number within its backend.
    pub device_index: i32,
    /// CPU: threads in use or usable; GPU: multiprocessors.
    pub num_units: i32,
    /// Memory of the device in all; 0 if unknown.
    pub memory_bytes: u64,
    /// The maker's name.
    pub name: String,
    /// CPU: the SIMD target in use; GPU: for example `sm_90`.
    pub architecture: String,
}

impl DeviceInfo {
    fn from_c(info: &sys::attn_device_info) -> DeviceInfo {
        DeviceInfo {
            backend: Backend(info.backend),
            device_index: info.device_index,
            num_units: info.num_units,
            memory_bytes: info.memory_bytes,
            name: text(&info.name),
            architecture: text(&info.architecture),
        }
    }
}

/// How many devices a backend has.
pub fn device_count(backend: Backend) -> Result<usize> {
    crate::load()?;
    let mut count = 0;
    check(|error| unsafe { sys::attn_device_count(backend.0, &mut count, error) })?;
    Ok(count as usize)
}

/// Describes a device without creating a context.
pub fn device_info(backend: Backend, device_index: i32) -> Result<DeviceInfo> {
    crate::load()?;
    let mut info = sys::attn_device_info::new();
    check(|error| unsafe { sys::attn_device_query(backend.0, device_index, &mut info, error) })?;
    Ok(DeviceInfo::from_c(&info))
}

type Log = dyn Fn(LogLevel, &str) + Send + Sync;

/// Settings for a [`Context`].
#[derive(Default)]
pub struct ContextBuilder {
    backend: i32,
    device_index: i32,
    num_threads: i32,
    log_level: i32,
    log: Option<Box<Log>>,
}

impl fmt::Debug for ContextBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextBuilder")
            .field("backend", &self.backend)
            .field("device_index", &self.device_index)
            .field("num_threads", &self.num_threads)
            .field("log_level", &self.log_level)
            .finish_non_exhaustive()
    }
}

impl ContextBuilder {
    /// The backend; default `AUTO`.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend.0;
        self
    }

    /// The device's number within its backend; default 0.
    pub fn device_index(mut self, device_index: i32) -> Self {
        self.device_index = device_index;
        self
    }

    /// CPU: threads that one execute may use, the caller's included; default 0, as many as the
    /// process may run on.
    pub fn num_threads(mut self, num_threads: i32) -> Self {
        self.num_threads = num_threads;
        self
    }

    /// Receives log lines up to `level`, from any thread that makes plans with this context. It
    /// must not call libattn. A panic in it is swallowed: it cannot cross the library.
    pub fn log(
        mut self,
        level: LogLevel,
        sink: impl Fn(LogLevel, &str) + Send + Sync + 'static,
    ) -> Self {
        self.log_level = level.0;
        self.log = Some(Box::new(sink));
        self
    }

    /// Creates the context.
    pub fn build(self) -> Result<Context> {
        crate::load()?;
        let mut desc = sys::attn_context_desc::new();
        desc.backend = self.backend;
        desc.device_index = self.device_index;
        desc.num_threads = self.num_threads;
        desc.log_level = self.log_level;
        // A box of a box: `dyn Log` pointers are two words, and the library hands back one.
        let log = self.log.map(Box::new);
        if let Some(log) = &log {
            desc.log_callback = Some(log_line);
            desc.log_user_data = (log.as_ref() as *const Box<Log>).cast_mut().cast();
        }
        let mut handle = std::ptr::null_mut();
        check(|error| unsafe { sys::attn_context_create(&desc, &mut handle, error) })?;
        let handle = non_null(handle)?;
        let mut inner = Inner { handle, backend: Backend::AUTO, _log: log };
        inner.backend = inner.query()?.backend;
        Ok(Context { inner: Arc::new(inner) })
    }
}

/// A success without an object would be a defect of the library; never hand on a null.
pub(crate) fn non_null<T>(handle: *mut T) -> Result<NonNull<T>> {
    NonNull::new(handle).ok_or_else(|| {
        Error::new(crate::Status::INTERNAL, "", "the library returned no object".to_string())
    })
}

unsafe extern "C" fn log_line(user_data: *mut c_void, level: i32, message: *const c_char) {
    // SAFETY: user_data is the box that the context owns; the message is valid during the call.
    let (log, message) = unsafe { (&*user_data.cast::<Box<Log>>(), string(message)) };
    let call = std::panic::AssertUnwindSafe(|| log(LogLevel(level), &message));
    let _ = std::panic::catch_unwind(call);
}

/// One device of one backend. A clone is a new reference to the same context; plans hold one, so it
/// is freed when the last plan is gone.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    handle: NonNull<sys::attn_context>,
    backend: Backend,
    _log: Option<Box<Box<Log>>>,
}

// SAFETY: the library's contexts are immutable and may be used and freed by any thread.
unsafe impl Send for Inner {}
unsafe impl Sync for Inner {}

impl Inner {
    fn query(&self) -> Result<DeviceInfo> {
        let mut info = sys::attn_device_info::new();
        check(|error| unsafe { sys::attn_context_query(self.handle.as_ptr(), &mut info, error) })?;
        Ok(DeviceInfo::from_c(&info))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: every plan holds a reference to this, so none is left. The log sink goes after.
        unsafe { sys::attn_context_destroy(self.handle.as_ptr()) }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("backend", &self.inner.backend).finish_non_exhaustive()
    }
}

impl Context {
    /// Settings to start from.
    pub fn builder() -> ContextBuilder {
        ContextBuilder::default()
    }

    /// The CPU, with all its threads.
    pub fn cpu() -> Result<Context> {
        Context::builder().backend(Backend::CPU).build()
    }

    /// An NVIDIA GPU, by its number.
    pub fn cuda(device_index: i32) -> Result<Context> {
        Context::builder().backend(Backend::CUDA).device_index(device_index).build()
    }

    /// The device, with the thread count that it resolved to.
    pub fn device(&self) -> Result<DeviceInfo> {
        self.inner.query()
    }

    /// The backend, never `AUTO`.
    pub fn backend(&self) -> Backend {
        self.inner.backend
    }

    /// The C handle, valid as long as this context or a plan of it lives.
    pub fn as_ptr(&self) -> *mut sys::attn_context {
        self.inner.handle.as_ptr()
    }
}
