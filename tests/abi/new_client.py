#!/usr/bin/env python3
"""Gate: a client of the next ABI minor gets a clear version status from this library.

Makes headers that are one minor ahead, in which every struct with a struct_size has one more
member, compiles new_client.c with them and runs it on the library given.
"""

import argparse
import os
import pathlib
import re
import sys
import tempfile

import gate


def age(headers: pathlib.Path, target: pathlib.Path, sized: list[str]) -> int:
    """Writes the headers of the next minor; the number of structs that grew."""
    target.mkdir(parents=True)
    grown = 0
    for header in sorted(headers.glob("*.h")):
        text = header.read_text()
        for name in sized:
            text, n = re.subn(rf"^\}} {name};", f"  uint64_t future;\n}} {name};", text, flags=re.M)
            grown += n
        text = re.sub(r"(#define ATTN_ABI_MINOR) (\d+)", lambda m: f"{m[1]} {int(m[2]) + 1}", text)
        (target / header.name).write_text(text)
    return grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=pathlib.Path, help="the built libattn.so")
    parser.add_argument("--headers", type=pathlib.Path, default=gate.INCLUDE / "attn")
    args = parser.parse_args()
    sized = [s["name"] for s in gate.header_model(args.headers)["structs"]
             if s["fields"] and s["fields"][0]["name"] == "struct_size"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        grown = age(args.headers, folder / "include" / "attn", sized)
        if grown != len(sized):
            sys.exit(f"new client: {grown} structs grew, but {len(sized)} have a struct_size: "
                     f"{', '.join(sized)}")
        library = args.library.resolve()
        gate.must([*gate.cc(), "-std=c11", "-D_POSIX_C_SOURCE=200112L",
                   *os.environ.get("ATTN_CLIENT_CFLAGS", "").split(),
                   f"-I{folder / 'include'}", gate.HERE / "new_client.c", library, "-o",
                   folder / "client", f"-Wl,-rpath,{library.parent}"])
        result = gate.run([folder / "client"])
    print(result.stdout, end="")
    if result.returncode < 0:
        print(f"new client: it died of signal {-result.returncode}")
    return 1 if result.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
