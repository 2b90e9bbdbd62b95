"""Our side of the GPU benchmarks: attention on tensors of PyTorch as ready calls of the C interface,
and the peers' side on the same tensors."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from attn import lowlevel as c


class Refused(RuntimeError):
    pass


@dataclasses.dataclass(frozen=True)
class Shape:
    batch: int
    seqlen_q: int
    seqlen_k: int
    q_heads: int
    kv_heads: int
    head_dim: int
    causal: bool = False
    head_dim_v: int = 0     # 0: as head_dim
    window_left: int = -1   # keys before a query's own that it sees; -1: all. Only with causal

    @property
    def dim_v(self) -> int:
        return self.head_dim_v or self.head_dim

    def json(self) -> dict[str, Any]:
        """Without what is as usual."""
        fields = dataclasses.asdict(self)
        if self.head_dim_v == 0:
            del fields["head_dim_v"]
        if self.window_left < 0:
            del fields["window_left"]
        return fields

    def pairs(self) -> float:
        """Of a query and a key, in a head of a sequence. Causal counted at half; a window by the
        pairs that see each other."""
        if self.window_left >= 0:
            seen = self.window_left + 1
            return seen * (seen + 1) / 2 + (self.seqlen_q - seen) * seen
        return self.seqlen_q * self.seqlen_k * (0.5 if self.causal else 1.0)

    def flops(self, backward: bool = False) -> float:
        """The backward pass counts as two and a half forward passes."""
        forward = 2.0 * self.batch * self.q_heads * self.pairs() * (self.head_dim + self.dim_v)
        return forward * (2.5 if backward else 1.0)


DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# What results may differ from each other, in units of the largest value: a wrong mask, head or
# scale is far beyond it. (attn-check measures accuracy itself.)
PLAUSIBLE = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 4e-2}


def check(status: int, error: Any) -> None:
    if status != 0:
        raise Refused(error.message.decode(errors="replace"))


class Library:
    """A context on the device that the tensors live on."""

    def __init__(self, torch: Any, device: str) -> None:
        self.torch, self.device = torch, device
        self.context = ctypes.POINTER(c.attn_context)()
        error = c.attn_error()
        desc = c.attn_context_desc(
            backend=c.ATTN_BACKEND_CUDA if device == "cuda" else c.ATTN_BACKEND_CPU)
        check(c.attn_context_create(desc, self.context, error), error)
        self.kinds = {getattr(torch, long): int(getattr(c, f"ATTN_DTYPE_{short.upper()}"))
                      for short, long in DTYPES.items()}
        self.kinds[torch.uint8] = int(c.ATTN_DTYPE_UINT8)
        self.kinds[torch.int32] = int(c.ATTN_DTYPE_INT32)

    def info(self) -> Any:
        record, error = c.attn_device_info(), c.attn_error()
        check(c.attn_context_query(self.context, record, error), error)
        return record

    def view(self, tensor: Any) -> Any:
        out = c.attn_tensor(data=tensor.data_ptr(), dtype=self.kinds[tensor.dtype],
                            rank=tensor.dim())
        out.shape[:tensor.dim()] = tensor.shape
        out.stride[:tensor.dim()] = tensor.stride()
        return out

    def stream(self) -> int | None:
        return self.torch.cuda.current_stream().cuda_stream if self.device == "cuda" else None


class Attention:
    """One problem on given q, k, v of [B, S, H, D]: a plan, and the call that executes it on the
    current stream (which may differ from call to call)."""

    def __init__(self, library: Library, shape: Shape, q: Any, k: Any, v: Any, *, flags: int = 0,
                 implementation: str | None = None, fields: dict[str, Any] | None = None,
                 tensors: dict[str, Any] | None = None,
                 pointers: dict[str, Any] | None = None, prepare: bool = True) -> None:
        """q, k and v may be ragged or paged, as `fields` then says. `pointers`: int32 tensors that
        the arguments hold by address, without their sizes. prepare=False: nothing is loaded nor run beforehand."""
        torch = library.torch
        self.library, self.shape = library, shape
        self.tensors = {"q": q, "k": k, "v": v, **(tensors or {})}
        self.out = torch.full((*q.shape[:-1], shape.dim_v), float("nan"), dtype=q.dtype,
                              device=q.device)
        self.pointers = pointers or {}
        self.args = c.attn_sdpa_args(
            **{name: library.view(tensor) for name, tensor in self.tensors.items()},
            **{name: ctypes.cast(tensor.data_ptr(), ctypes.POINTER(ctypes.c_int32))
               for name, tensor in self.pointers.items()},
            out=library.view(self.out))
        if "cu_seqlens_q" in self.pointers:
            self.args.batch = shape.batch
        flags |= c.ATTN_SDPA_CAUSAL if shape.causal else 0
        given: dict[str, Any] = {
            "q_dtype": library.kinds[q.dtype], "num_q_heads": shape.q_heads,
            "num_kv_heads": shape.kv_heads, "head_dim_qk": shape.head_dim,
            "head_dim_v": shape.head_dim_v, "max_batch": shape.batch,
            "max_seqlen_q": shape.seqlen_q, "max_seqlen_k": shape.seqlen_k,
            "softmax_scale": shape.head_dim ** -0.5}
        if shape.window_left >= 0:
            flags |= c.ATTN_SDPA_WINDOW
            given.update(window_left=shape.window_left, window_right=-1)
        self.desc = c.attn_sdpa_desc(**{**given, "flags": flags, **(fields or {})})
        self._plan(implementation, prepare)
        self._arguments = (self.plan, ctypes.byref(self.args), self.workspace_address,
                           int(self.info.workspace_bytes))
        if prepare:
            self.execute()

    def _plan(self, implementation: str | None, prepare: bool) -> None:
        error = c.attn_error()
        options = c.attn_plan_options(implementation=implementation.encode()
                                      if implementation else None)
        self.plan = ctypes.POINTER(c.attn_plan)()
        check(c.attn_sdpa_plan_create(self.library.context, self.desc, options, self.plan, error),
              error)
        if prepare:
            check(c.attn_plan_prepare(self.plan, error), error)
        self.info = c.attn_plan_info()
        check(c.attn_plan_query(self.plan, self.info, error), error)
        self.implementation = self.info.implementation.decode()
        size = max(int(self.info.workspace_bytes), 1)
        torch = self.library.torch
        self.workspace = torch.empty(size + 256, dtype=torch.uint8, device=self.library.device)
        alignment = max(int(self.info.workspace_alignment), 1)
        self.workspace_address = -(-self.workspace.data_ptr() // alignment) * alignment

    def execute(self) -> None:
        """With an error record, so that a failure says why."""
        error = c.attn_error()
        check(c.attn_sdpa_forward(*self._arguments, self.library.stream(), error), error)

    def execute_on(self, stream: int | None) -> str | None:
        """Without asking PyTorch for anything; what went wrong, if anything did."""
        error = c.attn_error()
        if c.attn_sdpa_forward(*self._arguments, stream, error) != 0:
            return str(error.message.decode(errors="replace"))
        return None

    def __call__(self) -> None:
        if c.attn_sdpa_forward(*self._arguments, self.library.stream(), None) != 0:
            self.execute()

    def implementations(self) -> list[str]:
        names = []
        for i in range(self.info.num_implementations):
            name = ctypes.c_char_p()
            error = c.attn_error()
            check(c.attn_plan_implementation(self.plan, i, name, error), error)
            names.append((name.value or b"").decode())
        return names

    def __del__(self) -> None:
        if getattr(self, "plan", None):
            c.attn_plan_destroy(self.plan)


def random_qkv(torch: Any, device: str, shape: Shape, dtype: str) -> tuple[Any, Any, Any]:
    kind = getattr(torch, DTYPES[dtype])

    def one(length: int, heads: int, dim: int) -> Any:
        return torch.randn(shape.batch, length, heads, dim, device=device,
                           dtype=torch.float32).to(kind)

    return (one(shape.seqlen_q, shape.q_heads, shape.head_dim),
            one(shape.seqlen_k, shape.kv_heads, shape.head_dim),
            one(shape.seqlen_k, shape.kv_heads, shape.dim_v))


# Backends of torch.nn.functional.scaled_dot_product_attention, by the names they have in results.
PEERS = {"torch_flash": "FLASH_ATTENTION", "torch_cudnn": "CUDNN_ATTENTION",
         "torch_efficient": "EFFICIENT_ATTENTION", "torch_math": "MATH"}


# Packages of FlashAttention's authors: FlashAttention-3, and FlashAttention-4's kernels for Hopper.
PACKAGES = {"fa3": "flash_attn_interface", "fa4": "flash_attn.cute"}


def installed(name: str) -> bool:
    """Whether a peer is there to be asked."""
    if name not in PACKAGES:
        return name in PEERS
    try:
        return importlib.util.find_spec(PACKAGES[name]) is not None
    except ModuleNotFoundError:
        return False


def flash_function(name: str, function: str) -> Callable[..., Any]:
    """A function of FlashAttention-3 or -4 that gives out alone."""
    call = getattr(importlib.import_module(PACKAGES[name]), function)

    def out_of(*arguments: Any, **options: Any) -> Any:
        result = call(*arguments, **options)
        return result[0] if isinstance(result, tuple) else result

    return out_of


def peer(torch: Any, name: str, shape: Shape, q: Any, k: Any, v: Any) -> Callable[[], Any]:
    """A call of a peer on the same memory; as_ours() gives its out the order of ours."""
    if name in PACKAGES:
        options: dict[str, Any] = {"causal": shape.causal}
        if shape.window_left >= 0:
            options["window_size"] = (shape.window_left, 0)
        flash = flash_function(name, "flash_attn_func")
        return lambda: flash(q, k, v, **options)
    return torch_sdpa(torch, name, shape, q, k, v)


def as_ours(name: str, out: Any) -> Any:
    return out if name in PACKAGES else out.transpose(1, 2)


def torch_sdpa(torch: Any, name: str, shape: Shape, q: Any, k: Any, v: Any) -> Callable[[], Any]:
    """A call of PyTorch's SDPA that may use only the backend `name`, on the same memory."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    if shape.window_left >= 0:
        raise Refused("PyTorch's SDPA has no window")
    backend = getattr(SDPBackend, PEERS[name])
    views = [x.transpose(1, 2) for x in (q, k, v)]
    extra = {"enable_gqa": True} if shape.q_heads != shape.kv_heads else {}
    # Bottom-right aligned here, top-left there: the same where lengths agree; one query sees all.
    causal = shape.causal and shape.seqlen_q > 1
    if causal and shape.seqlen_q != shape.seqlen_k:
        raise Refused("PyTorch's is_causal is top-left aligned")

    def call() -> Any:
        with sdpa_kernel(backend):
            return torch.nn.functional.scaled_dot_product_attention(*views, is_causal=causal,
                                                                    **extra)

    return call


def peer_backward(torch: Any, name: str, shape: Shape, q: Any, k: Any, v: Any,
                  both: bool) -> Callable[[], Any]:
    """The backward pass of the same, alone or after a forward pass."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    forward = torch_sdpa(torch, name, shape, *leaves)
    out = forward()
    dout = torch.randn_like(out)
    if both:
        return lambda: torch.autograd.grad(forward(), leaves, dout)
    return lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True)


def difference(torch: Any, ours: Any, theirs: Any) -> float:
    """The largest, in units of the largest value."""
    a, b = ours.float(), theirs.float()
    return float((a - b).abs().max() / b.abs().max())
