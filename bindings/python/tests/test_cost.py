"""What a call costs beyond the C call: at most 15 microseconds, in the median.

Both are timed in turns, on the same arrays, with one thread. Run as a program it prints the table.
"""

import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import attn
import numpy as np
import pytest

BAR = 15.0
CONTEXT = attn.Context("cpu", num_threads=1)
X = np.ones((1, 4, 2, 16), np.float32)
ROWS = X[0]
OFFSETS = np.array([0, 4], np.int32)
BIAS = np.zeros((1, 1, 4, 4), np.float32)

CASES = {
    "plain": ((X, X, X), {}),
    "options": ((X, X, X), {"is_causal": True, "scale": 0.3, "window": (3, 4), "softcap": 2.0,
                            "return_lse": True}),
    "bias": ((X, X, X), {"bias": BIAS}),
    "strided": ((X[:, :, ::-1], X[..., ::-1], X), {}),
    "ragged": ((ROWS, ROWS, ROWS), {"cu_seqlens_q": OFFSETS, "cu_seqlens_k": OFFSETS,
                                    "max_seqlen_q": 4, "max_seqlen_k": 4}),
    "ragged, longest sequence found": ((ROWS, ROWS, ROWS), {"cu_seqlens_q": OFFSETS,
                                                            "cu_seqlens_k": OFFSETS}),
}


def measure(args, options, rounds=4000):
    """(microseconds of the Python call, of the C call alone)."""
    attn.sdpa(*args, context=CONTEXT, **options)
    call = list(CONTEXT.calls.values())[-1]
    state = call._free[-1]
    function, arguments = call._function, state.arguments
    whole, inner = [], []
    clock = time.perf_counter_ns
    kept = attn.sdpa(*args, context=CONTEXT, **options)  # what the C call writes to stays alive
    kept_by_c = [np.empty_like(part) for part in (kept if isinstance(kept, tuple) else (kept,))]
    for cell, array in zip(state.cells[-len(kept_by_c):], kept_by_c):
        cell.value = array.ctypes.data
    inputs = [cell.value for cell in state.cells]
    for _ in range(rounds):
        start = clock()
        attn.sdpa(*args, context=CONTEXT, **options)
        whole.append(clock() - start)
        for cell, value in zip(state.cells, inputs):
            cell.value = value
        start = clock()
        status = function(*arguments)
        inner.append(clock() - start)
        assert status == 0
    return statistics.median(whole) / 1e3, statistics.median(inner) / 1e3


@pytest.mark.parametrize("name", CASES)
def test_cost(name, record_property):
    CONTEXT.calls.clear()
    whole, inner = measure(*CASES[name])
    record_property("microseconds", whole - inner)
    assert whole - inner <= BAR, f"{whole:.1f} us, of it {inner:.1f} us in C"


if __name__ == "__main__":
    print(f"{'case':32} {'call':>8} {'in C':>8} {'beyond':>8}   microseconds, median")
    for case in CASES:
        CONTEXT.calls.clear()
        whole, inner = measure(*CASES[case])
        print(f"{case:32} {whole:8.2f} {inner:8.2f} {whole - inner:8.2f}")
