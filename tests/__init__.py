"""The tests that are Python programs."""
