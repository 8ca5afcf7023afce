"""``mue_check compare``: rules, or studies, side by side."""

from pathlib import Path

from mue_check.cli.command import EXIT_OK, Commands, Options, Parser


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    compare = commands.add_parser(
        "compare",
        help="set rules, or studies, side by side",
        description="Judge the drifts of one study or several and set their rules side by side. Writes compare.md, "
        "compare.csv and compare.png. One rule in several studies becomes one column for each study.",
        epilog="example: mue_check compare reports/cpu reports/cpu-mup --out reports/rules",
    )
    compare.add_argument("study", metavar="STUDY", type=Path, nargs="+", help="folders that `pytest suites/` filled")
    compare.add_argument("--out", metavar="DIR", type=Path, help="where the files go (default: the first study)")
    compare.add_argument("--quiet", action="store_true", help="write the files and print nothing")
    compare.set_defaults(run=run)


def run(options: Options) -> int:
    """Judge, write and print."""
    from mue_check.catalog import summarize
    from mue_check.questions.compare import compare_studies
    from mue_check.questions.compare_files import compare_lines, write_comparison

    sides = compare_studies(options.study, summarize)
    page = write_comparison(sides, options.out or options.study[0])
    if not options.quiet:
        print("\n".join(compare_lines(sides)))
        print(f"comparison: {page}")
    return EXIT_OK
