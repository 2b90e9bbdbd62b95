"""Tuning on real buffers: what it picks is the fastest candidate, stays picked through its text, and
computes the same."""

import ctypes

import torch
from attn import lowlevel as c

from tests.bench.gpu_problem import Attention, Library, Shape, check
from tests.gpu.harness import expect_close, main, random, test, truth

torch.zeros(1, device="cuda")
LIBRARY = Library(torch, "cuda")


def tensors(shape):
    return (random((shape.batch, shape.seqlen_q, shape.q_heads, shape.head_dim)),
            random((shape.batch, shape.seqlen_k, shape.kv_heads, shape.head_dim)),
            random((shape.batch, shape.seqlen_k, shape.kv_heads, shape.head_dim)))


def implementation_of(plan):
    info = c.attn_plan_info()
    check(c.attn_plan_query(plan, info, None), None)
    return info.implementation.decode()


@test
def tiles_are_candidates():
    """On Hopper, head dims of 64 and 256 have two tiles, that of the estimate and another."""
    expected = 2 if torch.cuda.get_device_capability() == (9, 0) else 0
    for head_dim in (64, 256):
        shape = Shape(1, 300, 300, 2, 2, head_dim)
        q, k, v = tensors(shape)
        names = Attention(LIBRARY, shape, q, k, v).implementations()
        hopper = [name for name in names if "/sm90a" in name]
        assert len(hopper) == expected, names
        for name in hopper:
            problem = Attention(LIBRARY, shape, q, k, v, implementation=name)
            assert problem.implementation == name
            expect_close(problem.out, truth(q, k, v))


@test
def tuned_plan():
    shape = Shape(2, 512, 512, 4, 4, 64, causal=True)
    q, k, v = tensors(shape)
    problem = Attention(LIBRARY, shape, q, k, v)
    size = int(problem.info.tune_workspace_bytes)
    workspace = torch.empty(size + 256, dtype=torch.uint8, device="cuda")
    address = -(-workspace.data_ptr() // 256) * 256
    tuned, error = ctypes.POINTER(c.attn_plan)(), c.attn_error()
    problem.out.fill_(float("nan"))
    check(c.attn_sdpa_plan_tune(problem.plan, problem.args, None, address, size, LIBRARY.stream(),
                                tuned, error), error)
    torch.cuda.synchronize()
    expect_close(problem.out, truth(q, k, v, causal=True))
    picked = implementation_of(tuned)
    assert picked in problem.implementations()
    length = ctypes.c_size_t()
    check(c.attn_plan_export(tuned, None, 0, length, error), error)
    text = ctypes.create_string_buffer(length.value + 1)
    check(c.attn_plan_export(tuned, text, length.value + 1, length, error), error)
    again = ctypes.POINTER(c.attn_plan)()
    options = c.attn_plan_options(tuning=text.value)
    check(c.attn_sdpa_plan_create(LIBRARY.context, problem.desc, options, again, error), error)
    assert implementation_of(again) == picked, text.value
    print(f"picked {picked}: {text.value.decode().strip()}")
    c.attn_plan_destroy(tuned)
    c.attn_plan_destroy(again)


if __name__ == "__main__":
    main()
