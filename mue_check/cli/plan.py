"""``mue_check plan``: predict what a run of the suites costs."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from mue_check.cli.command import EXIT_FAIL, EXIT_OK, MOST_WORKERS, Commands, Options, Parser, require_between
from mue_check.errors import SpecError, StoreError, TimingError

if TYPE_CHECKING:
    from mue_check.cost.calibration import Calibration
    from mue_check.cost.format import PlanReport
    from mue_check.cost.plan import Plan
    from mue_check.tiers import Tier

PASSED = (
    "tier",
    "axes",
    "corpus",
    "router",
    "claim",
    "rule",
    "heldout",
    "beside",
    "tolerance",
    "seeds",
    "rungs",
    "study",
)
"""Options of `pytest suites/` that affect the plan."""


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    plan = commands.add_parser(
        "plan",
        help="predict what a run of the suites costs: cells, FLOP, seconds",
        description="Dry-run the suites on simulated losses, and predict how long their cells take to train on this "
        "device. Takes the options of `pytest suites/`. With --budget, reduces seeds and targets until the run fits, "
        "and reports what is left and what drift it can detect; exit 1 if even the minimum does not fit.",
        epilog="example: mue_check plan --tier cpu --axes width,capacity --workers 2 --budget 10m",
    )
    for name in PASSED:
        plan.add_argument(f"--{name}", metavar="X", help="as in `pytest suites/`")
    plan.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes or GPUs that share the work (default: 1)"
    )
    plan.add_argument("--budget", metavar="TIME", help="wall-clock time that is available, such as 10m, 90s or 1h30m")
    plan.add_argument("--calibrate", action="store_true", help="time this device again (20 s)")
    plan.add_argument("--calibration", type=Path, metavar="FILE", help="read the calibration of another machine")
    plan.add_argument(
        "--save-calibration", type=Path, metavar="FILE", help="also write the calibration to a file, for other machines"
    )
    plan.add_argument("--format", choices=["text", "json", "csv"], default="text", help="default: text")
    plan.set_defaults(run=run)


def run(options: Options) -> int:
    """Plan, trim to the budget if there is one, and print."""
    from mue_check.cost.dry_run import dry_run
    from mue_check.cost.format import PlanReport
    from mue_check.cost.plan import make_plan, price
    from mue_check.cost.trim import parse_budget, trim
    from mue_check.terminal import status

    require_between("--workers", options.workers, 1, MOST_WORKERS)
    budget = None if options.budget is None else parse_budget(options.budget)
    given = {name: getattr(options, name) for name in PASSED if getattr(options, name) is not None}

    def arguments(changed: Sequence[str]) -> list[str]:
        values = {**given, **{k.removeprefix("--"): v for k, v in zip(changed[::2], changed[1::2], strict=True)}}
        return [part for name, value in values.items() for part in (f"--{name}", value)]

    run = dry_run(arguments([]))
    calibration = _calibration(options, run.settings.tier)
    full = price(run, arguments([]), calibration, options.workers)
    if budget is None:
        _print(options, PlanReport(full=full, calibration=calibration))
        return EXIT_OK
    if calibration is None:
        raise SpecError("--budget: this machine could not be timed; give --calibration FILE of one that could")
    with status("planning") as update:

        def make(changed: list[str]) -> "Plan":
            update(f"planning with {' '.join(changed)}")
            return make_plan(arguments(changed), calibration, options.workers)

        trimmed = trim(full, budget, make)
    _print(options, PlanReport(full=full, calibration=calibration, trimmed=trimmed, budget=budget))
    return EXIT_OK if trimmed.fits else EXIT_FAIL


def _calibration(options: Options, tier: "Tier") -> "Calibration | None":
    """The given calibration, the cached one, or a new one. None if the device is not here or cannot be timed."""
    from mue_check.cost.calibration import calibration_path, kept_calibration, read_calibration, save_calibration

    device, precision = tier.device, tier.precision
    if options.calibration is not None:
        given = read_calibration(options.calibration)
        if given.machine["kind"] != device:
            kind = given.machine["kind"]
            raise SpecError(f"--calibration {options.calibration}: is for {kind}, and the tier needs {device}")
        if (timed := given.machine.get("precision", precision)) != precision:
            raise SpecError(
                f"--calibration {options.calibration}: is for {timed} products, and the plan is for {precision}"
            )
        return given
    import torch

    from mue_check.terminal import status

    if device == "cuda" and not torch.cuda.is_available():
        return None
    from mue_check.cost.timing import calibrate, machine_of

    machine = machine_of(device, precision)
    calibration = None if options.calibrate else kept_calibration(machine)
    if calibration is None:
        try:
            with status("timing this device") as update:
                calibration = calibrate(
                    device, precision, lambda done, of: update(f"timing this device: {done} of {of} stacks")
                )
        except TimingError as error:
            print(f"mue_check plan: no times: {error}", file=sys.stderr)
            return None
        try:
            save_calibration(calibration, calibration_path(machine))
        except StoreError as error:
            print(f"mue_check plan: the calibration is not cached: {error}", file=sys.stderr)
    if options.save_calibration is not None:
        save_calibration(calibration, options.save_calibration)
    return calibration


def _print(options: Options, report: "PlanReport") -> None:
    if options.format == "json":
        print(json.dumps(report.values(), indent=1, allow_nan=False))
    elif options.format == "csv":
        from mue_check.cost.plan import Row

        writer = csv.DictWriter(sys.stdout, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in (*report.plan.rows, report.plan.total))
    else:
        print("\n".join(report.lines()))
