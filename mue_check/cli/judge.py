"""``mue_check judge``: the verdicts of the suites for a sweep that was made elsewhere."""

import json
from pathlib import Path

from mue_check.cli.command import Commands, Options, Parser, exit_code, write_output
from mue_check.errors import JudgeError


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    judge = commands.add_parser(
        "judge",
        help="judge your own sweep from a table: does the optimum stay?",
        description="Read a sweep that was made elsewhere, and judge it as the suites judge theirs: the optimum of "
        "each arm, its drift against the smallest arm, regret, verdict, and the exponent across arms. Reads tables of "
        "runs (CSV, Parquet, JSON, Markdown; W&B, Neptune, Optuna), panels of W&B, pivot tables, one file per learning "
        "rate, and folders of Ray Tune. Columns are guessed from their names, and the guesses are printed. Exit 0: the "
        "optimum stays in every arm, 1: not in every arm, 2: no table that can be judged, 3: undecided.",
        epilog="example: mue_check judge runs.csv --x lr --loss val_loss --arm width --pair tokens,batch --out judged",
    )
    judge.add_argument("table", metavar="TABLE", type=Path, nargs="+", help="files or folders; several are one sweep")
    judge.add_argument("--x", metavar="COLUMN", help="the swept value, such as lr")
    judge.add_argument("--loss", metavar="COLUMN", help="the loss at the end of training")
    judge.add_argument("--arm", metavar="COLUMN", help="what differs between the curves, such as width")
    judge.add_argument("--pair", metavar="COLUMNS", help="columns that must be equal where arms are compared: a,b,...")
    judge.add_argument("--seed", metavar="COLUMN", help="the seed")
    judge.add_argument("--pattern", metavar="TEXT", help="columns in the names of runs or files: w{width}-lr{lr}")
    judge.add_argument("--reference", metavar="ARM", help="the arm to compare with (default: the smallest)")
    judge.add_argument(
        "--law",
        type=float,
        default=0.0,
        metavar="P",
        help="the optimum should scale with size^P (default: 0, it stays)",
    )
    judge.add_argument(
        "--tolerance", type=float, default=0.5, metavar="OCTAVES", help="drift that does no harm (default: 0.5)"
    )
    judge.add_argument("--out", type=Path, metavar="DIR", help="write report.html, report.md, figures and judge.json")
    judge.add_argument("--json", metavar="OUT", help="write all numbers as JSON; - prints them instead of the text")
    judge.set_defaults(run=run)


def run(options: Options) -> int:
    """Read, judge, print, write."""
    from mue_check.judge.verdict import require_tolerance
    from mue_check.sweeps.columns import Choice
    from mue_check.sweeps.files import read_tables
    from mue_check.sweeps.judged import judge_sweep
    from mue_check.sweeps.layouts import long_frame
    from mue_check.sweeps.output import as_json, lines, write_report
    from mue_check.sweeps.sweep import make_sweep

    tolerance = require_tolerance(options.tolerance)
    if not -4 <= options.law <= 4:
        raise JudgeError(f"--law {options.law:g}: must be an exponent from -4 to 4")
    pair = None if options.pair is None else tuple(name.strip() for name in options.pair.split(",") if name.strip())
    named = {name: getattr(options, name) for name in ("x", "loss", "arm", "seed", "pattern")}
    choice = Choice(**named, pair=pair)
    table, read = long_frame(read_tables(options.table), choice)
    judged = judge_sweep(make_sweep(table, choice), tolerance, law=options.law, reference=options.reference)
    if options.json:
        write_output(options.json, json.dumps(as_json(judged, read), indent=1, allow_nan=False) + "\n")
    if options.json != "-":
        print("\n".join(lines(judged, read)))
    if options.out:
        page = write_report(judged, read, options.table[0].name, options.out)
        if options.json != "-":
            print(f"report: {page}")
    return exit_code(judged.verdict)
