"""Benchmarks that made a recorded figure of this project; see README.md."""
