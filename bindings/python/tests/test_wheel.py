"""The wheel: its name, what is in it, and that it works by itself. The first run compiles the
library once more (a minute or two); later ones what changed, in build/wheel."""

import os
import pathlib
import subprocess
import sys
import zipfile

import attn
import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    bin_folder = pathlib.Path(sys.executable).parent  # meson and ninja
    env = dict(os.environ, PATH=f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    env.pop("PYTHONPATH", None)
    env.setdefault("ATTN_CUDA_CACHE", str(ROOT / "build" / "cuda-cache"))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--quiet",
         "--config-settings", f"build-dir={ROOT / 'build' / 'wheel'}", "--wheel-dir", folder, ROOT],
        check=True, env=env)
    (path,) = folder.iterdir()
    return path


def test_name_and_contents(wheel):
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, version, python, abi) == ("attn", attn.__version__, "py3", "none")
    assert platform != "any"
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        metadata = archive.read(f"attn-{version}.dist-info/WHEEL").decode()
    assert f"Tag: py3-none-{platform}" in metadata and "Root-Is-Purelib: false" in metadata
    package = {n for n in names if n.startswith("attn/")}
    source = {f"attn/{p.name}" for p in (ROOT / "bindings/python/attn").iterdir()
              if p.suffix == ".py" or p.name == "py.typed"}
    libraries = {n for n in package if "libattn" in n}
    assert package == source | libraries | {"attn/_ffi.py"}
    assert len(libraries) == 1


def test_it_works_by_itself(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target",
                    tmp_path, wheel], check=True)
    env = dict(os.environ, PYTHONPATH=str(tmp_path))
    env.pop("ATTN_LIBRARY", None)
    env.pop("LD_LIBRARY_PATH", None)
    where = subprocess.run(
        [sys.executable, "-c", "import attn; print(attn.lowlevel.LIBRARY_PATH)"],
        check=True, env=env, capture_output=True, text=True, cwd=tmp_path).stdout.strip()
    assert pathlib.Path(where).parent == tmp_path / "attn"
    subprocess.run([sys.executable, ROOT / "examples/python/attention.py"], check=True, env=env,
                   cwd=tmp_path)
