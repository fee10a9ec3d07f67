"""Reports: what a run folder tells, as one HTML page that needs nothing else."""

from widehead.report.page import write_report
from widehead.report.tables import Table

__all__ = ["Table", "write_report"]
