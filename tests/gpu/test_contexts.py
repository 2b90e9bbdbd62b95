"""Contexts of the driver that are not the primary one, and kernels that nobody loaded beforehand."""

import ctypes

import torch
from attn import lowlevel as c

from tests.bench.gpu_problem import Attention, Library, Shape
from tests.gpu.harness import expect_close, main, random, test, truth

torch.zeros(1, device="cuda")
LIBRARY = Library(torch, "cuda")
DRIVER = ctypes.CDLL("libcuda.so.1")


def inputs(shape):
    return (random((shape.batch, shape.seqlen_q, shape.q_heads, shape.head_dim)),
            random((shape.batch, shape.seqlen_k, shape.kv_heads, shape.head_dim)),
            random((shape.batch, shape.seqlen_k, shape.kv_heads, shape.head_dim)))


def expect_ok(status, what):
    assert status == 0, f"{what} gives CUDA error {status}"


def current():
    context = ctypes.c_void_p()
    expect_ok(DRIVER.cuCtxGetCurrent(ctypes.byref(context)), "cuCtxGetCurrent")
    return context.value


@test
def first_execute_inside_a_capture():
    """Without prepare: the kernel is loaded in the middle of the capture."""
    shape = Shape(1, 70, 90, 2, 2, 256, causal=True)
    q, k, v = inputs(shape)
    problem = Attention(LIBRARY, shape, q, k, v, prepare=False)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        problem.execute()
    graph.replay()
    expect_close(problem.out, truth(q, k, v, causal=True))


@test
def first_execute_without_prepare():
    shape = Shape(1, 70, 90, 2, 2, 192, causal=True)
    q, k, v = inputs(shape)
    problem = Attention(LIBRARY, shape, q, k, v, prepare=False)
    problem.execute()
    expect_close(problem.out, truth(q, k, v, causal=True))


@test
def another_context_is_current():
    """The call works on the primary context and leaves the caller's own one current."""
    shape = Shape(1, 70, 90, 2, 2, 64)
    q, k, v = inputs(shape)
    problem = Attention(LIBRARY, shape, q, k, v)
    problem.out.fill_(float("nan"))
    torch.cuda.synchronize()
    stream = LIBRARY.stream()
    own = ctypes.c_void_p()
    expect_ok(DRIVER.cuCtxCreate_v2(ctypes.byref(own), 0, 0), "cuCtxCreate")
    try:
        assert current() == own.value
        error = problem.execute_on(stream)
        assert error is None, error
        assert current() == own.value, "the caller's context is not current any more"
        plan, record = ctypes.POINTER(c.attn_plan)(), c.attn_error()
        assert c.attn_sdpa_plan_create(LIBRARY.context, problem.desc, None, plan, record) == 0
        assert c.attn_plan_prepare(plan, record) == 0
        c.attn_plan_destroy(plan)
        assert current() == own.value, "plans changed the current context"
    finally:
        DRIVER.cuCtxDestroy_v2(own)
    torch.cuda.set_device(0)
    torch.cuda.synchronize()
    expect_close(problem.out, truth(q, k, v))


@test
def no_context_is_current():
    shape = Shape(1, 70, 90, 2, 2, 64)
    q, k, v = inputs(shape)
    problem = Attention(LIBRARY, shape, q, k, v)
    problem.out.fill_(float("nan"))
    torch.cuda.synchronize()
    stream, before = LIBRARY.stream(), current()
    expect_ok(DRIVER.cuCtxSetCurrent(None), "cuCtxSetCurrent")
    try:
        error = problem.execute_on(stream)
        assert error is None, error
        assert current() is None, "a context is current after the call"
    finally:
        DRIVER.cuCtxSetCurrent(ctypes.c_void_p(before))
    torch.cuda.synchronize()
    expect_close(problem.out, truth(q, k, v))


if __name__ == "__main__":
    main()
