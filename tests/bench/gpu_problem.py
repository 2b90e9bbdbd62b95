"""Our side of the GPU benchmarks: attention on tensors of PyTorch as ready calls of the C interface,
and the peers' side on the same tensors."""

from __future__ import annotations

import ctypes
import dataclasses
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

    def json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def flops(self, backward: bool = False) -> float:
        """Causal counted at half; the backward pass as two and a half forward passes."""
        full = 4.0 * self.batch * self.q_heads * self.seqlen_q * self.seqlen_k * self.head_dim
        return full * (0.5 if self.causal else 1.0) * (2.5 if backward else 1.0)


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
                 tensors: dict[str, Any] | None = None, prepare: bool = True) -> None:
        """prepare=False: nothing is loaded nor run beforehand."""
        torch = library.torch
        self.library, self.shape = library, shape
        self.tensors = {"q": q, "k": k, "v": v, **(tensors or {})}
        self.out = torch.full_like(q, float("nan"))
        self.args = c.attn_sdpa_args(**{name: library.view(tensor)
                                        for name, tensor in self.tensors.items()},
                                     out=library.view(self.out))
        self.desc = c.attn_sdpa_desc(
            q_dtype=library.kinds[q.dtype], num_q_heads=shape.q_heads, num_kv_heads=shape.kv_heads,
            head_dim_qk=shape.head_dim, max_batch=shape.batch, max_seqlen_q=shape.seqlen_q,
            max_seqlen_k=shape.seqlen_k, softmax_scale=shape.head_dim ** -0.5,
            flags=flags | (c.ATTN_SDPA_CAUSAL if shape.causal else 0), **(fields or {}))
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

    def one(length: int, heads: int) -> Any:
        return torch.randn(shape.batch, length, heads, shape.head_dim, device=device,
                           dtype=torch.float32).to(kind)

    return (one(shape.seqlen_q, shape.q_heads), one(shape.seqlen_k, shape.kv_heads),
            one(shape.seqlen_k, shape.kv_heads))


# Backends of torch.nn.functional.scaled_dot_product_attention, by the names they have in results.
PEERS = {"torch_flash": "FLASH_ATTENTION", "torch_cudnn": "CUDNN_ATTENTION",
         "torch_efficient": "EFFICIENT_ATTENTION", "torch_math": "MATH"}


def peer(torch: Any, name: str, shape: Shape, q: Any, k: Any, v: Any) -> Callable[[], Any]:
    """A call of PyTorch's SDPA that may use only the backend `name`, on the same memory."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
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
    forward = peer(torch, name, shape, *leaves)
    out = forward()
    dout = torch.randn_like(out)
    if both:
        return lambda: torch.autograd.grad(forward(), leaves, dout)
    return lambda: torch.autograd.grad(out, leaves, dout, retain_graph=True)


def difference(torch: Any, ours: Any, theirs: Any) -> float:
    """The largest, in units of the largest value."""
    a, b = ours.float(), theirs.float()
    return float((a - b).abs().max() / b.abs().max())
