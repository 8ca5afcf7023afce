"""``mue_check compare``: show rules or studies side by side."""

from pathlib import Path

from mue_check.cli.command import EXIT_INCONCLUSIVE, EXIT_OK, Commands, Options, Parser


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    compare = commands.add_parser(
        "compare",
        help="show rules or studies side by side",
        description="Judge the drifts of one or more studies and show their rules side by side. Writes compare.md, "
        "compare.csv and compare.svg. A rule that occurs in several studies gets one column per study. "
        "Exit 0: compared, 2: a study cannot be read, 3: a study has questions without an answer.",
        epilog="example: mue_check compare reports/cpu reports/cpu-mup --out reports/rules",
    )
    compare.add_argument("study", metavar="STUDY", type=Path, nargs="+", help="folders written by `pytest suites/`")
    compare.add_argument("--out", metavar="DIR", type=Path, help="folder for the files (default: the first study)")
    compare.add_argument("--quiet", action="store_true", help="write the files and print nothing")
    compare.set_defaults(run=run)


def run(options: Options) -> int:
    """Judge the studies, write the files, and print the table."""
    from mue_check.catalog import summarize
    from mue_check.overview.compare import compare_studies
    from mue_check.overview.compare_files import compare_lines, write_comparison
    from mue_check.overview.conclusion import outcome_lines
    from mue_check.report.format import printable

    sides = compare_studies(options.study, summarize)
    page = write_comparison(sides, options.out or options.study[0])
    studies = dict(sides.studies.values())
    incomplete = {name: s for name, s in studies.items() if s.unanswered or s.unlisted or s.unfinished}
    if not options.quiet:
        print("\n".join(compare_lines(sides)))
        for name, summary in incomplete.items():
            print("\n".join(outcome_lines(summary, f"study {printable(name)}")))
        print(f"comparison: {page}")
    return EXIT_INCONCLUSIVE if incomplete else EXIT_OK
