"""``mue_check report``: judge a study again from its records."""

import sys
import webbrowser
from pathlib import Path

from mue_check.cli.command import Commands, Options, Parser, exit_code


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    report = commands.add_parser(
        "report",
        help="judge a study's records again and write its report",
        description="Judge a study's records again, without training, and write report.html, report.md and figures. A "
        "study of sigma_0 also gets sigma0_calibration.json, for `mue_check budget --calibration`. Exit 0: every "
        "question has its expected verdict, 1: one has another, 2: the study cannot be read, 3: a question is open or "
        "has no answer, or nothing is judged.",
        epilog="example: mue_check report reports/cpu",
    )
    report.add_argument("study", metavar="STUDY", type=Path, help="a folder written by `pytest suites/`")
    report.add_argument("--open", action="store_true", help="show the page in a browser")
    report.add_argument("--quiet", action="store_true", help="write the report and print nothing")
    report.set_defaults(run=run)


def run(options: Options) -> int:
    """Write and print the report of the whole study."""
    from mue_check.catalog import summarize, write_report
    from mue_check.overview.conclusion import outcome_lines
    from mue_check.overview.report import verdict_lines

    summary = summarize(options.study)
    page = write_report(options.study, summary)
    if not options.quiet:
        print("\n".join([*verdict_lines(summary), *outcome_lines(summary, "whole study")]))
        print(f"report: {page}")
    if options.open and not webbrowser.open(page.resolve().as_uri()):
        print("mue_check report: no browser was found", file=sys.stderr)
    return exit_code(summary.verdict)
