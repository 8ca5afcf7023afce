"""``mue_check mutants``: does the suite catch what it must? Every shipped mutant before every check."""

from pathlib import Path

from mue_check.cli.command import EXIT_FAIL, EXIT_OK, Commands, Options, Parser
from mue_check.errors import SpecError


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    mutants = commands.add_parser(
        "mutants",
        help="the mutation table: does the suite catch what it must?",
        description="Put every shipped mutant of the parameterization before the laws of scale and the audit of "
        "values, and with --sweep before the learning-rate sweep. Exit 1 when the check that names a mutant does not "
        "catch it.",
        epilog="example: mue_check mutants --workers 2 --out reports/mutation/report.md",
    )
    mutants.add_argument(
        "--routing", action="store_true", help="mistakes of people's routers, blocks and optimizers before their checks"
    )
    mutants.add_argument(
        "--seeds", type=int, default=2, metavar="N", help="with --routing: seeds of right candidates (default: 2)"
    )
    mutants.add_argument("--only", metavar="A,B", help="these mutants alone (default: all)")
    mutants.add_argument(
        "--sweep", action="store_true", help="the drift of each mutant too: minutes in place of seconds"
    )
    mutants.add_argument("--tier", default="smoke", help="as for `pytest suites/` (default: smoke)")
    mutants.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    mutants.add_argument(
        "--study", type=Path, default=Path("reports/mutants"), metavar="DIR", help="records (default: reports/mutants)"
    )
    mutants.add_argument("--out", type=Path, metavar="FILE", help="write the table as Markdown")
    mutants.add_argument("--quiet", action="store_true", help="print nothing but the score")
    mutants.set_defaults(run=run)


def run(options: Options) -> int:
    """Ask, print each mutant as it is done, and write the table."""
    if options.routing:
        return _routing(options)
    from mue_check.catalog import get_tier
    from mue_check.mutants import MUTANTS, get_mutant
    from mue_check.mutants.outcome import CHECKS
    from mue_check.mutants.run_rules import run_mutants
    from mue_check.questions.study import Study
    from mue_check.records.files import write_atomic
    from mue_check.report.mutation import mutation_words, render_mutation
    from mue_check.rules import get_rule
    from mue_check.tiers import require_device

    if options.workers < 1:
        raise SpecError(f"--workers {options.workers}: must be at least 1")
    names = [m.name for m in MUTANTS]
    if options.only is not None:
        names = [get_mutant(name.strip()).name for name in options.only.split(",")]
    tier = get_tier(options.tier)
    require_device(tier)
    study = Study(
        root=options.study,
        tier=tier,
        corpus="markov",
        rule=get_rule("complete_mue"),
        tolerance=tier.tolerance,
        command="mue_check mutants",
    )
    study.store.prepare()
    checks = [check for check in CHECKS if options.sweep or check != "drift"]
    results = []
    for result in run_mutants(study, names, checks, workers=options.workers):
        results.append(result)
        if not options.quiet:
            said = ", ".join(f"{o.check} {'caught' if o.caught else o.verdict}" for o in result.outcomes)
            print(f"{'ok  ' if result.killed else 'MISS'} {result.name} ({result.ladder}): {said}", flush=True)
    print("\n".join(mutation_words(results)))
    if options.out:
        sweep = " --sweep" if options.sweep else ""
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(options.out, render_mutation(results, f"mue_check mutants --tier {tier.name}{sweep}").encode())
    return EXIT_OK if all(result.killed for result in results) else EXIT_FAIL


def _routing(options: Options) -> int:
    from mue_check.mutants.run_routing import run_bugs, run_right
    from mue_check.mutants.run_setups import run_set_ups
    from mue_check.records.files import write_atomic
    from mue_check.report.bugs import bug_words, render_bugs

    if options.seeds < 1:
        raise SpecError(f"--seeds {options.seeds}: must be at least 1")
    bugs, set_ups, right = [], [], []
    for bug in run_bugs():
        bugs.append(bug)
        if not options.quiet:
            print(
                f"{'ok  ' if bug.caught else 'MISS'} row {bug.row} {bug.name}: {bug.caught_by}: {bug.said}", flush=True
            )
    for set_up in run_set_ups():
        set_ups.append(set_up)
        if not options.quiet:
            print(f"{'ok  ' if set_up.caught else 'MISS'} {set_up.name}: {set_up.caught_by}: {set_up.said}", flush=True)
    for candidate in run_right(options.seeds):
        right.append(candidate)
        if not options.quiet:
            alarms = f", false alarms: {', '.join(candidate.false_alarms)}" if candidate.false_alarms else ""
            print(f"{candidate.claim} {candidate.name}: fit {candidate.fit}{alarms}", flush=True)
    print("\n".join(bug_words(bugs, set_ups, right)))
    if options.out:
        command = f"mue_check mutants --routing --seeds {options.seeds}"
        write_atomic(options.out, render_bugs(bugs, set_ups, right, command).encode())
    missed = any(not b.caught for b in bugs) or any(not s.caught for s in set_ups) or any(r.false_alarms for r in right)
    return EXIT_FAIL if missed else EXIT_OK
