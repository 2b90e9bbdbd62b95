"""Shared by all tests of the package."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import attn  # noqa: E402


FRAMEWORKS = ("torch", "jax")


@functools.cache
def frameworks():
    """The frameworks that are installed and can be imported."""
    return [
        name for name in FRAMEWORKS
        if importlib.util.find_spec(name) is not None
        and subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True,
                           check=False).returncode == 0
    ]


def pytest_report_header(config):
    found = frameworks()
    return [
        f"attn: {attn.lowlevel.LIBRARY_PATH}",
        *(f"{name}: {'its DLPack tests run' if name in found else 'not usable here, not tested'}"
          for name in FRAMEWORKS),
        "DLPack is also tested with numpy behind stand-ins",
    ]


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)


def tolerance(dtype):
    """What a result may be off by, relative to the largest: 2**-18 for fp32, where sums of products
    round on the way; twice the rounding of the one store for 16-bit results."""
    return {"float32": 2.0**-18, "float16": 2.0**-10, "bfloat16": 2.0**-7}[np.dtype(dtype).name]


def assert_close(actual, expected, dtype=np.float32, scale=None):
    """|actual - expected| against the largest expected value."""
    actual = np.asarray(actual, np.float64)
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    finite = np.isfinite(expected)
    assert (same | finite).all(), "infinities differ"
    size = max(np.abs(expected[finite]).max(initial=0.0), 1.0) if scale is None else scale
    worst = np.abs(actual[finite] - expected[finite]).max(initial=0.0)
    assert worst <= tolerance(dtype) * size, f"off by {worst}, allowed {tolerance(dtype) * size}"
