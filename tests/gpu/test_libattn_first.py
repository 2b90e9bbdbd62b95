"""libattn makes the primary context and has kernels loaded; PyTorch comes later."""

import ctypes
import sys

from attn import lowlevel as c
from tests.gpu.harness import expect_close, main, random, test, truth


def current_context():
    driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    assert driver.cuInit(0) == 0
    assert driver.cuCtxGetCurrent(ctypes.byref(context)) == 0
    return context.value


CONTEXT = ctypes.POINTER(c.attn_context)()
PLAN = ctypes.POINTER(c.attn_plan)()


@test
def plans_before_torch():
    assert "torch" not in sys.modules
    error = c.attn_error()
    status = c.attn_context_create(c.attn_context_desc(backend=c.ATTN_BACKEND_CUDA), CONTEXT, error)
    assert status == 0, error.message
    desc = c.attn_sdpa_desc(q_dtype=c.ATTN_DTYPE_BF16, num_q_heads=4, head_dim_qk=64, max_batch=2,
                            max_seqlen_q=64, max_seqlen_k=64, softmax_scale=0.125)
    status = c.attn_sdpa_plan_create(CONTEXT, desc, None, PLAN, error)
    assert status == 0, error.message
    status = c.attn_plan_prepare(PLAN, error)
    assert status == 0, error.message


@test
def leaves_no_context_current():
    """What a library does on the way is its own affair: the thread had no context, and has none."""
    assert current_context() is None, "a context is current after plan and prepare"


@test
def torch_after_it():
    import torch

    from tests.bench.gpu_problem import Attention, Library, Shape
    assert torch.cuda.is_available()
    shape = Shape(2, 64, 64, 4, 4, 64)
    q, k, v = (random((2, 64, 4, 64)) for _ in range(3))
    library = Library(torch, "cuda")
    problem = Attention(library, shape, q, k, v)
    problem()
    expect_close(problem.out, truth(q, k, v))
    # And with the plan from before there was PyTorch.
    info, error = c.attn_plan_info(), c.attn_error()
    assert c.attn_plan_query(PLAN, info, error) == 0
    workspace = torch.empty(int(info.workspace_bytes) + 256, dtype=torch.uint8, device="cuda")
    out = torch.full_like(q, float("nan"))
    args = c.attn_sdpa_args(q=library.view(q), k=library.view(k), v=library.view(v),
                            out=library.view(out))
    status = c.attn_sdpa_forward(PLAN, ctypes.byref(args), workspace.data_ptr(),
                                 int(info.workspace_bytes), library.stream(), error)
    assert status == 0, error.message
    expect_close(out, truth(q, k, v))


@test
def torch_outlives_it():
    import torch
    c.attn_plan_destroy(PLAN)
    c.attn_context_destroy(CONTEXT)
    assert float(torch.ones(1000, device="cuda").sum()) == 1000


if __name__ == "__main__":
    main()
