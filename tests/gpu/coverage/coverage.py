"""Whether attn-check's table reaches every kernel that is compiled: it runs with a driver that
computes nothing and writes down what is launched."""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", type=pathlib.Path, help="attn-check")
    parser.add_argument("driver", type=pathlib.Path, help="the driver: libcuda.so.1")
    parser.add_argument("kernels", type=pathlib.Path, help="the folder with the kernels' tables")
    arguments = parser.parse_args()
    compiled = {entry for table in sorted(arguments.kernels.rglob("*_table.inc"))
                for entry in re.findall(r"ATTN_VARIANT\((\w+)", table.read_text())}
    with tempfile.TemporaryDirectory() as folder:
        listing = pathlib.Path(folder) / "launched"
        done = subprocess.run(
            [arguments.check, "--backend", "cuda", "--in-process", "--fresh", "0", "--seed", "1",
             "--filter", "sdpa/", "--filter", "merge/"],
            env={**os.environ, "LD_LIBRARY_PATH": str(arguments.driver.parent),
                 "ATTN_LAUNCHED": str(listing)},
            capture_output=True, text=True, check=False)
        if not listing.exists():
            print(f"attn-check ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-2000:])
            print("0 passed, 1 failed")
            return 1
        launched = set(listing.read_text().split())
    for entry in sorted(compiled - launched):
        print(f"NOT LAUNCHED by any case: {entry}")
    print(f"{len(compiled & launched)} of {len(compiled)} compiled kernels are reached")
    missing = len(compiled - launched) + (not compiled)
    print(f"{len(compiled & launched)} passed, {missing} failed")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
