"""The suites of `./dev test`: one row each."""

import dataclasses
import os
import shutil
import subprocess
import sys
from typing import Callable

from tools.dev.run import ROOT, Count, run, say, suite

RELEASE = ROOT / "build/release"
MESON = [sys.executable, "-m", "mesonbuild.mesonmain"]


@dataclasses.dataclass
class Suite:
    name: str
    about: str
    run: Callable  # run(build) -> Count
    needs: tuple = ()


def library_env(build_directory=RELEASE):
    """Where bindings find the library of a build."""
    return {
        "ATTN_LIBRARY": build_directory / "libattn.so",
        "ATTN_LIB_DIR": build_directory,
        "LD_LIBRARY_PATH": build_directory,
    }


def python_env(build_directory=RELEASE):
    path = f"{build_directory / 'bindings/python'}:{ROOT}"
    return {**os.environ, "PYTHONPATH": path,
            **{key: str(value) for key, value in library_env(build_directory).items()}}


def meson_suite(*names):
    def go(build):
        path = build()
        chosen = [part for name in names for part in ("--suite", name)]
        return suite(" ".join(names), [*MESON, "test", "-C", path, "--no-rebuild",
                                       "--print-errorlogs", *chosen], "meson")
    return go


def unit(build):
    return suite("unit", [build() / "tests/unit/attn-unit"], "doctest")


def ops(build):
    path = build()
    return suite("attn-check", [path / "tests/ops/attn-check", "--backend", "cpu"], "plain")


def cuda(build):
    path = build()
    if not (path / "tests/cuda/attn-cuda-host").exists():
        say("  NOT RUN: this build has no CUDA backend, as there is no nvcc for this machine")
        return Count()
    count = suite("host code on a fake driver", [path / "tests/cuda/attn-cuda-host"], "plain",
                  env={"LD_LIBRARY_PATH": path / "tests/cuda"})
    count += suite("the kernels' build", [sys.executable, ROOT / "tests/cuda/test_kernels.py"],
                   "plain")
    count += suite("code objects", [sys.executable, ROOT / "tests/cuda/contents.py", path], "plain")
    return count


def debian_hip():
    """The folder of Debian's HIP runtime, version 5, and of the libraries that it needs: unpacked, not
    installed, so that no other test finds it. None if this release has no such package."""
    package, folder = "libamdhip64-5", ROOT / "build/debian-hip"
    if not any(folder.glob("usr/lib/*/libamdhip64.so.5")):
        if subprocess.run(["apt-cache", "show", package], capture_output=True,
                          check=False).returncode != 0:
            return None
        _, listed = run("what Debian's HIP runtime needs",
                        ["apt-get", "install", "--simulate", "--reinstall",
                         "--no-install-recommends", package])
        names = [line.split()[1] for line in listed.splitlines() if line.startswith("Inst ")]
        folder.mkdir(parents=True, exist_ok=True)
        # apt compares each package with the checksum that the signed list of packages has.
        run("downloading Debian's HIP runtime", ["apt-get", "-qq", "download", *names], cwd=folder)
        for archive in folder.glob("*.deb"):
            run(f"unpacking {archive.name}", ["dpkg-deb", "--extract", archive, folder])
    return next(folder.glob("usr/lib/*/libamdhip64.so.5")).parent


def hip(build):
    path = build()
    runtime = path / "tests/hip-sim"
    if not (runtime / "libamdhip64.so.6").exists():
        say("  NOT RUN: this build has no HIP backend, as there is no clang 22 for this system")
        return Count()
    env = {"LD_LIBRARY_PATH": runtime}
    tests = ROOT / "tests/hip-sim"
    count = suite("the interpreter's instructions",
                  [sys.executable, tests / "test_instructions.py", runtime / "hip-sim-step", path],
                  "plain")
    count += suite("kernels that it must run right, or catch",
                   [runtime / "hip-sim-controls", runtime], "plain", env=env)
    count += suite("host code", [*MESON, "test", "-C", path, "--no-rebuild", "--print-errorlogs",
                                 "hip host code*"], "meson")
    if debian := debian_hip():
        count += suite("host code with Debian's runtime, and no device",
                       [runtime / "hip-host", "debian"], "plain", env={"LD_LIBRARY_PATH": debian})
    else:
        say("  NOT RUN: host code with Debian's runtime: this release has no libamdhip64-5")
    count += suite("code objects", [sys.executable, tests / "contents.py", path], "plain")
    count += suite("mistakes in kernels",
                   [sys.executable, tests / "mistakes.py", path / "tests/ops/attn-check", runtime,
                    path], "plain")
    count += suite("attn-check on five architectures",
                   [sys.executable, tests / "check.py", path / "tests/ops/attn-check", runtime],
                   "plain")
    return count


def clang_build(build, directory, sanitizers, *options, targets):
    """A sanitizer build. clang compiles the SIMD kernels with sanitizers much faster than gcc."""
    clang = next(name for name in ("clang-14", "clang") if shutil.which(name))
    return build(directory, "-Dbuildtype=debugoptimized", f"-Db_sanitize={sanitizers}",
                 "-Db_lundef=false", "-Dcuda=disabled", "-Dhip=disabled", *options, targets=targets,
                 env={"CC": clang, "CXX": clang.replace("clang", "clang++")})


def hostile_build(build):
    """With address and undefined-behaviour sanitizers, and libFuzzer's instrumentation. Of pointers
    only accesses are checked: the checks of their arithmetic take the compiler three minutes for
    one SIMD kernel."""
    return clang_build(
        build, "build/asan", "address,undefined", "-Dfuzz=true",
        "-Dcpp_args=-fsanitize=fuzzer-no-link -fno-sanitize=pointer-overflow "
        "-fno-sanitize-recover=all",
        targets=["tests/ops/attn-check", "tests/fuzz/fuzz-plan", "tests/fuzz/fuzz-execute"])


def asan(build):
    path = hostile_build(build)
    return suite("asan", [path / "tests/ops/attn-check", "--backend", "cpu", "--quick"], "plain",
                 env={"UBSAN_OPTIONS": "print_stacktrace=1"})


def tsan(build):
    path = clang_build(build, "build/tsan", "thread", targets=["tests/ops/attn-check"])
    return suite("tsan", [path / "tests/ops/attn-check", "--backend", "cpu", "--quick"], "plain",
                 env={"TSAN_OPTIONS": "halt_on_error=1"})


def fuzz(build):
    path = hostile_build(build)
    seconds = int(os.environ.get("ATTN_FUZZ_SECONDS", "30"))  # each of the two targets
    count = Count()
    for target in ("plan", "execute"):
        found = path / f"corpus-{target}"  # grows from run to run; the seeds stay as they are
        found.mkdir(exist_ok=True)
        count += suite(f"fuzz {target}",
                       [path / f"tests/fuzz/fuzz-{target}", f"-max_total_time={seconds}",
                        "-max_len=512", f"-artifact_prefix={path}/", found,
                        ROOT / "tests/fuzz/corpus" / target], "status")
    return count


def python(build):
    path = build()
    count = suite("pytest", [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider",
                             ROOT / "bindings/python/tests"], "pytest", env=python_env(path))
    count += suite("python example", [sys.executable, ROOT / "examples/python/attention.py"],
                   "status", env=python_env(path))
    count += suite("python example on CUDA",
                   [sys.executable, ROOT / "examples/python/attention_cuda.py"], "status",
                   env=python_env(path))
    return count


def script(path):
    """A binding's own test command, which ends with 'N passed, N failed'."""
    def go(build):
        return suite(path, [ROOT / path], "plain",
                     env={**library_env(build()), "PYTHON": sys.executable})
    return go


def demo(build):
    path = build()
    return suite("sentence search", [sys.executable, ROOT / "examples/python/sentence_search.py",
                                     "--query", "a storm at sea"], "status", env=python_env(path))


def sources():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.h", "*.hpp", "*.c",
         "*.cpp", "*.cuh", "*.cu", "*.hip"],
        cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    # Frozen headers are kept to the letter.
    return [ROOT / name for name in listed
            if not name.startswith("tests/abi/frozen/") and (ROOT / name).exists()]


def lint(build):
    path = build()
    clang_format = next(n for n in ("clang-format-14", "clang-format") if shutil.which(n))
    count = suite("clang-format", [clang_format, "--dry-run", "-Werror", *sources()], "status")
    count += suite("mypy", [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml",
                            path / "bindings/python/attn"], "status")
    return count


SUITES = [
    Suite("unit", "internals, by doctest", unit),
    Suite("ops", "attn-check: every case on every implementation against fp64", ops),
    Suite("cuda", "the CUDA backend without a GPU: host code on a fake driver, kernels' contents",
          cuda),
    Suite("hip", "the HIP backend without a GPU: its code objects run on an ISA interpreter", hip),
    Suite("abi", "the ABI gate and the header matrix", meson_suite("abi"), ("rust", "go")),
    Suite("examples", "C and C++ examples, and the installed package", meson_suite("examples")),
    Suite("docs", "generated parts are current, every public name has its comment",
          meson_suite("docs")),
    Suite("python", "the Python package and its example", python),
    Suite("rust", "the Rust crates and their example", script("bindings/rust/test"), ("rust",)),
    Suite("go", "the Go package and its example", script("bindings/go/test"), ("go",)),
    Suite("demo", "sentence search on real sentences", demo, ("demo",)),
    Suite("lint", "formatting and types", lint),
    Suite("asan", "attn-check under address and undefined-behaviour sanitizers", asan),
    Suite("tsan", "attn-check under the thread sanitizer", tsan),
    Suite("fuzz", "60 seconds of hostile descriptors and arguments", fuzz),
]
SUITES_BY_NAME = {s.name: s for s in SUITES}
