"""Tests that need a GPU and PyTorch: `./dev gpu-check` runs each file in a process of its own."""
