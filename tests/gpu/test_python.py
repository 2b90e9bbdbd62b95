#!/usr/bin/env python3
"""The Python package on a GPU: bindings/python/tests/test_cuda.py."""

import pathlib
import runpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
runpy.run_path(str(ROOT / "bindings/python/tests/test_cuda.py"),
               run_name="__main__")
