"""Merging partial attention results: attn.merge."""

from __future__ import annotations

import sys
from typing import Any

from . import _arrays, _dlpack, _ffi, _frameworks
from ._arrays import HOST
from ._context import Context
from ._errors import invalid
from ._plan import Call, Plan, check_writable, context_of, run, spec_of


def merge(
    partial: Any,
    partial_lse: Any,
    *,
    other: Any = None,
    other_lse: Any = None,
    row_mask: Any = None,
    sink: Any = None,
    lse_includes_sink: bool = False,
    lse_base: str = "e",
    out_dtype: str | None = None,
    return_lse: bool = True,
    out: Any = None,
    out_lse: Any = None,
    context: Context | None = None,
) -> Any:
    """Merges partial attention results by their log-sum-exp.

    With N rows (tokens), S parts, H heads of D:

    Args:
        partial: [N, S, H, D], fp32, fp16 or bf16, any strides (parts-first buffers are views).
        partial_lse: [N, S, H], fp32. A part with lse -inf counts for nothing.
        other, other_lse: [N, H, D] and [N, H]: one more part. out and out_lse may be these same
            arrays: merging in place.
        row_mask: uint8 or bool [N]; where 0, the row's partial parts are left out.
        sink: fp32 [H], joins the denominator once; lse_includes_sink: and the lse.
        lse_base: "e" or "2", of every lse.
        out_dtype: default: that of partial.
        return_lse: also return the merged lse [N, H].
        out, out_lse: arrays for the results; default: new ones.
        context: default: that of the device where partial lies.

    Returns:
        (out [N, H, D], out_lse [N, H]), or out alone without return_lse.

    Raises:
        InvalidArgumentError and others of attn.AttnError; `field` names the argument.
    """
    numpy = sys.modules.get("numpy")
    ndarray = getattr(numpy, "ndarray", None)
    values: dict[str, Any] = {}
    key: list[Any] = [lse_includes_sink, lse_base, out_dtype, return_lse]
    addresses: list[int] = []
    is_numpy = ndarray is not None and isinstance(partial, ndarray)
    maker = None if is_numpy else _frameworks.maker_of(partial)
    device = HOST
    for name, value in (
        ("partial", partial), ("partial_lse", partial_lse), ("other", other),
        ("other_lse", other_lse), ("row_mask", row_mask), ("sink", sink), ("out", out),
        ("out_lse", out_lse),
    ):
        if value is None:
            continue
        if ndarray is not None and isinstance(value, ndarray):
            _frameworks.same_device(name, HOST, device, "partial")
            addresses.append(_arrays.address_of(value))
        else:
            value = _frameworks.view_of(value, name)
            addresses.append(value.address)
            if name == "partial":
                device = value.device
            _frameworks.same_device(name, value.device, device, "partial")
        if name in ("out", "out_lse"):
            check_writable(value, name)
        values[name] = value
        key += (name, value.shape, value.strides, value.dtype)
    context = context_of(context, device, "partial")
    lookup = ("merge", maker, *key)
    call = context.calls.get(lookup)
    if call is None:
        specs = [spec_of(name, value) for name, value in values.items()]
        _, code, shape, _ = specs[0]
        if len(shape) != 4:
            raise invalid("partial", f"partial has {len(shape)} dimensions; it must be [rows, "
                                     "parts, heads, head_dim]")
        rows, parts, heads, dim = shape
        made: list[tuple[str, tuple[int, ...], int]] = []
        out_code = code if out_dtype is None else _arrays.dtype_code(out_dtype, "out_dtype")
        if out is None:
            made.append(("out", (rows, heads, dim), out_code))
        else:
            out_code = spec_of("out", values["out"])[1]
        flags: list[str] = [n for n in ("other", "row_mask", "sink") if n in values]
        if lse_includes_sink:
            flags.append("lse_includes_sink")
        if return_lse or out_lse is not None:
            flags.append("return_lse")
            if out_lse is None:
                made.append(("out_lse", (rows, heads), _ffi.ATTN_DTYPE_FP32))
        plan = Plan.merge(
            context=context, dtype=code, out_dtype=out_code, flags=flags, lse_base=lse_base,
            num_heads=heads, head_dim=dim, max_rows=rows, max_parts=parts,
        )
        plan.prepare()
        outputs = []
        for name, shape, code in made:
            specs.append((name, code, shape, _dlpack.contiguous(shape)))
            outputs.append((name, shape, _arrays.numpy_dtype(code, numpy) if maker is None
                            else maker.recipe(code, shape, spec_of("partial", values["partial"]))))
        call = Call(plan, specs, 0, outputs)
        context.remember(lookup, call)
    results: dict[str, Any] = {"out": out, "out_lse": out_lse}
    new = run(call, addresses, values.items(), maker, partial, device)
    results.update((name, array) for (name, *_), array in zip(call.outputs, new))
    if return_lse or out_lse is not None:
        return results["out"], results["out_lse"]
    return results["out"]
