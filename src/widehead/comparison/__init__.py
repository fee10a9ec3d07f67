"""Comparisons: several output layers trained on the same data, and which is best."""

from widehead.comparison.compare import compare
from widehead.comparison.contenders import contenders
from widehead.comparison.page import comparison_table, write_comparison
from widehead.comparison.results import Result, objective, ranked, verdict

__all__ = ["Result", "compare", "comparison_table", "contenders", "objective", "ranked", "verdict", "write_comparison"]
