//! Plans and workspaces: what all operations share.

use crate::context::non_null;
use crate::error::{check, string};
use crate::{sys, Backend, Context, Error, Result, Status};
use std::alloc::Layout;
use std::ffi::{c_char, c_void, CString};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Wishes at plan creation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanOptions {
    implementation: Option<String>,
    tuning: Option<String>,
}

impl PlanOptions {
    /// No wish: the best implementation that serves the problem.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the implementation to use, as [`Plan::implementations`] gives it. A name that
    /// cannot serve the problem is an error.
    pub fn implementation(mut self, name: impl Into<String>) -> Self {
        self.implementation = Some(name.into());
        self
    }

    /// Tuning results, as [`Plan::export`] wrote them, any number of lines.
    pub fn tuning(mut self, lines: impl Into<String>) -> Self {
        self.tuning = Some(lines.into());
        self
    }

    /// Calls `f` with the C struct, whose strings live during the call.
    pub(crate) fn with_c<T>(
        &self,
        f: impl FnOnce(*const sys::attn_plan_options) -> Result<T>,
    ) -> Result<T> {
        let c_string = |field: &str, value: &Option<String>| match value {
            None => Ok(None),
            Some(value) => CString::new(value.as_str())
                .map(Some)
                .map_err(|_| Error::invalid(field, format!("{field} contains a NUL character"))),
        };
        let implementation = c_string("options.implementation", &self.implementation)?;
        let tuning = c_string("options.tuning", &self.tuning)?;
        let mut options = sys::attn_plan_options::new();
        options.implementation = implementation.as_ref().map_or(std::ptr::null(), |s| s.as_ptr());
        options.tuning = tuning.as_ref().map_or(std::ptr::null(), |s| s.as_ptr());
        f(&options)
    }
}

/// What a plan is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanInfo {
    /// The same inputs give the same bits, run after run.
    pub deterministic: bool,
    /// An execute may be captured into a graph; CPU: no.
    pub capturable: bool,
    /// An execute returns before the work is done; CPU: no.
    pub asynchronous: bool,
    /// What every execute needs; may be 0.
    pub workspace_bytes: usize,
    /// A power of two.
    pub workspace_alignment: usize,
    /// What tuning needs.
    pub tune_workspace_bytes: usize,
    /// The chosen implementation's name.
    pub implementation: String,
}

/// What all plans can tell. [`SdpaPlan`], [`SdpaBackwardPlan`] and [`MergePlan`] dereference to it.
///
/// A clone is a new reference to the same plan.
///
/// [`SdpaPlan`]: crate::SdpaPlan
/// [`SdpaBackwardPlan`]: crate::SdpaBackwardPlan
/// [`MergePlan`]: crate::MergePlan
#[derive(Clone)]
pub struct Plan {
    inner: Arc<Inner>,
}

struct Inner {
    handle: NonNull<sys::attn_plan>,
    context: Context,
}

// SAFETY: the library's plans are immutable and may be used and freed by any thread.
unsafe impl Send for Inner {}
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: this was the last reference, and executes borrow one. The context goes after.
        unsafe { sys::attn_plan_destroy(self.handle.as_ptr()) }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Plan");
        if let Ok(info) = self.info() {
            out.field("implementation", &info.implementation);
        }
        out.finish_non_exhaustive()
    }
}

impl Plan {
    pub(crate) fn create(
        context: &Context,
        call: impl FnOnce(*mut *mut sys::attn_plan, *mut sys::attn_error) -> i32,
    ) -> Result<Plan> {
        let mut handle = std::ptr::null_mut();
        check(|error| call(&mut handle, error))?;
        Ok(Plan { inner: Arc::new(Inner { handle: non_null(handle)?, context: context.clone() }) })
    }

    /// The C handle, valid as long as this plan.
    pub fn as_ptr(&self) -> *mut sys::attn_plan {
        self.inner.handle.as_ptr()
    }

    /// The context that the plan was made for.
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// What the plan is.
    pub fn info(&self) -> Result<PlanInfo> {
        let info = self.query()?;
        Ok(PlanInfo {
            deterministic: info.deterministic != 0,
            capturable: info.capturable != 0,
            asynchronous: info.asynchronous != 0,
            workspace_bytes: info.workspace_bytes as usize,
            workspace_alignment: info.workspace_alignment as usize,
            tune_workspace_bytes: info.tune_workspace_bytes as usize,
            // SAFETY: lives as long as the library.
            implementation: unsafe { string(info.implementation) },
        })
    }

    fn query(&self) -> Result<sys::attn_plan_info> {
        let mut info = sys::attn_plan_info::new();
        check(|error| unsafe { sys::attn_plan_query(self.as_ptr(), &mut info, error) })?;
        Ok(info)
    }

    /// The names of all implementations that could serve the problem, best first.
    pub fn implementations(&self) -> Result<Vec<String>> {
        (0..self.query()?.num_implementations)
            .map(|index| {
                let mut name = std::ptr::null();
                check(|error| unsafe {
                    sys::attn_plan_implementation(self.as_ptr(), index, &mut name, error)
                })?;
                // SAFETY: lives as long as the library.
                Ok(unsafe { string(name) })
            })
            .collect()
    }

    /// Loads modules ahead of the first execute; on the CPU it does nothing.
    pub fn prepare(&self) -> Result<()> {
        check(|error| unsafe { sys::attn_plan_prepare(self.as_ptr(), error) })
    }

    /// The plan's choice as one line of text, which [`PlanOptions::tuning`] takes.
    pub fn export(&self) -> Result<String> {
        let mut length = 0;
        check(|error| unsafe {
            sys::attn_plan_export(self.as_ptr(), std::ptr::null_mut(), 0, &mut length, error)
        })?;
        let mut text = vec![0u8; length + 1];
        check(|error| unsafe {
            let chars = text.as_mut_ptr().cast::<c_char>();
            sys::attn_plan_export(self.as_ptr(), chars, text.len(), &mut length, error)
        })?;
        text.truncate(length);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Host memory for executes of this plan, one at a time.
    pub fn workspace(&self) -> Result<Workspace> {
        let info = self.query()?;
        self.allocate(info.workspace_bytes, info.workspace_alignment)
    }

    /// Host memory for tuning: more than an execute needs.
    pub fn tune_workspace(&self) -> Result<Workspace> {
        let info = self.query()?;
        let bytes = info.tune_workspace_bytes.max(info.workspace_bytes);
        self.allocate(bytes, info.workspace_alignment)
    }

    fn allocate(&self, bytes: u64, alignment: u64) -> Result<Workspace> {
        self.host_only("workspace")?;
        Workspace::new(bytes as usize, alignment as usize)
    }

    /// Executes with slices work in host memory, before they return: so only on the CPU.
    pub(crate) fn host_only(&self, what: &str) -> Result<()> {
        let backend = self.context().backend();
        if backend == Backend::CPU {
            return Ok(());
        }
        Err(Error::new(
            Status::UNSUPPORTED,
            "",
            format!(
                "{what} is for the CPU's memory, and this plan is of backend {}: use the unsafe \
                 methods with the device's pointers and a stream",
                backend.0
            ),
        ))
    }
}

/// Scratch memory for one execute at a time. Make one a thread; its contents do not matter.
pub struct Workspace {
    data: *mut c_void,
    bytes: usize,
    /// How to free the memory; `None` if it is not ours.
    layout: Option<Layout>,
}

// SAFETY: plain memory, owned or lent by from_raw's contract; used only through &mut.
unsafe impl Send for Workspace {}
unsafe impl Sync for Workspace {}

impl Workspace {
    /// Host memory of this size and alignment (a power of two).
    pub fn new(bytes: usize, alignment: usize) -> Result<Workspace> {
        let layout = Layout::from_size_align(bytes, alignment.max(1)).map_err(|_| {
            let message = format!("{bytes} bytes aligned to {alignment} are not possible");
            Error::new(Status::WORKSPACE, "workspace", message)
        })?;
        if bytes == 0 {
            return Ok(Workspace { data: std::ptr::null_mut(), bytes, layout: None });
        }
        // SAFETY: the size is not 0. Zeroed, because it costs nothing here and hides nothing.
        let data = unsafe { std::alloc::alloc_zeroed(layout) };
        if data.is_null() {
            let message = format!("no memory for a workspace of {bytes} bytes");
            return Err(Error::new(Status::OUT_OF_MEMORY, "workspace", message));
        }
        Ok(Workspace { data: data.cast(), bytes, layout: Some(layout) })
    }

    /// Memory of a GPU, at an address as its driver gives it, aligned as
    /// [`PlanInfo::workspace_alignment`] says.
    ///
    /// # Safety
    ///
    /// As [`Workspace::from_raw`]; for a pass that is enqueued on a stream, until it is done.
    pub unsafe fn from_device(address: u64, bytes: usize) -> Workspace {
        Workspace { data: address as usize as *mut c_void, bytes, layout: None }
    }

    /// Memory that the caller owns.
    ///
    /// # Safety
    ///
    /// The memory is valid in the device of the plans it is used with, for as long as this lives,
    /// and nothing else uses it meanwhile.
    pub unsafe fn from_raw(data: *mut c_void, bytes: usize) -> Workspace {
        Workspace { data, bytes, layout: None }
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its address.
    pub fn as_ptr(&self) -> *mut c_void {
        self.data
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Some(layout) = self.layout {
            // SAFETY: allocated in `new` with this layout.
            unsafe { std::alloc::dealloc(self.data.cast(), layout) }
        }
    }
}

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspace").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
