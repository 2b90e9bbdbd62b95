"""Streams, graphs and threads of PyTorch."""

import threading

import torch

from tests.bench.gpu_problem import Attention, Library, Shape
from tests.gpu.harness import expect_close, main, random, test, truth

SHAPE = Shape(2, 96, 160, 8, 2, 128, causal=True)
LIBRARY = Library(torch, "cuda")


def inputs(seed=None):
    s = SHAPE
    return (random((s.batch, s.seqlen_q, s.q_heads, s.head_dim), seed=seed),
            random((s.batch, s.seqlen_k, s.kv_heads, s.head_dim), seed=seed),
            random((s.batch, s.seqlen_k, s.kv_heads, s.head_dim), seed=seed))


def busy():
    """Work on the current stream that takes a while."""
    x = torch.randn(4096, 4096, device="cuda")
    for _ in range(30):
        x = x @ x * 1e-3
    return x


@test
def runs_on_the_given_stream():
    """Ordered behind what that stream has to do, and not behind others."""
    q, k, v = inputs()
    problem = Attention(LIBRARY, SHAPE, q, k, v)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    new = torch.randn_like(q)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        busy()
        q.copy_(new)
        problem()
        out = problem.out.clone()
    stream.synchronize()
    expect_close(out, truth(new, k, v, causal=True))


@test
def does_not_wait():
    """execute comes back while its stream is still busy with what came before."""
    problem = Attention(LIBRARY, SHAPE, *inputs())
    busy()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(4):
            busy()
        problem()
        assert not stream.query(), "the stream was idle after execute: it waited"
    torch.cuda.synchronize()


@test
def several_threads_and_streams():
    failures = []
    plans = [Attention(LIBRARY, SHAPE, *inputs(seed)) for seed in range(4)]
    torch.cuda.synchronize()

    def work(problem):
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(50):
                    problem()
                out = problem.out.clone()
            stream.synchronize()
            t = problem.tensors
            expect_close(out, truth(t["q"], t["k"], t["v"], causal=True))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(problem,)) for problem in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


@test
def captured_by_torch():
    """In a graph of PyTorch between its own kernels; replays see new data."""
    q, k, v = inputs()
    problem = Attention(LIBRARY, SHAPE, q, k, v)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        q.mul_(1.0)
        problem()
        doubled = problem.out * 2
    for _ in range(3):
        q.copy_(torch.randn_like(q))
        v.copy_(torch.randn_like(v))
        graph.replay()
        expect_close(doubled, 2 * truth(q, k, v, causal=True))


@test
def new_thread_without_a_context():
    """A thread that has never used CUDA."""
    problem = Attention(LIBRARY, SHAPE, *inputs())
    torch.cuda.synchronize()
    problem.out.fill_(float("nan"))
    torch.cuda.synchronize()
    failures = []

    def work():
        try:
            problem()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    assert not failures, failures
    t = problem.tensors
    expect_close(problem.out, truth(t["q"], t["k"], t["v"], causal=True))


@test
def many_replays_are_equal():
    problem = Attention(LIBRARY, SHAPE, *inputs())
    problem()
    first = problem.out.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        problem()
    for _ in range(20):
        problem.out.fill_(float("nan"))
        graph.replay()
        assert torch.equal(problem.out, first)


if __name__ == "__main__":
    main()
