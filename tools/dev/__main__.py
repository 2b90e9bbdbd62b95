"""libattn's tasks. ./dev runs this; `./dev --help` lists them."""

import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

from tools.dev import gpu_check, needs, pack, suites
from tools.dev.run import ROOT, Count, Failed, bold, run, say


CUDA = platform.machine() in needs.NVCC_MACHINES  # elsewhere Meson takes what it finds


def apt(*packages):
    subprocess.run([ROOT / "dev", "--apt", *packages], check=True)


def pip(name):
    """Installs the requirements file `name` into .venv, once for each of its contents."""
    path = ROOT / "tools/dev/requirements" / f"{name}.txt"
    stamp = ROOT / ".venv" / f"installed-{name}.txt"
    if stamp.exists() and stamp.read_bytes() == path.read_bytes():
        return
    # Packages whose declared dependencies are large and not needed are listed apart.
    alone = ["--no-deps"] if name.endswith("-no-deps") else []
    run(f"installing Python packages ({name})",
        [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-q", *alone, "-r",
         path])
    stamp.write_bytes(path.read_bytes())


def prepare(*what):
    """Installs what the named parts need; says what it installs, and nothing if it is all there."""
    if "build" in what:
        apt(*needs.BUILD)
        pip("build")
    if "tests" in what:
        apt(*needs.TESTS, *needs.ABI, *needs.CLANG, *needs.FORMAT, *needs.HIP)
        pip("test")
        if CUDA:
            pip("cuda")
            os.environ.setdefault("ATTN_NVCC", str(needs.nvcc()))
    if "format" in what:
        apt(*needs.FORMAT)
    if "rust" in what and shutil.which("cargo") is None:
        apt(*needs.RUST)
    if "go" in what and shutil.which("go") is None:
        apt(*needs.GO)
    for name in ("demo", "demo-no-deps", "bench", "docs"):
        if name.removesuffix("-no-deps") in what:
            pip(name)


def lacks(path, options):
    """Those of `options` that the build folder was not configured with; None if it is of a time
    when one of them did not exist."""
    listed = json.loads((path / "meson-info/intro-buildoptions.json").read_text())
    values = {option["name"]: str(option["value"]).lower() for option in listed}
    if not all(o[2:].split("=")[0] in values for o in options):
        return None
    return [o for o in options if values[o[2:].split("=")[0]] != o.split("=")[1]]


def build(directory="build/release", *options, targets=(), env=None):
    """Configures (once) and compiles; a second call costs what changed."""
    path = ROOT / directory
    # One cache of kernels for all build folders.
    os.environ.setdefault("ATTN_CUDA_CACHE", str(ROOT / "build/cuda-cache"))
    meson = [sys.executable, "-m", "mesonbuild.mesonmain"]
    if CUDA and not any(option.startswith("-Dcuda=") for option in options):
        options = (*options, "-Dcuda=enabled")
    if shutil.which("clang++-22") and not any(o.startswith("-Dhip=") for o in options):
        options = (*options, "-Dhip=enabled")
    wanted = ["-Dtests=true",
              *(option for option in options if option.startswith(("-Dcuda=", "-Dhip=")))]
    if not (path / "build.ninja").exists():
        run(f"configuring {directory}",
            [*meson, "setup", path, ROOT, f"-Dpython={sys.executable}", *options], env=env)
    elif "-Dtests=false" not in options:
        if lacks(path, wanted) is None:
            run(f"configuring {directory} anew", [*meson, "setup", "--reconfigure", path, ROOT],
                env=env)
        if missing := lacks(path, wanted):
            # The demo was here first, and needs no tests and no CUDA: nor what they need installed.
            run(f"adding to {directory}: {' '.join(missing)}",
                [*meson, "setup", "--reconfigure", path, ROOT, *missing], env=env)
    run(f"building {directory}", ["ninja", "-C", path, *targets], env=env)
    return path


def task_build(_):
    prepare("build", "tests")
    path = build()
    say(f"built {(path / 'libattn.so').relative_to(ROOT)}")


def task_demo(arguments):
    prepare("build", "demo")
    path = build("build/release", "-Dtests=false", "-Dcuda=disabled", "-Dhip=disabled",
                 targets=["python-package"])
    command = [sys.executable, ROOT / "examples/python/sentence_search.py", *arguments.rest]
    return subprocess.run(command, env=suites.python_env(path)).returncode


def task_test(arguments):
    start = time.monotonic()
    chosen = [s for s in suites.SUITES if not arguments.suite or s.name in arguments.suite]
    total = Count()
    parts = []
    prepare("build", "tests", *(need for s in chosen for need in s.needs))
    for number, s in enumerate(chosen, 1):
        say(bold(f"[{number}/{len(chosen)}] {s.name}: {s.about}"))
        try:
            count = s.run(build)
        except Failed:
            count = Count(0, 1)
        parts.append((s.name, count))
        total += count
    say()
    for name, count in parts:
        say(f"  {name:12} {count.passed:6} passed {count.failed:4} failed")
    say(f"  in {(time.monotonic() - start) / 60:.1f} minutes")
    sys.stderr.flush()
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return 1 if total.failed or not total.passed else 0


def task_bench(arguments):
    asks = bool({"-h", "--help"} & set(arguments.rest))
    if arguments.what is None:
        arguments.usage()
        return 0 if asks else 2
    if arguments.what == "gpu":  # on a machine with nothing but Python and PyTorch: see pack
        return subprocess.run(["python3", "-m", "tests.bench.gpu", *arguments.rest], cwd=ROOT,
                              env={**os.environ, "PYTHONPATH": os.pathsep.join(
                                  [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
                              ).returncode
    command = [sys.executable, "-m", f"tests.bench.{arguments.what}", *arguments.rest]
    if asks:  # needs packages, but no library
        prepare("bench")
        return subprocess.run(command, cwd=ROOT).returncode
    prepare("build", "tests", "bench")
    path = build()
    return subprocess.run(command, cwd=ROOT, env=suites.python_env(path)).returncode


def task_pack(arguments):
    path = pathlib.Path(arguments.build) if arguments.build else None
    if path is None:
        prepare("build", "tests")
        path = build()
    else:
        if "python-package" not in (path / "build.ninja").read_text():  # its Python lacks libclang
            run(f"configuring {path}", [sys.executable, "-m", "mesonbuild.mesonmain", "configure",
                                        path, f"-Dpython={sys.executable}"])
            run(f"generating {path}", ["ninja", "-C", path, "build.ninja"])
        run(f"building {path}", ["ninja", "-C", path, "python-package", *pack.TARGETS])
    return pack.pack(path, arguments.output)


def task_gpu_check(arguments):
    return gpu_check.main(arguments.rest)


def task_fmt(_):
    prepare("format")
    subprocess.run(["clang-format-14", "-i", *suites.sources()], check=True)
    if shutil.which("cargo"):
        subprocess.run(["cargo", "fmt", "-q"], cwd=ROOT / "bindings/rust", check=False)
    if shutil.which("gofmt"):
        subprocess.run(["gofmt", "-w", ROOT / "bindings/go", ROOT / "examples/go"], check=False)


def task_lint(_):
    prepare("build", "tests")
    count = suites.lint(build)
    print(f"{count.passed} passed, {count.failed} failed")
    return 1 if count.failed else 0


def task_docs(_):
    prepare("build", "tests", "docs")
    path = build()
    return subprocess.run([sys.executable, "-m", "tools.docs"], cwd=ROOT,
                          env=suites.python_env(path)).returncode


def task_abi(arguments):
    prepare("build", "tests")
    path = build()
    if not arguments.update:
        return suites.SUITES_BY_NAME["abi"].run(build).failed
    for script in ("symbols.py", "model.py", "dwarf.py"):
        library = [] if script == "model.py" else [path / "libattn.so"]
        subprocess.run([sys.executable, ROOT / "tests/abi" / script, *library, "--update"],
                       check=True)
    return 0


def main():
    parser = argparse.ArgumentParser(
        prog="./dev", description="libattn's tasks. Each installs what it needs (Debian packages, "
        "Python packages into .venv) and says so; run again, it costs only what changed.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)

    def add(name, function, about, hands_on=False):
        # What a task hands on, --help included, is for the program behind it to parse.
        task = tasks.add_parser(name, help=about, description=about, add_help=not hands_on)
        task.set_defaults(function=function, hands_on=hands_on)
        return task

    add("demo", task_demo, "sentence search with a MiniLM model, all attention by libattn "
        "(--query \"...\" asks your own)", hands_on=True)
    test = add("test", task_test, "every suite of every language; ends with 'N passed, N failed'")
    test.add_argument("suite", nargs="*", help="only these: " + ", ".join(
        s.name for s in suites.SUITES), metavar="SUITE")
    add("build", task_build, "build the library, tests and examples in build/release")
    bench = add("bench", task_bench, "benchmarks against peers: ./dev bench cpu|gpu [--help]",
                hands_on=True)
    bench.add_argument("what", choices=["cpu", "gpu"], nargs="?",
                       help="the backend; its own --help says what it measures")
    bench.set_defaults(usage=bench.print_help)
    packing = add("pack", task_pack, "gather in one folder what a machine with a GPU needs for "
                  "gpu-check and bench gpu, where nothing is built")
    packing.add_argument("--build", metavar="DIR", help="a build folder; default build/release")
    packing.add_argument("--output", metavar="DIR", default=pack.DEFAULT,
                         help="the folder; default build/gpu")
    add("gpu-check", task_gpu_check, "on a machine with a GPU: every case, graphs, streams, "
        "contexts, compute-sanitizer", hands_on=True)
    add("fmt", task_fmt, "format all sources in place")
    add("lint", task_lint, "check formatting, types and style")
    add("docs", task_docs, "generate the reference pages (build/docs) and README's generated parts")
    abi = add("abi", task_abi, "the ABI gate; with --update, store today's additions as its baseline")
    abi.add_argument("--update", action="store_true", help="additions only: what breaks a client "
                     "is refused")

    arguments, arguments.rest = parser.parse_known_args()
    if arguments.rest and not arguments.hands_on:
        parser.error(f"unknown argument: {arguments.rest[0]}")
    try:
        sys.exit(arguments.function(arguments) or 0)
    except Failed:
        sys.exit(1)
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(map(str, error.cmd))}")
    except KeyboardInterrupt:
        sys.exit(130)


main()
