//! Attention for training and inference: the safe interface to
//! [libattn](https://github.com/libattn/libattn).
//!
//! Describe a problem by its limits, make a plan once, execute it as often as needed:
//!
//! ```
//! use attn::{Context, DType, SdpaArgs, SdpaDesc, Tensor, TensorMut};
//!
//! # fn main() -> attn::Result<()> {
//! // 1 sequence, 3 queries and keys, 2 heads of 4 elements.
//! let (q, k, v) = ([0.5f32; 24], [0.25f32; 24], [2.0f32; 24]);
//! let mut out = [0.0f32; 24];
//! let shape = [1, 3, 2, 4];
//!
//! let context = Context::cpu()?;
//! let desc = SdpaDesc::new(DType::FP32, 2, 4).limits(1, 3, 3).causal();
//! let plan = context.sdpa(&desc)?;
//! let mut workspace = plan.workspace()?;
//! let mut args = SdpaArgs::new(
//!     Tensor::new(&q, shape)?,
//!     Tensor::new(&k, shape)?,
//!     Tensor::new(&v, shape)?,
//!     TensorMut::new(&mut out, shape)?,
//! );
//! plan.forward(&mut args, &mut workspace)?;
//! assert!(out.iter().all(|x| (x - 2.0).abs() < 1e-6));
//! # Ok(())
//! # }
//! ```
//!
//! # Threads
//!
//! [`Context`] and plans are immutable: share them by reference or clone them (a clone is a new
//! reference to the same object). Concurrent executes need only a [`Workspace`] and outputs of
//! their own, which the borrow checker sees to.
//!
//! # GPUs
//!
//! A context of [`Backend::CUDA`] works in its device's memory, which the caller allocates with any
//! CUDA crate: [`Tensor::from_device`], [`Int32s::from_device`] and [`Workspace::from_device`] take
//! addresses, and [`SdpaPlan::forward_on`] and its like enqueue the work on a [`Stream`] without
//! waiting for it. All of these are `unsafe`: that the memory is there, and stays until the work is
//! done, is the caller's word.
//!
//! # Errors
//!
//! Every fallible call returns [`Error`], with the [`Status`], the field at fault
//! (`desc.num_kv_heads`, `args.k.shape[2]`) and a sentence for people.
//!
//! # Versions
//!
//! The loaded library is asked for its ABI before anything else; one that is too old or of another
//! major version gives [`Status::VERSION`]. By default the library is linked; with the feature
//! `dlopen` it is found at run time, and a missing one is an error that says what was tried.
#![deny(missing_docs)]

mod context;
mod device;
mod dtype;
mod error;
mod library;
mod merge;
mod plan;
mod sdpa;
mod sdpa_args;
mod tensor;

pub use attn_sys as sys;
pub use context::{
    device_count, device_info, Backend, Context, ContextBuilder, DeviceInfo, LogLevel,
};
pub use device::{Int32s, Stream};
pub use dtype::{DType, Element};
pub use error::{Error, Result, Status};
pub use half;
#[cfg(feature = "dlopen")]
pub use library::load_from;
pub use library::{build_info, load, version};
pub use merge::{MergeArgs, MergeDesc, MergePlan};
pub use plan::{Plan, PlanInfo, PlanOptions, Workspace};
pub use sdpa::{
    Activation, Alignment, Determinism, Gradients, Layout, LseBase, Quant, QuantGranularity,
    SdpaBackwardPlan, SdpaDesc, SdpaPlan, Split,
};
pub use sdpa_args::{SdpaArgs, SdpaBackwardArgs};
pub use tensor::{Tensor, TensorMut};
