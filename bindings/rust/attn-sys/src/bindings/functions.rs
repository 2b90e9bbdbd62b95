// Generated from include/attn/*.h by bindgen (see build.rs). Do not edit.

functions! {
extern "C" {
    /** The name of a status, for example "ATTN_ERROR_VERSION"; "ATTN_ERROR_UNKNOWN" for a value that
 this library does not know. Static storage. Thread-safe; never fails.*/
    pub fn attn_status_name(status: i32) -> *const ::core::ffi::c_char;
}
extern "C" {
    /** Fills `tensor` with a contiguous row-major view of `data`.

 shape: `rank` extents, each >= 0; rank: 0..ATTN_MAX_RANK.
 Errors: INVALID_ARGUMENT for an unknown dtype, a rank out of range, a negative extent or a size
 that overflows int64. On error `tensor` is untouched. Thread-safe.*/
    pub fn attn_tensor_contiguous(
        tensor: *mut attn_tensor,
        data: *mut ::core::ffi::c_void,
        dtype: i32,
        rank: i32,
        shape: *const i64,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** Bits that one element of `dtype` takes: 32 for FP32, 4 for INT4; 0 for an unknown dtype.
 Thread-safe; never fails.*/
    pub fn attn_dtype_bits(dtype: i32) -> i32;
}
extern "C" {
    /** The name of a dtype, for example "bf16"; "unknown" for a value that this library does not know.
 Static storage. Thread-safe; never fails.*/
    pub fn attn_dtype_name(dtype: i32) -> *const ::core::ffi::c_char;
}
extern "C" {
    /** How many devices `backend` has (AUTO: the backend that AUTO would pick), as its driver numbers
 them: one of several may be too old for libattn, which attn_context_create then says.

 Writes *count. A backend that is not built in, or whose driver is absent or has no device that
 can serve, gives BACKEND_UNAVAILABLE with the reason, and *count = 0. The CPU has exactly one
 device. Thread-safe.*/
    pub fn attn_device_count(
        backend: i32,
        count: *mut i32,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /// Describes device `device_index` of `backend` without creating a context. Thread-safe.
    pub fn attn_device_query(
        backend: i32,
        device_index: i32,
        info: *mut attn_device_info,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** Creates a context. desc may be NULL: all defaults.

 Errors: INVALID_ARGUMENT, VERSION, BACKEND_UNAVAILABLE, OUT_OF_MEMORY, DEVICE; *context is then
 NULL.
 Free it with attn_context_destroy. Thread-safe.*/
    pub fn attn_context_create(
        desc: *const attn_context_desc,
        context: *mut *mut attn_context,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /// Describes the device of a context, with the thread count that it resolved to. Thread-safe.
    pub fn attn_context_query(
        context: *const attn_context,
        info: *mut attn_device_info,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** Frees a context. NULL is allowed. No plan of it may be used afterwards, and none may be
 executing.*/
    pub fn attn_context_destroy(context: *mut attn_context);
}
extern "C" {
    /// Fills *info (up to its struct_size). Thread-safe.
    pub fn attn_plan_query(
        plan: *const attn_plan,
        info: *mut attn_plan_info,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** The name of the index-th implementation that could serve the plan's problem, best first
 (0 .. num_implementations-1). *name lives as long as the library. Thread-safe.*/
    pub fn attn_plan_implementation(
        plan: *const attn_plan,
        index: i32,
        name: *mut *const ::core::ffi::c_char,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** Loads modules and sets attributes ahead of the first execute, so that the first execute may
 already be captured into a graph. Optional; on the CPU it does nothing. Thread-safe.*/
    pub fn attn_plan_prepare(plan: *const attn_plan, error: *mut attn_error) -> i32;
}
extern "C" {
    /** Writes the plan's choice as one line of text that attn_plan_options.tuning takes: the problem,
 the device, the library version, the implementation and, if the plan was tuned, its time.

 *length gets the bytes needed, the terminating NUL not counted. text may be NULL if capacity
 is 0, to ask for the length; with a capacity that is too small (<= *length) nothing is written
 and the status is INVALID_ARGUMENT. Thread-safe.*/
    pub fn attn_plan_export(
        plan: *const attn_plan,
        text: *mut ::core::ffi::c_char,
        capacity: usize,
        length: *mut usize,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** Frees a plan. NULL is allowed. It must not be executing; captured graphs that hold its launches
 stay valid until the context is destroyed.*/
    pub fn attn_plan_destroy(plan: *mut attn_plan);
}
extern "C" {
    /// As attn_sdpa_supported.
    pub fn attn_merge_supported(
        context: *const attn_context,
        desc: *const attn_merge_desc,
        options: *const attn_plan_options,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /// As attn_sdpa_plan_create.
    pub fn attn_merge_plan_create(
        context: *const attn_context,
        desc: *const attn_merge_desc,
        options: *const attn_plan_options,
        plan: *mut *mut attn_plan,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /// Merges. Workspace, stream, errors and threads as attn_sdpa_forward.
    pub fn attn_merge(
        plan: *const attn_plan,
        args: *const attn_merge_args,
        workspace: *mut ::core::ffi::c_void,
        workspace_bytes: usize,
        stream: attn_stream,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** Says whether attn_sdpa_plan_create would succeed: it runs the same planner. options may be NULL.
 UNSUPPORTED names what no implementation serves, and why. Host only; thread-safe.*/
    pub fn attn_sdpa_supported(
        context: *const attn_context,
        desc: *const attn_sdpa_desc,
        options: *const attn_plan_options,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** Makes a plan. options may be NULL. Host only: touches no device. On error *plan is NULL. Free it
 with attn_plan_destroy. Thread-safe.*/
    pub fn attn_sdpa_plan_create(
        context: *const attn_context,
        desc: *const attn_sdpa_desc,
        options: *const attn_plan_options,
        plan: *mut *mut attn_plan,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** Computes one forward pass.

 workspace: at least attn_plan_info.workspace_bytes, in the device's memory, aligned as it says;
 its contents do not matter. stream: see attn_stream. Never allocates or waits; on error nothing
 is written. Thread-safe with a workspace and outputs of the call's own.*/
    pub fn attn_sdpa_forward(
        plan: *const attn_plan,
        args: *const attn_sdpa_args,
        workspace: *mut ::core::ffi::c_void,
        workspace_bytes: usize,
        stream: attn_stream,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /// Computes one backward pass; the plan's pass must be BACKWARD. Otherwise as attn_sdpa_forward.
    pub fn attn_sdpa_backward(
        plan: *const attn_plan,
        args: *const attn_sdpa_backward_args,
        workspace: *mut ::core::ffi::c_void,
        workspace_bytes: usize,
        stream: attn_stream,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** Times every implementation that serves the plan's problem on the caller's tensors and gives a
 new plan with the fastest (NULL on error; free it with attn_plan_destroy); `plan` stays as it is.
 The outputs hold a correct result afterwards.
 workspace: at least attn_plan_info.tune_workspace_bytes. Waits for the device; not for graph
 capture. Exactly one of args and backward_args is given, as the plan's pass asks.*/
    pub fn attn_sdpa_plan_tune(
        plan: *const attn_plan,
        args: *const attn_sdpa_args,
        backward_args: *const attn_sdpa_backward_args,
        workspace: *mut ::core::ffi::c_void,
        workspace_bytes: usize,
        stream: attn_stream,
        tuned: *mut *mut attn_plan,
        error: *mut attn_error,
    ) -> i32;
}
extern "C" {
    /** The ABI version of the library that is loaded: (major << 16) | minor.

 This function never changes, in no version: a client that loads the library at run time asks it
 first, before it resolves anything else. Thread-safe; never fails.*/
    pub fn attn_abi_version() -> u32;
}
extern "C" {
    /** Checks that the loaded library serves a client that was compiled against ABI `client_abi`
 (pass ATTN_ABI_VERSION): same major, and a minor no older than the client's. A client that uses
 nothing newer than minor m may pass (ATTN_ABI_MAJOR << 16) | m.

 Returns ATTN_OK, or ATTN_ERROR_VERSION with both versions in the message. Thread-safe.*/
    pub fn attn_abi_check(client_abi: u32, error: *mut attn_error) -> i32;
}
extern "C" {
    /// The library's version as text, for example "0.1.0". Static storage. Thread-safe; never fails.
    pub fn attn_version_string() -> *const ::core::ffi::c_char;
}
extern "C" {
    /** What this build holds, one `key: value` a line: version, compiler, backends (and why one is
 missing), SIMD targets. Static storage, meant for people and bug reports, not for parsing.
 Thread-safe; never fails.*/
    pub fn attn_build_info() -> *const ::core::ffi::c_char;
}
}
