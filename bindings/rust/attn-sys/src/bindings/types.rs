// Generated from include/attn/*.h by bindgen (see build.rs). Do not edit.

pub const ATTN_ERROR_FIELD_SIZE: usize = 64;
pub const ATTN_ERROR_MESSAGE_SIZE: usize = 432;
pub const ATTN_MAX_RANK: usize = 6;
pub const ATTN_MERGE_OTHER: u64 = 1;
pub const ATTN_MERGE_ROW_MASK: u64 = 2;
pub const ATTN_MERGE_SINK: u64 = 4;
pub const ATTN_MERGE_LSE_INCLUDES_SINK: u64 = 8;
pub const ATTN_MERGE_RETURN_LSE: u64 = 16;
pub const ATTN_SDPA_CAUSAL: u64 = 1;
pub const ATTN_SDPA_WINDOW: u64 = 2;
pub const ATTN_SDPA_MASK: u64 = 4;
pub const ATTN_SDPA_TAIL_MASK: u64 = 8;
pub const ATTN_SDPA_SEGMENT_IDS: u64 = 16;
pub const ATTN_SDPA_BIAS: u64 = 32;
pub const ATTN_SDPA_ALIBI: u64 = 64;
pub const ATTN_SDPA_SINK: u64 = 128;
pub const ATTN_SDPA_LSE_INCLUDES_SINK: u64 = 256;
pub const ATTN_SDPA_DROPOUT: u64 = 512;
pub const ATTN_SDPA_BLOCK_SPARSE: u64 = 1024;
pub const ATTN_SDPA_GATE: u64 = 2048;
pub const ATTN_SDPA_SEQUSED_Q: u64 = 4096;
pub const ATTN_SDPA_SEQUSED_K: u64 = 8192;
pub const ATTN_SDPA_LATENT_KV: u64 = 16384;
pub const ATTN_SDPA_RETURN_LSE: u64 = 32768;
pub const ATTN_SDPA_RETURN_ROW_MAX: u64 = 65536;
pub const ATTN_SDPA_ALLOW_TF32: u64 = 131072;
pub const ATTN_SDPA_GRAD_Q: u32 = 1;
pub const ATTN_SDPA_GRAD_K: u32 = 2;
pub const ATTN_SDPA_GRAD_V: u32 = 4;
pub const ATTN_SDPA_GRAD_BIAS: u32 = 8;
pub const ATTN_SDPA_GRAD_SINK: u32 = 16;
pub const ATTN_SDPA_GRAD_GATE: u32 = 32;
pub const ATTN_SDPA_GRAD_LSE_IN: u32 = 64;
pub const ATTN_VERSION_MAJOR: u32 = 0;
pub const ATTN_VERSION_MINOR: u32 = 1;
pub const ATTN_VERSION_PATCH: u32 = 0;
pub const ATTN_ABI_MAJOR: u32 = 1;
pub const ATTN_ABI_MINOR: u32 = 1;
pub const ATTN_ABI_VERSION: u32 = 65537;
/// done
pub const ATTN_OK: attn_status = 0;
/** A field or argument breaks a documented rule (an unknown enum value too). The error names
 field, value and rule.*/
pub const ATTN_ERROR_INVALID_ARGUMENT: attn_status = 1;
/// The request is well formed, but no implementation of the chosen backend serves it.
pub const ATTN_ERROR_UNSUPPORTED: attn_status = 2;
/** The library is older than what the client asks of it: an ABI version that is not served, an
 unknown flag bit, or a set field that this library does not know (non-zero `reserved`, or
 beyond its struct).*/
pub const ATTN_ERROR_VERSION: attn_status = 3;
/// Host memory ran out. Only create functions allocate.
pub const ATTN_ERROR_OUT_OF_MEMORY: attn_status = 4;
/// The workspace is missing, too small or misaligned: see attn_plan_info.
pub const ATTN_ERROR_WORKSPACE: attn_status = 5;
/// The backend is not in this build, or its driver or device is absent.
pub const ATTN_ERROR_BACKEND_UNAVAILABLE: attn_status = 6;
/// A driver call failed; attn_error.backend_code holds its code.
pub const ATTN_ERROR_DEVICE: attn_status = 7;
/// A defect in libattn: please report it with the message.
pub const ATTN_ERROR_INTERNAL: attn_status = 8;
/** Every fallible function returns one of these as int32_t; 0 is success. Values are never reused,
 and new ones are added at the end: treat an unknown non-zero value as a failure.*/
pub type attn_status = i32;
/** What went wrong, in memory that the caller owns (usually on the stack). Every fallible function
 takes a pointer to one as its last argument; NULL is allowed. There is no global and no
 thread-local last error, so this is safe from any thread, goroutine or async task.

 On success the record is left untouched. On failure the library fills it, up to struct_size;
 nothing is written if struct_size is too small for a message.*/
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_error {
    /// sizeof(attn_error): set by ATTN_ERROR_INIT
    pub struct_size: u32,
    /// the attn_status that the function returned
    pub status: i32,
    /// the driver's own error code where there is one, else 0
    pub backend_code: i32,
    /// 0
    pub reserved: i32,
    /** The field at fault as the caller would write it, such as "desc.num_kv_heads" or
 "args.k.shape[2]"; empty if no single field is. NUL-terminated UTF-8.*/
    pub field: [::core::ffi::c_char; 64usize],
    /// One sentence for people: field, value, rule, and what to do. NUL-terminated UTF-8.
    pub message: [::core::ffi::c_char; 432usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_error"][::core::mem::size_of::<attn_error>() - 512usize];
    ["Alignment of attn_error"][::core::mem::align_of::<attn_error>() - 4usize];
    [
        "Offset of field: attn_error::struct_size",
    ][::core::mem::offset_of!(attn_error, struct_size) - 0usize];
    [
        "Offset of field: attn_error::status",
    ][::core::mem::offset_of!(attn_error, status) - 4usize];
    [
        "Offset of field: attn_error::backend_code",
    ][::core::mem::offset_of!(attn_error, backend_code) - 8usize];
    [
        "Offset of field: attn_error::reserved",
    ][::core::mem::offset_of!(attn_error, reserved) - 12usize];
    [
        "Offset of field: attn_error::field",
    ][::core::mem::offset_of!(attn_error, field) - 16usize];
    [
        "Offset of field: attn_error::message",
    ][::core::mem::offset_of!(attn_error, message) - 80usize];
};
/// the field's default
pub const ATTN_DTYPE_NONE: attn_dtype = 0;
/// IEEE binary32
pub const ATTN_DTYPE_FP32: attn_dtype = 1;
/// IEEE binary16
pub const ATTN_DTYPE_FP16: attn_dtype = 2;
/// the upper half of a binary32
pub const ATTN_DTYPE_BF16: attn_dtype = 3;
/// OCP: no infinity, largest 448 (NVIDIA, MI350)
pub const ATTN_DTYPE_FP8_E4M3FN: attn_dtype = 4;
/// OCP: IEEE-like, with infinities, largest 57344
pub const ATTN_DTYPE_FP8_E5M2: attn_dtype = 5;
/// AMD MI300: bias 8, no negative zero, largest 240
pub const ATTN_DTYPE_FP8_E4M3FNUZ: attn_dtype = 6;
/// OCP MX block scale: 2^(x-127), 255 is NaN
pub const ATTN_DTYPE_FP8_E8M0: attn_dtype = 7;
/// signed
pub const ATTN_DTYPE_INT8: attn_dtype = 8;
/// signed, two a byte, even element in the low nibble
pub const ATTN_DTYPE_INT4: attn_dtype = 9;
/// OCP: two a byte, even element in the low nibble
pub const ATTN_DTYPE_FP4_E2M1: attn_dtype = 10;
/// masks: packed bits or flags
pub const ATTN_DTYPE_UINT8: attn_dtype = 11;
/// indices, lengths, ids
pub const ATTN_DTYPE_INT32: attn_dtype = 12;
/// not used by an operation yet
pub const ATTN_DTYPE_INT64: attn_dtype = 13;
/** Element types, stored as int32_t. In a descriptor, ATTN_DTYPE_NONE (0) asks for the default that
 the field documents.*/
pub type attn_dtype = i32;
/** A view of memory that the caller owns. Shape and strides are inline, so that the struct can be
 copied, sent through any FFI and kept on the stack. rank 0 means "no tensor".

 Element (i0, i1, ...) lies at data + (i0*stride[0] + i1*stride[1] + ...) elements. Offsets are
 computed in 64 bits. Strides may be any int64 value, negative or 0 (a repeated dimension)
 included, except that an output's elements must not overlap and that sub-byte types (int4, fp4)
 need stride 1 in the last dimension and even strides elsewhere.*/
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_tensor {
    /// may be NULL if the tensor has no element
    pub data: *mut ::core::ffi::c_void,
    /// attn_dtype
    pub dtype: i32,
    /// 0 (absent) .. ATTN_MAX_RANK
    pub rank: i32,
    /// entries past rank are ignored
    pub shape: [i64; 6usize],
    /// in elements; entries past rank are ignored
    pub stride: [i64; 6usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_tensor"][::core::mem::size_of::<attn_tensor>() - 112usize];
    ["Alignment of attn_tensor"][::core::mem::align_of::<attn_tensor>() - 8usize];
    [
        "Offset of field: attn_tensor::data",
    ][::core::mem::offset_of!(attn_tensor, data) - 0usize];
    [
        "Offset of field: attn_tensor::dtype",
    ][::core::mem::offset_of!(attn_tensor, dtype) - 8usize];
    [
        "Offset of field: attn_tensor::rank",
    ][::core::mem::offset_of!(attn_tensor, rank) - 12usize];
    [
        "Offset of field: attn_tensor::shape",
    ][::core::mem::offset_of!(attn_tensor, shape) - 16usize];
    [
        "Offset of field: attn_tensor::stride",
    ][::core::mem::offset_of!(attn_tensor, stride) - 64usize];
};
/// natural log (FlashAttention)
pub const ATTN_LSE_BASE_E: attn_lse_base = 0;
/// log2 of the same sum (FlashInfer)
pub const ATTN_LSE_BASE_2: attn_lse_base = 1;
/// The logarithm of an lse.
pub type attn_lse_base = i32;
/** A stream of the backend: a CUstream or hipStream_t; NULL is the device's default stream.
 On the CPU it must be NULL: work is done when the call returns.*/
pub type attn_stream = *mut ::core::ffi::c_void;
/// the first of CUDA, HIP, CPU that is built in and has a device
pub const ATTN_BACKEND_AUTO: attn_backend = 0;
/// the host; always there
pub const ATTN_BACKEND_CPU: attn_backend = 1;
/// NVIDIA
pub const ATTN_BACKEND_CUDA: attn_backend = 2;
/// AMD
pub const ATTN_BACKEND_HIP: attn_backend = 3;
/// Where an operation runs.
pub type attn_backend = i32;
/// what failed
pub const ATTN_LOG_ERROR: attn_log_level = 0;
/// what works, but not as it was probably meant
pub const ATTN_LOG_WARNING: attn_log_level = 1;
/// which implementation a plan chose and why others could not serve
pub const ATTN_LOG_INFO: attn_log_level = 2;
/// what developers of libattn want to see
pub const ATTN_LOG_DEBUG: attn_log_level = 3;
/// How much is logged: a level includes those above it.
pub type attn_log_level = i32;
/** Receives log lines (NUL-terminated UTF-8, no newline; valid only during the call). It may be
 called from any thread that calls the library with this context, several at once, and must not
 call back into the library. It is called by create functions, never by execute.*/
pub type attn_log_callback = ::core::option::Option<
    unsafe extern "C" fn(
        user_data: *mut ::core::ffi::c_void,
        level: i32,
        message: *const ::core::ffi::c_char,
    ),
>;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_context {
    _unused: [u8; 0],
}
/// What attn_context_create makes.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_context_desc {
    /// sizeof(attn_context_desc): set by ATTN_CONTEXT_DESC_INIT
    pub struct_size: u32,
    /// attn_backend; default AUTO
    pub backend: i32,
    /// 0 .. attn_device_count()-1; default 0
    pub device_index: i32,
    /** CPU only: threads that one execute may use, the caller's included; 0 = as many as the process
 may run on (its affinity mask). At most 1024. Other backends: must be 0.*/
    pub num_threads: i32,
    /// Log sink; NULL = none, unless the environment has ATTN_LOG=1, which logs to stderr.
    pub log_callback: attn_log_callback,
    /// handed to log_callback as it is
    pub log_user_data: *mut ::core::ffi::c_void,
    /// attn_log_level: the most detailed level delivered; default ERROR
    pub log_level: i32,
    /// must be 0
    pub reserved: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_context_desc"][::core::mem::size_of::<attn_context_desc>() - 40usize];
    [
        "Alignment of attn_context_desc",
    ][::core::mem::align_of::<attn_context_desc>() - 8usize];
    [
        "Offset of field: attn_context_desc::struct_size",
    ][::core::mem::offset_of!(attn_context_desc, struct_size) - 0usize];
    [
        "Offset of field: attn_context_desc::backend",
    ][::core::mem::offset_of!(attn_context_desc, backend) - 4usize];
    [
        "Offset of field: attn_context_desc::device_index",
    ][::core::mem::offset_of!(attn_context_desc, device_index) - 8usize];
    [
        "Offset of field: attn_context_desc::num_threads",
    ][::core::mem::offset_of!(attn_context_desc, num_threads) - 12usize];
    [
        "Offset of field: attn_context_desc::log_callback",
    ][::core::mem::offset_of!(attn_context_desc, log_callback) - 16usize];
    [
        "Offset of field: attn_context_desc::log_user_data",
    ][::core::mem::offset_of!(attn_context_desc, log_user_data) - 24usize];
    [
        "Offset of field: attn_context_desc::log_level",
    ][::core::mem::offset_of!(attn_context_desc, log_level) - 32usize];
    [
        "Offset of field: attn_context_desc::reserved",
    ][::core::mem::offset_of!(attn_context_desc, reserved) - 36usize];
};
/// What attn_device_query and attn_context_query tell.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_device_info {
    /** set by ATTN_DEVICE_INFO_INIT; what a longer struct has beyond this
library's is left as it is*/
    pub struct_size: u32,
    /// attn_backend, never AUTO
    pub backend: i32,
    /// 0 .. attn_device_count()-1
    pub device_index: i32,
    /// CPU: threads in use or usable; GPU: multiprocessors
    pub num_units: i32,
    /// memory of the device in all; 0 if unknown
    pub memory_bytes: u64,
    /// the maker's name, for example "AMD EPYC 9654"
    pub name: [::core::ffi::c_char; 128usize],
    /// CPU: the SIMD target in use, for example "AVX3"; GPU: "sm_90"
    pub architecture: [::core::ffi::c_char; 32usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_device_info"][::core::mem::size_of::<attn_device_info>() - 184usize];
    [
        "Alignment of attn_device_info",
    ][::core::mem::align_of::<attn_device_info>() - 8usize];
    [
        "Offset of field: attn_device_info::struct_size",
    ][::core::mem::offset_of!(attn_device_info, struct_size) - 0usize];
    [
        "Offset of field: attn_device_info::backend",
    ][::core::mem::offset_of!(attn_device_info, backend) - 4usize];
    [
        "Offset of field: attn_device_info::device_index",
    ][::core::mem::offset_of!(attn_device_info, device_index) - 8usize];
    [
        "Offset of field: attn_device_info::num_units",
    ][::core::mem::offset_of!(attn_device_info, num_units) - 12usize];
    [
        "Offset of field: attn_device_info::memory_bytes",
    ][::core::mem::offset_of!(attn_device_info, memory_bytes) - 16usize];
    [
        "Offset of field: attn_device_info::name",
    ][::core::mem::offset_of!(attn_device_info, name) - 24usize];
    [
        "Offset of field: attn_device_info::architecture",
    ][::core::mem::offset_of!(attn_device_info, architecture) - 152usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_plan {
    _unused: [u8; 0],
}
/// Optional wishes at plan creation. NULL in their place means all defaults.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_plan_options {
    /// sizeof(attn_plan_options): set by ATTN_PLAN_OPTIONS_INIT
    pub struct_size: u32,
    /// must be 0
    pub reserved: u32,
    /** The name of the implementation to use, as attn_plan_implementation gives it, for example
 "cpu/sdpa/forward/reference"; NULL = the best that serves the problem. A name that is unknown
 or cannot serve the problem is an error, never replaced. NUL-terminated; read only during the
 call.*/
    pub implementation: *const ::core::ffi::c_char,
    /** Tuning results as attn_plan_export wrote them, any number of lines; NULL = none. A line that
 was made for this problem, device and library version decides the implementation, unless
 `implementation` does; other lines are passed over. NUL-terminated; read only during the
 call.*/
    pub tuning: *const ::core::ffi::c_char,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_plan_options"][::core::mem::size_of::<attn_plan_options>() - 24usize];
    [
        "Alignment of attn_plan_options",
    ][::core::mem::align_of::<attn_plan_options>() - 8usize];
    [
        "Offset of field: attn_plan_options::struct_size",
    ][::core::mem::offset_of!(attn_plan_options, struct_size) - 0usize];
    [
        "Offset of field: attn_plan_options::reserved",
    ][::core::mem::offset_of!(attn_plan_options, reserved) - 4usize];
    [
        "Offset of field: attn_plan_options::implementation",
    ][::core::mem::offset_of!(attn_plan_options, implementation) - 8usize];
    [
        "Offset of field: attn_plan_options::tuning",
    ][::core::mem::offset_of!(attn_plan_options, tuning) - 16usize];
};
/// What attn_plan_query tells.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_plan_info {
    /// Set by ATTN_PLAN_INFO_INIT. Fields that this library does not know are left as they are.
    pub struct_size: u32,
    /// 1: same inputs give the same bits, run after run
    pub deterministic: i32,
    /// 1: execute may be captured into a graph; CPU: 0
    pub capturable: i32,
    /// 1: execute returns before the work is done; CPU: 0
    pub asynchronous: i32,
    /// what every execute of this plan needs; may be 0
    pub workspace_bytes: u64,
    /// bytes, a power of two; the workspace's address must keep it
    pub workspace_alignment: u64,
    /// what tuning needs: the largest over all candidates
    pub tune_workspace_bytes: u64,
    /// how many could serve the problem: see attn_plan_implementation
    pub num_implementations: i32,
    /// 0
    pub reserved: i32,
    /// the chosen one's name; lives as long as the library
    pub implementation: *const ::core::ffi::c_char,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_plan_info"][::core::mem::size_of::<attn_plan_info>() - 56usize];
    ["Alignment of attn_plan_info"][::core::mem::align_of::<attn_plan_info>() - 8usize];
    [
        "Offset of field: attn_plan_info::struct_size",
    ][::core::mem::offset_of!(attn_plan_info, struct_size) - 0usize];
    [
        "Offset of field: attn_plan_info::deterministic",
    ][::core::mem::offset_of!(attn_plan_info, deterministic) - 4usize];
    [
        "Offset of field: attn_plan_info::capturable",
    ][::core::mem::offset_of!(attn_plan_info, capturable) - 8usize];
    [
        "Offset of field: attn_plan_info::asynchronous",
    ][::core::mem::offset_of!(attn_plan_info, asynchronous) - 12usize];
    [
        "Offset of field: attn_plan_info::workspace_bytes",
    ][::core::mem::offset_of!(attn_plan_info, workspace_bytes) - 16usize];
    [
        "Offset of field: attn_plan_info::workspace_alignment",
    ][::core::mem::offset_of!(attn_plan_info, workspace_alignment) - 24usize];
    [
        "Offset of field: attn_plan_info::tune_workspace_bytes",
    ][::core::mem::offset_of!(attn_plan_info, tune_workspace_bytes) - 32usize];
    [
        "Offset of field: attn_plan_info::num_implementations",
    ][::core::mem::offset_of!(attn_plan_info, num_implementations) - 40usize];
    [
        "Offset of field: attn_plan_info::reserved",
    ][::core::mem::offset_of!(attn_plan_info, reserved) - 44usize];
    [
        "Offset of field: attn_plan_info::implementation",
    ][::core::mem::offset_of!(attn_plan_info, implementation) - 48usize];
};
/// A merge by its limits; zero in a field means its default.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_merge_desc {
    /// sizeof(attn_merge_desc): set by ATTN_MERGE_DESC_INIT
    pub struct_size: u32,
    /// required: of partial and other: FP32, FP16, BF16
    pub dtype: i32,
    /// ATTN_MERGE_...
    pub flags: u64,
    /// default dtype
    pub out_dtype: i32,
    /// attn_lse_base of every lse, in and out
    pub lse_base: i32,
    /// required, >= 1
    pub num_heads: i32,
    /// required, 1 .. 4096
    pub head_dim: i32,
    /// required, >= 0
    pub max_rows: i64,
    /// required, >= 0; `other` not counted
    pub max_parts: i64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_merge_desc"][::core::mem::size_of::<attn_merge_desc>() - 48usize];
    [
        "Alignment of attn_merge_desc",
    ][::core::mem::align_of::<attn_merge_desc>() - 8usize];
    [
        "Offset of field: attn_merge_desc::struct_size",
    ][::core::mem::offset_of!(attn_merge_desc, struct_size) - 0usize];
    [
        "Offset of field: attn_merge_desc::dtype",
    ][::core::mem::offset_of!(attn_merge_desc, dtype) - 4usize];
    [
        "Offset of field: attn_merge_desc::flags",
    ][::core::mem::offset_of!(attn_merge_desc, flags) - 8usize];
    [
        "Offset of field: attn_merge_desc::out_dtype",
    ][::core::mem::offset_of!(attn_merge_desc, out_dtype) - 16usize];
    [
        "Offset of field: attn_merge_desc::lse_base",
    ][::core::mem::offset_of!(attn_merge_desc, lse_base) - 20usize];
    [
        "Offset of field: attn_merge_desc::num_heads",
    ][::core::mem::offset_of!(attn_merge_desc, num_heads) - 24usize];
    [
        "Offset of field: attn_merge_desc::head_dim",
    ][::core::mem::offset_of!(attn_merge_desc, head_dim) - 28usize];
    [
        "Offset of field: attn_merge_desc::max_rows",
    ][::core::mem::offset_of!(attn_merge_desc, max_rows) - 32usize];
    [
        "Offset of field: attn_merge_desc::max_parts",
    ][::core::mem::offset_of!(attn_merge_desc, max_parts) - 40usize];
};
/** n rows (tokens), s parts. Any order of dimensions in memory by strides: parts-first buffers, or
 one slab a rank (decode context parallel), are views.*/
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_merge_args {
    /// sizeof(attn_merge_args): set by ATTN_MERGE_ARGS_INIT
    pub struct_size: u32,
    /// must be 0
    pub reserved: u32,
    /// [n, s, num_heads, head_dim]
    pub partial: attn_tensor,
    /// [n, s, num_heads], FP32
    pub partial_lse: attn_tensor,
    /** OTHER: [n, num_heads, head_dim] and [n, num_heads]. out and out_lse may be exactly these
 tensors: merging in place.*/
    pub other: attn_tensor,
    /// OTHER
    pub other_lse: attn_tensor,
    /** ROW_MASK: UINT8 [n]; where 0, the row's partial parts are left out, so that it is `other` (or,
 without it, 0 and -inf).*/
    pub row_mask: attn_tensor,
    /// SINK: FP32 [num_heads], natural units
    pub sink: attn_tensor,
    /// [n, num_heads, head_dim]
    pub out: attn_tensor,
    /// RETURN_LSE: [n, num_heads], FP32
    pub out_lse: attn_tensor,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_merge_args"][::core::mem::size_of::<attn_merge_args>() - 904usize];
    [
        "Alignment of attn_merge_args",
    ][::core::mem::align_of::<attn_merge_args>() - 8usize];
    [
        "Offset of field: attn_merge_args::struct_size",
    ][::core::mem::offset_of!(attn_merge_args, struct_size) - 0usize];
    [
        "Offset of field: attn_merge_args::reserved",
    ][::core::mem::offset_of!(attn_merge_args, reserved) - 4usize];
    [
        "Offset of field: attn_merge_args::partial",
    ][::core::mem::offset_of!(attn_merge_args, partial) - 8usize];
    [
        "Offset of field: attn_merge_args::partial_lse",
    ][::core::mem::offset_of!(attn_merge_args, partial_lse) - 120usize];
    [
        "Offset of field: attn_merge_args::other",
    ][::core::mem::offset_of!(attn_merge_args, other) - 232usize];
    [
        "Offset of field: attn_merge_args::other_lse",
    ][::core::mem::offset_of!(attn_merge_args, other_lse) - 344usize];
    [
        "Offset of field: attn_merge_args::row_mask",
    ][::core::mem::offset_of!(attn_merge_args, row_mask) - 456usize];
    [
        "Offset of field: attn_merge_args::sink",
    ][::core::mem::offset_of!(attn_merge_args, sink) - 568usize];
    [
        "Offset of field: attn_merge_args::out",
    ][::core::mem::offset_of!(attn_merge_args, out) - 680usize];
    [
        "Offset of field: attn_merge_args::out_lse",
    ][::core::mem::offset_of!(attn_merge_args, out_lse) - 792usize];
};
/// execute with attn_sdpa_forward
pub const ATTN_SDPA_FORWARD: attn_sdpa_pass = 0;
/// execute with attn_sdpa_backward
pub const ATTN_SDPA_BACKWARD: attn_sdpa_pass = 1;
/// Which way a plan goes.
pub type attn_sdpa_pass = i32;
/// [batch, seqlen, heads, head_dim]; lengths may be shortened by seqused_q, seqused_k.
pub const ATTN_LAYOUT_DENSE: attn_layout = 0;
/** [total_tokens, heads, head_dim]: sequences one after the other (varlen). cu_seqlens[b] ..
 cu_seqlens[b+1] are the tokens of sequence b. Tokens after the last sequence are padding: keys
 that none sees, queries that get 0, -inf.*/
pub const ATTN_LAYOUT_RAGGED: attn_layout = 1;
/** K and V only: a pool [num_pages, page_size, heads, head_dim] and a block_table
 [batch, max_pages_per_seq]; lengths in seqused_k. (vLLM, FlashAttention)*/
pub const ATTN_LAYOUT_PAGED_TABLE: attn_layout = 2;
/** K and V only: the same pool; sequence b has the pages kv_page_indices[kv_page_indptr[b] ..
 kv_page_indptr[b+1]], the last of which holds kv_last_page_len[b] tokens. (FlashInfer)*/
pub const ATTN_LAYOUT_PAGED_CSR: attn_layout = 3;
/// How the tokens of a batch lie in memory.
pub type attn_layout = i32;
/// the last query sees the last key (FlashAttention, FlashInfer)
pub const ATTN_ALIGN_BOTTOM_RIGHT: attn_alignment = 0;
/// query 0 sees key 0 (PyTorch is_causal)
pub const ATTN_ALIGN_TOP_LEFT: attn_alignment = 1;
/// Where the diagonal of CAUSAL, WINDOW, chunk_size and ALIBI lies.
pub type attn_alignment = i32;
/// as in the formulas above
pub const ATTN_ACTIVATION_SOFTMAX: attn_activation = 0;
/** P_ij = silu(s_ij) / silu_divisor over visible keys, no normalisation (HSTU). Has no lse, row
 max or sink: asking for one is refused.*/
pub const ATTN_ACTIVATION_SILU: attn_activation = 1;
/// How scores become weights.
pub type attn_activation = i32;
/// split the keys of a sequence among units if that is faster
pub const ATTN_SPLIT_AUTO: attn_split_policy = 0;
/// never
pub const ATTN_SPLIT_NONE: attn_split_policy = 1;
/// pieces of split_size keys, whatever the batch
pub const ATTN_SPLIT_FIXED: attn_split_policy = 2;
/// Whether the keys of a sequence are split into pieces that run side by side.
pub type attn_split_policy = i32;
/// no promise
pub const ATTN_DETERMINISM_FAST: attn_determinism = 0;
/// same inputs, same bits
pub const ATTN_DETERMINISM_RUN_TO_RUN: attn_determinism = 1;
/** and a sequence's bits do not depend on its batch, nor on
the number of threads*/
pub const ATTN_DETERMINISM_BATCH_INVARIANT: attn_determinism = 2;
/// What is promised about the bits of a result.
pub type attn_determinism = i32;
/// no scale: stored values are used as they are
pub const ATTN_QUANT_NONE: attn_quant_granularity = 0;
/// all extents 1
pub const ATTN_QUANT_TENSOR: attn_quant_granularity = 1;
/// batch (dense layout only) and head
pub const ATTN_QUANT_HEAD: attn_quant_granularity = 2;
/// token (batch and position, or page and slot)
pub const ATTN_QUANT_TOKEN: attn_quant_granularity = 3;
/// token and head
pub const ATTN_QUANT_TOKEN_HEAD: attn_quant_granularity = 4;
/// token, head, and ceil(head_dim / block_size) in the last dimension
pub const ATTN_QUANT_BLOCK: attn_quant_granularity = 5;
/** How a tensor's scales are shared. A scale is a DEQUANTISATION multiplier: real = stored * scale.
 The scale tensor has the rank of the tensor that it scales, and in each dimension either that
 dimension's extent or 1 (shared); the granularity says which may be more than 1.*/
pub type attn_quant_granularity = i32;
/// How one of q, k, v, out is quantised. All zero: not at all.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_quant {
    /// attn_quant_granularity
    pub granularity: i32,
    /// BLOCK: elements of head_dim a scale covers, e.g. 16 for NVFP4; else 0
    pub block_size: i32,
    /// FP32 (default), FP16, BF16, FP8_E4M3FN (NVFP4) or FP8_E8M0 (MX)
    pub scale_dtype: i32,
    /// must be 0
    pub reserved: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_quant"][::core::mem::size_of::<attn_quant>() - 16usize];
    ["Alignment of attn_quant"][::core::mem::align_of::<attn_quant>() - 4usize];
    [
        "Offset of field: attn_quant::granularity",
    ][::core::mem::offset_of!(attn_quant, granularity) - 0usize];
    [
        "Offset of field: attn_quant::block_size",
    ][::core::mem::offset_of!(attn_quant, block_size) - 4usize];
    [
        "Offset of field: attn_quant::scale_dtype",
    ][::core::mem::offset_of!(attn_quant, scale_dtype) - 8usize];
    [
        "Offset of field: attn_quant::reserved",
    ][::core::mem::offset_of!(attn_quant, reserved) - 12usize];
};
/** A problem by its limits. Zero in a field means its default; fields without a default are marked
 "required". All lengths and counts at execute must stay within the limits.*/
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_sdpa_desc {
    /// sizeof(attn_sdpa_desc): set by ATTN_SDPA_DESC_INIT
    pub struct_size: u32,
    /// attn_sdpa_pass
    pub pass: i32,
    /// ATTN_SDPA_...; an unknown bit is refused
    pub flags: u64,
    /// BACKWARD: ATTN_SDPA_GRAD_...; 0 = q, k and v. FORWARD: must be 0
    pub grads: u32,
    /// required. FP32, FP16, BF16; forward: quantised dtypes too
    pub q_dtype: i32,
    /// default q_dtype. Any floating or quantised dtype
    pub k_dtype: i32,
    /// default k_dtype; with LATENT_KV it must be k_dtype
    pub v_dtype: i32,
    /// default q_dtype if that is FP32, FP16 or BF16, else BF16
    pub out_dtype: i32,
    /// attn_layout: DENSE or RAGGED; also the layout of out, lse, gate and all that is a query's
    pub q_layout: i32,
    /// attn_layout
    pub kv_layout: i32,
    /// paged layouts: required, >= 1; else 0
    pub page_size: i32,
    /// required, >= 1
    pub num_q_heads: i32,
    /// default num_q_heads; must divide it
    pub num_kv_heads: i32,
    /// required, 1 .. 4096
    pub head_dim_qk: i32,
    /// default head_dim_qk, 1 .. 4096; with LATENT_KV <= head_dim_qk
    pub head_dim_v: i32,
    /// required, >= 0: sequences
    pub max_batch: i64,
    /// required, >= 0: queries of one sequence
    pub max_seqlen_q: i64,
    /// required, >= 0: keys of one sequence
    pub max_seqlen_k: i64,
    /// RAGGED q: tokens in all; default max_batch * max_seqlen_q
    pub max_total_q: i64,
    /// RAGGED k: tokens in all; default max_batch * max_seqlen_k
    pub max_total_k: i64,
    /// required: finite and not 0. Usually 1 / sqrt(head_dim_qk)
    pub softmax_scale: f32,
    /// 0 = none; > 0: cap * tanh(scale * qk / cap), before bias and ALiBi
    pub softcap: f32,
    /// attn_alignment
    pub alignment: i32,
    /// WINDOW: keys left of p_i, itself not counted; -1 = unbounded
    pub window_left: i32,
    /// WINDOW: keys right of p_i; -1 = unbounded
    pub window_right: i32,
    /// 0 = none; c: visible only if floor(j/c) == floor(p_i/c) (Llama 4)
    pub chunk_size: i32,
    /** the first n keys of a sequence are visible whatever WINDOW and chunk_size
say (StreamingLLM); other masks still apply*/
    pub sink_tokens: i32,
    /// BLOCK_SPARSE: queries a block, >= 1
    pub block_size_q: i32,
    /// BLOCK_SPARSE: keys a block, >= 1
    pub block_size_k: i32,
    /// DROPOUT: 0 <= p < 1, the probability that a weight is dropped
    pub dropout_p: f32,
    /// attn_activation
    pub activation: i32,
    /// SILU: required, finite and not 0 (HSTU: the largest sequence length)
    pub silu_divisor: f32,
    /// attn_lse_base of lse, and of dlse; row_max is always natural
    pub lse_base: i32,
    /// attn_split_policy
    pub split_policy: i32,
    /// SPLIT_FIXED: keys a piece, >= 1; else 0
    pub split_size: i32,
    /// attn_determinism
    pub determinism: i32,
    /// for q of an int8, fp8, int4 or fp4 dtype
    pub q_quant: attn_quant,
    /// for k; with LATENT_KV it also scales v
    pub k_quant: attn_quant,
    /// for v; not with LATENT_KV
    pub v_quant: attn_quant,
    /// out is stored as round(real / out_scale), saturated
    pub out_quant: attn_quant,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_sdpa_desc"][::core::mem::size_of::<attn_sdpa_desc>() - 232usize];
    ["Alignment of attn_sdpa_desc"][::core::mem::align_of::<attn_sdpa_desc>() - 8usize];
    [
        "Offset of field: attn_sdpa_desc::struct_size",
    ][::core::mem::offset_of!(attn_sdpa_desc, struct_size) - 0usize];
    [
        "Offset of field: attn_sdpa_desc::pass",
    ][::core::mem::offset_of!(attn_sdpa_desc, pass) - 4usize];
    [
        "Offset of field: attn_sdpa_desc::flags",
    ][::core::mem::offset_of!(attn_sdpa_desc, flags) - 8usize];
    [
        "Offset of field: attn_sdpa_desc::grads",
    ][::core::mem::offset_of!(attn_sdpa_desc, grads) - 16usize];
    [
        "Offset of field: attn_sdpa_desc::q_dtype",
    ][::core::mem::offset_of!(attn_sdpa_desc, q_dtype) - 20usize];
    [
        "Offset of field: attn_sdpa_desc::k_dtype",
    ][::core::mem::offset_of!(attn_sdpa_desc, k_dtype) - 24usize];
    [
        "Offset of field: attn_sdpa_desc::v_dtype",
    ][::core::mem::offset_of!(attn_sdpa_desc, v_dtype) - 28usize];
    [
        "Offset of field: attn_sdpa_desc::out_dtype",
    ][::core::mem::offset_of!(attn_sdpa_desc, out_dtype) - 32usize];
    [
        "Offset of field: attn_sdpa_desc::q_layout",
    ][::core::mem::offset_of!(attn_sdpa_desc, q_layout) - 36usize];
    [
        "Offset of field: attn_sdpa_desc::kv_layout",
    ][::core::mem::offset_of!(attn_sdpa_desc, kv_layout) - 40usize];
    [
        "Offset of field: attn_sdpa_desc::page_size",
    ][::core::mem::offset_of!(attn_sdpa_desc, page_size) - 44usize];
    [
        "Offset of field: attn_sdpa_desc::num_q_heads",
    ][::core::mem::offset_of!(attn_sdpa_desc, num_q_heads) - 48usize];
    [
        "Offset of field: attn_sdpa_desc::num_kv_heads",
    ][::core::mem::offset_of!(attn_sdpa_desc, num_kv_heads) - 52usize];
    [
        "Offset of field: attn_sdpa_desc::head_dim_qk",
    ][::core::mem::offset_of!(attn_sdpa_desc, head_dim_qk) - 56usize];
    [
        "Offset of field: attn_sdpa_desc::head_dim_v",
    ][::core::mem::offset_of!(attn_sdpa_desc, head_dim_v) - 60usize];
    [
        "Offset of field: attn_sdpa_desc::max_batch",
    ][::core::mem::offset_of!(attn_sdpa_desc, max_batch) - 64usize];
    [
        "Offset of field: attn_sdpa_desc::max_seqlen_q",
    ][::core::mem::offset_of!(attn_sdpa_desc, max_seqlen_q) - 72usize];
    [
        "Offset of field: attn_sdpa_desc::max_seqlen_k",
    ][::core::mem::offset_of!(attn_sdpa_desc, max_seqlen_k) - 80usize];
    [
        "Offset of field: attn_sdpa_desc::max_total_q",
    ][::core::mem::offset_of!(attn_sdpa_desc, max_total_q) - 88usize];
    [
        "Offset of field: attn_sdpa_desc::max_total_k",
    ][::core::mem::offset_of!(attn_sdpa_desc, max_total_k) - 96usize];
    [
        "Offset of field: attn_sdpa_desc::softmax_scale",
    ][::core::mem::offset_of!(attn_sdpa_desc, softmax_scale) - 104usize];
    [
        "Offset of field: attn_sdpa_desc::softcap",
    ][::core::mem::offset_of!(attn_sdpa_desc, softcap) - 108usize];
    [
        "Offset of field: attn_sdpa_desc::alignment",
    ][::core::mem::offset_of!(attn_sdpa_desc, alignment) - 112usize];
    [
        "Offset of field: attn_sdpa_desc::window_left",
    ][::core::mem::offset_of!(attn_sdpa_desc, window_left) - 116usize];
    [
        "Offset of field: attn_sdpa_desc::window_right",
    ][::core::mem::offset_of!(attn_sdpa_desc, window_right) - 120usize];
    [
        "Offset of field: attn_sdpa_desc::chunk_size",
    ][::core::mem::offset_of!(attn_sdpa_desc, chunk_size) - 124usize];
    [
        "Offset of field: attn_sdpa_desc::sink_tokens",
    ][::core::mem::offset_of!(attn_sdpa_desc, sink_tokens) - 128usize];
    [
        "Offset of field: attn_sdpa_desc::block_size_q",
    ][::core::mem::offset_of!(attn_sdpa_desc, block_size_q) - 132usize];
    [
        "Offset of field: attn_sdpa_desc::block_size_k",
    ][::core::mem::offset_of!(attn_sdpa_desc, block_size_k) - 136usize];
    [
        "Offset of field: attn_sdpa_desc::dropout_p",
    ][::core::mem::offset_of!(attn_sdpa_desc, dropout_p) - 140usize];
    [
        "Offset of field: attn_sdpa_desc::activation",
    ][::core::mem::offset_of!(attn_sdpa_desc, activation) - 144usize];
    [
        "Offset of field: attn_sdpa_desc::silu_divisor",
    ][::core::mem::offset_of!(attn_sdpa_desc, silu_divisor) - 148usize];
    [
        "Offset of field: attn_sdpa_desc::lse_base",
    ][::core::mem::offset_of!(attn_sdpa_desc, lse_base) - 152usize];
    [
        "Offset of field: attn_sdpa_desc::split_policy",
    ][::core::mem::offset_of!(attn_sdpa_desc, split_policy) - 156usize];
    [
        "Offset of field: attn_sdpa_desc::split_size",
    ][::core::mem::offset_of!(attn_sdpa_desc, split_size) - 160usize];
    [
        "Offset of field: attn_sdpa_desc::determinism",
    ][::core::mem::offset_of!(attn_sdpa_desc, determinism) - 164usize];
    [
        "Offset of field: attn_sdpa_desc::q_quant",
    ][::core::mem::offset_of!(attn_sdpa_desc, q_quant) - 168usize];
    [
        "Offset of field: attn_sdpa_desc::k_quant",
    ][::core::mem::offset_of!(attn_sdpa_desc, k_quant) - 184usize];
    [
        "Offset of field: attn_sdpa_desc::v_quant",
    ][::core::mem::offset_of!(attn_sdpa_desc, v_quant) - 200usize];
    [
        "Offset of field: attn_sdpa_desc::out_quant",
    ][::core::mem::offset_of!(attn_sdpa_desc, out_quant) - 216usize];
};
/** The tensors of one forward pass. "[B, Sq]" stands for a query's place: dense [batch, seqlen_q],
 ragged [total_q]. "1|n" means that the extent may be 1 (shared) or n. Everything lives in the
 device's memory (CPU: host memory). Outputs must not overlap inputs or each other. What belongs
 to an option that the descriptor does not have must be absent: a tensor by rank 0, an array by
 NULL.*/
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_sdpa_args {
    /// sizeof(attn_sdpa_args): set by ATTN_SDPA_ARGS_INIT
    pub struct_size: u32,
    /// must be 0
    pub reserved: u32,
    /// Sequences, B. RAGGED q: required, 0 .. max_batch. DENSE q: 0 or q's first extent.
    pub batch: i64,
    /// [B, Sq, num_q_heads, head_dim_qk]
    pub q: attn_tensor,
    /// [B, Sk, num_kv_heads, head_dim_qk], or the pool of a paged layout
    pub k: attn_tensor,
    /// [B, Sk, num_kv_heads, head_dim_v], or the pool; absent with LATENT_KV
    pub v: attn_tensor,
    /// [B, Sq, num_q_heads, head_dim_v]; written, in the backward pass read
    pub out: attn_tensor,
    /** [B, num_q_heads, Sq], ragged [num_q_heads, total_q], FP32. RETURN_LSE: written; in the
 backward pass (softmax): read, required. Any other order by strides.*/
    pub lse: attn_tensor,
    /** Shape as lse, FP32. RETURN_ROW_MAX: the largest visible s_j of each query (natural units, no
 sink), -inf if there is none.*/
    pub row_max: attn_tensor,
    /// RAGGED q: [batch + 1], starts with 0, never falls
    pub cu_seqlens_q: *const i32,
    /// RAGGED k: [batch + 1]
    pub cu_seqlens_k: *const i32,
    /// SEQUSED_Q: [batch] queries in use; those after them get 0, -inf
    pub seqused_q: *const i32,
    /// SEQUSED_K, PAGED_TABLE: [batch] keys in use
    pub seqused_k: *const i32,
    /// PAGED_CSR: [batch + 1]
    pub kv_page_indptr: *const i32,
    /** PAGED_CSR: [kv_page_indptr[batch]]; negative = skip its keys. Not NULL even where it is empty,
 unless max_seqlen_k is 0.*/
    pub kv_page_indices: *const i32,
    /// PAGED_CSR: [batch], 1..page_size where there is a page
    pub kv_last_page_len: *const i32,
    /** DROPOUT: {seed, offset}. Weight (b, h, i, j) is kept iff u >= p, with
   u = (word[j % 4] >> 8) / 2^24,  word = Philox4x32-10(key, counter),
   key = {low half of seed, high half of seed XOR high half of offset},
   counter = {j / 4, i, b * num_q_heads + h, low half of offset},
 i and j being positions in sequence b, the same on every backend. Kept weights are divided by
 1 - p; lse does not see dropout. (Salmon et al., Parallel Random Numbers, SC 2011)*/
    pub rng_state: *const u64,
    /// PAGED_TABLE: INT32 [batch, max_pages_per_seq]; negative = skip
    pub block_table: attn_tensor,
    /** MASK: UINT8 [1|B, 1|Hq, Sq, ceil(Sk / 8)], ragged q: [1|Hq, total_q, ceil(max Sk / 8)].
 Key j is bit j % 8 of byte j / 8.*/
    pub mask: attn_tensor,
    /** TAIL_MASK: UINT8 [1|B, 1|Hq, Sq, ceil(Sq / 8)], ragged q: [1|Hq, total_q, ceil(max Sq / 8)].
 Bit t stands for key seqlen_k - seqlen_q + t.*/
    pub tail_mask: attn_tensor,
    /// INT32 [B, Sq] or [total_q]
    pub q_segment_ids: attn_tensor,
    /// INT32 [B, Sk]; ragged k: [total_k]; paged: [B, max Sk]
    pub kv_segment_ids: attn_tensor,
    /** FP32, FP16 or BF16 [1|B, 1|Hq, 1|Sq, Sk], ragged q: [1|Hq, total_q, max Sk]; natural units;
 -inf hides a key.*/
    pub bias: attn_tensor,
    /// FP32 [Hq] or [B, Hq]
    pub alibi_slopes: attn_tensor,
    /// FP32 [Hq]; natural units; -inf = none, +inf takes all weight
    pub sink: attn_tensor,
    /// FP32, FP16 or BF16 [B, Sq, Hq, 1|head_dim_v]. The lse is not affected. (Qwen3-Next)
    pub gate: attn_tensor,
    /** BLOCK_SPARSE: INT32 [1|B, 1|Hq, nbq] and [1|B, 1|Hq, nbq, max_blocks] with nbq =
 ceil(Sq / block_size_q). Entry (.., r, 0 .. count-1) lists the visible key blocks of query
 block r in any order; negative = skip, repeats count once. (FlexAttention's BlockMask)*/
    pub block_counts: attn_tensor,
    /// BLOCK_SPARSE
    pub block_indices: attn_tensor,
    /// see attn_quant_granularity; present iff q_quant is
    pub q_scale: attn_tensor,
    /// iff k_quant
    pub k_scale: attn_tensor,
    /// iff v_quant
    pub v_scale: attn_tensor,
    /// iff out_quant
    pub out_scale: attn_tensor,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    ["Size of attn_sdpa_args"][::core::mem::size_of::<attn_sdpa_args>() - 2432usize];
    ["Alignment of attn_sdpa_args"][::core::mem::align_of::<attn_sdpa_args>() - 8usize];
    [
        "Offset of field: attn_sdpa_args::struct_size",
    ][::core::mem::offset_of!(attn_sdpa_args, struct_size) - 0usize];
    [
        "Offset of field: attn_sdpa_args::reserved",
    ][::core::mem::offset_of!(attn_sdpa_args, reserved) - 4usize];
    [
        "Offset of field: attn_sdpa_args::batch",
    ][::core::mem::offset_of!(attn_sdpa_args, batch) - 8usize];
    [
        "Offset of field: attn_sdpa_args::q",
    ][::core::mem::offset_of!(attn_sdpa_args, q) - 16usize];
    [
        "Offset of field: attn_sdpa_args::k",
    ][::core::mem::offset_of!(attn_sdpa_args, k) - 128usize];
    [
        "Offset of field: attn_sdpa_args::v",
    ][::core::mem::offset_of!(attn_sdpa_args, v) - 240usize];
    [
        "Offset of field: attn_sdpa_args::out",
    ][::core::mem::offset_of!(attn_sdpa_args, out) - 352usize];
    [
        "Offset of field: attn_sdpa_args::lse",
    ][::core::mem::offset_of!(attn_sdpa_args, lse) - 464usize];
    [
        "Offset of field: attn_sdpa_args::row_max",
    ][::core::mem::offset_of!(attn_sdpa_args, row_max) - 576usize];
    [
        "Offset of field: attn_sdpa_args::cu_seqlens_q",
    ][::core::mem::offset_of!(attn_sdpa_args, cu_seqlens_q) - 688usize];
    [
        "Offset of field: attn_sdpa_args::cu_seqlens_k",
    ][::core::mem::offset_of!(attn_sdpa_args, cu_seqlens_k) - 696usize];
    [
        "Offset of field: attn_sdpa_args::seqused_q",
    ][::core::mem::offset_of!(attn_sdpa_args, seqused_q) - 704usize];
    [
        "Offset of field: attn_sdpa_args::seqused_k",
    ][::core::mem::offset_of!(attn_sdpa_args, seqused_k) - 712usize];
    [
        "Offset of field: attn_sdpa_args::kv_page_indptr",
    ][::core::mem::offset_of!(attn_sdpa_args, kv_page_indptr) - 720usize];
    [
        "Offset of field: attn_sdpa_args::kv_page_indices",
    ][::core::mem::offset_of!(attn_sdpa_args, kv_page_indices) - 728usize];
    [
        "Offset of field: attn_sdpa_args::kv_last_page_len",
    ][::core::mem::offset_of!(attn_sdpa_args, kv_last_page_len) - 736usize];
    [
        "Offset of field: attn_sdpa_args::rng_state",
    ][::core::mem::offset_of!(attn_sdpa_args, rng_state) - 744usize];
    [
        "Offset of field: attn_sdpa_args::block_table",
    ][::core::mem::offset_of!(attn_sdpa_args, block_table) - 752usize];
    [
        "Offset of field: attn_sdpa_args::mask",
    ][::core::mem::offset_of!(attn_sdpa_args, mask) - 864usize];
    [
        "Offset of field: attn_sdpa_args::tail_mask",
    ][::core::mem::offset_of!(attn_sdpa_args, tail_mask) - 976usize];
    [
        "Offset of field: attn_sdpa_args::q_segment_ids",
    ][::core::mem::offset_of!(attn_sdpa_args, q_segment_ids) - 1088usize];
    [
        "Offset of field: attn_sdpa_args::kv_segment_ids",
    ][::core::mem::offset_of!(attn_sdpa_args, kv_segment_ids) - 1200usize];
    [
        "Offset of field: attn_sdpa_args::bias",
    ][::core::mem::offset_of!(attn_sdpa_args, bias) - 1312usize];
    [
        "Offset of field: attn_sdpa_args::alibi_slopes",
    ][::core::mem::offset_of!(attn_sdpa_args, alibi_slopes) - 1424usize];
    [
        "Offset of field: attn_sdpa_args::sink",
    ][::core::mem::offset_of!(attn_sdpa_args, sink) - 1536usize];
    [
        "Offset of field: attn_sdpa_args::gate",
    ][::core::mem::offset_of!(attn_sdpa_args, gate) - 1648usize];
    [
        "Offset of field: attn_sdpa_args::block_counts",
    ][::core::mem::offset_of!(attn_sdpa_args, block_counts) - 1760usize];
    [
        "Offset of field: attn_sdpa_args::block_indices",
    ][::core::mem::offset_of!(attn_sdpa_args, block_indices) - 1872usize];
    [
        "Offset of field: attn_sdpa_args::q_scale",
    ][::core::mem::offset_of!(attn_sdpa_args, q_scale) - 1984usize];
    [
        "Offset of field: attn_sdpa_args::k_scale",
    ][::core::mem::offset_of!(attn_sdpa_args, k_scale) - 2096usize];
    [
        "Offset of field: attn_sdpa_args::v_scale",
    ][::core::mem::offset_of!(attn_sdpa_args, v_scale) - 2208usize];
    [
        "Offset of field: attn_sdpa_args::out_scale",
    ][::core::mem::offset_of!(attn_sdpa_args, out_scale) - 2320usize];
};
/** The tensors of one backward pass. Gradients that the descriptor's grads ask for are written in
 full (not accumulated): zeros where nothing contributes, padded and unused positions included;
 a page used twice gets the sum. Others must be absent.*/
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct attn_sdpa_backward_args {
    /// sizeof(attn_sdpa_backward_args)
    pub struct_size: u32,
    /// must be 0
    pub reserved: u32,
    /** What the forward pass was given and gave: inputs, out (after the gate) and lse. row_max is not
 needed and ignored.*/
    pub forward: *const attn_sdpa_args,
    /// shape of out; FP32, FP16 or BF16
    pub dout: attn_tensor,
    /// GRAD_LSE_IN: shape of lse, FP32, in the units of lse_base
    pub dlse: attn_tensor,
    /// shape of q; FP32 or q's dtype. The same holds for the others
    pub dq: attn_tensor,
    /// shape of k (paged: of the pool)
    pub dk: attn_tensor,
    /// shape of v
    pub dv: attn_tensor,
    /// shape of bias: summed over the dimensions that bias shares
    pub dbias: attn_tensor,
    /// FP32 [Hq]
    pub dsink: attn_tensor,
    /// shape of gate
    pub dgate: attn_tensor,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
#[cfg(attn_offset_of)]
const _: () = {
    [
        "Size of attn_sdpa_backward_args",
    ][::core::mem::size_of::<attn_sdpa_backward_args>() - 912usize];
    [
        "Alignment of attn_sdpa_backward_args",
    ][::core::mem::align_of::<attn_sdpa_backward_args>() - 8usize];
    [
        "Offset of field: attn_sdpa_backward_args::struct_size",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, struct_size) - 0usize];
    [
        "Offset of field: attn_sdpa_backward_args::reserved",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, reserved) - 4usize];
    [
        "Offset of field: attn_sdpa_backward_args::forward",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, forward) - 8usize];
    [
        "Offset of field: attn_sdpa_backward_args::dout",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, dout) - 16usize];
    [
        "Offset of field: attn_sdpa_backward_args::dlse",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, dlse) - 128usize];
    [
        "Offset of field: attn_sdpa_backward_args::dq",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, dq) - 240usize];
    [
        "Offset of field: attn_sdpa_backward_args::dk",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, dk) - 352usize];
    [
        "Offset of field: attn_sdpa_backward_args::dv",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, dv) - 464usize];
    [
        "Offset of field: attn_sdpa_backward_args::dbias",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, dbias) - 576usize];
    [
        "Offset of field: attn_sdpa_backward_args::dsink",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, dsink) - 688usize];
    [
        "Offset of field: attn_sdpa_backward_args::dgate",
    ][::core::mem::offset_of!(attn_sdpa_backward_args, dgate) - 800usize];
};
