"""PyTorch makes the primary context, libattn finds it."""

import torch

from tests.gpu.harness import expect_close, main, random, test, truth

torch.zeros(1, device="cuda")  # its context is there before libattn is even loaded

from tests.bench.gpu_problem import Attention, Library, Shape  # noqa: E402

SHAPE = Shape(2, 100, 130, 8, 4, 64, causal=True)


def inputs(dtype="bfloat16"):
    s = SHAPE
    return (random((s.batch, s.seqlen_q, s.q_heads, s.head_dim), dtype),
            random((s.batch, s.seqlen_k, s.kv_heads, s.head_dim), dtype),
            random((s.batch, s.seqlen_k, s.kv_heads, s.head_dim), dtype))


@test
def computes_in_torchs_memory():
    for dtype in ("float32", "float16", "bfloat16"):
        q, k, v = inputs(dtype)
        problem = Attention(Library(torch, "cuda"), SHAPE, q, k, v)
        problem()
        expect_close(problem.out, truth(q, k, v, causal=True))


@test
def on_the_default_stream_after_torchs_work():
    """Without any wait between what PyTorch enqueues and what libattn does."""
    q, k, v = inputs()
    problem = Attention(Library(torch, "cuda"), SHAPE, q, k, v)
    heavy = torch.randn(4096, 4096, device="cuda")
    for _ in range(20):
        heavy = heavy @ heavy * 1e-3
    new = torch.randn_like(q)
    q.copy_(new)
    problem()
    out = problem.out.clone()
    expect_close(out, truth(new, k, v, causal=True))


@test
def contexts_come_and_go():
    """The primary context is PyTorch's too: destroying ours must not take it away."""
    q, k, v = inputs()
    for _ in range(5):
        library = Library(torch, "cuda")
        problem = Attention(library, SHAPE, q, k, v)
        problem()
        del problem
        from attn import lowlevel
        lowlevel.attn_context_destroy(library.context)
    assert float(torch.ones(1000, device="cuda").sum()) == 1000
    problem = Attention(Library(torch, "cuda"), SHAPE, q, k, v)
    problem()
    expect_close(problem.out, truth(q, k, v, causal=True))


@test
def torch_works_between_calls():
    q, k, v = inputs()
    problem = Attention(Library(torch, "cuda"), SHAPE, q, k, v)
    for _ in range(3):
        problem()
        reference = torch.nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), q.transpose(1, 2), q.transpose(1, 2))
        assert bool(torch.isfinite(reference).all())
    expect_close(problem.out, truth(q, k, v, causal=True))


if __name__ == "__main__":
    main()
