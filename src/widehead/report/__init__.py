"""Reports: what a run folder tells, as one HTML page that needs nothing else."""

from widehead.report.page import write_report
from widehead.report.tables import Table
from widehead.report.timings import write_timings

__all__ = ["Table", "write_report", "write_timings"]
