"""``mue_check plan``: what a run of the suites costs, before it is run."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from mue_check.cli.command import EXIT_FAIL, EXIT_OK, Commands, Options, Parser
from mue_check.errors import SpecError, StoreError, TimingError

if TYPE_CHECKING:
    from mue_check.cost.calibration import Calibration
    from mue_check.cost.format import Shown
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
"""Options of `pytest suites/` that change what is asked."""


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    plan = commands.add_parser(
        "plan",
        help="what a run of the suites costs: cells, FLOP, seconds",
        description="Collect the suites, ask their questions of imagined losses, and predict what training the cells "
        "takes on this device. Takes the options of `pytest suites/`. With --budget, trims seeds and rungs until it "
        "fits, and says what is left to run and what it could see; exit 1 when even the floor does not fit.",
        epilog="example: mue_check plan --tier cpu --axes width,capacity --workers 2 --budget 10m",
    )
    for name in PASSED:
        plan.add_argument(f"--{name}", metavar="X", help="as in `pytest suites/`")
    plan.add_argument("--suites", default="suites", metavar="DIR", help="the folder of the suites (default: suites)")
    plan.add_argument("--workers", type=int, default=1, metavar="N", help="processes or GPUs that share the work")
    plan.add_argument("--budget", metavar="TIME", help="of wall clock, such as 10m, 90s or 1h30m")
    plan.add_argument("--calibrate", action="store_true", help="time this device anew (20 s)")
    plan.add_argument("--calibration", type=Path, metavar="FILE", help="a calibration of another machine")
    plan.add_argument("--save-calibration", type=Path, metavar="FILE", help="keep it there too, for other machines")
    plan.add_argument("--format", choices=["text", "json", "csv"], default="text", help="default: text")
    plan.set_defaults(run=run)


def run(options: Options) -> int:
    """Plan, trim where a budget is given, and print."""
    from mue_check.cost.dry_run import collect
    from mue_check.cost.format import Shown
    from mue_check.cost.plan import make_plan, price
    from mue_check.cost.trim import parse_budget, trim

    if options.workers < 1:
        raise SpecError(f"--workers {options.workers}: must be at least 1")
    budget = None if options.budget is None else parse_budget(options.budget)
    if not Path(options.suites).exists():
        raise SpecError(f"no suites in {options.suites!r}: run where `pytest suites/` runs, or give --suites DIR")
    given = {name: getattr(options, name) for name in PASSED if getattr(options, name) is not None}

    def arguments(changed: Sequence[str]) -> list[str]:
        values = {**given, **{k.removeprefix("--"): v for k, v in zip(changed[::2], changed[1::2], strict=True)}}
        return [options.suites, *(part for name, value in values.items() for part in (f"--{name}", value))]

    collected = collect(arguments([]))
    calibration = _calibration(options, collected.settings.tier)
    full = price(collected, arguments([]), calibration, options.workers)
    if budget is None:
        _print(options, Shown(full=full, calibration=calibration))
        return EXIT_OK
    if calibration is None:
        raise SpecError("--budget: this machine could not be timed; give --calibration FILE of one that could")

    def make(changed: list[str]) -> "Plan":
        _note(f"planning with {' '.join(changed)}")
        return make_plan(arguments(changed), calibration, options.workers)

    trimmed = trim(full, budget, make)
    _note("")
    _print(options, Shown(full=full, calibration=calibration, trimmed=trimmed, budget=budget))
    return EXIT_OK if trimmed.fits else EXIT_FAIL


def _calibration(options: Options, tier: "Tier") -> "Calibration | None":
    """The one that was given, that was kept, or a new one; None where the device is not here or cannot be timed."""
    from mue_check.cost.calibration import calibration_path, kept_calibration, read_calibration, save_calibration

    device, precision = tier.device, tier.precision
    if options.calibration is not None:
        given = read_calibration(options.calibration)
        if given.machine["kind"] != device:
            kind = given.machine["kind"]
            raise SpecError(f"--calibration {options.calibration}: is of {kind}, and the tier needs {device}")
        if (timed := given.machine.get("precision", precision)) != precision:
            raise SpecError(
                f"--calibration {options.calibration}: is of {timed} products, and the plan is for {precision}"
            )
        return given
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return None
    from mue_check.cost.timing import calibrate, machine_of

    machine = machine_of(device, precision)
    calibration = None if options.calibrate else kept_calibration(machine)
    if calibration is None:
        try:
            calibration = calibrate(device, precision, _progress)
        except TimingError as error:
            print(f"mue_check plan: no times: {error}", file=sys.stderr)
            return None
        try:
            save_calibration(calibration, calibration_path(machine))
        except StoreError as error:
            print(f"mue_check plan: the calibration is not kept: {error}", file=sys.stderr)
    if options.save_calibration is not None:
        save_calibration(calibration, options.save_calibration)
    return calibration


def _progress(done: int, of: int) -> None:
    _note(f"timing this device: {done} of {of} stacks" if done < of else "")


def _note(text: str) -> None:
    """One line on a terminal, in place of the one before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _print(options: Options, shown: "Shown") -> None:
    if options.format == "json":
        print(json.dumps(shown.values(), indent=1, allow_nan=False))
    elif options.format == "csv":
        from mue_check.cost.plan import Row

        writer = csv.DictWriter(sys.stdout, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in (*shown.plan.rows, shown.plan.total))
    else:
        print("\n".join(shown.lines()))
