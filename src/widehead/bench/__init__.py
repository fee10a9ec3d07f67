"""Benchmarks: problems, methods, and timing that puts them side by side in one run."""

from widehead.bench.output_layer import compare_step
from widehead.bench.paper import paper_table
from widehead.bench.upkeep import measure_upkeep

__all__ = ["compare_step", "measure_upkeep", "paper_table"]
