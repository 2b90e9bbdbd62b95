"""Reference pages from the header model: one Markdown file a header, and the same as HTML."""

from __future__ import annotations

import html
import pathlib
import re
from typing import Any

from tools.capi import ROOT

ORDER = ["sdpa.h", "merge.h", "plan.h", "context.h", "types.h", "status.h", "version.h"]


def undocumented(model: dict[str, Any]) -> list[str]:
    """Public names that no comment speaks for. A comment in front of a line speaks for the lines
    after it up to the next blank line or comment (`group`)."""
    missing = []
    headers = {path.name: path.read_text() for path in (ROOT / "include/attn").glob("*.h")}
    for kind in ("constants", "enums", "structs", "functions", "typedefs"):
        for item in model[kind]:
            name = item["name"]
            if not item.get("doc") and not item.get("group") \
                    and not (kind == "constants" and continues(headers[item["header"]], name)):
                missing.append(f"{item['header']}: {name}")
            for part in [*item.get("fields", []), *item.get("values", [])]:
                if not part.get("doc") and not part.get("group"):
                    missing.append(f"{item['header']}: {name}.{part['name']}")
    return missing


def continues(text: str, name: str) -> bool:
    """Whether `#define name` follows a #define in a block that begins with a comment."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(rf"#define {name}\b", line))
    while at > 0 and lines[at - 1].startswith("#define"):
        at -= 1
    return at > 0 and lines[at - 1].rstrip().endswith("*/")


def intro(header: str) -> str:
    """The comment at the head of a header."""
    text = (ROOT / "include/attn" / header).read_text()
    match = re.match(r"/\*(.*?)\*/", text, re.S)
    return clean(match.group(1)) if match else ""


def clean(comment: str) -> str:
    lines = [re.sub(r"^\s*\* ?", "", line) for line in comment.strip().splitlines()]
    return "\n".join(line.rstrip() for line in lines)


def prose(text: str) -> str:
    """Comment text as Markdown: indented lines are code; the rest is kept plain."""
    out = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines and all(line.startswith("  ") for line in lines):
            out.append("```\n" + block + "\n```")
        else:
            out.append(escape(block))
    return "\n\n".join(out)


def escape(text: str) -> str:
    """Comment text as Markdown that shows it as it is, code spans left alone."""
    parts = re.split(r"(`[^`]*`)", text)
    # An underscore within a word means nothing to Markdown.
    special = r"([\\*<>|\[\]]|(?<!\w)_|_(?!\w))"
    parts[::2] = [re.sub(special, r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def table_cell(text: str) -> str:
    return escape(" ".join(text.split()))


def signature(function: dict[str, Any]) -> str:
    """In C, one parameter a line where it is long."""
    params = [f"{p['type']}{'' if p['type'].endswith('*') else ' '}{p['name']}"
              for p in function["params"]] or ["void"]
    space = "" if function["returns"].endswith("*") else " "
    head = f"{function['returns']}{space}{function['name']}("
    line = head + ", ".join(params) + ");"
    return line if len(line) <= 96 else head + "\n    " + ",\n    ".join(params) + ");"


def described(part: dict[str, Any]) -> str:
    return " ".join(text for text in (part.get("doc"), part.get("group")) if text)


def page(model: dict[str, Any], header: str) -> str:
    def of(kind: str) -> list[dict[str, Any]]:
        return [item for item in model[kind] if item["header"] == header]

    out = [f"# attn/{header}", "", prose(intro(header)), ""]
    if of("functions"):
        out += ["## Functions", ""]
    for function in of("functions"):
        out += [f"### {function['name']}", "", f"```c\n{signature(function)}\n```", "",
                prose(function["doc"]), ""]
    if of("structs"):
        out += ["## Structs", ""]
    for struct in of("structs"):
        out += [f"### {struct['name']}", "", prose(struct["doc"] or ""), ""]
        if struct["opaque"]:
            out += ["Opaque.", ""]
            continue
        out += [f"{struct['size']} bytes, aligned to {struct['align']}.", "",
                "| Offset | Field | Type | |", "|---|---|---|---|"]
        for field in struct["fields"]:
            extent = f"[{field['array']}]" if field["array"] else ""
            kind = escape(field["type"] + extent)
            out.append(f"| {field['offset']} | `{field['name']}` | {kind} "
                       f"| {table_cell(described(field))} |")
        out.append("")
    if of("enums"):
        out += ["## Enums", ""]
    for enum in of("enums"):
        out += [f"### {enum['name']}", "", prose(enum["doc"] or ""), "", "| Value | Name | |",
                "|---|---|---|"]
        for value in enum["values"]:
            out.append(f"| {value['value']} | `{value['name']}` | {table_cell(value['doc'])} |")
        out.append("")
    if of("typedefs"):
        out += ["## Types", ""]
    for typedef in of("typedefs"):
        out += [f"### {typedef['name']}", "", f"```c\n{typedef['type']}\n```", "",
                prose(typedef["doc"] or ""), ""]
    if of("constants"):
        out += ["## Constants", "", "| Name | Value | |", "|---|---|---|"]
        for constant in of("constants"):
            out.append(f"| `{constant['name']}` | {constant['value']} "
                       f"| {table_cell(described(constant))} |")
        out.append("")
    return "\n".join(out)


def index(model: dict[str, Any]) -> str:
    out = [f"# libattn {model['abi']['version']}: reference", "",
           f"ABI {model['abi']['abi_major']}.{model['abi']['abi_minor']}. "
           "Generated from the headers in include/attn.", ""]
    for header in ORDER:
        out += [f"## [attn/{header}]({header.removesuffix('.h')}.md)", ""]
        for function in model["functions"]:
            if function["header"] == header:
                first = re.split(r"(?<=\.)\s", function["doc"], maxsplit=1)[0]
                out.append(f"- `{function['name']}`: {table_cell(first)}")
        out.append("")
    return "\n".join(out)


STYLE = """body{max-width:60rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{background:#f4f5f7;padding:.7rem;overflow:auto}
table{border-collapse:collapse}td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem;
text-align:left;vertical-align:top}@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}
pre{background:#1c1d20}a{color:#8ab4f8}td,th{border-color:#333}}"""


def as_html(title: str, text: str) -> str:
    import markdown_it  # a CommonMark parser
    body = markdown_it.MarkdownIt("commonmark").enable("table").render(text)
    body = re.sub(r'href="(\w+)\.md"', r'href="\1.html"', body)
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width"><title>{html.escape(title)}</title>'
            f"<style>{STYLE}</style>\n{body}</html>\n")


def write(model: dict[str, Any], folder: pathlib.Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"index": index(model)}
    for header in ORDER:
        pages[header.removesuffix(".h")] = page(model, header)
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text)
        (folder / f"{name}.html").write_text(as_html(f"libattn: {name}", text))
    return len(pages)
