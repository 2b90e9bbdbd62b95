//! Merging partial attention results by their log-sum-exp.

use crate::error::check;
use crate::{
    sys, Context, DType, LseBase, Plan, PlanOptions, Result, Stream, Tensor, TensorMut, Workspace,
};
use std::marker::PhantomData;
use std::ops::Deref;

/// A merge by its limits.
#[derive(Debug, Clone)]
pub struct MergeDesc {
    raw: sys::attn_merge_desc,
}

impl MergeDesc {
    /// Parts of `dtype` with so many heads of `head_dim` elements. Set [`MergeDesc::limits`] too.
    pub fn new(dtype: DType, num_heads: i32, head_dim: i32) -> MergeDesc {
        let mut raw = sys::attn_merge_desc::new();
        raw.dtype = dtype.0;
        raw.num_heads = num_heads;
        raw.head_dim = head_dim;
        MergeDesc { raw }
    }

    /// The most rows (tokens), and parts a row, `other` not counted.
    pub fn limits(mut self, rows: i64, parts: i64) -> Self {
        self.raw.max_rows = rows;
        self.raw.max_parts = parts;
        self
    }

    /// The type of out; default that of the parts.
    pub fn out_dtype(mut self, dtype: DType) -> Self {
        self.raw.out_dtype = dtype.0;
        self
    }

    /// The base of every lse, in and out.
    pub fn lse_base(mut self, base: LseBase) -> Self {
        self.raw.lse_base = base.0;
        self
    }

    /// One more part is given: [`MergeArgs::other`] or [`MergeArgs::in_place`].
    pub fn other(self) -> Self {
        self.flag(sys::ATTN_MERGE_OTHER)
    }

    /// A row mask is given: where 0, the row's partial parts are left out.
    pub fn row_mask(self) -> Self {
        self.flag(sys::ATTN_MERGE_ROW_MASK)
    }

    /// Sinks are given, which join the denominator once.
    pub fn sink(self) -> Self {
        self.flag(sys::ATTN_MERGE_SINK)
    }

    /// out_lse includes the sink.
    pub fn lse_includes_sink(self) -> Self {
        self.flag(sys::ATTN_MERGE_LSE_INCLUDES_SINK)
    }

    /// out_lse is written.
    pub fn return_lse(self) -> Self {
        self.flag(sys::ATTN_MERGE_RETURN_LSE)
    }

    /// The C struct.
    pub fn raw(&self) -> &sys::attn_merge_desc {
        &self.raw
    }

    fn flag(mut self, flag: u64) -> Self {
        self.raw.flags |= flag;
        self
    }
}

/// The tensors of one merge of n rows and s parts.
#[derive(Debug)]
pub struct MergeArgs<'a> {
    raw: sys::attn_merge_args,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: views of memory whose elements are Send and Sync; written only through &mut self.
unsafe impl Send for MergeArgs<'_> {}
unsafe impl Sync for MergeArgs<'_> {}

impl<'a> MergeArgs<'a> {
    /// partial `[n, s, heads, head_dim]`, its lse `[n, s, heads]` in FP32, and out
    /// `[n, heads, head_dim]`.
    pub fn new(partial: Tensor<'a>, partial_lse: Tensor<'a>, out: TensorMut<'a>) -> Self {
        let mut raw = sys::attn_merge_args::new();
        raw.partial = *partial.raw();
        raw.partial_lse = *partial_lse.raw();
        raw.out = *out.raw();
        MergeArgs { raw, memory: PhantomData }
    }

    /// Merges into out, which is one more part: it and its lse are read and then written.
    pub fn in_place(
        partial: Tensor<'a>,
        partial_lse: Tensor<'a>,
        out: TensorMut<'a>,
        out_lse: TensorMut<'a>,
    ) -> Self {
        let mut args = Self::new(partial, partial_lse, out).out_lse(out_lse);
        args.raw.other = args.raw.out;
        args.raw.other_lse = args.raw.out_lse;
        args
    }

    /// One more part: `[n, heads, head_dim]` and `[n, heads]`.
    pub fn other(mut self, other: Tensor<'a>, other_lse: Tensor<'a>) -> Self {
        self.raw.other = *other.raw();
        self.raw.other_lse = *other_lse.raw();
        self
    }

    /// UINT8 `[n]`; where 0, the row's partial parts are left out.
    pub fn row_mask(mut self, tensor: Tensor<'a>) -> Self {
        self.raw.row_mask = *tensor.raw();
        self
    }

    /// FP32 `[heads]`, natural units.
    pub fn sink(mut self, tensor: Tensor<'a>) -> Self {
        self.raw.sink = *tensor.raw();
        self
    }

    /// Written: `[n, heads]`, FP32.
    pub fn out_lse(mut self, tensor: TensorMut<'a>) -> Self {
        self.raw.out_lse = *tensor.raw();
        self
    }
}

impl Context {
    /// Makes a plan for merges.
    pub fn merge(&self, desc: &MergeDesc) -> Result<MergePlan> {
        self.merge_with(desc, &PlanOptions::new())
    }

    /// As [`Context::merge`], with wishes.
    pub fn merge_with(&self, desc: &MergeDesc, options: &PlanOptions) -> Result<MergePlan> {
        let plan = options.with_c(|options| {
            Plan::create(self, |plan, error| unsafe {
                sys::attn_merge_plan_create(self.as_ptr(), &desc.raw, options, plan, error)
            })
        })?;
        Ok(MergePlan { plan })
    }

    /// Says whether [`Context::merge`] would succeed, and why not.
    pub fn merge_supported(&self, desc: &MergeDesc) -> Result<()> {
        check(|error| unsafe {
            sys::attn_merge_supported(self.as_ptr(), &desc.raw, std::ptr::null(), error)
        })
    }
}

/// How to merge. Threads may share it.
#[derive(Debug, Clone)]
pub struct MergePlan {
    plan: Plan,
}

impl Deref for MergePlan {
    type Target = Plan;
    fn deref(&self) -> &Plan {
        &self.plan
    }
}

impl MergePlan {
    /// Merges on the CPU; the outputs are written when it returns.
    pub fn merge(&self, args: &mut MergeArgs<'_>, workspace: &mut Workspace) -> Result<()> {
        self.host_only("merge")?;
        // SAFETY: the views lie within slices borrowed by args, outputs mutably.
        unsafe { self.merge_on(args, workspace, Stream::DEFAULT) }
    }

    /// Enqueues a merge on a stream.
    ///
    /// # Safety
    ///
    /// As [`SdpaPlan::forward_on`](crate::SdpaPlan::forward_on).
    pub unsafe fn merge_on(
        &self,
        args: &mut MergeArgs<'_>,
        workspace: &mut Workspace,
        stream: Stream,
    ) -> Result<()> {
        let (data, bytes) = (workspace.as_ptr(), workspace.bytes());
        check(|error| unsafe {
            sys::attn_merge(self.as_ptr(), &args.raw, data, bytes, stream.as_ptr(), error)
        })
    }
}
