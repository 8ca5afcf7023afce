"""What a study says: drawn, tabled and judged again from its records. No training, no torch."""

from mue_check.report.compare import compare_studies
from mue_check.report.compare_files import compare_lines, write_comparison
from mue_check.report.summary import Summary, summarize
from mue_check.report.terminal import verdict_lines
from mue_check.report.write import write_report

__all__ = [
    "Summary",
    "compare_lines",
    "compare_studies",
    "summarize",
    "verdict_lines",
    "write_comparison",
    "write_report",
]
