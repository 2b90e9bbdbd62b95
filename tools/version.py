#!/usr/bin/env python3
"""Prints the library's version, or with --abi the ABI's, from include/attn/version.h."""

import pathlib
import re
import sys

header = pathlib.Path(__file__).parent.parent / "include/attn/version.h"
value = dict(re.findall(r"^#define (ATTN_\w+) (\d+)$", header.read_text(), re.MULTILINE))
parts = ("ABI_MAJOR", "ABI_MINOR") if "--abi" in sys.argv[1:] else (
    "VERSION_MAJOR", "VERSION_MINOR", "VERSION_PATCH")
print(".".join(value["ATTN_" + part] for part in parts))
