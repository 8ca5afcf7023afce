"""What a study says: drawn, tabled and judged again from its records. No training, no torch."""

from mue_check.report.summary import Summary, summarize
from mue_check.report.tables import verdict_lines
from mue_check.report.write import write_report

__all__ = ["Summary", "summarize", "verdict_lines", "write_report"]
