"""The generated module against the headers, and the loading of the library."""

import ctypes
import os
import pathlib
import subprocess
import sys

import header_model
import numpy as np
import pytest
from attn import lowlevel
from conftest import ROOT

MODEL = header_model.build(ROOT / "include" / "attn")
STRUCTS = [s for s in MODEL["structs"] if not s["opaque"]]
CC = os.environ.get("CC", "cc")


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s["name"])
def test_layout(struct):
    mine = getattr(lowlevel, struct["name"])
    assert (ctypes.sizeof(mine), ctypes.alignment(mine)) == (struct["size"], struct["align"])
    assert [f[0] for f in mine._fields_] == [f["name"] for f in struct["fields"]]
    for field in struct["fields"]:
        descriptor = getattr(mine, field["name"])
        assert (descriptor.offset, descriptor.size) == (field["offset"], field["size"])
    if struct["fields"][0]["name"] == "struct_size":
        assert mine().struct_size == struct["size"]


def test_layout_as_the_c_compiler_sees_it(tmp_path):
    lines = []
    for struct in STRUCTS:
        name = struct["name"]
        lines.append(f'  printf("{name} %zu\\n", sizeof({name}));')
        lines += [f'  printf("{name}.{f["name"]} %zu\\n", offsetof({name}, {f["name"]}));'
                  for f in struct["fields"]]
    source = tmp_path / "layout.c"
    source.write_text('#include <stdio.h>\n#include "attn/attn.h"\nint main(void) {\n'
                      + "\n".join(lines) + "\n}\n")
    program = tmp_path / "layout"
    subprocess.run([CC, f"-I{ROOT / 'include'}", source, "-o", program], check=True)
    for line in subprocess.run([program], check=True, capture_output=True,
                               text=True).stdout.splitlines():
        name, number = line.split()
        struct, _, field = name.partition(".")
        mine = getattr(lowlevel, struct)
        assert int(number) == (getattr(mine, field).offset if field else ctypes.sizeof(mine)), name


def test_constants_and_functions():
    for constant in MODEL["constants"]:
        assert getattr(lowlevel, constant["name"]) == constant["value"]
    for enum in MODEL["enums"]:
        for value in enum["values"]:
            assert getattr(lowlevel, value["name"]) == value["value"]
            assert getattr(lowlevel, enum["name"])[value["name"]] == value["value"]
    for function in MODEL["functions"]:
        mine = getattr(lowlevel, function["name"])
        assert len(mine.argtypes) == len(function["params"])
        assert lowlevel.signature(function["name"]) == tuple(p["name"] for p in function["params"])
        assert (mine.restype is None) == (function["returns"] == "void")
        assert function["name"] in lowlevel.__all__


def test_one_to_one_use():
    """The C API as a C program uses it."""
    error = lowlevel.attn_error()
    context = ctypes.POINTER(lowlevel.attn_context)()
    where = lowlevel.attn_context_desc(backend=lowlevel.ATTN_BACKEND_CPU)
    assert lowlevel.attn_context_create(where, context, error) == lowlevel.ATTN_OK
    desc = lowlevel.attn_sdpa_desc(
        q_dtype=lowlevel.ATTN_DTYPE_FP32, num_q_heads=1, head_dim_qk=4, max_batch=1,
        max_seqlen_q=1, max_seqlen_k=1, softmax_scale=0.5,
    )
    plan = ctypes.POINTER(lowlevel.attn_plan)()
    assert lowlevel.attn_sdpa_plan_create(context, desc, None, plan, error) == lowlevel.ATTN_OK
    info = lowlevel.attn_plan_info()
    assert lowlevel.attn_plan_query(plan, info, error) == lowlevel.ATTN_OK
    x = np.arange(4, dtype=np.float32)
    out = np.zeros(4, np.float32)
    shape = (ctypes.c_int64 * 4)(1, 1, 1, 4)
    args = lowlevel.attn_sdpa_args()
    for name, array in (("q", x), ("k", x), ("v", x), ("out", out)):
        status = lowlevel.attn_tensor_contiguous(
            getattr(args, name), array.ctypes.data, lowlevel.ATTN_DTYPE_FP32, 4, shape, error)
        assert status == lowlevel.ATTN_OK
    align = int(info.workspace_alignment)
    memory = ctypes.create_string_buffer(int(info.workspace_bytes) + align)
    address = -(-ctypes.addressof(memory) // align) * align
    status = lowlevel.attn_sdpa_forward(plan, args, address, info.workspace_bytes, None, error)
    assert status == lowlevel.ATTN_OK, error.message
    np.testing.assert_array_equal(out, x)
    desc.softmax_scale = 0.0
    assert lowlevel.attn_sdpa_supported(context, desc, None, error) != lowlevel.ATTN_OK
    assert error.field == b"desc.softmax_scale"
    lowlevel.attn_plan_destroy(plan)
    lowlevel.attn_context_destroy(context)
    assert lowlevel.attn_status_name(3) == b"ATTN_ERROR_VERSION"


def import_with(library):
    env = dict(os.environ, ATTN_LIBRARY=str(library))
    env.setdefault("PYTHONPATH", str(pathlib.Path(lowlevel.__file__).parents[1]))
    return subprocess.run([sys.executable, "-c", "import attn"], env=env, capture_output=True,
                          text=True)


@pytest.mark.parametrize(("source", "words"), [
    # A library of another ABI has none of today's functions: nothing else may be asked for first.
    ("unsigned attn_abi_version(void) { return 2u << 16; }", "ABI 2.0"),
    ("int something_else;", "not libattn"),
])
def test_the_abi_version_is_asked_first(tmp_path, source, words):
    (tmp_path / "fake.c").write_text(source)
    library = tmp_path / "fake.so"
    subprocess.run([CC, "-shared", "-fPIC", tmp_path / "fake.c", "-o", library], check=True)
    result = import_with(library)
    assert result.returncode != 0
    assert "ImportError" in result.stderr and words in result.stderr


def test_a_missing_library():
    result = import_with("/nonexistent/libattn.so")
    assert "ImportError" in result.stderr and "/nonexistent/libattn.so" in result.stderr


def test_importing_imports_no_framework():
    code = ("import sys, attn; bad = {'numpy', 'torch', 'jax', 'cupy', 'ml_dtypes'} & "
            "set(sys.modules); sys.exit(str(bad) if bad else 0)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mypy_strict(tmp_path):
    package = pathlib.Path(lowlevel.__file__).parent
    use = tmp_path / "use.py"
    use.write_text(
        "import attn\n"
        "plan: attn.Plan = attn.Plan.sdpa(q_dtype='fp32')\n"
        "def f(x: object) -> attn.Gradients:\n"
        "    attn.sdpa(x, x, x, is_causal=True, window=(1, 2), softcap=1.0)\n"
        "    return attn.sdpa_backward(x, x, x, x, x, x, grads=['q'])\n"
    )
    env = dict(os.environ, MYPYPATH=str(package.parent))
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", tmp_path,
         "--config-file", os.devnull, package, use],
        env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    use.write_text("import attn\nattn.sdpa(1, 2, 3, is_casual=True)\n")
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path, "--config-file",
         os.devnull, use], env=env, capture_output=True, text=True)
    assert "is_casual" in result.stdout
