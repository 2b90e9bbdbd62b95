//! The tensors of one forward or backward pass.

use crate::{sys, Error, Int32s, Result, Tensor, TensorMut};
use std::marker::PhantomData;

/// The lengths of the arrays that the library takes as bare pointers.
#[derive(Debug, Clone, Copy, Default)]
struct Arrays<'a> {
    cu_seqlens_q: Option<Int32s<'a>>,
    cu_seqlens_k: Option<Int32s<'a>>,
    seqused_q: Option<Int32s<'a>>,
    seqused_k: Option<Int32s<'a>>,
    kv_page_indptr: Option<Int32s<'a>>,
    kv_page_indices: Option<Int32s<'a>>,
    kv_last_page_len: Option<Int32s<'a>>,
}

impl Arrays<'_> {
    /// Checks the lengths against the number of sequences; the library checks the contents.
    fn check(&self, raw: &sys::attn_sdpa_args) -> Result<()> {
        let batch = match self.cu_seqlens_q {
            Some(array) => array.len().saturating_sub(1),
            None if raw.q.rank > 0 => raw.q.shape[0] as usize,
            None => 0,
        };
        let lengths = [
            ("args.cu_seqlens_q", self.cu_seqlens_q, batch + 1),
            ("args.cu_seqlens_k", self.cu_seqlens_k, batch + 1),
            ("args.seqused_q", self.seqused_q, batch),
            ("args.seqused_k", self.seqused_k, batch),
            ("args.kv_page_indptr", self.kv_page_indptr, batch + 1),
            ("args.kv_last_page_len", self.kv_last_page_len, batch),
        ];
        for (field, array, needed) in lengths {
            match array {
                Some(array) if array.len() != needed => {
                    return Err(Error::invalid(
                        field,
                        format!(
                            "{field} has {} entries; with {batch} sequences it must have {needed}",
                            array.len()
                        ),
                    ));
                }
                _ => {}
            }
        }
        if self.cu_seqlens_q.is_some() && raw.batch != batch as i64 {
            let message =
                format!("args.batch is {}; cu_seqlens_q has {batch} sequences", raw.batch);
            return Err(Error::invalid("args.batch", message));
        }
        // What a GPU has is not read here.
        let Some(indptr) = self.kv_page_indptr.and_then(|array| array.slice()) else {
            return Ok(());
        };
        let pages = self.kv_page_indices.map_or(0, |array| array.len());
        let rises = indptr.windows(2).all(|pair| pair[0] <= pair[1]);
        if !rises || indptr[0] != 0 || indptr[batch] as usize > pages {
            let field = "args.kv_page_indptr";
            return Err(Error::invalid(
                field,
                format!(
                    "{field} must start with 0, never fall and end within the {pages} entries of \
                     args.kv_page_indices"
                ),
            ));
        }
        Ok(())
    }
}

/// Setters of arrays that the library takes as bare pointers.
macro_rules! arrays {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, array: impl Into<Int32s<'a>>) -> Self {
            let array = array.into();
            self.forward.$name = array.as_ptr();
            self.arrays.$name = Some(array);
            self
        }
    )*};
}

/// Setters of tensors that are read.
macro_rules! tensors {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, tensor: Tensor<'a>) -> Self {
            self.forward.$name = *tensor.raw();
            self
        }
    )*};
}

/// Setters of the inputs that both passes take.
macro_rules! inputs {
    () => {
        /// Ragged q: sequence b has the tokens `cu_seqlens[b] .. cu_seqlens[b + 1]`.
        pub fn cu_seqlens_q(mut self, array: impl Into<Int32s<'a>>) -> Self {
            let array = array.into();
            self.forward.batch = array.len() as i64 - 1;
            self.forward.cu_seqlens_q = array.as_ptr();
            self.arrays.cu_seqlens_q = Some(array);
            self
        }

        arrays!(
            /// Ragged k: sequence b has the tokens `cu_seqlens[b] .. cu_seqlens[b + 1]`.
            cu_seqlens_k,
            /// Queries in use, one number a sequence.
            seqused_q,
            /// Keys in use, one number a sequence.
            seqused_k,
            /// CSR pages: sequence b has the pages `indices[indptr[b] .. indptr[b + 1]]`.
            kv_page_indptr,
            /// CSR pages: the pages of all sequences; negative = skip.
            kv_page_indices,
            /// CSR pages: how many tokens the last page of each sequence holds.
            kv_last_page_len,
        );

        /// Dropout: seed and offset.
        pub fn rng_state(mut self, state: &'a [u64; 2]) -> Self {
            self.forward.rng_state = state.as_ptr();
            self
        }

        /// Dropout: seed and offset, two u64 at an address in a GPU's memory.
        ///
        /// # Safety
        ///
        /// The memory is valid in the plan's device for reads for `'a`.
        pub unsafe fn rng_state_from_device(mut self, address: u64) -> Self {
            self.forward.rng_state = address as usize as *const u64;
            self
        }

        tensors!(
            /// Page table: INT32 `[batch, max_pages_per_seq]`; negative = skip.
            block_table,
            /// Bit mask: UINT8 `[1|B, 1|Hq, Sq, ceil(Sk / 8)]`; bit 1 = visible.
            mask,
            /// Tree mask over the last Sq keys: UINT8 `[1|B, 1|Hq, Sq, ceil(Sq / 8)]`.
            tail_mask,
            /// INT32 `[B, Sq]`.
            q_segment_ids,
            /// INT32 `[B, Sk]`.
            kv_segment_ids,
            /// Added to the scores: `[1|B, 1|Hq, 1|Sq, Sk]`.
            bias,
            /// FP32 `[Hq]` or `[B, Hq]`.
            alibi_slopes,
            /// One more logit a head: FP32 `[Hq]`.
            sink,
            /// `out *= sigmoid(gate)`: `[B, Sq, Hq, 1|head_dim_v]`.
            gate,
            /// Block-sparse lists: how many key blocks each query block sees.
            block_counts,
            /// Block-sparse lists: which.
            block_indices,
            /// Dequantisation scales of q.
            q_scale,
            /// Dequantisation scales of k.
            k_scale,
            /// Dequantisation scales of v.
            v_scale,
            /// Scales of out.
            out_scale,
        );
    };
}

/// The tensors of one forward pass. Setters of what the descriptor does not ask for are refused by
/// the library when the plan is executed.
#[derive(Debug)]
pub struct SdpaArgs<'a> {
    forward: sys::attn_sdpa_args,
    arrays: Arrays<'a>,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: views of memory whose elements are Send and Sync; written only through &mut self.
unsafe impl Send for SdpaArgs<'_> {}
unsafe impl Sync for SdpaArgs<'_> {}

impl<'a> SdpaArgs<'a> {
    /// q `[B, Sq, Hq, D]`, k and v `[B, Sk, Hkv, D]` (ragged: without B; paged: the pools), and out.
    pub fn new(q: Tensor<'a>, k: Tensor<'a>, v: Tensor<'a>, out: TensorMut<'a>) -> Self {
        let mut args = Self::latent(q, k, out);
        args.forward.v = *v.raw();
        args
    }

    /// As [`SdpaArgs::new`] for a latent KV plan: v is the first columns of k.
    pub fn latent(q: Tensor<'a>, kv: Tensor<'a>, out: TensorMut<'a>) -> Self {
        let mut forward = sys::attn_sdpa_args::new();
        forward.q = *q.raw();
        forward.k = *kv.raw();
        forward.out = *out.raw();
        SdpaArgs { forward, arrays: Arrays::default(), memory: PhantomData }
    }

    /// Log-sum-exp of each query, written: FP32 `[B, Hq, Sq]`, ragged `[Hq, total_q]`.
    pub fn lse(mut self, tensor: TensorMut<'a>) -> Self {
        self.forward.lse = *tensor.raw();
        self
    }

    /// The largest visible score of each query, written: FP32, shape as lse.
    pub fn row_max(mut self, tensor: TensorMut<'a>) -> Self {
        self.forward.row_max = *tensor.raw();
        self
    }

    inputs!();

    /// The C struct, to set what has no setter here.
    ///
    /// # Safety
    ///
    /// All pointers must stay valid for `'a`, with the lengths that the header demands.
    pub unsafe fn raw_mut(&mut self) -> &mut sys::attn_sdpa_args {
        &mut self.forward
    }

    pub(crate) fn checked(&self) -> Result<*const sys::attn_sdpa_args> {
        self.arrays.check(&self.forward)?;
        Ok(&self.forward)
    }
}

/// The tensors of one backward pass.
#[derive(Debug)]
pub struct SdpaBackwardArgs<'a> {
    forward: sys::attn_sdpa_args,
    grads: sys::attn_sdpa_backward_args,
    arrays: Arrays<'a>,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: views of memory whose elements are Send and Sync; written only through &mut self.
unsafe impl Send for SdpaBackwardArgs<'_> {}
unsafe impl Sync for SdpaBackwardArgs<'_> {}

impl<'a> SdpaBackwardArgs<'a> {
    /// What the forward pass was given and gave, and the gradient that reaches out.
    pub fn new(
        q: Tensor<'a>,
        k: Tensor<'a>,
        v: Tensor<'a>,
        out: Tensor<'a>,
        dout: Tensor<'a>,
    ) -> Self {
        let mut args = Self::latent(q, k, out, dout);
        args.forward.v = *v.raw();
        args
    }

    /// As [`SdpaBackwardArgs::new`] for a latent KV plan.
    pub fn latent(q: Tensor<'a>, kv: Tensor<'a>, out: Tensor<'a>, dout: Tensor<'a>) -> Self {
        let mut forward = sys::attn_sdpa_args::new();
        forward.q = *q.raw();
        forward.k = *kv.raw();
        forward.out = *out.raw();
        let mut grads = sys::attn_sdpa_backward_args::new();
        grads.dout = *dout.raw();
        SdpaBackwardArgs { forward, grads, arrays: Arrays::default(), memory: PhantomData }
    }

    /// The forward pass's lse; softmax needs it.
    pub fn lse(mut self, tensor: Tensor<'a>) -> Self {
        self.forward.lse = *tensor.raw();
        self
    }

    /// The gradient that reaches lse: FP32, shape as lse.
    pub fn dlse(mut self, tensor: Tensor<'a>) -> Self {
        self.grads.dlse = *tensor.raw();
        self
    }

    /// Written: the gradient of q.
    pub fn dq(mut self, tensor: TensorMut<'a>) -> Self {
        self.grads.dq = *tensor.raw();
        self
    }

    /// Written: the gradient of k (of both k and v for latent KV).
    pub fn dk(mut self, tensor: TensorMut<'a>) -> Self {
        self.grads.dk = *tensor.raw();
        self
    }

    /// Written: the gradient of v.
    pub fn dv(mut self, tensor: TensorMut<'a>) -> Self {
        self.grads.dv = *tensor.raw();
        self
    }

    /// Written: the gradient of bias.
    pub fn dbias(mut self, tensor: TensorMut<'a>) -> Self {
        self.grads.dbias = *tensor.raw();
        self
    }

    /// Written: the gradient of sink.
    pub fn dsink(mut self, tensor: TensorMut<'a>) -> Self {
        self.grads.dsink = *tensor.raw();
        self
    }

    /// Written: the gradient of gate.
    pub fn dgate(mut self, tensor: TensorMut<'a>) -> Self {
        self.grads.dgate = *tensor.raw();
        self
    }

    inputs!();

    /// The C struct of the forward pass's arguments: see [`SdpaArgs::raw_mut`].
    ///
    /// # Safety
    ///
    /// All pointers must stay valid for `'a`, with the lengths that the header demands.
    pub unsafe fn raw_mut(&mut self) -> &mut sys::attn_sdpa_args {
        &mut self.forward
    }

    /// Calls `f` with the C struct, whose `forward` points into self during the call.
    pub(crate) fn with_c<T>(
        &mut self,
        f: impl FnOnce(*const sys::attn_sdpa_backward_args) -> Result<T>,
    ) -> Result<T> {
        self.arrays.check(&self.forward)?;
        let mut grads = self.grads;
        grads.forward = &self.forward;
        f(&grads)
    }
}
