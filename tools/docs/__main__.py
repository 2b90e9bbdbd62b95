"""Generates the documentation, or checks it.

Without --check: writes the reference pages (Markdown and HTML) and the plots as PNG into the output
folder, and renews what is generated in the source tree: the marked parts of README.md and the plots
in docs/plots. With --check: writes nothing, compares, and ends with 'N passed, N failed'.
"""

from __future__ import annotations

import argparse
import difflib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from tools import capi, header_model
from tools.capi import ROOT
from tools.docs import bars, gpu, hip, matrix, reference

README = ROOT / "README.md"
MARK = re.compile(r"(<!-- generated: ([\w-]+) .*?-->\n)(.*?)(<!-- end -->)", re.S)


def parts(library: capi.Library, text: str) -> dict[str, Callable[[], str]]:
    """What the markers in README.md stand for; `text` is what it has now, to
    compare with."""
    build = library.path.parent

    def results() -> str:
        path = bars.latest()
        return bars.table(bars.load(path)) if path else "No results are stored yet."

    def gpu_results() -> str:
        path = gpu.latest()
        return gpu.table(bars.load(path)) if path else "No results are stored yet."

    def example() -> str:
        return f"```c\n{(ROOT / 'examples/c/readme.c').read_text().strip()}\n```"

    found = {"c-example": example, "support": lambda: matrix.markdown(library), "bars": results,
             "gpu-bars": gpu_results, "hip-figures": lambda: hip.markdown(build)}
    if missing := matrix.missing(library):
        print(f"NOT RUN: the support matrix: this build has no {' and no '.join(missing)} backend to "
              "ask")
        del found["support"]
    if reason := hip.cannot_compare(build, text):
        print(f"NOT RUN: the HIP kernels' figures: {reason}")
        del found["hip-figures"]
    return found


def rewritten(text: str, generate: dict[str, Callable[[], str]]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match.group(2) not in generate:
            return match.group(0)
        return f"{match.group(1)}{generate[match.group(2)]()}\n{match.group(4)}"
    return MARK.sub(replace, text)


def broken_links(path: pathlib.Path) -> list[str]:
    """Relative links in a page, and paths in its code spans, that lead nowhere."""
    text = path.read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text)
             for link in link if link and not re.match(r"https?:|#", link)]
    spans = re.findall(r"`((?:src|include|kernels|tests|tools|bindings|examples|packaging|docs)"
                       r"/[\w./-]+)`", text)
    return [f"{path.name}: {name} does not exist" for name in {*links, *spans}
            if name and not (ROOT / name).exists()]


def compile_example(library: capi.Library) -> list[str]:
    """Builds and runs the README's C snippet as it stands there."""
    match = re.search(r"<!-- generated: c-example .*?-->\n```c\n(.*?)```", README.read_text(), re.S)
    if not match:
        return ["README.md has no C example"]
    with tempfile.TemporaryDirectory() as folder:
        source, program = pathlib.Path(folder) / "readme.c", pathlib.Path(folder) / "readme"
        source.write_text(match.group(1))
        where = library.path.parent
        built = subprocess.run(
            ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'include'}", source,
             "-o", program, f"-L{where}", f"-Wl,-rpath,{where}", "-lattn", "-lm"],
            capture_output=True, text=True)
        if built.returncode:
            return ["README.md: the C example does not compile:\n" + built.stderr]
        ran = subprocess.run([program], capture_output=True, text=True)
        return [] if ran.returncode == 0 else [
            f"README.md: the C example exits with {ran.returncode}: {ran.stdout}{ran.stderr}"]


def run_python(library: capi.Library) -> list[str]:
    """Runs the README's Python snippet with the package of the build."""
    match = re.search(r"```python\n(.*?)```", README.read_text(), re.S)
    if not match:
        return ["README.md has no Python example"]
    code = match.group(1) + "\nassert out.shape == q.shape and np.isfinite(out).all()\n"
    package = library.path.parent / "bindings/python"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(package),
                              "ATTN_LIBRARY": str(library.path)})
    return [] if ran.returncode == 0 else [f"README.md: the Python example fails:\n{ran.stderr}"]


def check(library: capi.Library, model: dict[str, Any]) -> int:
    def stale_parts() -> list[str]:
        old = README.read_text()
        new = rewritten(old, parts(library, old))
        return [] if old == new else ["README.md is stale; run ./dev docs\n" + "\n".join(
            difflib.unified_diff(old.splitlines(), new.splitlines(), "README.md", "generated",
                                 lineterm="", n=0))]

    def stale_plots() -> list[str]:
        path = bars.latest()
        found = bars.stale_plots(bars.load(path)) if path else ["no results are stored"]
        of_gpu = gpu.latest()
        return found + (gpu.stale_plots(bars.load(of_gpu)) if of_gpu else [])

    def example_length() -> list[str]:
        """20 lines and the check of its own result, between main's braces."""
        body = (ROOT / "examples/c/readme.c").read_text().split("{ /*")[1].strip().splitlines()
        lines = len(body) - 3  # the first line's comment, the check, the brace
        return [] if lines <= 20 else [f"examples/c/readme.c has {lines} lines"]

    def a_missing_comment_is_found() -> list[str]:
        broken = {kind: [dict(item) for item in model[kind]] if isinstance(model[kind], list)
                  else model[kind] for kind in model}
        broken["functions"][0]["doc"] = ""
        return [] if reference.undocumented(broken) else ["an empty comment went unnoticed"]

    def a_stale_part_is_found() -> list[str]:
        text = "<!-- generated: support by x -->\nold\n<!-- end -->"
        return [] if rewritten(text, {"support": lambda: "new"}) != text else ["went unnoticed"]

    checks: list[tuple[str, Callable[[], list[str]]]] = [
        ("every public name has a comment", lambda: reference.undocumented(model)),
        ("README's generated parts are current", stale_parts),
        ("the plots show the newest results", stale_plots),
        ("README's C example compiles and runs", lambda: compile_example(library)),
        ("README's Python example runs", lambda: run_python(library)),
        ("README's C example is short", example_length),
        ("a missing comment is found", a_missing_comment_is_found),
        ("a stale part is found", a_stale_part_is_found),
    ]
    for name in ("README.md", "CONTRIBUTING.md", "HACKING.md"):
        checks.append((f"{name} names only files that exist",
                       lambda name=name: broken_links(ROOT / name)))  # type: ignore[misc]
    failed = 0
    for title, run in checks:
        try:
            problems = run()
        except (OSError, RuntimeError, KeyError) as error:
            problems = [f"{type(error).__name__}: {error}"]
        print(f"{'FAIL' if problems else 'ok':4} {title}")
        for problem in problems:
            print("  " + problem.replace("\n", "\n  "))
        failed += bool(problems)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev docs", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/docs", metavar="FOLDER",
                        help="of the reference pages (default: build/docs)")
    parser.add_argument("--library", metavar="FILE",
                        help="libattn.so (default: $ATTN_LIBRARY, $ATTN_LIB_DIR, ./build)")
    arguments = parser.parse_args()
    library = capi.Library(capi.find_library(arguments.library))
    model = header_model.build(ROOT / "include/attn")
    if arguments.check:
        return check(library, model)
    print(f"{reference.write(model, arguments.out)} reference pages in {arguments.out}")
    path = bars.latest()
    if path:
        for name in bars.draw(bars.load(path), bars.PLOTS, arguments.out):
            print(f"wrote {name}")
    path = gpu.latest()
    if path:
        for name in gpu.draw(bars.load(path), bars.PLOTS, arguments.out):
            print(f"wrote {name}")
    README.write_text(rewritten(README.read_text(), parts(library, "")))
    print("renewed README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
