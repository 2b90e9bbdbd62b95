//! Scaled dot-product attention: the problem and its plans.

use crate::error::check;
use crate::{sys, Context, DType, Plan, PlanOptions, Result, Stream, Workspace};
use crate::{SdpaArgs, SdpaBackwardArgs};
use std::ops::Deref;

/// Integer newtypes for the C enums: a number that this crate does not know stays a number.
macro_rules! integers {
    ($($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $name:ident = $value:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $type(pub i32);

        impl $type {
            $($(#[$vdoc])* pub const $name: $type = $type(sys::$value);)*
        }
    )*};
}

integers! {
    /// How the tokens of a batch lie in memory.
    Layout {
        /// `[batch, seqlen, heads, head_dim]`.
        DENSE = ATTN_LAYOUT_DENSE,
        /// `[total_tokens, heads, head_dim]` with cu_seqlens.
        RAGGED = ATTN_LAYOUT_RAGGED,
        /// K and V in a pool of pages, with a block table.
        PAGED_TABLE = ATTN_LAYOUT_PAGED_TABLE,
        /// K and V in a pool of pages, with CSR lists.
        PAGED_CSR = ATTN_LAYOUT_PAGED_CSR,
    }
    /// Where the diagonal of causal, window, chunk and ALiBi lies.
    Alignment {
        /// The last query sees the last key.
        BOTTOM_RIGHT = ATTN_ALIGN_BOTTOM_RIGHT,
        /// Query 0 sees key 0.
        TOP_LEFT = ATTN_ALIGN_TOP_LEFT,
    }
    /// What turns scores into weights.
    Activation {
        /// Softmax over the visible keys.
        SOFTMAX = ATTN_ACTIVATION_SOFTMAX,
        /// silu(score) / divisor, without normalisation.
        SILU = ATTN_ACTIVATION_SILU,
    }
    /// The base of the logarithm in lse.
    LseBase {
        /// Natural.
        E = ATTN_LSE_BASE_E,
        /// Two.
        TWO = ATTN_LSE_BASE_2,
    }
    /// What repeated runs have in common.
    Determinism {
        /// No promise.
        FAST = ATTN_DETERMINISM_FAST,
        /// The same inputs give the same bits.
        RUN_TO_RUN = ATTN_DETERMINISM_RUN_TO_RUN,
        /// And a sequence's bits do not depend on its batch or the number of threads.
        BATCH_INVARIANT = ATTN_DETERMINISM_BATCH_INVARIANT,
    }
    /// How a tensor's scales are shared.
    QuantGranularity {
        /// No scale.
        NONE = ATTN_QUANT_NONE,
        /// One.
        TENSOR = ATTN_QUANT_TENSOR,
        /// One a head (and sequence, in the dense layout).
        HEAD = ATTN_QUANT_HEAD,
        /// One a token.
        TOKEN = ATTN_QUANT_TOKEN,
        /// One a token and head.
        TOKEN_HEAD = ATTN_QUANT_TOKEN_HEAD,
        /// One a token, head and block of the head dim.
        BLOCK = ATTN_QUANT_BLOCK,
    }
}

/// Whether the keys of a sequence are split among units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Split {
    /// If that is faster.
    #[default]
    Auto,
    /// Never.
    None,
    /// Into pieces of so many keys, whatever the batch.
    Fixed(i32),
}

/// How one of q, k, v, out is quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quant {
    /// How scales are shared.
    pub granularity: QuantGranularity,
    /// `BLOCK`: elements of the head dim that a scale covers; else 0.
    pub block_size: i32,
    /// The scales' type; `None` is FP32.
    pub scale_dtype: Option<DType>,
}

impl Quant {
    fn to_c(self) -> sys::attn_quant {
        let mut quant = sys::attn_quant::new();
        quant.granularity = self.granularity.0;
        quant.block_size = self.block_size;
        quant.scale_dtype = self.scale_dtype.map_or(sys::ATTN_DTYPE_NONE, |dtype| dtype.0);
        quant
    }
}

/// Which gradients a backward pass computes: or'ed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gradients(pub u32);

impl Gradients {
    /// dq.
    pub const Q: Gradients = Gradients(sys::ATTN_SDPA_GRAD_Q);
    /// dk (and dv of latent KV).
    pub const K: Gradients = Gradients(sys::ATTN_SDPA_GRAD_K);
    /// dv.
    pub const V: Gradients = Gradients(sys::ATTN_SDPA_GRAD_V);
    /// dbias.
    pub const BIAS: Gradients = Gradients(sys::ATTN_SDPA_GRAD_BIAS);
    /// dsink.
    pub const SINK: Gradients = Gradients(sys::ATTN_SDPA_GRAD_SINK);
    /// dgate.
    pub const GATE: Gradients = Gradients(sys::ATTN_SDPA_GRAD_GATE);
    /// dlse is given.
    pub const LSE_IN: Gradients = Gradients(sys::ATTN_SDPA_GRAD_LSE_IN);
}

impl std::ops::BitOr for Gradients {
    type Output = Gradients;
    fn bitor(self, other: Gradients) -> Gradients {
        Gradients(self.0 | other.0)
    }
}

/// A problem by its limits: lengths and counts at execute must stay within them.
///
/// Starts from [`SdpaDesc::new`]; each method sets one option. Nothing is checked here:
/// [`Context::sdpa`] refuses what is wrong, with the field's name.
#[derive(Debug, Clone)]
pub struct SdpaDesc {
    raw: sys::attn_sdpa_desc,
}

/// Setters of one field each.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty => |$value:ident| $field:ident = $to_c:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $value: $type) -> Self {
            self.raw.$field = $to_c;
            self
        }
    )*};
}

/// Setters of one flag each.
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $flag:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(self) -> Self {
            self.flag(sys::$flag)
        }
    )*};
}

impl SdpaDesc {
    /// Attention over `dtype` with so many heads of `head_dim` elements, dense, without a mask, and
    /// with a softmax scale of 1 / sqrt(head_dim). Set [`SdpaDesc::limits`] too.
    pub fn new(dtype: DType, num_q_heads: i32, head_dim: i32) -> SdpaDesc {
        let mut raw = sys::attn_sdpa_desc::new();
        raw.q_dtype = dtype.0;
        raw.num_q_heads = num_q_heads;
        raw.head_dim_qk = head_dim;
        raw.softmax_scale = (1.0 / f64::from(head_dim.max(1)).sqrt()) as f32;
        SdpaDesc { raw }
    }

    /// The most sequences, queries of one sequence and keys of one sequence.
    pub fn limits(mut self, batch: i64, seqlen_q: i64, seqlen_k: i64) -> Self {
        self.raw.max_batch = batch;
        self.raw.max_seqlen_q = seqlen_q;
        self.raw.max_seqlen_k = seqlen_k;
        self
    }

    fields! {
        /// Heads of k and v; default as many as of q.
        num_kv_heads: i32 => |heads| num_kv_heads = heads;
        /// Elements of v's heads; default as q's.
        head_dim_v: i32 => |head_dim| head_dim_v = head_dim;
        /// The type of k; default q's.
        k_dtype: DType => |dtype| k_dtype = dtype.0;
        /// The type of v; default k's.
        v_dtype: DType => |dtype| v_dtype = dtype.0;
        /// The type of out; default q's.
        out_dtype: DType => |dtype| out_dtype = dtype.0;
        /// The layout of q and of all that is a query's.
        q_layout: Layout => |layout| q_layout = layout.0;
        /// The layout of k and v; see also [`SdpaDesc::paged`].
        kv_layout: Layout => |layout| kv_layout = layout.0;
        /// Ragged q: the most tokens in all; default batch times length.
        max_total_q: i64 => |tokens| max_total_q = tokens;
        /// Ragged k: the most tokens in all; default batch times length.
        max_total_k: i64 => |tokens| max_total_k = tokens;
        /// Scores are multiplied by it; default 1 / sqrt(head_dim).
        softmax_scale: f32 => |scale| softmax_scale = scale;
        /// `cap * tanh(score / cap)`; 0 = none.
        softcap: f32 => |cap| softcap = cap;
        /// Where the diagonal lies.
        alignment: Alignment => |alignment| alignment = alignment.0;
        /// Keys of the query's own chunk only; 0 = none.
        chunk_size: i32 => |size| chunk_size = size;
        /// So many first keys are visible whatever window and chunk say.
        sink_tokens: i32 => |tokens| sink_tokens = tokens;
        /// The base of lse.
        lse_base: LseBase => |base| lse_base = base.0;
        /// What repeated runs have in common.
        determinism: Determinism => |level| determinism = level.0;
        /// Which gradients; default q, k and v. For [`Context::sdpa_backward`].
        gradients: Gradients => |gradients| grads = gradients.0;
        /// q is quantised.
        q_quant: Quant => |quant| q_quant = quant.to_c();
        /// k is quantised.
        k_quant: Quant => |quant| k_quant = quant.to_c();
        /// v is quantised.
        v_quant: Quant => |quant| v_quant = quant.to_c();
        /// out is to be quantised.
        out_quant: Quant => |quant| out_quant = quant.to_c();
    }

    flags! {
        /// Query i sees key j only if j <= p_i.
        causal = ATTN_SDPA_CAUSAL;
        /// A bit mask is given.
        mask = ATTN_SDPA_MASK;
        /// A bit mask over the last keys is given (tree attention).
        tail_mask = ATTN_SDPA_TAIL_MASK;
        /// Segment ids are given: visible if equal and not negative.
        segment_ids = ATTN_SDPA_SEGMENT_IDS;
        /// A bias is given.
        bias = ATTN_SDPA_BIAS;
        /// ALiBi slopes are given.
        alibi = ATTN_SDPA_ALIBI;
        /// Sinks are given: one more logit a head, without a value.
        sink = ATTN_SDPA_SINK;
        /// lse includes the sink.
        lse_includes_sink = ATTN_SDPA_LSE_INCLUDES_SINK;
        /// A gate is given.
        gate = ATTN_SDPA_GATE;
        /// seqused_q is given.
        seqused_q = ATTN_SDPA_SEQUSED_Q;
        /// seqused_k is given.
        seqused_k = ATTN_SDPA_SEQUSED_K;
        /// One tensor holds k and v (absorbed MLA).
        latent_kv = ATTN_SDPA_LATENT_KV;
        /// lse is written.
        return_lse = ATTN_SDPA_RETURN_LSE;
        /// row_max is written.
        return_row_max = ATTN_SDPA_RETURN_ROW_MAX;
        /// Products of an fp32 problem may round their factors to TF32, which is faster on tensor
        /// cores; the CPU multiplies in fp32 all the same. For q of FP32 only.
        allow_tf32 = ATTN_SDPA_ALLOW_TF32;
    }

    /// Only keys from `p_i - left` to `p_i + right`; -1 = unbounded.
    pub fn window(mut self, left: i32, right: i32) -> Self {
        self.raw.window_left = left;
        self.raw.window_right = right;
        self.flag(sys::ATTN_SDPA_WINDOW)
    }

    /// k and v in a pool of pages of so many tokens, listed as `layout` says.
    pub fn paged(mut self, layout: Layout, page_size: i32) -> Self {
        self.raw.kv_layout = layout.0;
        self.raw.page_size = page_size;
        self
    }

    /// Drops weights with probability `p`; the seed comes with each execute.
    pub fn dropout(mut self, p: f32) -> Self {
        self.raw.dropout_p = p;
        self.flag(sys::ATTN_SDPA_DROPOUT)
    }

    /// Lists of visible key blocks are given.
    pub fn block_sparse(mut self, block_size_q: i32, block_size_k: i32) -> Self {
        self.raw.block_size_q = block_size_q;
        self.raw.block_size_k = block_size_k;
        self.flag(sys::ATTN_SDPA_BLOCK_SPARSE)
    }

    /// silu(score) / divisor in place of softmax.
    pub fn silu(mut self, divisor: f32) -> Self {
        self.raw.activation = sys::ATTN_ACTIVATION_SILU;
        self.raw.silu_divisor = divisor;
        self
    }

    /// Whether the keys of a sequence are split among units.
    pub fn split(mut self, split: Split) -> Self {
        (self.raw.split_policy, self.raw.split_size) = match split {
            Split::Auto => (sys::ATTN_SPLIT_AUTO, 0),
            Split::None => (sys::ATTN_SPLIT_NONE, 0),
            Split::Fixed(size) => (sys::ATTN_SPLIT_FIXED, size),
        };
        self
    }

    /// The C struct.
    pub fn raw(&self) -> &sys::attn_sdpa_desc {
        &self.raw
    }

    /// The C struct, to set a field that has no method here.
    pub fn raw_mut(&mut self) -> &mut sys::attn_sdpa_desc {
        &mut self.raw
    }

    fn flag(mut self, flag: u64) -> Self {
        self.raw.flags |= flag;
        self
    }

    /// The C struct for one pass. `struct_size` is ours whatever `raw_mut` did: the library reads
    /// that many bytes.
    fn for_pass(&self, pass: i32) -> sys::attn_sdpa_desc {
        let mut raw = self.raw;
        raw.struct_size = std::mem::size_of::<sys::attn_sdpa_desc>() as u32;
        raw.pass = pass;
        raw
    }
}

impl Context {
    /// Makes a plan for forward passes of this problem.
    pub fn sdpa(&self, desc: &SdpaDesc) -> Result<SdpaPlan> {
        self.sdpa_with(desc, &PlanOptions::new())
    }

    /// As [`Context::sdpa`], with wishes.
    pub fn sdpa_with(&self, desc: &SdpaDesc, options: &PlanOptions) -> Result<SdpaPlan> {
        let plan = self.plan(&desc.for_pass(sys::ATTN_SDPA_FORWARD), options)?;
        Ok(SdpaPlan { plan })
    }

    /// Says whether [`Context::sdpa`] would succeed, and why not.
    pub fn sdpa_supported(&self, desc: &SdpaDesc) -> Result<()> {
        let raw = desc.for_pass(sys::ATTN_SDPA_FORWARD);
        check(|error| unsafe {
            sys::attn_sdpa_supported(self.as_ptr(), &raw, std::ptr::null(), error)
        })
    }

    /// Makes a plan for backward passes of this problem.
    pub fn sdpa_backward(&self, desc: &SdpaDesc) -> Result<SdpaBackwardPlan> {
        self.sdpa_backward_with(desc, &PlanOptions::new())
    }

    /// As [`Context::sdpa_backward`], with wishes.
    pub fn sdpa_backward_with(
        &self,
        desc: &SdpaDesc,
        options: &PlanOptions,
    ) -> Result<SdpaBackwardPlan> {
        let plan = self.plan(&desc.for_pass(sys::ATTN_SDPA_BACKWARD), options)?;
        Ok(SdpaBackwardPlan { plan })
    }

    /// Says whether [`Context::sdpa_backward`] would succeed, and why not.
    pub fn sdpa_backward_supported(&self, desc: &SdpaDesc) -> Result<()> {
        let raw = desc.for_pass(sys::ATTN_SDPA_BACKWARD);
        check(|error| unsafe {
            sys::attn_sdpa_supported(self.as_ptr(), &raw, std::ptr::null(), error)
        })
    }

    fn plan(&self, desc: &sys::attn_sdpa_desc, options: &PlanOptions) -> Result<Plan> {
        options.with_c(|options| {
            Plan::create(self, |plan, error| unsafe {
                sys::attn_sdpa_plan_create(self.as_ptr(), desc, options, plan, error)
            })
        })
    }
}

/// How to compute forward passes of one problem. Threads may share it.
#[derive(Debug, Clone)]
pub struct SdpaPlan {
    plan: Plan,
}

impl Deref for SdpaPlan {
    type Target = Plan;
    fn deref(&self) -> &Plan {
        &self.plan
    }
}

impl SdpaPlan {
    /// Computes one forward pass on the CPU; the outputs are written when it returns.
    pub fn forward(&self, args: &mut SdpaArgs<'_>, workspace: &mut Workspace) -> Result<()> {
        self.host_only("forward")?;
        // SAFETY: the views and the arrays lie within slices borrowed by args, outputs mutably.
        unsafe { self.forward_on(args, workspace, Stream::DEFAULT) }
    }

    /// Enqueues one forward pass on a stream.
    ///
    /// # Safety
    ///
    /// All memory is valid in the plan's device and stays untouched until the stream has done the
    /// work; `stream` is a stream of that device.
    pub unsafe fn forward_on(
        &self,
        args: &mut SdpaArgs<'_>,
        workspace: &mut Workspace,
        stream: Stream,
    ) -> Result<()> {
        let raw = args.checked()?;
        let (data, bytes) = (workspace.as_ptr(), workspace.bytes());
        check(|error| unsafe {
            sys::attn_sdpa_forward(self.as_ptr(), raw, data, bytes, stream.as_ptr(), error)
        })
    }

    /// Times every implementation on these tensors and gives a plan with the fastest. The outputs
    /// hold a right result afterwards. The workspace comes from [`Plan::tune_workspace`].
    pub fn tune(&self, args: &mut SdpaArgs<'_>, workspace: &mut Workspace) -> Result<SdpaPlan> {
        self.host_only("tune")?;
        // SAFETY: as in `forward`.
        unsafe { self.tune_on(args, workspace, Stream::DEFAULT) }
    }

    /// As [`SdpaPlan::tune`], on a stream, for which it waits.
    ///
    /// # Safety
    ///
    /// As [`SdpaPlan::forward_on`].
    pub unsafe fn tune_on(
        &self,
        args: &mut SdpaArgs<'_>,
        workspace: &mut Workspace,
        stream: Stream,
    ) -> Result<SdpaPlan> {
        let raw = args.checked()?;
        let plan = Plan::create(self.context(), |tuned, error| unsafe {
            sys::attn_sdpa_plan_tune(
                self.as_ptr(),
                raw,
                std::ptr::null(),
                workspace.as_ptr(),
                workspace.bytes(),
                stream.as_ptr(),
                tuned,
                error,
            )
        })?;
        Ok(SdpaPlan { plan })
    }
}

/// How to compute backward passes of one problem. Threads may share it.
#[derive(Debug, Clone)]
pub struct SdpaBackwardPlan {
    plan: Plan,
}

impl Deref for SdpaBackwardPlan {
    type Target = Plan;
    fn deref(&self) -> &Plan {
        &self.plan
    }
}

impl SdpaBackwardPlan {
    /// Computes one backward pass on the CPU; the gradients are written when it returns.
    pub fn backward(
        &self,
        args: &mut SdpaBackwardArgs<'_>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.host_only("backward")?;
        // SAFETY: the views and the arrays lie within slices borrowed by args, outputs mutably.
        unsafe { self.backward_on(args, workspace, Stream::DEFAULT) }
    }

    /// Enqueues one backward pass on a stream.
    ///
    /// # Safety
    ///
    /// As [`SdpaPlan::forward_on`].
    pub unsafe fn backward_on(
        &self,
        args: &mut SdpaBackwardArgs<'_>,
        workspace: &mut Workspace,
        stream: Stream,
    ) -> Result<()> {
        let (data, bytes) = (workspace.as_ptr(), workspace.bytes());
        args.with_c(|raw| {
            check(|error| unsafe {
                sys::attn_sdpa_backward(self.as_ptr(), raw, data, bytes, stream.as_ptr(), error)
            })
        })
    }

    /// Times every implementation on these tensors and gives a plan with the fastest: see
    /// [`SdpaPlan::tune`].
    pub fn tune(
        &self,
        args: &mut SdpaBackwardArgs<'_>,
        workspace: &mut Workspace,
    ) -> Result<SdpaBackwardPlan> {
        self.host_only("tune")?;
        // SAFETY: as in `backward`.
        unsafe { self.tune_on(args, workspace, Stream::DEFAULT) }
    }

    /// As [`SdpaBackwardPlan::tune`], on a stream, for which it waits.
    ///
    /// # Safety
    ///
    /// As [`SdpaPlan::forward_on`].
    pub unsafe fn tune_on(
        &self,
        args: &mut SdpaBackwardArgs<'_>,
        workspace: &mut Workspace,
        stream: Stream,
    ) -> Result<SdpaBackwardPlan> {
        let plan = args.with_c(|raw| {
            Plan::create(self.context(), |tuned, error| unsafe {
                sys::attn_sdpa_plan_tune(
                    self.as_ptr(),
                    std::ptr::null(),
                    raw,
                    workspace.as_ptr(),
                    workspace.bytes(),
                    stream.as_ptr(),
                    tuned,
                    error,
                )
            })
        })?;
        Ok(SdpaBackwardPlan { plan })
    }
}
