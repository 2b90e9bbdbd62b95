"""Compiles CUDA kernels for the build: tables of variants to embedded fatbins.

A table stands beside its kernel, as kernels/cuda/sm80/sdpa/forward.toml beside forward.cu:

    source = "forward.cu"
    performance = true              # spills and lost performance, as ptxas reports it, are errors
    [[variants]]                    # lists expand as a product
    element = ["fp16", "bf16"]
    head_dim = [64, 128]

Each variant is compiled by itself, with -DATTN_ENTRY=<its name> and -DATTN_<KEY>=<value> for each
key. From the table comes a header, forward_table.inc, with a line for each variant:

    ATTN_VARIANT(attn_sdpa_forward_sm80_bf16_64, <image>_begin, <image>_end, bf16, 64)

Fatbins are cached by what went into them. Only the standard library is needed.

ATTN_NVCC names the nvcc to use; ATTN_PTXAS another assembler than nvcc's own, such as one of a newer
toolkit ("" goes back to nvcc's). A build folder remembers both.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from typing import Any, Callable, Collection, Optional

NEEDED = (13, 0)  # the nvcc that the kernels are written for

# Code for the architectures of a kernel's folder: its own, and what can run it best elsewhere.
TARGETS = {
    "sm80": [("compute_80", "sm_80,compute_80"), ("compute_90a", "sm_90a")],
    "sm90a": [("compute_90a", "sm_90a")],
}
COMMON_FLAGS = ["-std=c++20", "-O3"]
# What ptxas says where a kernel loses much of its performance.
LOST = {
    "C7508": "setmaxnreg was ignored; give the kernel __launch_bounds__(threads, 1)",
    "C7510": "wgmma was serialised: no call, copy or dynamic index of the accumulator in between",
    "C7511": "wgmma was serialised for want of registers: make the tile smaller",
    "C7512": "wgmma was serialised for want of registers: make the tile smaller",
    "C7514": "wgmma was serialised: its accumulator is used while in flight",
    "C7518": "wgmma was serialised: it is in flight where threads may diverge",
    "C7520": "wgmma was serialised: a wait for its operands is on a path of its own",
    "C7515": "wgmma was serialised: its registers are defined while in flight",
}
CACHE_DAYS = 60  # what no build asked for in so long is dropped


def fail(text: str) -> None:
    sys.exit(f"cuda_kernels: {text}")


# --- tables -------------------------------------------------------------------------------------

@dataclasses.dataclass
class Variant:
    entry: str
    defines: dict[str, str]


@dataclasses.dataclass
class Table:
    path: pathlib.Path
    source: pathlib.Path
    arch: str  # the folder's
    performance: bool
    flags: list[str]
    variants: list[Variant]


def read_toml(path: pathlib.Path) -> dict[str, Any]:
    try:
        import tomllib as toml  # Python 3.11
    except ImportError:
        try:
            import tomli as toml
        except ImportError:
            from pip._vendor import tomli as toml
    return toml.loads(path.read_text())


def text_of(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def read_table(path: pathlib.Path, folders: Collection[str] = tuple(TARGETS)) -> Table:
    content = read_toml(path)
    known = {"source", "performance", "flags", "variants"}
    unknown = content.keys() - known
    if unknown or not content.get("variants"):
        fail(f"{path}: " + (f"unknown key {', '.join(sorted(unknown))}" if unknown
                            else "there is no [[variants]]"))
    arch, family = path.parent.parent.name, path.parent.name
    if arch not in folders:
        fail(f"{path}: the folder {arch} is none of {', '.join(folders)}")
    variants = []
    columns = list(content["variants"][0])
    for block in content["variants"]:
        if sorted(block) != sorted(columns):
            fail(f"{path}: variants have different keys: {columns} and {list(block)}")
        lists = [block[c] if isinstance(block[c], list) else [block[c]] for c in columns]
        for values in itertools.product(*lists):
            texts = [text_of(value) for value in values]
            entry = "_".join(["attn", family, path.stem, arch, *texts])
            if not entry.isidentifier():
                fail(f"{path}: {entry} is no identifier; values must be words or whole numbers")
            variants.append(Variant(entry, dict(zip(columns, texts))))
    names = [variant.entry for variant in variants]
    for name in names:
        if names.count(name) > 1:
            fail(f"{path}: {name} comes twice")
    return Table(path, path.parent / content["source"], arch, content.get("performance", False),
                 content.get("flags", []), variants)


def defines_of(variant: Variant) -> list[str]:
    return [f"-DATTN_ENTRY={variant.entry}",
            *(f"-DATTN_{key.upper()}={value}" for key, value in variant.defines.items())]


# --- finding nvcc -------------------------------------------------------------------------------

def find_nvcc(last: str) -> tuple[Optional[pathlib.Path], str]:
    """ATTN_NVCC, the last one found, PATH, or this Python's packages (nvidia-cuda-nvcc): the first
    that is new enough, with its version; or none, with the reason."""
    asked_for = os.environ.get("ATTN_NVCC")
    if asked_for and not os.access(asked_for, os.X_OK):
        fail(f"ATTN_NVCC is {asked_for}, which cannot be run")
    packages = [os.path.join(folder, "nvidia/cu13/bin/nvcc")
                for folder in dict.fromkeys([sysconfig.get_path("purelib"), *sys.path])]
    reason = "nvcc was not found"
    for candidate in [asked_for] if asked_for else [last, shutil.which("nvcc"), *packages]:
        if not candidate or not os.access(candidate, os.X_OK):
            continue
        version = version_of(pathlib.Path(candidate))
        if tuple(map(int, version.split(".")))[:2] >= NEEDED:
            return pathlib.Path(candidate).absolute(), version
        reason = (f"nvcc {version} was found, which is too old ({NEEDED[0]}.{NEEDED[1]} is "
                  "needed)")
    return None, reason


def version_of(tool: pathlib.Path | str) -> str:
    try:
        output = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"{tool} does not run: {error}")
    return re.search(r"V(\d+\.\d+\.\d+)", output.stdout)[1]


def find_ptxas(last: str) -> str:
    """ATTN_PTXAS, or the last one that it named, if it is to stand in for nvcc's own; else ""."""
    asked_for = os.environ.get("ATTN_PTXAS", last)
    if asked_for and not os.access(asked_for, os.X_OK):
        fail(f"ATTN_PTXAS is {asked_for}, which cannot be run")
    return str(pathlib.Path(asked_for).absolute()) if asked_for else ""


def with_ptxas(nvcc: str, ptxas: str, folder: pathlib.Path) -> str:
    """The nvcc of a toolkit that is made of links to nvcc's, but for ptxas: nvcc takes its parts
    from the folder in which it was called."""
    own = pathlib.Path(nvcc).parent
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    for part in own.parent.iterdir():
        if part != own:
            (folder / part.name).symlink_to(part)
    for tool in own.iterdir():
        (folder / "bin" / tool.name).symlink_to(ptxas if tool.name == "ptxas" else tool)
    return str(folder / "bin" / pathlib.Path(nvcc).name)


def task_find(arguments: argparse.Namespace) -> None:
    """Prints nvcc's path and version, or fails with the reason."""
    nvcc, version = find_nvcc(remembered(arguments.build).get("nvcc", ""))
    if nvcc is None:
        sys.exit(version)
    if shutil.which("g++") is None:
        sys.exit("nvcc was found, but no g++, which it needs")
    ptxas = find_ptxas(remembered(arguments.build).get("ptxas", ""))
    print(nvcc, version + (f", ptxas {version_of(ptxas)}" if ptxas else ""), sep="\n")


# --- configuring --------------------------------------------------------------------------------

def remembered(build: pathlib.Path) -> dict[str, str]:
    """What the build folder was configured with: ninja may configure anew in another environment."""
    path = build / "toolchain.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write_if_changed(path: pathlib.Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def task_configure(arguments: argparse.Namespace) -> None:
    """Writes the tables' headers; prints `table entry` for each variant."""
    root, build = arguments.root, arguments.build
    cache = (os.environ.get("ATTN_CUDA_CACHE") or remembered(build).get("cache") or
             build / "cuda-cache")
    ptxas = find_ptxas(remembered(build).get("ptxas", ""))
    compiler = arguments.nvcc
    if ptxas:
        compiler = with_ptxas(compiler, ptxas, (build / "toolkit").absolute())
    write_if_changed(build / "toolchain.json", json.dumps({
        "nvcc": arguments.nvcc, "ptxas": ptxas, "compiler": compiler,
        "cache": str(pathlib.Path(cache).absolute())}))
    entries = []
    for name in arguments.tables:
        table = read_table(root / name)
        lines = [f"ATTN_VARIANT({', '.join([v.entry, *image_symbols(v.entry), *v.defines.values()])})"
                 for v in table.variants]
        head = f"// Generated from {name}: entry, image, " + ", ".join(table.variants[0].defines)
        folder = pathlib.Path(*pathlib.Path(name).parts[-3:-1])  # architecture and family
        write_if_changed(build / folder / f"{table.path.stem}_table.inc",
                         "\n".join([head, *lines, ""]))
        entries += [(name, v.entry) for v in table.variants]
    write_if_changed(build / "entries.json", json.dumps([entry for _, entry in entries]))
    for name, entry in entries:
        print(name, entry)


# --- compiling ----------------------------------------------------------------------------------

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', re.MULTILINE)


def closure(source: pathlib.Path, folders: list[pathlib.Path]) -> list[pathlib.Path]:
    """The source and all it includes within the tree, whatever conditions say."""
    found = [source]
    for path in found:
        for name in INCLUDE.findall(path.read_text()):
            for folder in (path.parent, *folders):
                candidate = pathlib.Path(os.path.normpath(folder / name))
                if candidate.is_file():
                    if candidate not in found:
                        found.append(candidate)
                    break
    return found


def digest(*parts: bytes | str) -> str:
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()[:40]


def run(command: list[Any]) -> tuple[int, str]:
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    return done.returncode, done.stdout


def store(path: pathlib.Path, data: bytes) -> None:
    """Appears as a whole or not at all: several builds may share a cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


class Compiler:
    def __init__(self, toolchain: dict[str, str], version: str, root: pathlib.Path, table: Table,
                 variant: Variant):
        self.nvcc = toolchain.get("compiler") or toolchain["nvcc"]
        self.version = version
        self.cache = pathlib.Path(toolchain["cache"])
        self.table, self.variant = table, variant
        self.folders = [root, root / "include"]
        self.files = closure(table.source, self.folders)
        self.flags = [*COMMON_FLAGS, *table.flags, *defines_of(variant)]
        self.includes = [part for folder in self.folders for part in ("-I", folder)]
        self.targets = [f"-gencode=arch={arch},code=[{code}]" for arch, code in TARGETS[table.arch]]
        self.root = root

    def direct_key(self) -> str:
        """By the sources as they stand: an unchanged tree needs no preprocessor."""
        names = [os.path.relpath(path, self.root) for path in self.files]
        return digest("direct 1", self.version, *self.flags, *self.targets, *names,
                      *(path.read_bytes() for path in self.files))

    def key(self) -> str:
        """By the preprocessed sources: comments and unused headers change nothing."""
        texts = []
        for arch, _ in TARGETS[self.table.arch]:
            status, text = run([self.nvcc, "-E", "-Xcompiler", "-P", f"-arch={arch}", *self.flags,
                                *self.includes, self.table.source])
            if status != 0:
                fail(f"{self.variant.entry}: the preprocessor failed:\n{text}")
            # Where comments were, there are spaces and empty lines.
            texts.append("\n".join(line.rstrip() for line in text.splitlines() if line.strip()))
        return digest("key 1", self.version, *self.flags, *self.targets, *texts)

    def compile(self) -> tuple[bytes, str, bool]:
        """The fatbin, what ptxas said, and whether nvcc had to run."""
        direct = self.cache / "direct" / self.direct_key()
        if direct.exists():
            key = direct.read_text()
        else:
            key = self.key()
            store(direct, key.encode())
        fatbin, log = self.cache / f"{key}.fatbin", self.cache / f"{key}.log"
        if fatbin.exists() and log.exists():
            for path in (direct, fatbin, log):
                os.utime(path)
            return fatbin.read_bytes(), log.read_text(), False
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder) / "out.fatbin"
            status, said = run([self.nvcc, "--fatbin", "-o", output, *self.targets,
                                "--compress-mode=size", "-Xptxas=-v", *self.flags,
                                *self.includes, self.table.source])
            if status != 0:
                fail(f"{self.variant.entry} does not compile:\n{said}")
            data = output.read_bytes()
        store(log, said.encode())
        store(fatbin, data)
        return data, said, True


def parse_ptxas(said: str) -> list[dict[str, Any]]:
    """For each function and architecture: registers, spills, shared memory."""
    found: list[dict[str, Any]] = []
    for line in said.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line):
            found.append({"function": match[1], "arch": match[2], "registers": 0, "stack": 0,
                          "spill_stores": 0, "spill_loads": 0, "smem": 0})
        elif not found:
            continue
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, "
                                r"(\d+) bytes spill loads", line):
            found[-1]["stack"] += int(match[1])
            found[-1]["spill_stores"] += int(match[2])
            found[-1]["spill_loads"] += int(match[3])
        elif match := re.search(r"Used (\d+) registers", line):
            found[-1]["registers"] = int(match[1])
            if match := re.search(r"(\d+) bytes smem", line):
                found[-1]["smem"] = int(match[1])
    return found


def complaints(said: str) -> list[str]:
    """What makes a kernel of a performance table unacceptable."""
    found = [f"{f['arch']}: {f['spill_stores']} bytes of spill stores, {f['spill_loads']} of spill "
             f"loads, {f['registers']} registers: make the tile smaller, use more threads, or relax "
             "__launch_bounds__" for f in parse_ptxas(said) if f["spill_stores"] + f["spill_loads"]]
    for line in said.splitlines():
        for code, advice in LOST.items():
            if f"({code})" in line or f" {code}" in line:
                found.append(f"{line.strip()} ({advice})")
    return found


def task_compile(arguments: argparse.Namespace) -> None:
    """One variant: its fatbin, and a report beside it."""
    start = time.monotonic()
    toolchain = json.loads(arguments.toolchain.read_text())
    table = read_table(arguments.root / arguments.table)
    variant = next((v for v in table.variants if v.entry == arguments.entry), None)
    if variant is None:
        fail(f"{table.path} has no {arguments.entry}: configure again")
    compiler = Compiler(toolchain, arguments.version, arguments.root, table, variant)
    data, said, compiled = compiler.compile()
    bad = complaints(said)
    if table.performance and bad:
        fail(f"{variant.entry} ({arguments.table} has performance = true):\n  " + "\n  ".join(bad))
    functions = parse_ptxas(said)
    arguments.output.write_bytes(data)
    arguments.report.write_text(json.dumps({
        "entry": variant.entry, "table": arguments.table, "performance": table.performance,
        "bytes": len(data), "functions": functions, "complaints": bad}, indent=1))
    depends = " ".join(str(path).replace(" ", "\\ ") for path in compiler.files)
    arguments.depfile.write_text(f"{arguments.output}: {depends}\n")
    if compiled:
        entries = json.loads((arguments.toolchain.parent / "entries.json").read_text())
        most = {arch: max(f["registers"] for f in functions if f["arch"] == arch)
                for arch in dict.fromkeys(f["arch"] for f in functions)}
        registers = ", ".join(f"{arch} {count} registers" for arch, count in most.items())
        print(f"CUDA kernel {entries.index(variant.entry) + 1} of {len(entries)}, {variant.entry}: "
              f"{registers}, {len(data) / 1024:.0f} KiB, {time.monotonic() - start:.0f} s")


# --- embedding ----------------------------------------------------------------------------------

def image_symbols(entry: str) -> list[str]:
    return [f"{entry}_image_begin", f"{entry}_image_end"]


def embed(images: list[pathlib.Path], section: str, output: pathlib.Path,
          toolchain: pathlib.Path) -> None:
    """One assembler file that holds all images as read-only data."""
    lines = ["// Generated. An image's digest is here so that this changes with it.",
             f'.section {section}, "a", %progbits']
    for path in images:
        begin, end = image_symbols(path.stem)
        lines += [f"// {digest(path.read_bytes())}",
                  *(f".globl {symbol}\n.hidden {symbol}" for symbol in (begin, end)),
                  ".balign 64", f"{begin}:", f'.incbin "{path.absolute()}"', f"{end}:"]
    lines += ['.section .note.GNU-stack, "", %progbits', ""]
    output.write_text("\n".join(lines))
    drop_old(pathlib.Path(json.loads(toolchain.read_text())["cache"]))


def task_embed(arguments: argparse.Namespace) -> None:
    """One assembler file that holds all fatbins as read-only data."""
    embed(arguments.images, ".rodata.attn_cuda", arguments.output, arguments.toolchain)


def drop_old(cache: pathlib.Path) -> None:
    oldest = time.time() - CACHE_DAYS * 86400
    for path in (*cache.glob("*"), *cache.glob("direct/*")):
        try:
            if path.is_file() and path.stat().st_mtime < oldest:
                path.unlink()
        except FileNotFoundError:
            pass  # another build was quicker


Task = Callable[[argparse.Namespace], None]


def run_tasks(doc: Optional[str], find: Task, configure: Task, compiler: str, compile_: Task,
              embed_: Task, *more: str, example: str) -> None:
    """The command line of this program and of hip_kernels.py. `compiler`: the option that names it;
    `more`: further options of configure."""
    parser = argparse.ArgumentParser(description=doc,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(required=True, metavar="TASK")

    def add(function: Task, *options: tuple[str, type]) -> argparse.ArgumentParser:
        task = tasks.add_parser(function.__name__.removeprefix("task_"), help=function.__doc__,
                                description=function.__doc__)
        task.set_defaults(function=function)
        for name, kind in options:
            task.add_argument(f"--{name}", type=kind, required=True)
        return task

    path = pathlib.Path
    add(find, ("build", path))
    add(configure, ("root", path), ("build", path), (compiler, str),
        *((name, str) for name in more)).add_argument("tables", nargs="*",
                                                      help=f"such as {example}")
    add(compile_, ("root", path), ("toolchain", path), ("version", str), ("table", str),
        ("entry", str), ("output", path), ("report", path), ("depfile", path))
    add(embed_, ("toolchain", path), ("output", path)).add_argument("images", nargs="*", type=path)
    arguments = parser.parse_args()
    arguments.function(arguments)


def main() -> None:
    run_tasks(__doc__, task_find, task_configure, "nvcc", task_compile, task_embed,
              example="kernels/cuda/sm80/sdpa/forward.toml")


if __name__ == "__main__":
    main()
