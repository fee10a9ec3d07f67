"""Benchmarks: problems, methods, and timing that puts them side by side in one run."""

from widehead.bench.output_layer import compare_step

__all__ = ["compare_step"]
