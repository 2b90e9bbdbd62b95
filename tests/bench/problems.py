"""Our side: attention problems as ready calls of the C interface."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from tests.bench.peers import aligned
from tools.capi import Library

NUMPY = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}


@dataclasses.dataclass(frozen=True)
class Shape:
    batch: int
    seqlen_q: int
    seqlen_k: int
    q_heads: int
    kv_heads: int
    head_dim: int
    causal: bool
    page_size: int = 0

    def json(self) -> dict[str, Any]:
        out: dict[str, Any] = dataclasses.asdict(self)
        if not self.page_size:
            del out["page_size"]
        return out

    @property
    def flops(self) -> float:
        """Of the forward pass, causal counted at half."""
        full = 4.0 * self.batch * self.q_heads * self.seqlen_q * self.seqlen_k * self.head_dim
        return full / 2 if self.causal else full


class Problem:
    """Random inputs, a plan, and the call that executes it. Everything is made beforehand."""

    def __init__(self, library: Library, context: Any, shape: Shape, dtype: str, *,
                 backward: bool = False, rng: np.random.Generator,
                 inputs: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None) -> None:
        self.library, self.shape, self.dtype = library, shape, dtype
        c = library.c
        s = shape
        kind = NUMPY[dtype]
        if inputs is None:
            inputs = (random((s.batch, s.seqlen_q, s.q_heads, s.head_dim), kind, rng),
                      random((s.batch, s.seqlen_k, s.kv_heads, s.head_dim), kind, rng),
                      random((s.batch, s.seqlen_k, s.kv_heads, s.head_dim), kind, rng))
        self.q, self.k, self.v = inputs
        self.out = aligned(self.q.shape, kind)
        self.out[:] = 0
        desc = c.attn_sdpa_desc(
            q_dtype=self._dtype(self.q), num_q_heads=s.q_heads, num_kv_heads=s.kv_heads,
            head_dim_qk=s.head_dim, max_batch=s.batch, max_seqlen_q=s.seqlen_q,
            max_seqlen_k=s.seqlen_k, softmax_scale=s.head_dim ** -0.5,
            flags=c.ATTN_SDPA_CAUSAL if s.causal else 0)
        self.args = c.attn_sdpa_args(q=self._view(self.q), k=self._view(self.k),
                                     v=self._view(self.v), out=self._view(self.out))
        if s.page_size:
            self._page(desc, rng)
        if backward:
            desc.flags |= c.ATTN_SDPA_RETURN_LSE
            self.lse = aligned((s.batch, s.q_heads, s.seqlen_q))
            self.args.lse = self._view(self.lse)
        self._calls: list[Callable[[], int]] = [self._prepare(context, desc, "attn_sdpa_forward",
                                                              self.args)]
        if backward:
            self._run_checked()
            desc.flags &= ~c.ATTN_SDPA_RETURN_LSE
            setattr(desc, "pass", c.ATTN_SDPA_BACKWARD)
            self.dout = random(self.q.shape, kind, rng)
            self.grads = tuple(aligned(x.shape, kind) for x in inputs)
            dq, dk, dv = (self._view(x) for x in self.grads)
            self.backward_args = c.attn_sdpa_backward_args(
                forward=ctypes.pointer(self.args), dout=self._view(self.dout), dq=dq, dk=dk, dv=dv)
            self._calls = [self._prepare(context, desc, "attn_sdpa_backward", self.backward_args)]
        self.call = self._calls[0]
        self._run_checked()

    def _dtype(self, array: np.ndarray) -> int:
        names = {np.dtype(kind): name for name, kind in NUMPY.items()}
        return int(getattr(self.library.c, f"ATTN_DTYPE_{names[array.dtype].upper()}"))

    def _view(self, array: np.ndarray) -> Any:
        stride = tuple(step // array.itemsize for step in array.strides)
        return self.library.tensor(array.ctypes.data, self._dtype(array), array.shape, stride)

    def _page(self, desc: Any, rng: np.random.Generator) -> None:
        """Lays k and v out as a pool of pages in random order."""
        s, c = self.shape, self.library.c
        each = s.seqlen_k // s.page_size
        assert each * s.page_size == s.seqlen_k
        order = rng.permutation(s.batch * each).astype(np.int32)
        pools = []
        for dense in (self.k, self.v):
            pages = dense.reshape(s.batch * each, s.page_size, s.kv_heads, s.head_dim)
            pool = aligned(pages.shape, dense.dtype)
            pool[order] = pages
            pools.append(pool)
        self.pools = pools
        self.block_table = np.ascontiguousarray(order.reshape(s.batch, each))
        self.seqused_k = np.full(s.batch, s.seqlen_k, np.int32)
        desc.kv_layout = c.ATTN_LAYOUT_PAGED_TABLE
        desc.page_size = s.page_size
        self.args.k, self.args.v = (self._view(pool) for pool in pools)
        self.args.block_table = self.library.tensor(self.block_table.ctypes.data,
                                                    c.ATTN_DTYPE_INT32, self.block_table.shape)
        self.args.seqused_k = ctypes.cast(self.seqused_k.ctypes.data,
                                          ctypes.POINTER(ctypes.c_int32))

    def _prepare(self, context: Any, desc: Any, name: str, args: Any) -> Callable[[], int]:
        plan = self.library.plan(context, desc)
        info = self.library.plan_info(plan)
        self.implementation = info.implementation.decode()
        self._name, self._last = name, (plan, args)
        workspace = aligned((int(info.workspace_bytes) + 64,), np.uint8)
        assert workspace.ctypes.data % int(info.workspace_alignment) == 0
        self._workspace = workspace
        function = getattr(self.library.c, name)
        arguments = (plan, ctypes.byref(args), workspace.ctypes.data, int(info.workspace_bytes),
                     None, None)
        return lambda: function(*arguments)

    def _run_checked(self) -> None:
        """Once with an error record, so that a failure says why."""
        if self._calls[-1]() != 0:
            plan, args = self._last
            self.library.call(self._name, plan, ctypes.byref(args), self._workspace.ctypes.data,
                              self._workspace.nbytes, None)

    def error(self) -> float:
        """The largest difference of the first and the last head from a plain computation in fp64,
        in units of the largest true value. A time is worth nothing if the result is wrong."""
        worst = 0.0
        for b, h in {(0, 0), (self.shape.batch - 1, self.shape.q_heads - 1)}:
            worst = max(worst, self._head_error(b, h))
        return worst

    def _head_error(self, b: int, h: int) -> float:
        s = self.shape
        kv = h // (s.q_heads // s.kv_heads)
        q, k, v = (x[b, :, head].astype(np.float64)
                   for x, head in ((self.q, h), (self.k, kv), (self.v, kv)))
        scale = s.head_dim ** -0.5
        scores = q @ k.T * scale
        if s.causal:
            i, j = np.ogrid[:s.seqlen_q, :s.seqlen_k]
            scores[j > i + (s.seqlen_k - s.seqlen_q)] = -np.inf
        scores -= scores.max(axis=1, keepdims=True)
        p = np.exp(scores)
        p /= p.sum(axis=1, keepdims=True)
        out = p @ v
        pairs = [(self.out, h, out)]
        if hasattr(self, "grads") and s.q_heads == s.kv_heads:
            dout = self.dout[b, :, h].astype(np.float64)
            dp = dout @ v.T
            ds = p * (dp - (dout * out).sum(axis=1, keepdims=True)) * scale
            dq, dk, dv = self.grads
            pairs += [(dq, h, ds @ k), (dk, kv, ds.T @ q), (dv, kv, p.T @ dout)]
        return max(float(np.abs(got[b, :, head].astype(np.float64) - true).max()
                         / np.abs(true).max()) for got, head, true in pairs)


# What a computation in the storage dtype may differ from one in fp64, in units of the largest
# value: a wrong mask, head or scale is far beyond it. (attn-check measures accuracy itself.)
PLAUSIBLE = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 4e-2}


def random(shape: tuple[int, ...], kind: Any, rng: np.random.Generator) -> np.ndarray:
    array = aligned(shape, kind)
    array[...] = rng.standard_normal(shape, np.float32).astype(kind)
    return array
