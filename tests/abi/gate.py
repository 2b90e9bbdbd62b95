"""What the gates share: how a gate reports, how it runs a tool, and a library to feed it."""

from __future__ import annotations

import os
import pathlib
import shlex
import subprocess
import sys
from typing import Any, Iterable, Optional

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INCLUDE = ROOT / "include"
MAP = ROOT / "src" / "libattn.map"

sys.path.insert(0, str(ROOT / "tools"))


def finish(gate: str, checked: int, problems: Iterable[str], hint: str = "") -> int:
    """Prints the outcome with its counts; the exit status of the gate."""
    problems = list(problems)
    for problem in problems:
        print(f"{gate}: {problem}")
    if problems and hint:
        print(f"{gate}: {hint}")
    print(f"{gate}: {max(checked - len(problems), 0)} passed, {len(problems)} failed")
    return 1 if problems else 0


def command_line(script: str, *arguments: str) -> str:
    """How a reader runs a script of this folder by hand, from the top of the repository."""
    return shlex.join(["python3", f"tests/abi/{script}", *arguments])


def run(command: Iterable[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **options)


def must(command: Iterable[Any], **options: Any) -> str:
    """Runs a tool that has to succeed; ends the gate with its words if it does not."""
    command = [str(c) for c in command]
    try:
        result = run(command, **options)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not installed; this gate needs it")
    if result.returncode != 0:
        sys.exit(f"failed ({result.returncode}): {shlex.join(command)}\n{result.stdout}")
    return result.stdout


def header_model(folder: Optional[pathlib.Path] = None) -> dict[str, Any]:
    """The model of the public headers (tools/header_model.py), from `folder` if given."""
    try:
        import header_model as tool
    except ImportError as error:
        sys.exit(f"cannot read the headers: {error}. Install the PyPI package libclang "
                 f"for {sys.executable}")
    try:
        return tool.build(pathlib.Path(folder or INCLUDE / "attn"))
    except tool.ModelError as error:
        sys.exit(f"the headers in {folder or INCLUDE / 'attn'} do not parse: {error}")


def dynamic_symbols(library: pathlib.Path) -> list[tuple[str, str]]:
    """(name, version node) of every symbol that the library defines and exports."""
    out = must(["readelf", "--wide", "--dyn-syms", library])
    symbols = []
    for line in out.splitlines():
        part = line.split()
        # Num: Value Size Type Bind Vis Ndx Name
        if len(part) < 8 or not part[0].rstrip(":").isdigit():
            continue
        kind, bind, visibility, section, name = part[3], part[4], part[5], part[6], part[7]
        if section in ("UND", "ABS") or bind == "LOCAL" or visibility in ("HIDDEN", "INTERNAL"):
            continue
        if kind in ("SECTION", "FILE"):
            continue
        base, _, node = name.replace("@@", "@").partition("@")
        symbols.append((base, node))
    return sorted(symbols)


def stub_source(model: dict[str, Any], include: str = "attn/attn.h", extra: str = "",
                without: Iterable[str] = ()) -> str:
    """C source of a library that declares what `model` says and does nothing: each function
    returns 0. Demonstrations feed it to the gates."""
    lines = [f'#include "{include}"', extra]
    for function in model["functions"]:
        if function["name"] in without:
            continue
        params = ", ".join(declare(p["type"], p["name"]) for p in function["params"]) or "void"
        unused = "".join(f" (void){p['name']};" for p in function["params"])
        value = "" if function["returns"] == "void" else " return 0;"
        lines.append(f"{function['returns']} {function['name']}({params}) {{{unused}{value} }}")
    return "\n".join(lines) + "\n"


def declare(type_: str, name: str) -> str:
    return f"{type_}{name}" if type_.endswith("*") else f"{type_} {name}"


def build_library(folder: pathlib.Path, source: str, *flags: str,
                  version_script: Optional[pathlib.Path] = MAP, include: pathlib.Path = INCLUDE,
                  compiler: str = "") -> pathlib.Path:
    """Compiles `source` to libattn.so.1 in `folder`, the way that the build does it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stub.c"
    path.write_text(source)
    library = folder / "libattn.so.1"
    script = [f"-Wl,--version-script={version_script}"] if version_script else []
    must([*cc(compiler), "-g", "-O1", "-fPIC", "-shared", "-fvisibility=hidden",
          f"-I{include}", path, "-o", library, "-Wl,-soname,libattn.so.1", *script, *flags])
    link = folder / "libattn.so"
    if not link.exists():
        link.symlink_to(library.name)
    return library


def cc(compiler: str = "") -> list[str]:
    return shlex.split(compiler or os.environ.get("CC", "cc"))
