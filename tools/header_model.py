#!/usr/bin/env python3
"""Reads the public C headers and prints what they declare, as JSON.

One model serves everything that must agree with the headers: the ctypes signatures of the Python
binding, the layout tests of every language, the ABI gate and the reference pages.

The output is one object:

  abi        {version, version_major, version_minor, version_patch,
              abi_major, abi_minor, abi_version}
  constants  [{name, value, type, doc, group, header}]       #define NAME <integer expression>
  enums      [{name, doc, header, values: [{name, value, doc}]}]
  structs    [{name, doc, header, opaque, size, align,
               fields: [{name, type, offset, size, array, doc, group}]}]
  functions  [{name, doc, header, returns, params: [{name, type}]}]
  typedefs   [{name, type, doc, header, returns, params}]    returns and params: null unless it
                                                             is a pointer to a function
  initializers [{name, header}]                              #define NAME { ... }

Types are spelled as in the header ("const attn_sdpa_desc *", "int32_t"). An array field has its
element's type, and its extent in `array`; `array` is null for others. An opaque struct has size
and align null. Offsets, sizes and alignments are in bytes, for the target of --target (all 64-bit
targets agree: the headers use fixed-width types). Order is that of the headers.

`doc` is the comment in front of a declaration or behind it on the same line. If there are both,
the one behind is `doc` and the one in front, which then speaks for the lines that follow too, is
`group`.

Needs: the PyPI package libclang. No system header is read.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import Any

from clang import cindex

# The headers may include these two and nothing else. Ours stand in for the system's, so that the
# model does not depend on the machine and the fixed-width names survive in the spelling of types.
STDDEF = """
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
#define NULL ((void *)0)
"""
STDINT = "".join(
    f"typedef __{'U' if u else ''}INT{bits}_TYPE__ {u}int{bits}_t;\n"
    for bits in (8, 16, 32, 64)
    for u in ("", "u")
) + """
typedef __INTPTR_TYPE__ intptr_t;
typedef __UINTPTR_TYPE__ uintptr_t;
#define INT64_C(c) c##LL
#define UINT64_C(c) c##ULL
#define INT32_C(c) c
#define UINT32_C(c) c##U
"""

Kind = cindex.CursorKind


class ModelError(Exception):
    """The headers hold something that the model cannot express."""


def comment_text(spelling: str) -> str:
    """The words of a comment, without its stars, line continuations and indentation."""
    body = spelling[2:]
    if spelling.startswith("/*"):
        body = body[:-2]
    lines = []
    for line in body.splitlines():
        line = line.rstrip().removesuffix("\\").rstrip()
        stripped = line.strip()
        if stripped == "*":
            stripped = ""
        elif stripped.startswith("* "):
            # Keep the indentation behind the star: it shapes lists and formulas.
            stripped = line.split("* ", 1)[1]
        lines.append(stripped.rstrip())
    while lines and not lines[0]:
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines)


class Comments:
    """The comments of one header, by the line where a declaration looks for them."""

    def __init__(self, tu: cindex.TranslationUnit, path: str) -> None:
        file = cindex.File.from_name(tu, path)
        size = len(pathlib.Path(path).read_bytes())
        whole = cindex.SourceRange.from_locations(
            cindex.SourceLocation.from_offset(tu, file, 0),
            cindex.SourceLocation.from_offset(tu, file, size),
        )
        self.before: dict[int, str] = {}  # last line of the comment -> words
        self.behind: dict[int, list[tuple[int, str]]] = {}  # first line -> (column, words)
        code_line = 0
        for token in tu.get_tokens(extent=whole):
            start, end = token.extent.start, token.extent.end
            if token.kind != cindex.TokenKind.COMMENT:
                code_line = end.line
                continue
            words = comment_text(token.spelling)
            if code_line == start.line:
                self.behind.setdefault(start.line, []).append((start.column, words))
            else:
                self.before[end.line] = words

    def of(self, extent: cindex.SourceRange) -> tuple[str, str]:
        """(doc, group) of the declaration at `extent`."""
        before = self.before.get(extent.start.line - 1, "")
        trailing = [w for column, w in self.behind.get(extent.end.line, [])]
        if trailing:
            return trailing[-1], before
        return before, ""


def spell(type_: cindex.Type) -> str:
    return str(type_.spelling).replace("struct ", "").replace("enum ", "")


def parse(folder: pathlib.Path, extra: str, target: str) -> tuple[cindex.TranslationUnit, str]:
    """Parses all headers of `folder` as one C99 file that ends with `extra`."""
    main = str(folder / "__model__.c")
    names = sorted(p.name for p in folder.glob("*.h"))
    if not names:
        raise ModelError(f"no header in {folder}")
    builtin = folder / "__builtin__"
    text = "".join(f'#include "{n}"\n' for n in names) + extra
    tu = cindex.Index.create().parse(
        main,
        args=["-xc", "-std=c99", f"--target={target}", "-nostdinc", f"-isystem{builtin}"],
        unsaved_files=[
            (main, text),
            (str(builtin / "stddef.h"), STDDEF),
            (str(builtin / "stdint.h"), STDINT),
        ],
        options=cindex.TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD,
    )
    errors = [str(d) for d in tu.diagnostics if d.severity >= cindex.Diagnostic.Error]
    if errors:
        raise ModelError("\n".join(errors))
    return tu, main


def field_model(cursor: cindex.Cursor, parent: cindex.Type, comments: Comments) -> dict[str, Any]:
    doc, group = comments.of(cursor.extent)
    type_ = cursor.type
    array = None
    if type_.kind == cindex.TypeKind.CONSTANTARRAY:
        array = type_.element_count
        element = type_.element_type
        if element.kind == cindex.TypeKind.CONSTANTARRAY:
            raise ModelError(f"{cursor.spelling}: arrays of arrays are not supported")
    else:
        element = type_
    if cursor.is_bitfield():
        raise ModelError(f"{cursor.spelling}: bit-fields are not supported")
    return {
        "name": cursor.spelling,
        "type": spell(element),
        "offset": parent.get_offset(cursor.spelling) // 8,
        "size": type_.get_size(),
        "array": array,
        "doc": doc,
        "group": group,
    }


def params_model(cursor: cindex.Cursor) -> list[dict[str, str]]:
    return [
        {"name": c.spelling, "type": spell(c.type)}
        for c in cursor.get_children()
        if c.kind == Kind.PARM_DECL
    ]


def integer_type(type_: cindex.Type) -> str:
    canonical = type_.get_canonical()
    unsigned = "unsigned" in canonical.spelling
    return f"{'u' if unsigned else ''}int{canonical.get_size() * 8}_t"


def evaluate(folder: pathlib.Path, names: list[str], target: str) -> dict[str, tuple[int, str]]:
    """The value and the type of each macro, as the compiler sees them."""
    probe = "".join(
        f"enum {{ value_{n} = ({n}) }};\nstatic __typeof__({n}) type_{n};\n" for n in names
    )
    tu, main = parse(folder, probe, target)
    values: dict[str, int] = {}
    types: dict[str, str] = {}
    for cursor in tu.cursor.get_children():
        if str(cursor.location.file) != main:
            continue
        if cursor.kind == Kind.ENUM_DECL:
            for c in cursor.get_children():
                values[c.spelling.removeprefix("value_")] = c.enum_value
        elif cursor.kind == Kind.VAR_DECL:
            types[cursor.spelling.removeprefix("type_")] = integer_type(cursor.type)
    return {n: (values[n], types[n]) for n in names}


def build(folder: pathlib.Path, target: str = "x86_64-unknown-linux-gnu") -> dict[str, Any]:
    """The model of the headers in `folder`, as the module's text describes it."""
    folder = folder.resolve()
    tu, _ = parse(folder, "", target)
    paths = {str(p): p.name for p in folder.glob("*.h")}
    comments = {path: Comments(tu, path) for path in paths}

    enums: list[dict[str, Any]] = []
    structs: dict[str, dict[str, Any]] = {}
    functions: list[dict[str, Any]] = []
    typedefs: list[dict[str, Any]] = []
    macros: list[dict[str, Any]] = []
    initializers: list[dict[str, Any]] = []

    for cursor in tu.cursor.get_children():
        path = str(cursor.location.file)
        if path not in paths:
            continue
        header = paths[path]
        doc, group = comments[path].of(cursor.extent)
        name = cursor.spelling
        if cursor.kind == Kind.MACRO_DEFINITION:
            tokens = [t.spelling for t in cursor.get_tokens()][1:]
            if not tokens or tokens[0] == "__attribute__":
                continue  # an include guard, or the export macro
            if tokens[0] == "{":
                initializers.append({"name": name, "header": header})
                continue
            macros.append(
                {"name": name, "value": None, "type": None, "doc": doc, "group": group,
                 "header": header}
            )
        elif cursor.kind == Kind.ENUM_DECL:
            values = [
                {"name": c.spelling, "value": c.enum_value,
                 "doc": comments[path].of(c.extent)[0]}
                for c in cursor.get_children()
            ]
            enums.append({"name": name, "doc": doc, "header": header, "values": values})
        elif cursor.kind == Kind.STRUCT_DECL:
            if not cursor.is_definition():
                structs.setdefault(
                    name,
                    {"name": name, "doc": doc, "header": header, "opaque": True, "size": None,
                     "align": None, "fields": []},
                )
                continue
            fields = [
                field_model(c, cursor.type, comments[path])
                for c in cursor.get_children()
                if c.kind == Kind.FIELD_DECL
            ]
            structs[name] = {
                "name": name, "doc": doc, "header": header, "opaque": False,
                "size": cursor.type.get_size(), "align": cursor.type.get_align(),
                "fields": fields,
            }
        elif cursor.kind == Kind.FUNCTION_DECL:
            functions.append(
                {"name": name, "doc": doc, "header": header,
                 "returns": spell(cursor.result_type), "params": params_model(cursor)}
            )
        elif cursor.kind == Kind.TYPEDEF_DECL:
            type_ = cursor.underlying_typedef_type
            if spell(type_) == name:
                continue  # typedef struct x x: already there
            pointee = type_.get_pointee()
            is_function = pointee.kind in (
                cindex.TypeKind.FUNCTIONPROTO, cindex.TypeKind.FUNCTIONNOPROTO,
            )
            typedefs.append(
                {"name": name, "type": spell(type_), "doc": doc, "header": header,
                 "returns": spell(pointee.get_result()) if is_function else None,
                 "params": params_model(cursor) if is_function else None}
            )

    values = evaluate(folder, [m["name"] for m in macros], target)
    for macro in macros:
        macro["value"], macro["type"] = values[macro["name"]]

    def value(name: str) -> int | None:
        return values[name][0] if name in values else None

    version = [value(f"ATTN_VERSION_{part}") for part in ("MAJOR", "MINOR", "PATCH")]
    return {
        "abi": {
            "version": ".".join(str(v) for v in version),
            "version_major": version[0],
            "version_minor": version[1],
            "version_patch": version[2],
            "abi_major": value("ATTN_ABI_MAJOR"),
            "abi_minor": value("ATTN_ABI_MINOR"),
            "abi_version": value("ATTN_ABI_VERSION"),
        },
        "constants": macros,
        "enums": enums,
        "structs": list(structs.values()),
        "functions": functions,
        "typedefs": typedefs,
        "initializers": initializers,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = pathlib.Path(__file__).resolve().parent.parent / "include" / "attn"
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=default,
                        help="the folder of the headers (default: include/attn)")
    parser.add_argument("--target", default="x86_64-unknown-linux-gnu",
                        help="clang target triple whose layouts are reported (default: %(default)s)")
    parser.add_argument("--output", "-o", type=pathlib.Path,
                        help="write there instead of to standard output")
    args = parser.parse_args()
    try:
        text = json.dumps(build(args.folder, args.target), indent=1) + "\n"
    except ModelError as error:
        print(f"header_model: {error}", file=sys.stderr)
        return 1
    if args.output:
        args.output.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
