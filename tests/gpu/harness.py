"""What the tests here share. They need Python, PyTorch and the driver, and nothing else."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

_tests: list[Callable[[], None]] = []


def test(function: Callable[[], None]) -> Callable[[], None]:
    _tests.append(function)
    return function


def main() -> None:
    """Runs all tests of the file in their order; one failing keeps no other from running."""
    failed = 0
    for function in _tests:
        name = function.__name__
        try:
            function()
            print(f"ok {name}", flush=True)
        except Exception as error:
            failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error}".replace("\n", " ")
            print(f"FAILED {name}: {text} ({where.name}, line {where.lineno})", flush=True)
            traceback.print_exc()
    print(f"{len(_tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def truth(q: Any, k: Any, v: Any, causal: bool = False, bias: Any = None) -> Any:
    """Attention on [B, S, H, D] in fp64, bottom-right aligned."""
    import torch
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias.double()
    if causal:
        i = torch.arange(q.shape[2], device=q.device)[:, None] + k.shape[2] - q.shape[2]
        scores = scores.masked_fill(torch.arange(k.shape[2], device=q.device) > i, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


LIMITS = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def expect_close(got: Any, expected: Any) -> None:
    """attn-check measures accuracy; this only tells right from wrong."""
    assert got.shape == expected.shape, f"shape is {got.shape}, should be {expected.shape}"
    limit = LIMITS[str(got.dtype).removeprefix("torch.")]
    gap = float((got.double() - expected).abs().max() / expected.abs().max())
    assert gap <= limit, f"differs by {gap:.3g} of the largest value; at most {limit} may"


def random(shape: tuple[int, ...], dtype: str = "bfloat16", seed: int | None = None) -> Any:
    import torch
    generator = torch.Generator(device="cuda")
    if seed is not None:
        generator.manual_seed(seed)
    else:
        generator.seed()
    return torch.randn(*shape, device="cuda", generator=generator).to(getattr(torch, dtype))
