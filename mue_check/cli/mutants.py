"""``mue_check mutants``: run every shipped mutant through the checks, and report which ones catch it."""

from pathlib import Path

from mue_check.cli.command import (
    EXIT_FAIL,
    EXIT_OK,
    MOST_WORKERS,
    Commands,
    Options,
    Parser,
    require_between,
    write_output,
)


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    mutants = commands.add_parser(
        "mutants",
        help="the mutation table: does the suite catch what it must?",
        description="Run every shipped mutant of the parameterization through the laws of scale and the audit of "
        "values, and with --sweep through the learning-rate sweep. Exit 1 when the check that must catch a mutant "
        "does not.",
        epilog="example: mue_check mutants --workers 2 --out reports/mutation/report.md",
    )
    mutants.add_argument(
        "--routing", action="store_true", help="mistakes in routers, blocks and optimizers, through their checks"
    )
    mutants.add_argument(
        "--seeds", type=int, default=2, metavar="N", help="with --routing: seeds of right candidates (default: 2)"
    )
    mutants.add_argument("--only", metavar="A,B", help="only these mutants (default: all)")
    mutants.add_argument(
        "--sweep",
        nargs="?",
        const="",
        metavar="LADDER",
        help="also measure the drift of each mutant, in minutes instead of seconds: on LADDER, or on the ladder with "
        "the largest prediction",
    )
    mutants.add_argument("--tier", default="smoke", help="as for `pytest suites/` (default: smoke)")
    mutants.add_argument("--modality", default="language", help="as for `pytest suites/` (default: language)")
    mutants.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    mutants.add_argument(
        "--study", type=Path, default=Path("reports/mutants"), metavar="DIR", help="records (default: reports/mutants)"
    )
    mutants.add_argument("--out", type=Path, metavar="FILE", help="write the table as Markdown")
    mutants.add_argument("--quiet", action="store_true", help="print only the score")
    mutants.set_defaults(run=run)


def run(options: Options) -> int:
    """Run the mutants, print each as it is done, and write the table."""
    require_between("--workers", options.workers, 1, MOST_WORKERS)
    require_between("--seeds", options.seeds, 1, 1000)
    return _routing(options) if options.routing else _rules(options)


def _rules(options: Options) -> int:
    from functools import partial

    from mue_check.catalog import get_tier
    from mue_check.modalities import LANGUAGE
    from mue_check.mutants.mutant import killed
    from mue_check.mutants.report import render_rules, rule_lines
    from mue_check.mutants.rules import CHECKS, MUTANTS, examine_rule, is_possible
    from mue_check.mutants.run import get_mutant, run
    from mue_check.rules import get_rule
    from mue_check.study.asked import new_run
    from mue_check.study.folder import Study
    from mue_check.tiers import require_device

    tier = get_tier(options.tier, options.modality)
    require_device(tier)
    study = Study(
        root=options.study,
        tier=tier,
        corpus=tier.corpora[0],
        rule=get_rule("complete_mue"),
        tolerance=tier.tolerance,
        command="mue_check mutants",
        run=new_run(),
    )
    if options.only is not None:
        mutants = tuple(get_mutant(name.strip()) for name in options.only.split(","))
    else:
        mutants = tuple(mutant for mutant in MUTANTS if is_possible(study, mutant))
    study.store.prepare()
    checks = [check for check in CHECKS if options.sweep is not None or check != "drift"]
    results = []
    for result in run(
        mutants, partial(examine_rule, study, checks=checks, sweep=options.sweep), workers=options.workers
    ):
        results.append(result)
        found = ", ".join(f"{o.check} {'caught' if o.caught else o.verdict}" for o in result.outcomes)
        _print(options, result.killed, f"{result.mutant.name} ({result.mutant.ladder}): {found}")
    print("\n".join(rule_lines(results)))
    command = f"mue_check mutants --tier {tier.name}"
    command += f" --modality {options.modality}" if options.modality != LANGUAGE else ""
    command += "" if options.sweep is None else f" --sweep {options.sweep}".rstrip()
    _write(options, render_rules(results, command))
    return EXIT_OK if killed(results) == len(results) else EXIT_FAIL


def _routing(options: Options) -> int:
    from mue_check.mutants.report import caught_by, render_routing, routing_lines
    from mue_check.mutants.routing.examine import examine_routing, run_right
    from mue_check.mutants.run import FAMILIES, run
    from mue_check.mutants.setups.broken import examine_setup

    bugs, setups, right = [], [], []
    for result in run(FAMILIES["routing"], examine_routing, workers=options.workers):
        bugs.append(result)
        mutant = result.mutant
        _print(options, result.killed, f"row {mutant.row} {mutant.name}: {mutant.caught_by}: {result.measured}")
    for result in run(FAMILIES["setups"], examine_setup, workers=options.workers):
        setups.append(result)
        _print(options, result.killed, f"{result.mutant.name}: {caught_by(result)}: {result.measured}")
    for candidate in run_right(options.seeds):
        right.append(candidate)
        if not options.quiet:
            alarms = f", false alarms: {', '.join(candidate.false_alarms)}" if candidate.false_alarms else ""
            print(f"{candidate.claim} {candidate.name}: fit {candidate.fit}{alarms}", flush=True)
    print("\n".join(routing_lines(bugs, setups, right)))
    _write(options, render_routing(bugs, setups, right, f"mue_check mutants --routing --seeds {options.seeds}"))
    caught = all(r.killed for r in (*bugs, *setups)) and not any(r.false_alarms for r in right)
    return EXIT_OK if caught else EXIT_FAIL


def _print(options: Options, caught: bool, line: str) -> None:
    if not options.quiet:
        print(f"{'ok  ' if caught else 'MISS'} {line}", flush=True)


def _write(options: Options, text: str) -> None:
    if options.out:
        write_output(str(options.out), text)
