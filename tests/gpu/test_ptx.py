"""The thin layer over PTX, kernels/cuda/common: each wrapper in a small kernel of its own (sm90a/ptx),
beside a plain computation."""

import ctypes
import itertools
import os
import pathlib
import sys

import torch

from tests.gpu.harness import main, test

FOLDER = pathlib.Path(os.environ.get("ATTN_TEST_KERNELS", "build/release/tests/gpu"))
if torch.cuda.get_device_capability() != (9, 0):
    print("NOT RUN: these kernels are for compute capability 9.0")
    sys.exit(0)
torch.zeros(1, device="cuda")
DRIVER = ctypes.CDLL("libcuda.so.1")
WIDTHS = (64, 80, 96, 112, 128, 144, 160, 176, 192, 256)
KINDS = {"fp16": torch.float16, "bf16": torch.bfloat16}


def ok(status, what):
    assert status == 0, f"{what} gives CUDA error {status}"


class Image:
    """A fatbin of test kernels."""

    def __init__(self, name):
        path = FOLDER / f"attn_ptx_{name}.fatbin"
        assert path.exists(), f"there is no {path}: build it, or pack it with ./dev pack"
        self.module = ctypes.c_void_p()
        ok(DRIVER.cuModuleLoadData(ctypes.byref(self.module), path.read_bytes()), f"loading {path}")

    def launch(self, name, *arguments, grid=1, threads=128, smem=0):
        """Tensors go as their addresses, numbers as 32-bit ones, others as they are."""
        function = ctypes.c_void_p()
        ok(DRIVER.cuModuleGetFunction(ctypes.byref(function), self.module, name.encode()), name)
        if smem > 48 * 1024:
            most_dynamic = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            ok(DRIVER.cuFuncSetAttribute(function, most_dynamic, smem), f"shared memory of {name}")
        held = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else
                ctypes.c_int32(a) if isinstance(a, int) else a for a in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(a) for a in held))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        ok(DRIVER.cuLaunchKernel(function, grid, 1, 1, threads, 1, 1, smem, stream, pointers, None),
           f"launching {name}")
        ok(DRIVER.cuCtxSynchronize(), name)


def thread():
    return Image("thread_sm90a_128")


def warps():
    return Image("warps_sm90a_384")


def empty(*shape, dtype=torch.int32):
    """Of a pattern that no result has."""
    return torch.full(shape, -1, dtype=torch.int32, device="cuda").view(dtype)


def whole_numbers(*shape, dtype, most=8):
    """Whose products and sums all formats here hold exactly."""
    return torch.randint(-most, most + 1, shape, device="cuda").to(dtype)


def expect_equal(got, expected, what=""):
    assert torch.equal(got, expected), \
        f"{what}: {int((got != expected).sum())} of {got.numel()} values are wrong"


def mapped(kernel, x):
    y = empty(x.numel(), dtype=torch.float32)
    thread().launch(kernel, x, y, x.numel(), grid=-(-x.numel() // 128))
    return y.double()


@test
def exp2_fast():
    x = torch.linspace(-125.9, 127.9, 1 << 20, device="cuda")
    expected = torch.exp2(x.double())
    error = ((mapped("map_exp2", x) - expected).abs() / expected).max()
    assert error < 2**-22, f"relative error {error}"
    special = torch.tensor([-float("inf"), -127.5, -200.0, 0.0, 1.0, 128.0], device="cuda")
    expect_equal(mapped("map_exp2", special),
                 torch.tensor([0, 0, 0, 1, 2, float("inf")], device="cuda", dtype=torch.float64))


@test
def log2_fast():
    for x in (torch.linspace(0.5, 2, 1 << 20, device="cuda"),
              torch.logspace(-37, 38, 1 << 20, device="cuda")):
        gap = (mapped("map_log2", x) - torch.log2(x.double())).abs()
        # Beyond the neighbourhood of 1 the result's own rounding comes on top.
        limit = 2**-21.5 + torch.log2(x.double()).abs() * 2**-23
        assert bool((gap <= limit).all()), f"error {float((gap - limit).max())} above the limit"
    special = torch.tensor([0.0, 1.0, 8.0, float("inf")], device="cuda")
    expect_equal(mapped("map_log2", special),
                 torch.tensor([-float("inf"), 0, 3, float("inf")], device="cuda",
                              dtype=torch.float64))


@test
def reciprocal_fast():
    x = torch.logspace(-37, 37, 1 << 20, device="cuda")
    error = (mapped("map_reciprocal", x) * x.double() - 1).abs().max()
    assert error < 2**-22.5, f"relative error {error}"


@test
def elements():
    """Every 16-bit value, and rounding to nearest even of all that lies between."""
    bits = torch.arange(1 << 16, device="cuda", dtype=torch.int32)
    for name, kind in KINDS.items():
        y = empty(bits.numel(), dtype=torch.float32)
        thread().launch(f"unpack_{name}", bits, y, bits.numel(), grid=512)
        expected = bits.to(torch.int16).view(kind).float()
        nan = expected.isnan()
        expect_equal(y.isnan(), nan, f"NaNs of {name}")
        expect_equal(y[~nan], expected[~nan], f"unpacked {name}")
        x = torch.randn(2, 1 << 20, device="cuda") * torch.logspace(-12, 4, 1 << 20, device="cuda")
        finite = expected[~nan & ~expected.isinf()].sort().values.unique()
        ties = ((finite[1:].double() + finite[:-1].double()) / 2).float()
        x[0, :ties.numel()] = ties
        packed = empty(1 << 20)
        thread().launch(f"pack_{name}", x[0], x[1], packed, 1 << 20, grid=1 << 13)
        expect_equal(packed.view(torch.int16).view(1 << 20, 2).T.contiguous(),
                     x.to(kind).view(torch.int16), f"packed {name}")


@test
def shared_memory():
    x = torch.randint(0, 1 << 30, (128, 4), device="cuda", dtype=torch.int32)
    y = empty(128, 4)
    thread().launch("shared_memory", x, y)
    expect_equal(y, x.flip(0))


@test
def asynchronous_copies():
    """What is not asked for arrives as zeros."""
    x = torch.randint(0, 256, (128, 16), device="cuda", dtype=torch.uint8)
    for bytes_16, bytes_4 in itertools.product((0, 2, 8, 16), (0, 2, 4)):
        y = empty(2, 128, 4)
        thread().launch("copies", x, y, bytes_16, bytes_4)
        got = y.view(torch.uint8).view(2, 128, 16)
        expected = torch.stack([x, x])
        expected[0, :, bytes_16:] = 0
        expected[1].view(128, 4, 4)[:, :, bytes_4:] = 0
        expect_equal(got, expected, f"{bytes_16} of 16 and {bytes_4} of 4 bytes")


@test
def matrix_fragments():
    x = torch.arange(4 * 64, device="cuda", dtype=torch.int16).view(4, 8, 8)
    y = empty(3, 32, 4)
    thread().launch("matrices", x, y, threads=32)
    got = y[:2].view(torch.int16).view(2, 8, 4, 4, 2)  # [transposed][g][t][matrix][half]
    expect_equal(y[2].view(torch.int16).view(4, 8, 8), x, "stored")
    for turned in (0, 1):
        source = x.transpose(1, 2) if turned else x
        expect_equal(got[turned].permute(2, 0, 1, 3).reshape(4, 8, 8), source.contiguous(),
                     "transposed" if turned else "plain")


@test
def products_of_a_warp():
    for name, kind, k in (("fp16", torch.float16, 16), ("bf16", torch.bfloat16, 16),
                          ("tf32", torch.float32, 8)):
        a, b = whole_numbers(16, k, dtype=kind), whole_numbers(k, 8, dtype=kind)
        d = whole_numbers(16, 8, dtype=torch.float32)
        expected = (d.double() + a.double() @ b.double()).float()
        thread().launch(f"mma_{name}", a, b, d, threads=32)
        expect_equal(d, expected, name)


@test
def products_of_a_warpgroup():
    """Every width, both element types, and operands in rows, columns and registers."""
    wrong = []
    for name, kind in KINDS.items():
        image = Image(f"wgmma_sm90a_{name}")
        for n, left, right in itertools.product(WIDTHS, ("rows", "columns", "registers"),
                                                ("rows", "columns")):
            a, b = whole_numbers(64, 128, dtype=kind), whole_numbers(128, n, dtype=kind)
            product = a.double() @ b.double()
            for first in (0, 1):
                d = whole_numbers(64, n, dtype=torch.float32)
                expected = (product + (d.double() if first else 0)).float()
                columns = -(-n // 64) * 64
                image.launch(f"wgmma_{n}_{left}_{right}", a, b, d, first,
                             smem=(64 + columns) * 128 * 2)
                if not torch.equal(d, expected):
                    wrong.append(f"{name} n {n} {left} by {right}, first {first}")
    assert not wrong, f"{len(wrong)} are wrong: {'; '.join(wrong[:8])}"


@test
def barriers():
    for rounds in (1, 2, 5, 1000):
        sums = empty(384)
        warps().launch("ring", sums, rounds, threads=384)
        expected = 0
        for i in range(rounds):
            expected = (expected * 3 + i * i + 1) % 2**32
        got = [value % 2**32 for value in sums.tolist()]
        assert got == [0] * 32 + [expected] * 352, f"{rounds} rounds"


@test
def named_barriers():
    order = empty(3 * 500)
    warps().launch("turns", order, 500, threads=384)
    expect_equal(order, torch.arange(1500, device="cuda", dtype=torch.int32) % 3)


@test
def registers_that_move():
    x = torch.randint(0, 1 << 30, (200, 384), device="cuda", dtype=torch.int32)
    y = empty(200, 384)
    warps().launch("registers", x, y, 5, threads=384)
    expected = x[:, 128:].long()
    for _ in range(5):
        expected = (expected * 3 + expected.roll(-1, 0)) % 2**32
    expect_equal(y[:, 128:].long() % 2**32, expected)
    expect_equal(y[0, :128], x[0, :128] + 1)


def tensor_map(tensor, extents, strides, box):
    """The map, and the memory that it lies in. Dimensions from the contiguous one on; strides, in
    elements, are of the others."""
    memory = (ctypes.c_char * 256)()
    address = -(-ctypes.addressof(memory) // 128) * 128
    rank = len(extents)
    uint64s, uint32s = ctypes.c_uint64 * rank, ctypes.c_uint32 * rank
    code = {torch.float16: 6, torch.bfloat16: 9}[tensor.dtype]
    # No interleaving, a swizzle of 128 bytes, L2 promotion of 256, zeros beyond the tensor.
    ok(DRIVER.cuTensorMapEncodeTiled(
        ctypes.c_void_p(address), code, rank, ctypes.c_void_p(tensor.data_ptr()), uint64s(*extents),
        uint64s(*(stride * 2 for stride in strides)), uint32s(*box), uint32s(*[1] * rank), 0, 3, 3,
        0), "cuTensorMapEncodeTiled")
    return (ctypes.c_char * 128).from_address(address), memory


def load_boxes(map_, places, kind, rows):
    """Boxes of rows of 128 bytes, without the swizzle: 16-byte chunk c of row r lies at c ^ r % 8, as
    `place` in wgmma.cu has it."""
    out = empty(len(places), rows * 32)
    warps().launch("boxes", map_, torch.tensor(places, dtype=torch.int32, device="cuda"),
                   len(places), out, rows * 128, len(places[0]), threads=384, smem=rows * 128)
    turned = torch.arange(8, device="cuda") ^ (torch.arange(rows, device="cuda") % 8)[:, None]
    got = out.view(kind).view(-1, rows, 8, 8)
    return torch.gather(got, 2, turned[None, :, :, None].expand(got.shape)).view(-1, rows, 64)


@test
def copy_engine():
    """Boxes inside, across each border and outside."""
    outers, heads, tokens, columns = 3, 2, 300, 96
    for kind, rows in itertools.product(KINDS.values(), (8, 16, 64, 128, 176)):
        x = torch.randn(outers, tokens, heads, columns, device="cuda").to(kind).transpose(1, 2)
        places = [(c, r, h, o) for c in (0, 64) for r in (0, 3, 290, -5, 400)
                  for h, o in ((0, 0), (1, 2), (0, -1), (2, 1))]
        map_, memory = tensor_map(x, x.shape[::-1], x.stride()[2::-1], (64, rows, 1, 1))
        padded = torch.zeros(outers + 2, heads + 1, 1024, 128, device="cuda", dtype=kind)
        padded[1:-1, :heads, 256:256 + tokens, :columns] = x
        for (c, r, h, o), got in zip(places, load_boxes(map_, places, kind, rows)):
            box = padded[o + 1, h, 256 + r:256 + r + rows, c:c + 64]
            expect_equal(got, box, f"{rows} rows at {(c, r, h, o)}")
        del memory


@test
def copy_engine_of_groups():
    """Groups of eight tokens with all columns, two blocks of 64: a box of five dimensions."""
    tokens, heads = 320, 3
    for kind, groups in itertools.product(KINDS.values(), (1, 2, 8)):
        x = torch.randn(tokens, heads, 128, device="cuda").to(kind)
        step = heads * 128
        map_, memory = tensor_map(x, (64, 8, 2, tokens // 8, heads), (step, 64, 8 * step, 128),
                                  (64, 8, 2, groups, 1))
        places = [(0, 0, 0, g, h) for g in (0, 5, -1, 39, 60) for h in (0, 2)]
        padded = torch.zeros(128, heads, 8, 2, 64, device="cuda", dtype=kind)
        padded[16:16 + tokens // 8] = x.view(tokens // 8, 8, heads, 2, 64).transpose(1, 2)
        for (_, _, _, g, h), got in zip(places, load_boxes(map_, places, kind, groups * 16)):
            box = padded[16 + g:16 + g + groups, h].transpose(1, 2).reshape(-1, 64)
            expect_equal(got, box, f"{groups} groups at {(g, h)}")
        del memory


if __name__ == "__main__":
    main()
