"""Benchmarks. Run them with `./dev bench cpu`."""
