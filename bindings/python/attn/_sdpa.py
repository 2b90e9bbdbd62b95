"""Attention on arrays: attn.sdpa and attn.sdpa_backward."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from . import _arrays, _dlpack, _ffi, _frameworks
from ._arrays import HOST, Spec
from ._context import Context, choose
from ._errors import invalid
from ._plan import (
    GRADS, POINTERS, Call, Plan, check_lengths, check_page_indices,
    check_writable, context_of, rng_state, run, spec_of,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SdpaOptions(TypedDict, total=False):
    """The options of attn.sdpa and attn.sdpa_backward. See attn.sdpa."""

    is_causal: bool
    alignment: str
    scale: float
    window: tuple[int, int] | None
    softcap: float
    chunk_size: int
    sink_tokens: int
    bias: Any
    alibi_slopes: Any
    mask: Any
    tail_mask: Any
    sink: Any
    lse_includes_sink: bool
    gate: Any
    segment_ids: Any
    q_segment_ids: Any
    kv_segment_ids: Any
    dropout_p: float
    rng_state: tuple[int, int] | None
    cu_seqlens_q: Any
    cu_seqlens_k: Any
    max_seqlen_q: int
    max_seqlen_k: int
    seqused_q: Any
    seqused_k: Any
    block_table: Any
    kv_page_indptr: Any
    kv_page_indices: Any
    kv_last_page_len: Any
    block_counts: Any
    block_indices: Any
    block_size: tuple[int, int]
    activation: str
    silu_divisor: float
    head_dim_v: int
    q_scale: Any
    k_scale: Any
    v_scale: Any
    out_scale: Any
    scale_block_size: int
    k_dtype: str
    v_dtype: str
    out_dtype: str
    lse_base: str
    split: str
    split_size: int
    determinism: str
    allow_tf32: bool
    layout: str
    kv_layout: str
    implementation: str


_TENSORS = frozenset((
    "bias", "alibi_slopes", "mask", "tail_mask", "sink", "gate", "q_segment_ids",
    "kv_segment_ids", "block_table", "block_counts", "block_indices", "q_scale", "k_scale",
    "v_scale", "out_scale",
))
_INTEGER_TENSORS = frozenset((
    "q_segment_ids", "kv_segment_ids", "block_table", "block_counts", "block_indices",
))
_SCALARS = frozenset(SdpaOptions.__annotations__) - _TENSORS - POINTERS - {"rng_state"}
_QUERY_ORDER = frozenset(("q", "out", "gate", "dout", "dq", "dgate", "q_scale", "out_scale"))
_KEY_ORDER = frozenset(("k", "v", "dk", "dv", "k_scale", "v_scale"))
_LAYOUTS = ("bshd", "bhsd")
# Tensors that follow numpy's rule for missing leading dimensions, by the rank they need.
_BROADCAST = frozenset(("bias", "mask", "tail_mask", "block_counts", "block_indices", "dbias"))
_FLAG_OF_TENSOR = {
    "bias": "bias", "alibi_slopes": "alibi", "mask": "mask", "tail_mask": "tail_mask",
    "sink": "sink", "gate": "gate", "q_segment_ids": "segment_ids",
    "block_indices": "block_sparse", "rng_state": "dropout", "seqused_q": "seqused_q",
    "lse": "return_lse", "row_max": "return_row_max",
}
_PLAIN = (_ffi.ATTN_DTYPE_FP32, _ffi.ATTN_DTYPE_FP16, _ffi.ATTN_DTYPE_BF16)
_FP32 = _ffi.ATTN_DTYPE_FP32
_NOWHERE = (0, 0)


class _Inputs:
    """The array arguments of one call, with what identifies its shape."""

    __slots__ = ("key", "names", "values", "addresses", "scalars", "maker", "device", "said")

    def __init__(self, required: Sequence[tuple[str, Any]], options: dict[str, Any]) -> None:
        numpy = sys.modules.get("numpy")
        ndarray = getattr(numpy, "ndarray", None)
        key: list[Any] = []
        names: list[str] = []
        values: list[Any] = []
        addresses: list[int] = []
        scalars: dict[str, Any] = {}
        like = required[0][1]
        kind = view = None  # of most arrays
        if ndarray is not None and isinstance(like, ndarray):
            maker, device = None, HOST
        else:
            maker = _frameworks.maker_of(like)
            device = _NOWHERE
            kind, view = type(like), maker.view
        said = False
        if options:
            required = [*required, *self._split(options, scalars, key, required, numpy)]
        for name, value in required:
            if value is None:
                continue
            if type(value) is ndarray:
                if device is not HOST:
                    _frameworks.same_device(name, HOST, device, required[0][0])
                addresses.append(_arrays.address_of(value))
            elif type(value) is not kind and ndarray is not None and isinstance(value, ndarray):
                if device is not HOST:
                    _frameworks.same_device(name, HOST, device, required[0][0])
                value = value.view(ndarray)
                addresses.append(_arrays.address_of(value))
            else:
                if view is not None and type(value) is kind:
                    value = view(value, name, None)
                else:
                    value = _frameworks.view_of(value, name)
                addresses.append(value.address)
                if value.device != device:
                    if device is not _NOWHERE:
                        _frameworks.same_device(name, value.device, device, required[0][0])
                    device = value.device
                if value.stream is not None:
                    said = True
            key += (name, value.shape, value.strides, value.dtype)
            names.append(name)
            values.append(value)
        self.key = key
        self.names = names
        self.values = values
        self.addresses = addresses
        self.scalars = scalars
        self.device = device
        self.maker = maker
        self.said = said  # whether an array says what stream it is in use on

    @staticmethod
    def _split(options: dict[str, Any], scalars: dict[str, Any], key: list[Any],
               required: Sequence[tuple[str, Any]], numpy: Any) -> list[tuple[str, Any]]:
        """Sorts options into scalars (which go into the key) and arrays."""
        arrays: list[tuple[str, Any]] = []
        for name, value in options.items():
            if value is None:
                continue
            if name in _SCALARS:
                if name == "segment_ids":
                    ids = _ids(value, numpy)
                    arrays.append(("q_segment_ids", ids))
                    arrays.append(("kv_segment_ids", ids))
                    continue
                if name == "window" or name == "block_size":
                    value = tuple(value)
                    if len(value) != 2:
                        raise invalid(name, f"{name} must be a pair")
                scalars[name] = value
                key.append(name)
                key.append(value)
            elif name in POINTERS:
                value = _frameworks.integers(value, name, numpy)
                arrays.append((name, value))
                if name == "cu_seqlens_q" or name == "cu_seqlens_k":
                    # The longest sequence is part of the problem.
                    limit = "max_seqlen_q" if name == "cu_seqlens_q" else "max_seqlen_k"
                    if options.get(limit) is None:
                        longest = _longest(value, limit)
                        scalars[limit] = longest
                        key.append(limit)
                        key.append(longest)
                elif name == "kv_page_indptr" and options.get("max_seqlen_k") is None:
                    pages = _longest(value, "max_seqlen_k")
                    scalars["max_pages"] = pages
                    key.append("max_pages")
                    key.append(pages)
            elif name in _TENSORS:
                if name in _INTEGER_TENSORS:
                    value = _ids(value, numpy)
                elif name == "mask" or name == "tail_mask":
                    if numpy is not None and isinstance(value, numpy.ndarray):
                        if value.dtype.kind == "b":
                            value = _arrays.pack_mask(value, numpy)
                    elif "bool" in str(getattr(value, "dtype", "")):
                        value = _frameworks.maker_of(value).pack_mask(value, name)
                elif name.endswith("_scale") and isinstance(value, (int, float)):
                    of: Any = dict(required).get("q" if name in ("q_scale", "out_scale") else "k")
                    rank = len(of.shape) if hasattr(of, "shape") else 4
                    value = _frameworks.maker_of(required[0][1]).scalar(value, (1,) * rank,
                                                                        required[0][1])
                arrays.append((name, value))
            elif name == "rng_state":
                arrays.append((name, rng_state(value, name)))
            else:
                raise TypeError(f"attn: unknown option {name!r}")
        if options.get("kv_page_indptr") is not None:
            check_page_indices(dict(arrays))
        return arrays


def _ids(value: Any, numpy: Any) -> Any:
    """An integer tensor as int32."""
    if numpy is not None:
        if isinstance(value, (list, tuple)):
            value = numpy.asarray(value)
        if isinstance(value, numpy.ndarray) and value.dtype.kind in "iu":
            return value.astype(numpy.int32, copy=False)
        if isinstance(value, numpy.ndarray):
            return value
    return _frameworks.maker_of(value).int32(value)


def _longest(offsets: Any, limit: str) -> int:
    if isinstance(offsets, _arrays.View):
        if offsets.device != HOST:
            raise invalid(limit, f"{limit} must be given: the offsets are on "
                                 f"{_frameworks.device_name(offsets.device)}")
        numbers = _frameworks.read_integers(offsets)
        return max((b - a for a, b in zip([*numbers[:1], *numbers], numbers)), default=0)
    return max(int((offsets[1:] - offsets[:-1]).max()), 0) if offsets.shape[0] > 1 else 0


class _Builder:
    """Turns arguments of known shapes into a descriptor and prepared arguments."""

    def __init__(self, inputs: _Inputs) -> None:
        self.scalars = inputs.scalars
        self.values = dict(zip(inputs.names, inputs.values))
        self.user: dict[str, Spec] = {n: spec_of(n, v) for n, v in self.values.items()}
        self.fields: dict[str, Any] = {}
        self.flags: list[str] = []
        self.ragged_q = "cu_seqlens_q" in self.values
        if "block_table" in self.values:
            self.kv = "paged_table"
        elif "kv_page_indptr" in self.values:
            self.kv = "paged_csr"
        else:
            self.kv = "ragged" if "cu_seqlens_k" in self.values else "dense"
        self.layout = self._layout("layout", "bshd")
        self.kv_layout = self._layout("kv_layout", self.layout)
        self.specs = {name: self.canonical(name, spec) for name, spec in self.user.items()}
        self.batch = check_lengths(self.values)

    def _layout(self, name: str, default: str) -> str:
        layout = self.scalars.get(name, default)
        if layout not in _LAYOUTS:
            raise invalid(name, f"{name} is {layout!r}; it must be one of {', '.join(_LAYOUTS)}")
        return str(layout)

    def canonical(self, name: str, spec: Spec) -> Spec:
        """The same memory in the order of dimensions that the library wants."""
        _, code, shape, strides = spec
        if name in ("k", "v") and f"{name}_dtype" in self.scalars:
            code = _arrays.dtype_code(self.scalars[f"{name}_dtype"], f"{name}_dtype")
            if code in (_ffi.ATTN_DTYPE_INT4, _ffi.ATTN_DTYPE_FP4_E2M1):
                if spec[1] != _ffi.ATTN_DTYPE_UINT8 or not shape or strides[-1] != 1:
                    raise invalid(name, f"{name} must be uint8, two elements a byte, contiguous in "
                                        "its last dimension")
                shape = (*shape[:-1], shape[-1] * 2)
                strides = (*(2 * s for s in strides[:-1]), 1)
        if name in _QUERY_ORDER or name in _KEY_ORDER:
            of_query = name in _QUERY_ORDER
            ragged = self.ragged_q if of_query else self.kv == "ragged"
            rank = 3 if ragged else 4
            if len(shape) != rank:
                wanted = "[tokens, heads, head_dim]" if ragged else (
                    "[batch, seqlen, heads, head_dim]" if of_query or self.kv == "dense"
                    else "[pages, page_size, heads, head_dim]")
                raise invalid(name, f"{name} has {len(shape)} dimensions; it must be {wanted} (or "
                                    "with heads before tokens for layout 'bhsd')")
            if (self.layout if of_query else self.kv_layout) == "bhsd":
                first = rank - 3
                order = list(range(rank))
                order[first], order[first + 1] = order[first + 1], order[first]
                shape = tuple(shape[i] for i in order)
                strides = tuple(strides[i] for i in order)
        elif name in _BROADCAST:
            rank = 3 if self.ragged_q else 4
            if name == "block_counts":
                rank = 3
            elif name == "block_indices":
                rank = 4
            if len(shape) < rank:
                missing = rank - len(shape)
                shape = (1,) * missing + shape
                strides = (0,) * missing + strides
            if name in ("mask", "tail_mask") and shape[-2] == 1 and "q" in self.user:
                queries = self.canonical("q", self.user["q"])[2][-3]
                shape = (*shape[:-2], queries, shape[-1])
                strides = (*strides[:-2], 0, strides[-1])
        return name, code, shape, strides

    def describe(self) -> None:
        """Fills the fields of the descriptor, the pass and what it writes excepted."""
        fields, scalars, specs = self.fields, self.scalars, self.specs
        _, q_code, q_shape, _ = specs["q"]
        _, k_code, k_shape, _ = specs["k"]
        latent = "v" not in specs
        fields["q_dtype"] = q_code
        fields["k_dtype"] = k_code
        fields["num_q_heads"] = q_shape[-2]
        fields["num_kv_heads"] = k_shape[-2]
        fields["head_dim_qk"] = q_shape[-1]
        if latent:
            if "head_dim_v" not in scalars:
                raise invalid("v", "v is missing; without it (latent KV) head_dim_v must be given")
            self.flags.append("latent_kv")
            self.head_dim_v = int(scalars["head_dim_v"])
        else:
            fields["v_dtype"] = specs["v"][1]
            self.head_dim_v = specs["v"][2][-1]
        fields["head_dim_v"] = self.head_dim_v
        fields["q_layout"] = "ragged" if self.ragged_q else "dense"
        fields["kv_layout"] = self.kv
        self.limits(q_shape, k_shape)
        dim = q_shape[-1]
        fields["softmax_scale"] = scalars.get("scale", 1.0 / math.sqrt(dim) if dim else 1.0)
        if scalars.get("is_causal"):
            self.flags.append("causal")
        window = scalars.get("window")
        if window is not None:
            self.flags.append("window")
            fields["window_left"], fields["window_right"] = window
        if scalars.get("lse_includes_sink"):
            self.flags.append("lse_includes_sink")
        if scalars.get("allow_tf32"):
            self.flags.append("allow_tf32")
        for name in ("softcap", "chunk_size", "sink_tokens", "alignment", "activation",
                     "silu_divisor", "lse_base", "split_size", "determinism"):
            if name in scalars:
                fields[name] = scalars[name]
        if "split" in scalars:
            fields["split_policy"] = scalars["split"]
        if "block_size" in scalars:
            fields["block_size_q"], fields["block_size_k"] = scalars["block_size"]
        dropout = scalars.get("dropout_p", 0.0)
        if dropout != 0.0:
            fields["dropout_p"] = dropout
            if "rng_state" not in specs:
                raise invalid("rng_state", "dropout_p is given; rng_state = (seed, offset) must be "
                                           "given with it")
        for name, flag in _FLAG_OF_TENSOR.items():
            if name in specs:
                self.flags.append(flag)
        if "seqused_k" in specs:
            self.flags.append("seqused_k")
        for name in ("q", "k", "v", "out"):
            if f"{name}_scale" in specs:
                fields[f"{name}_quant"] = self.quant(name)

    def limits(self, q_shape: tuple[int, ...], k_shape: tuple[int, ...]) -> None:
        fields, scalars = self.fields, self.scalars
        if self.ragged_q:
            fields["max_batch"] = self.batch
            fields["max_seqlen_q"] = scalars["max_seqlen_q"]
            fields["max_total_q"] = q_shape[0]
        else:
            fields["max_batch"] = q_shape[0]
            fields["max_seqlen_q"] = q_shape[1]
        if self.kv == "dense":
            fields["max_seqlen_k"] = k_shape[1]
        elif self.kv == "ragged":
            fields["max_seqlen_k"] = scalars["max_seqlen_k"]
            fields["max_total_k"] = k_shape[0]
        else:
            fields["page_size"] = k_shape[1]
            if "max_seqlen_k" in scalars:
                fields["max_seqlen_k"] = scalars["max_seqlen_k"]
            elif self.kv == "paged_table":
                table = self.specs["block_table"][2]
                fields["max_seqlen_k"] = (table[1] if len(table) == 2 else 0) * k_shape[1]
            else:
                fields["max_seqlen_k"] = scalars["max_pages"] * k_shape[1]

    def quant(self, name: str) -> dict[str, Any]:
        """The granularity that the shape of a scale tensor implies."""
        scale = self.specs[f"{name}_scale"]
        shape = scale[2]
        if shape[-1] > 1:
            dim = self.head_dim_v if name in ("v", "out") else self.specs["q"][2][-1]
            granularity = "block"
            block = self.scalars.get("scale_block_size", -(-dim // shape[-1]))
            return {"granularity": granularity, "block_size": block, "scale_dtype": scale[1]}
        paged = name in ("k", "v") and self.kv.startswith("paged")
        token, head = shape[-3] > 1, shape[-2] > 1
        if len(shape) == 4 and shape[0] > 1:
            if paged:
                token = True
            elif not token:
                head = True
        granularity = {(False, False): "tensor", (False, True): "head", (True, False): "token",
                       (True, True): "token_head"}[(token, head)]
        return {"granularity": granularity, "scale_dtype": scale[1]}

    def query_shape(self, last: int) -> tuple[int, ...]:
        """The shape of out as the caller sees it."""
        return (*self.user["q"][2][:-1], last)

    def row_shape(self) -> tuple[int, ...]:
        shape = self.specs["q"][2]
        return (shape[1], shape[0]) if self.ragged_q else (shape[0], shape[2], shape[1])

    def call(self, context: Context, outputs: list[tuple[str, tuple[int, ...], int]],
             maker: _frameworks.Maker | None) -> Call:
        """The plan, with new outputs (name, shape as the caller sees it, dtype) last."""
        numpy = sys.modules.get("numpy")
        desc = self.fields
        desc["flags"] = self.flags
        plan = Plan.sdpa(context=context, implementation=self.scalars.get("implementation"), **desc)
        plan.prepare()
        specs = list(self.specs.values())
        made = []
        for name, shape, code in outputs:
            specs.append(self.canonical(name, (name, code, shape, _dlpack.contiguous(shape))))
            made.append((name, shape, _arrays.numpy_dtype(code, numpy) if maker is None
                         else maker.recipe(code, shape, self.user["q"])))
        return Call(plan, specs, self.batch, made)


# Options that are neither arrays nor hold any, and what their values may be to tell calls apart.
_SETTINGS = _SCALARS - {"segment_ids"}
_SETTING_TYPES = frozenset((bool, int, float, str, tuple, type(None)))


def _glance(
    arrays: Iterable[tuple[str, Any]], like: Any, options: dict[str, Any], key: list[Any],
) -> tuple[_frameworks.Maker, _arrays.Device, list[int]] | None:
    """Maker.glance, if there are no arrays beyond these."""
    maker = _frameworks.known_maker(type(like))
    if maker is None:
        return None
    for name, value in options.items():
        if name not in _SETTINGS or type(value) not in _SETTING_TYPES:
            return None
        key += (name, value)
    seen = maker.glance(arrays, like, key)
    return seen and (maker, *seen)


def _execute(call: Call, inputs: _Inputs, like: Any) -> list[Any]:
    """Makes the new outputs, runs, and gives them."""
    said = zip(inputs.names, inputs.values) if inputs.said else ()
    return run(call, inputs.addresses, said, inputs.maker, like, inputs.device)


def sdpa(
    q: Any,
    k: Any,
    v: Any = None,
    *,
    out: Any = None,
    lse: Any = None,
    return_lse: bool = False,
    return_row_max: bool = False,
    context: Context | None = None,
    **options: Unpack[SdpaOptions],
) -> Any:
    """Scaled dot-product attention: softmax(scale * q k^T + ...) v.

    Arrays are numpy arrays (with ml_dtypes: bf16, fp8) or anything with `__dlpack__` or
    `__cuda_array_interface__`; results are of the kind of q. Inputs may have any strides. Nothing
    is copied, but for bool masks, which are packed, and for lengths that are not int32.

    Arrays on a GPU must all be on the same one. The call runs on the current stream of q's
    framework and does not wait; results and workspace come from that framework's allocator.

    Shapes, with B sequences, Sq queries, Sk keys, Hq query heads, Hkv key heads (Hkv divides Hq):

      dense    q [B, Sq, Hq, D], k [B, Sk, Hkv, D], v [B, Sk, Hkv, Dv] -> out [B, Sq, Hq, Dv]
      ragged   q [Tq, Hq, D] with cu_seqlens_q [B + 1]; k, v [Tk, Hkv, ..] with cu_seqlens_k
      paged    k, v [pages, page_size, Hkv, ..] with block_table [B, pages a sequence] and
               seqused_k [B], or with kv_page_indptr [B + 1], kv_page_indices, kv_last_page_len [B]

    Args:
        q, k, v: fp32, fp16, bf16; k also fp8, int8, int4, fp4 with k_scale. Without v (latent KV)
            the values are the first head_dim_v columns of k.
        out: array for the result; default: a new one.
        lse: array for the log-sum-exp; implies return_lse.
        return_lse: also return lse, fp32 [B, Hq, Sq] or [Hq, Tq].
        return_row_max: also return the largest visible score of each query, of the shape of lse.
        context: default: that of the device where q lies.

    Options (keywords), defaults in brackets:
        is_causal [False]: query i sees key j only if j <= i + offset.
        alignment ["bottom_right"]: offset is Sk - Sq; "top_left": 0, as PyTorch's is_causal.
        scale [1 / sqrt(D)]: multiplies q k^T.
        window [None]: (left, right) keys beside the diagonal, which is not counted; -1 = all.
        softcap [0]: c > 0 makes scores c * tanh(score / c), before bias.
        chunk_size [0], sink_tokens [0]: attention in chunks; first keys that stay visible.
        bias: added to the scores, [1|B, 1|Hq, 1|Sq, Sk], ragged [1|Hq, Tq, Sk]. Leading
            dimensions may be missing.
        alibi_slopes: fp32 [Hq] or [B, Hq].
        mask: bool [1|B, 1|Hq, 1|Sq, Sk], True = visible; or packed bits, uint8 [.., ceil(Sk / 8)].
        tail_mask: the same over the last Sq keys (tree attention).
        sink: fp32 [Hq], a logit without a value; lse_includes_sink [False].
        gate: [B, Sq, Hq, 1|Dv]; out *= sigmoid(gate).
        segment_ids (of queries and keys), or q_segment_ids and kv_segment_ids: int [B, S];
            visible if equal and not negative.
        dropout_p [0] with rng_state: (seed, offset); on a device an int64 array of both.
        cu_seqlens_q, cu_seqlens_k: ints, offsets of ragged sequences. max_seqlen_q, max_seqlen_k
            [found from them; on a device: required].
        seqused_q, seqused_k: ints [B], lengths in use.
        block_table, kv_page_indptr, kv_page_indices, kv_last_page_len: see above.
        block_indices, block_counts, block_size = (queries, keys): block-sparse lists.
        activation ["softmax"]: or "silu" with silu_divisor.
        head_dim_v: with latent KV.
        q_scale, k_scale, v_scale, out_scale: dequantisation multipliers: a float, or a tensor
            of the rank of what it scales with extents 1 where shared; scale_block_size.
        k_dtype, v_dtype: "int4" or "fp4_e2m1" for uint8 arrays with two elements a byte.
        out_dtype [that of q]. lse_base ["e"]: or "2".
        split ["auto"]: or "none", "fixed" with split_size. determinism ["fast"]: or
            "run_to_run", "batch_invariant".
        allow_tf32 [False]: products of fp32 q may round their factors to TF32, which is faster on
            tensor cores; the CPU multiplies in fp32 all the same.
        layout ["bshd"]: "bhsd" if heads come before tokens in q, k, v, gate, out; kv_layout
            [layout]: for k and v alone. Only strides differ.
        implementation: the name of one, see Plan.implementations.

    Returns:
        out, or a tuple (out, lse), (out, row_max) or (out, lse, row_max).

    Raises:
        InvalidArgumentError, UnsupportedError and others of attn.AttnError; `field` names the
        argument. TypeError for an unknown option.
    """
    arrays = (("q", q), ("k", k), ("v", v), ("out", out), ("lse", lse))
    glanced: list[Any] = [return_lse, return_row_max]
    usual = _glance(arrays, q, options, glanced)  # type: ignore[arg-type]
    if usual is not None:
        maker, device, addresses = usual
        context = context_of(context, device, "q")
        call = context.glanced.get(tuple(glanced))
        if call is not None:
            return _answer(run(call, addresses, (), maker, q, device), out, lse)
    inputs = _Inputs(arrays, options)  # type: ignore[arg-type]
    context = context_of(context, inputs.device, "q")
    key = ("sdpa", return_lse, return_row_max, inputs.maker, *inputs.key)
    call = context.calls.get(key)
    if out is not None or lse is not None:
        for name, value in zip(inputs.names, inputs.values):
            if name in ("out", "lse"):
                check_writable(value, name)
    if call is None:
        builder = _Builder(inputs)
        builder.describe()
        made: list[tuple[str, tuple[int, ...], int]] = []
        if out is None:
            code = builder.specs["q"][1]
            if "out_dtype" in inputs.scalars:
                code = _arrays.dtype_code(inputs.scalars["out_dtype"], "out_dtype")
            elif code not in _PLAIN:
                code = _ffi.ATTN_DTYPE_BF16
            made.append(("out", builder.query_shape(builder.head_dim_v), code))
        else:
            code = builder.specs["out"][1]
        builder.fields["out_dtype"] = code
        if return_lse and lse is None:
            builder.flags.append("return_lse")
            made.append(("lse", builder.row_shape(), _FP32))
        if return_row_max:
            builder.flags.append("return_row_max")
            made.append(("row_max", builder.row_shape(), _FP32))
        call = builder.call(context, made, inputs.maker)
        context.remember(key, call)
    if usual is not None:
        context.remember(tuple(glanced), call, True)
    return _answer(_execute(call, inputs, q), out, lse)


def _answer(results: list[Any], out: Any, lse: Any) -> Any:
    """New results and those given, in the order in which sdpa returns them."""
    if out is not None:
        results.insert(0, out)
    if lse is not None:
        results.insert(1, lse)
    return tuple(results) if len(results) > 1 else results[0]


class Gradients(NamedTuple):
    """What attn.sdpa_backward computes; None where it was not asked for."""

    dq: Any = None
    dk: Any = None
    dv: Any = None
    dbias: Any = None
    dsink: Any = None
    dgate: Any = None


def sdpa_backward(
    dout: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    *,
    dlse: Any = None,
    grads: Iterable[str] | None = None,
    grad_dtype: str | None = None,
    context: Context | None = None,
    **options: Unpack[SdpaOptions],
) -> Gradients:
    """Gradients of attn.sdpa.

    Args:
        dout: the gradient that reaches out, of its shape.
        q, k, v, options: what attn.sdpa was given (v None with latent KV).
        out, lse: what it returned; lse is None for the activation "silu".
        dlse: the gradient that reaches lse, if one does; fp32, of its shape.
        grads: which to compute, of "q", "k", "v", "bias", "sink", "gate". Default: q, k and v
            (latent KV: q and k, which then holds both contributions).
        grad_dtype: "fp32", or default: the dtype of what each is the gradient of.
        context: as in attn.sdpa.

    Returns:
        Gradients, each of the shape and kind of its input, written in full: zero where nothing
        contributes.

    Raises:
        as attn.sdpa.
    """
    inputs = _Inputs(
        (("dout", dout), ("q", q), ("k", k), ("v", v), ("out", out), ("lse", lse), ("dlse", dlse)),
        options,  # type: ignore[arg-type]
    )
    wanted = tuple(grads) if grads is not None else (("q", "k") if v is None else ("q", "k", "v"))
    context = context_of(context, inputs.device, "dout")
    key = ("backward", wanted, grad_dtype, inputs.maker, *inputs.key)
    call = context.calls.get(key)
    if call is None:
        builder = _Builder(inputs)
        builder.describe()
        builder.fields["pass"] = "backward"
        builder.fields["out_dtype"] = builder.specs["out"][1]
        bits = 0
        made = []
        # The order of Gradients, whatever the order of `grads`.
        for name in ("q", "k", "v", "bias", "sink", "gate"):
            if name not in wanted:
                continue
            if name not in builder.user:
                raise invalid("grads", f"grads asks for {name!r}, but {name} is not given")
            bits |= GRADS[name]
            code = builder.specs[name][1]
            if grad_dtype is not None:
                code = _arrays.dtype_code(grad_dtype, "grad_dtype")
            made.append((f"d{name}", builder.user[name][2], code))
        for name in wanted:
            choose({n: GRADS[n] for n in ("q", "k", "v", "bias", "sink", "gate")}, name, "grads")
        if dlse is not None:
            bits |= GRADS["lse_in"]
        builder.fields["grads"] = bits
        builder.flags = [f for f in builder.flags if f != "return_lse"]
        call = builder.call(context, made, inputs.maker)
        context.remember(key, call)
    results = _execute(call, inputs, q)
    return Gradients(**{name: value for (name, *_), value in zip(call.outputs, results)})


__all__ = ["Gradients", "SdpaOptions", "sdpa", "sdpa_backward"]
