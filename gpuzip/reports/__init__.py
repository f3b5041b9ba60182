"""A report of what compression does to a caller's rows: as text, as a table, and as a page to share."""

from gpuzip.reports.report import Report
from gpuzip.reports.rows import BoundRow, Choice, ReportRow, Setting
from gpuzip.reports.run import report

__all__ = ["BoundRow", "Choice", "Report", "ReportRow", "Setting", "report"]
