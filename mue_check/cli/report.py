"""``mue_check report``: judge a study again from its records."""

from pathlib import Path

from mue_check.cli.command import EXIT_FAIL, EXIT_OK, Commands, Options, Parser


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    report = commands.add_parser(
        "report",
        help="judge a study's records again and write its report",
        description="Judge a study's records again, without training, and write report.html, report.md and figures. "
        "A study of sigma_0 also gets sigma0_calibration.json, for `mue_check budget --calibration`.",
        epilog="example: mue_check report reports/cpu",
    )
    report.add_argument("study", metavar="STUDY", type=Path, help="a folder written by `pytest suites/`")
    report.add_argument("--quiet", action="store_true", help="write the report and print nothing")
    report.set_defaults(run=run)


def run(options: Options) -> int:
    """Write and print the report. The exit code is 1 if a verdict is not the expected one."""
    from mue_check.catalog import summarize, write_report
    from mue_check.questions.summary import verdict_lines

    summary = summarize(options.study)
    page = write_report(options.study, summary)
    if not options.quiet:
        print("\n".join(verdict_lines(summary)))
        print(f"report: {page}")
    return EXIT_OK if summary.as_expected else EXIT_FAIL
