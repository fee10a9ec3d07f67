"""Reports: what a run folder tells, as one HTML page that needs nothing else."""

from widehead.report.comparison import comparison_table, write_comparison
from widehead.report.page import write_report
from widehead.report.tables import Table
from widehead.report.timings import write_timings

__all__ = ["Table", "comparison_table", "write_comparison", "write_report", "write_timings"]
