#!/usr/bin/env python3
"""Demonstrates that each gate can fail: hands it one broken input and expects a clear refusal.

Runs without a build of libattn: the libraries here are stubs made from the headers.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
from typing import Any, Iterable

import gate

MODEL = gate.header_model()


class Broken(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_gate(self, script: str, *arguments: Any) -> subprocess.CompletedProcess:
        return gate.run([sys.executable, gate.HERE / script, *arguments])

    def passes(self, script: str, *arguments: Any) -> None:
        result = self.run_gate(script, *arguments)
        self.assertEqual(result.returncode, 0, result.stdout)

    def refuses(self, words: str, script: str, *arguments: Any) -> str:
        result = self.run_gate(script, *arguments)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn(words, result.stdout)
        return result.stdout

    def library(self, *flags: str, **options: Any) -> pathlib.Path:
        source = gate.stub_source(MODEL, **{k: options.pop(k) for k in ("extra", "without")
                                            if k in options})
        return gate.build_library(self.folder / "lib", source, *flags, **options)

    def headers(self, edits: dict[str, tuple[str, str]],
                base: pathlib.Path = gate.INCLUDE / "attn") -> pathlib.Path:
        """A copy of the public headers with one replacement in each of the files named."""
        include = self.folder / "include"
        if not include.exists():
            shutil.copytree(base, include / "attn")
        for name, (old, new) in edits.items():
            path = include / "attn" / name
            text = path.read_text()
            self.assertIn(old, text)
            path.write_text(text.replace(old, new, 1))
        return include / "attn"


class Symbols(Broken):
    def test_stub_passes(self):
        self.passes("symbols.py", self.library())

    def test_extra_export(self):
        script = self.folder / "loose.map"
        script.write_text(gate.MAP.read_text().replace("attn_merge;", "attn_merge;\n    attn_x;"))
        extra = '__attribute__((visibility("default"))) void attn_x(void) {}'
        out = self.refuses("attn_x is in the library's exports but not in libattn.map",
                           "symbols.py", self.library(extra=extra, version_script=script))
        self.assertIn("regenerate with: python3 tests/abi/symbols.py", out)

    def test_no_version_script(self):
        self.refuses("carries the version (none); symbols.txt says LIBATTN_1.0", "symbols.py",
                     self.library(version_script=None))

    def test_missing_export(self):
        self.refuses("attn_merge is in libattn.map but not in the library's exports", "symbols.py",
                     self.library(without=["attn_merge"]))

    def test_wildcard(self):
        script = self.folder / "wild.map"
        script.write_text("LIBATTN_1.0 { global: attn_*; local: *; };")
        self.refuses("must be listed by name", "symbols.py", self.library(), "--map", script)

    def test_function_without_export(self):
        headers = self.headers({"plan.h": (
            "ATTN_API void attn_plan_destroy",
            "ATTN_API int32_t attn_plan_x(void);\nATTN_API void attn_plan_destroy")})
        self.refuses("attn_plan_x is in the headers' functions but not in libattn.map",
                     "symbols.py", self.library(), "--headers", headers)

    def test_name_dropped_everywhere(self):
        script = self.folder / "short.map"
        script.write_text(gate.MAP.read_text().replace("    attn_merge;\n", ""))
        library = self.library(without=["attn_merge"], version_script=script)
        self.refuses("attn_merge is in symbols.txt but not in short.map", "symbols.py", library,
                     "--map", script)
        stored = self.folder / "symbols.txt"
        shutil.copyfile(gate.HERE / "symbols.txt", stored)
        self.refuses("refusing to drop attn_merge", "symbols.py", library, "--map", script,
                     "--stored", stored, "--update")


class Model(Broken):
    def broken(self, words: str, header: str, old: str, new: str) -> str:
        return self.refuses(words, "model.py", "--headers", self.headers({header: (old, new)}))

    def test_moved_member(self):
        self.broken("member attn_context_desc.device_index moved from byte 8 to 12", "context.h",
                    "  int32_t backend;      /*", "  int32_t inserted;\n  int32_t backend;      /*")

    def test_removed_member(self):
        self.broken("member attn_quant.scale_dtype was removed", "sdpa.h", "int32_t scale_dtype;",
                    "int32_t other;")

    def test_changed_member(self):
        self.broken("member attn_sdpa_desc.softcap changed from float to int32_t", "sdpa.h",
                    "float softcap;", "int32_t softcap;")

    def test_grown_array(self):
        self.broken("it has no struct_size and may never change", "types.h",
                    "#define ATTN_MAX_RANK 6", "#define ATTN_MAX_RANK 8")

    def test_renumbered_enum(self):
        self.broken("enum value ATTN_DTYPE_BF16 was renumbered from 3 to 30", "types.h",
                    "ATTN_DTYPE_BF16 = 3", "ATTN_DTYPE_BF16 = 30")

    def test_enum_value_in_the_middle(self):
        self.broken("is not at the end: it must be above 1", "types.h",
                    "ATTN_LSE_BASE_E = 0,", "ATTN_LSE_BASE_E = 0, ATTN_LSE_BASE_3 = -1,")

    def test_changed_flag(self):
        self.broken("macro ATTN_SDPA_WINDOW changed from [2, ", "sdpa.h",
                    "#define ATTN_SDPA_WINDOW (1", "#define ATTN_SDPA_WINDOW (4")

    def test_removed_function(self):
        self.broken("function attn_plan_prepare was removed", "plan.h",
                    "attn_plan_prepare", "attn_plan_warm_up")

    def test_changed_parameter(self):
        self.broken("function attn_dtype_bits changed", "types.h",
                    "attn_dtype_bits(int32_t dtype)", "attn_dtype_bits(int64_t dtype)")

    def test_new_major(self):
        self.broken("every client would have to be rebuilt", "version.h",
                    "#define ATTN_ABI_MAJOR 1", "#define ATTN_ABI_MAJOR 2")

    # Today's headers may be ahead of the baseline, within the minor that is being made.
    BASELINE = gate.HERE / "frozen" / "{}.{}".format(
        *json.loads((gate.HERE / "model.json").read_text())["abi"]) / "attn"
    APPENDED = {"context.h": ("\n} attn_context_desc;",
                              "\n  uint64_t future;\n} attn_context_desc;")}

    def test_addition_needs_a_minor(self):
        out = self.refuses("ADDITION without a new minor: member attn_context_desc.future",
                           "model.py", "--headers", self.headers(self.APPENDED, self.BASELINE))
        minor = json.loads((gate.HERE / "model.json").read_text())["abi"][1]
        self.assertIn(f"raise ATTN_ABI_MINOR to {minor + 1}", out)
        self.assertIn("python3 tests/abi/model.py --update", out)

    def test_addition_with_a_minor_passes(self):
        minor = json.loads((gate.HERE / "model.json").read_text())["abi"][1]
        self.passes("model.py", "--headers", self.headers({
            **self.APPENDED, "version.h": (f"#define ATTN_ABI_MINOR {minor}\n",
                                           f"#define ATTN_ABI_MINOR {minor + 1}\n")},
            self.BASELINE))

    def test_next_release(self):
        """An addition becomes the baseline of the next minor; what it breaks later is seen, and so
        is what breaks the releases before it."""
        stored, frozen = self.folder / "model.json", self.folder / "frozen"
        shutil.copyfile(gate.HERE / "model.json", stored)
        shutil.copytree(gate.HERE / "frozen", frozen)
        minor = json.loads(stored.read_text())["abi"][1]
        headers = self.headers({**self.APPENDED, "version.h": (
            f"#define ATTN_ABI_MINOR {minor}\n", f"#define ATTN_ABI_MINOR {minor + 1}\n")},
            self.BASELINE)
        places = ["--headers", headers, "--stored", stored, "--frozen", frozen]
        self.passes("model.py", *places, "--update")
        self.assertTrue((frozen / f"1.{minor + 1}" / "attn" / "sdpa.h").exists())
        self.passes("model.py", *places)
        self.headers({"context.h": ("uint64_t future;", "int64_t future;")})
        self.refuses("BREAK: member attn_context_desc.future changed from uint64_t to int64_t",
                     "model.py", *places)
        self.headers({"context.h": ("int64_t future;", "uint64_t future;"),
                      "sdpa.h": ("float softcap;", "int32_t softcap;")})
        self.refuses("BREAK since", "model.py", *places, "--update", "--breaking")

    def test_update_refuses_a_break(self):
        stored = self.folder / "model.json"
        shutil.copyfile(gate.HERE / "model.json", stored)
        headers = self.headers({"sdpa.h": ("float softcap;", "int32_t softcap;")})
        self.refuses("BREAK", "model.py", "--headers", headers, "--stored", stored, "--frozen",
                     self.folder / "frozen", "--update")
        self.assertEqual(stored.read_text(), (gate.HERE / "model.json").read_text())

    def test_edited_frozen_header(self):
        frozen = self.folder / "frozen"
        shutil.copytree(gate.HERE / "frozen", frozen)
        path = next(frozen.glob("*.*/attn/sdpa.h"))
        path.write_text(path.read_text().replace("float softcap;", "int32_t softcap;"))
        self.refuses("they must never be edited", "model.py", "--frozen", frozen)


@unittest.skipUnless(shutil.which("abidw"), "abigail-tools is not installed: the gate itself fails")
class Dwarf(Broken):
    def baseline(self) -> pathlib.Path:
        stored = self.folder / "stored.xml"
        source = gate.stub_source(MODEL)
        library = gate.build_library(self.folder / "old", source)
        self.passes("dwarf.py", library, "--stored", stored, "--update")
        return stored

    def changed(self, words: str, header: str, old: str, new: str) -> None:
        stored = self.baseline()
        headers = self.headers({header: (old, new)})
        source = gate.stub_source(gate.header_model(headers))
        library = gate.build_library(self.folder / "lib", source, include=headers.parent)
        out = self.refuses(words, "dwarf.py", library, "--stored", stored, "--headers", headers)
        self.assertIn("--update", out)

    def test_moved_member(self):
        self.changed("'int32_t backend' offset changed", "context.h",
                     "  int32_t backend;      /*", "  int32_t inserted;\n  int32_t backend;      /*")

    def test_changed_return_type(self):
        self.changed("return type changed", "types.h", "int32_t attn_dtype_bits",
                     "int64_t attn_dtype_bits")

    def test_no_debug_information(self):
        library = self.library("-g0")
        self.refuses("has no debug information", "dwarf.py", library)

    def test_partial_debug_information(self):
        """Types that clients see must be in full, or nothing would be compared."""
        other = self.folder / "none.c"
        other.write_text("int attn_unseen;\n")
        script = self.folder / "any.map"
        script.write_text("LIBATTN_1.0 { global: attn_unseen; local: *; };")
        library = gate.build_library(self.folder / "lib", "int attn_unseen;",
                                     "-fvisibility=default", version_script=script)
        self.refuses("debug information lacks the function attn_sdpa_forward", "dwarf.py", library)


class Layouts(Broken):
    def test_other_offsets(self):
        headers = self.headers({"context.h": ("  int32_t backend;      /*",
                                              "  int32_t inserted;\n  int32_t backend;      /*")})
        out = self.refuses("gcc sees attn_context_desc.backend at [8, 4], the headers say [4, 4]",
                           "layouts.py", "--only", "gcc", "--include", headers.parent)
        self.assertIn("(offset, size)", out)

    def test_missing_toolchain_is_said(self):
        """With an empty PATH no compiler is found: it is named, and a required one fails."""
        result = subprocess.run([sys.executable, gate.HERE / "layouts.py", "--only", "gcc", "rust"],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                check=False, env={"PATH": str(self.folder)})
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("rust: NOT COMPARED, rustc is not installed", result.stdout)
        self.assertIn("gcc is required", result.stdout)


class Clients(Broken):
    """The clients notice a library that does not keep its word."""

    def test_old_client_checks_the_numbers(self):
        client = self.folder / "old"
        library = self.talking_library()  # every call succeeds and nothing is computed
        frozen = gate.HERE / "frozen" / "1.0"
        gate.must([*gate.cc(), f"-I{frozen}", frozen / "client.c", library, "-lm", "-o", client,
                   f"-Wl,-rpath,{library.parent}"])
        result = gate.run([client])
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("old client: out is off by", result.stdout)

    def test_library_that_ignores_what_it_does_not_know(self):
        self.refuses("attn_abi_check gave", "new_client.py", self.talking_library())

    def test_dlopen_of_nothing_and_of_another_major(self):
        client = self.folder / "dlopen"
        gate.must([*gate.cc(), f"-I{gate.INCLUDE}", gate.ROOT / "examples/c/sdpa_dlopen.c", "-ldl",
                   "-o", client])
        result = gate.run([client, self.folder / "libattn.so.1"])
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("no libattn", result.stdout)
        library = self.talking_library("uint32_t attn_abi_version(void) { return 2u << 16; }",
                                       ["attn_abi_version"])
        result = gate.run([client, library])
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("has ABI 2.0, this program needs 1.", result.stdout)

    def talking_library(self, more: str = "", without: Iterable[str] = ()) -> pathlib.Path:
        """A stub whose names are text, so that a client can print them."""
        names = ("attn_status_name", "attn_dtype_name")
        extra = "\n".join(f'const char *{n}(int32_t x) {{ (void)x; return "?"; }}' for n in names)
        return self.library(extra=extra + "\n" + more, without=[*names, *without])


class Installed(Broken):
    def test_nothing_installed(self):
        """An empty build folder installs nothing, which is not taken for success."""
        result = self.run_gate("installed.py", self.folder)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("install", result.stdout)

    def test_incomplete_package(self):
        """Without its library the CMake package says what is missing."""
        if shutil.which("cmake") is None:
            self.skipTest("cmake is not installed")
        config = self.folder / "lib/cmake/attn/attn-config.cmake"
        config.parent.mkdir(parents=True)
        text = (gate.ROOT / "packaging/attn-config.cmake.in").read_text()
        for key, value in (("UP", "../../.."), ("LIBRARY", "lib/libattn.so.1"),
                           ("SONAME", "libattn.so.1"), ("INCLUDE", "include")):
            text = text.replace(f"@{key}@", value)
        config.write_text(text)
        source = self.folder / "client"
        source.mkdir()
        (source / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.13)\n"
                                               "project(client NONE)\n"
                                               "find_package(attn REQUIRED)\n")
        result = gate.run(["cmake", "-S", source, "-B", self.folder / "build",
                           f"-DCMAKE_PREFIX_PATH={self.folder}"])
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("libattn's package is incomplete", " ".join(result.stdout.split()))


class Link(Broken):
    def test_stub_passes(self):
        self.passes("link.py", self.library())

    def test_needs_the_cxx_runtime(self):
        library = self.library("-Wl,--no-as-needed", "-l:libstdc++.so.6")
        self.refuses("it needs libstdc++.so.6", "link.py", library)

    def test_wrong_soname(self):
        self.refuses("SONAME is ['libattn.so.2']; it must be libattn.so.1", "link.py",
                     self.library("-Wl,-soname,libattn.so.2"))

    def test_search_path(self):
        self.refuses("it has the RUNPATH /opt/lib", "link.py",
                     self.library("-Wl,--enable-new-dtags,-rpath,/opt/lib"))
        self.refuses("it has the RPATH /opt/lib", "link.py",
                     self.library("-Wl,--disable-new-dtags,-rpath,/opt/lib"))

    def test_executable_stack(self):
        self.refuses("its stack is executable", "link.py", self.library("-Wl,-z,execstack"))

    def test_cxx_export(self):
        script = self.folder / "loose.map"
        script.write_text(gate.MAP.read_text().replace("attn_merge;", "attn_merge;\n    _Z*;"))
        extra = '__attribute__((visibility("default"))) void _ZN4attn4leakEv(void) {}'
        self.refuses("it exports the C++ symbol _ZN4attn4leakEv", "link.py",
                     self.library(extra=extra, version_script=script))

    def test_undefined_cxx_symbol(self):
        extra = ('void _ZSt9terminatev(void);\n'
                 '__attribute__((visibility("default"))) void f(void) { _ZSt9terminatev(); }')
        self.refuses("expects the C++ run time to define _ZSt9terminatev", "link.py",
                     self.library("-Wl,-z,lazy", extra=extra))


class Includes(Broken):
    def tree(self, path: str, line: str) -> pathlib.Path:
        """A small tree that keeps the rules, plus one file with `line`."""
        files = {
            "include/attn/status.h": "#include <stddef.h>\n#include <stdint.h>\n",
            "include/attn/sdpa.h": '#include "status.h"\n',
            "src/core/plan.hpp": '#include <vector>\n#include "attn/status.h"\n',
            "src/ops/sdpa/problem.hpp": '#include "attn/sdpa.h"\n#include "core/plan.hpp"\n',
            "src/ops/sdpa/check.hpp": '#include "ops/sdpa/problem.hpp"\n',
            "src/api/sdpa.cpp": '#include "ops/sdpa/problem.hpp"\n#include "core/plan.hpp"\n',
            "src/backend/cpu/sdpa.cpp": '#include "kernels/cpu/sdpa/tile.hpp"\n',
            "src/backend/cpu/device.hpp": '#include "core/plan.hpp"\n',
            "kernels/common/mask.hpp": "#include <cstdint>\n",
            "kernels/cpu/sdpa/tile.hpp": '#include "kernels/common/mask.hpp"\n'
                                         '#include "ops/sdpa/problem.hpp"\n',
            "kernels/cuda/sm90a/sdpa/tile.cuh": '#include "kernels/common/mask.hpp"\n',
        }
        files[path] = files.get(path, "") + line + "\n"
        for name, text in files.items():
            target = self.folder / "tree" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return self.folder / "tree"

    def test_rules_kept(self):
        self.passes("includes.py", self.tree("src/core/log.hpp", "#include <string>"))

    def test_rules_broken(self):
        for path, line, words in (
                ("src/core/plan.hpp", '#include "ops/sdpa/problem.hpp"',
                 "src/core/plan.hpp:3: src/core may not include src/ops/sdpa/problem.hpp"),
                ("src/core/plan.hpp", '#include "kernels/common/mask.hpp"',
                 "src/core may not include kernels/common/mask.hpp"),
                ("src/core/plan.hpp", '#include "backend/cpu/device.hpp"',
                 "src/core may not include src/backend/cpu/device.hpp"),
                ("src/core/plan.hpp", "#include <cuda.h>", "the driver header cuda.h"),
                ("src/ops/sdpa/check.hpp", "#include <hip/hip_runtime.h>",
                 "the driver header hip/hip_runtime.h"),
                ("src/ops/sdpa/check.hpp", '#include "backend/cpu/device.hpp"',
                 "src/ops may not include src/backend/cpu/device.hpp"),
                ("src/api/sdpa.cpp", '#include "backend/cpu/device.hpp"',
                 "src/api may not include src/backend/cpu/device.hpp"),
                ("kernels/cpu/sdpa/tile.hpp", '#include "backend/cpu/device.hpp"',
                 "kernels may not include src/backend/cpu/device.hpp"),
                ("kernels/cpu/sdpa/tile.hpp", '#include "ops/sdpa/check.hpp"',
                 "kernels may not include src/ops/sdpa/check.hpp"),
                ("kernels/cpu/sdpa/tile.hpp", '#include "kernels/cuda/sm90a/sdpa/tile.cuh"',
                 "kernels may not include kernels/cuda/sm90a/sdpa/tile.cuh"),
                ("kernels/cpu/sdpa/tile.hpp", '#include "../../../src/backend/cpu/device.hpp"',
                 "kernels may not include src/backend/cpu/device.hpp"),
                ("include/attn/sdpa.h", "#include <stdio.h>",
                 "public headers include only stddef.h, stdint.h"),
                ("include/attn/sdpa.h", '#include "../../src/core/plan.hpp"',
                 "include may not include src/core/plan.hpp"),
                ("src/core/plan.hpp", '#include "core/gone.hpp"', "core/gone.hpp is not in the tree"),
        ):
            with self.subTest(line=line, path=path):
                shutil.rmtree(self.folder / "tree", ignore_errors=True)
                self.refuses(words, "includes.py", self.tree(path, line))

    def test_wrong_folder(self):
        self.refuses("is it the top of the source tree?", "includes.py", self.folder)


if __name__ == "__main__":
    unittest.main()
