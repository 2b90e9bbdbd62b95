#!/usr/bin/env python3
"""tools/build/cuda_kernels.py with an nvcc of this file's own: tables, the cache, and what fails a
build."""

import json
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools/build/cuda_kernels.py"

# Counts its compilations, says what $SAYS has, and makes a "fatbin" of what it was asked.
NVCC = """#!{python}
import os, pathlib, re, sys
arguments = sys.argv[1:]
if "--version" in arguments:
    print("Cuda compilation tools, release X, V" + os.environ.get("VERSION", "13.0.88"))
    sys.exit()
source = pathlib.Path(arguments[-1]).read_text()
if "-E" in arguments:
    print(re.sub("//.*", "", source))
    sys.exit()
with open(os.environ["COUNT"], "a") as count:
    count.write(".")
entry = next(a for a in arguments if a.startswith("-DATTN_ENTRY=")).split("=")[1]
for arch in ("sm_80", "sm_90a"):
    print(f"ptxas info    : Compiling entry function '{{entry}}' for '{{arch}}'")
    print(f"ptxas info    : Function properties for {{entry}}")
    print("    0 bytes stack frame, " + os.environ.get("SPILLS", "0 bytes spill stores, 0 bytes spill loads"))
    print("ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem")
print(os.environ.get("SAYS", ""))
if "FAILS" in os.environ:
    sys.exit(1)
pathlib.Path(arguments[arguments.index("-o") + 1]).write_text(" ".join(arguments[2:]))
"""

TABLE = """
source = "kernel.cu"
performance = true
[[variants]]
element = ["fp16", "bf16"]
head_dim = [64, 128]
causal = true
[[variants]]
element = "fp32"
head_dim = 64
causal = false
"""


class Kernels(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.folder = self.root / "kernels/cuda/sm80/sdpa"
        self.folder.mkdir(parents=True)
        self.build = self.root / "build"
        self.nvcc = self.root / "nvcc"
        self.nvcc.write_text(NVCC.format(python=sys.executable))
        self.nvcc.chmod(self.nvcc.stat().st_mode | stat.S_IXUSR)
        (self.folder / "kernel.toml").write_text(TABLE)
        (self.folder / "kernel.cu").write_text('#include "part.cuh"\nint kernel;\n')
        (self.folder / "part.cuh").write_text("int part;\n")
        self.count = self.root / "count"
        self.environment = {}

    def tool(self, *arguments):
        env = {**os.environ, "COUNT": str(self.count), "ATTN_NVCC": str(self.nvcc),
               "ATTN_CUDA_CACHE": str(self.root / "cache"), **self.environment}
        return subprocess.run([sys.executable, TOOL, *map(str, arguments)], env=env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def configure(self):
        return self.tool("configure", "--root", self.root, "--build", self.build, "--nvcc",
                         self.nvcc, "kernels/cuda/sm80/sdpa/kernel.toml")

    def compile(self, entry="attn_sdpa_kernel_sm80_bf16_128_1"):
        self.output = self.build / f"{entry}.fatbin"
        return self.tool("compile", "--root", self.root, "--toolchain",
                         self.build / "toolchain.json", "--version", "13.0.88", "--table",
                         "kernels/cuda/sm80/sdpa/kernel.toml", "--entry", entry, "--output",
                         self.output, "--report", self.build / "report.json", "--depfile",
                         self.build / "kernel.d")

    def compilations(self):
        return len(self.count.read_text()) if self.count.exists() else 0

    def refused(self, words, done):
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(words, done.stdout)

    def test_a_table_is_a_product(self):
        done = self.configure()
        self.assertEqual(done.returncode, 0, done.stdout)
        entries = [line.split()[1] for line in done.stdout.splitlines()]
        self.assertEqual(entries, [f"attn_sdpa_kernel_sm80_{v}" for v in (
            "fp16_64_1", "fp16_128_1", "bf16_64_1", "bf16_128_1", "fp32_64_0")])
        header = (self.build / "sm80/sdpa/kernel_table.inc").read_text().splitlines()
        name = entries[1]
        self.assertEqual(header[2],
                         f"ATTN_VARIANT({name}, {name}_image_begin, {name}_image_end, fp16, 128, 1)")

    def test_tables_with_mistakes(self):
        for old, new, words in (
                ("performance", "perfomance", "unknown key perfomance"),
                ("causal = false", "casual = false", "different keys"),
                ("head_dim = 64\n", "head_dim = 'a-b'\n", "no identifier"),
                ('element = "fp32"', 'element = "bf16"', ""),
        ):
            with self.subTest(words):
                (self.folder / "kernel.toml").write_text(TABLE.replace(old, new))
                if words:
                    self.refused(words, self.configure())
        (self.folder / "kernel.toml").write_text(
            TABLE.replace('"fp32"', '"bf16"').replace("causal = false", "causal = true"))
        self.refused("comes twice", self.configure())
        (self.folder / "kernel.toml").write_text('source = "kernel.cu"')
        self.refused("no [[variants]]", self.configure())

    def test_compiling_reports(self):
        self.configure()
        done = self.compile()
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("CUDA kernel 4 of 5, attn_sdpa_kernel_sm80_bf16_128_1", done.stdout)
        self.assertIn("-DATTN_HEAD_DIM=128", self.output.read_text())
        self.assertIn("arch=compute_80,code=[sm_80,compute_80]", self.output.read_text())
        self.assertIn("arch=compute_90a,code=[sm_90a]", self.output.read_text())
        report = json.loads((self.build / "report.json").read_text())
        self.assertEqual([(f["arch"], f["registers"], f["smem"]) for f in report["functions"]],
                         [("sm_80", 40, 1024), ("sm_90a", 40, 1024)])
        self.assertIn("part.cuh", (self.build / "kernel.d").read_text())

    def test_the_cache(self):
        self.configure()
        self.compile()
        self.assertEqual(self.compilations(), 1)
        self.output.unlink()
        self.assertEqual(self.compile().stdout, "")  # nothing to say: it was there
        self.assertTrue(self.output.exists())
        self.assertEqual(self.compilations(), 1)
        (self.folder / "kernel.cu").write_text('#include "part.cuh"\nint kernel; // a comment\n')
        self.compile()
        self.assertEqual(self.compilations(), 1)
        (self.folder / "kernel.cu").write_text('#include "part.cuh"\nint other;\n')
        self.compile()
        self.assertEqual(self.compilations(), 2)
        self.compile("attn_sdpa_kernel_sm80_fp16_128_1")
        self.assertEqual(self.compilations(), 3)

    def test_what_fails_a_build(self):
        self.configure()
        self.environment = {"SPILLS": "8 bytes spill stores, 12 bytes spill loads"}
        done = self.compile()
        self.refused("sm_90a: 8 bytes of spill stores, 12 of spill loads, 40 registers", done)
        self.refused("attn_sdpa_kernel_sm80_bf16_128_1", done)
        self.assertFalse(self.output.exists())
        self.refused("spill", self.compile())  # from the cache too
        for code in ("C7508", "C7510", "C7511", "C7514", "C7515"):
            with self.subTest(code):
                entry = f"attn_sdpa_kernel_sm80_{'fp16' if code < 'C7511' else 'fp32'}_64_"
                entry += "1" if code < "C7511" else "0"
                (self.folder / "kernel.cu").write_text(f"int {code};\n")
                self.environment = {
                    "SAYS": f"ptxas info    : ({code}) Potential Performance Loss: wgmma"}
                self.refused(code, self.compile(entry))
        self.environment = {"SPILLS": "8 bytes spill stores, 12 bytes spill loads"}
        (self.folder / "kernel.toml").write_text(TABLE.replace("= true\n[[", "= false\n[[", 1))
        (self.folder / "kernel.cu").write_text("int reference;\n")
        self.assertEqual(self.compile().returncode, 0)  # not a performance table

    def test_a_compiler_that_fails(self):
        self.configure()
        self.environment = {"FAILS": "1", "SAYS": "kernel.cu(3): error: no such thing"}
        self.refused("no such thing", self.compile())
        self.assertFalse(self.output.exists())
        self.environment = {}
        self.assertEqual(self.compile().returncode, 0)

    def test_finding_nvcc(self):
        done = self.tool("find", "--build", self.build)
        self.assertEqual(done.stdout.split(), [str(self.nvcc), "13.0.88"])
        self.environment = {"VERSION": "12.8.61"}
        self.refused("nvcc 12.8.61 was found, which is too old", self.tool("find", "--build",
                                                                           self.build))
        self.environment = {"ATTN_NVCC": "/nowhere/nvcc"}
        self.refused("/nowhere/nvcc, which cannot be run", self.tool("find", "--build", self.build))
        # Configured anew in an environment that does not name it: the build folder knows.
        self.configure()
        self.environment = {"ATTN_NVCC": ""}
        self.assertEqual(self.tool("find", "--build", self.build).stdout.split()[0], str(self.nvcc))

    def test_another_ptxas(self):
        # nvcc takes its parts from the folder in which it was called.
        toolkit = self.root / "cuda"
        (toolkit / "bin").mkdir(parents=True)
        (toolkit / "include").mkdir()
        (toolkit / "include/cuda.h").write_text("of this toolkit")
        self.nvcc = self.nvcc.rename(toolkit / "bin/nvcc")
        mine, other = toolkit / "bin/ptxas", self.root / "newer ptxas"
        for tool, version in ((mine, "13.0.88"), (other, "13.5.37")):
            tool.write_text(f"#!/bin/sh\necho release X, V{version}\n")
            tool.chmod(0o755)
        find = lambda: self.tool("find", "--build", self.build).stdout.splitlines()
        self.assertEqual(find(), [str(self.nvcc), "13.0.88"])
        self.environment = {"ATTN_PTXAS": "/nowhere/ptxas"}
        self.refused("/nowhere/ptxas, which cannot be run", self.tool("find", "--build", self.build))
        self.environment = {"ATTN_PTXAS": str(other)}
        self.assertEqual(find(), [str(self.nvcc), "13.0.88, ptxas 13.5.37"])
        self.configure()
        toolchain = json.loads((self.build / "toolchain.json").read_text())
        self.assertEqual((toolchain["nvcc"], toolchain["ptxas"]), (str(self.nvcc), str(other)))
        folder = pathlib.Path(toolchain["compiler"]).parent
        self.assertEqual((folder / "ptxas").resolve(), other)
        self.assertEqual((folder / "nvcc").resolve(), self.nvcc)
        self.assertTrue((folder.parent / "include/cuda.h").exists())
        self.assertEqual(self.compile().returncode, 0)
        # Configured anew without being told; then back to nvcc's own.
        self.environment = {}
        self.assertEqual(find()[1], "13.0.88, ptxas 13.5.37")
        self.environment = {"ATTN_PTXAS": ""}
        self.assertEqual(find()[1], "13.0.88")
        self.configure()
        toolchain = json.loads((self.build / "toolchain.json").read_text())
        self.assertEqual((toolchain["compiler"], toolchain["ptxas"]), (str(self.nvcc), ""))

    def test_embedding_follows_the_fatbins(self):
        self.configure()
        self.compile()
        texts = []
        for content in ("one", "two"):
            self.output.write_text(content)
            self.tool("embed", "--toolchain", self.build / "toolchain.json", "--output",
                      self.build / "images.S", self.output)
            texts.append((self.build / "images.S").read_text())
        self.assertNotEqual(*texts)
        self.assertIn("attn_sdpa_kernel_sm80_bf16_128_1_image_begin:", texts[0])
        self.assertIn(".note.GNU-stack", texts[0])


class Result(unittest.TextTestResult):
    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


if __name__ == "__main__":
    runner = unittest.TextTestRunner(stream=sys.stdout, resultclass=Result)
    result = runner.run(unittest.defaultTestLoader.loadTestsFromTestCase(Kernels))
    print(f"{result.passed} passed, {len(result.failures) + len(result.errors)} failed")
    sys.exit(0 if result.wasSuccessful() else 1)
