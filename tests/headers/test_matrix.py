#!/usr/bin/env python3
"""Demonstrates that the header matrix can fail: each test hands it headers with one defect."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include"


class Defects(unittest.TestCase):
    def refuses(self, header: str, old: str, new: str, words: str) -> None:
        """Replaces `old` in a copy of the headers and expects the matrix to say `words`."""
        with tempfile.TemporaryDirectory() as folder:
            include = pathlib.Path(folder) / "include"
            shutil.copytree(INCLUDE, include)
            path = include / "attn" / header
            text = path.read_text()
            self.assertIn(old, text)
            path.write_text(text.replace(old, new, 1))
            result = subprocess.run(
                [sys.executable, HERE / "matrix.py", "--include", include, "--first"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn(words, result.stdout)

    def test_padding(self):
        self.refuses("status.h", "  int32_t backend_code;", "  int64_t backend_code;", "padd")

    def test_header_that_needs_another_first(self):
        self.refuses("status.h", "#include <stdint.h>", "", "unknown type name")

    def test_initialiser_that_lacks_a_member(self):
        self.refuses("plan.h", "{ sizeof(attn_plan_options), 0, NULL, NULL }",
                     "{ sizeof(attn_plan_options), 0, NULL }", "missing")

    def test_word_of_cxx_as_a_name(self):
        self.refuses("types.h", "attn_dtype_bits(int32_t dtype)", "attn_dtype_bits(int32_t new)",
                     "new")

    def test_header_of_a_later_standard(self):
        self.refuses("types.h", "#define ATTN_MAX_RANK 6",
                     "#define ATTN_MAX_RANK 6\ntypedef int32_t attn_a;\ntypedef int32_t attn_a;", "as c99")


if __name__ == "__main__":
    unittest.main()
