"""``mue_check budget``: predict how an uneven load of experts moves the tuned learning rate."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mue_check.cli.command import EXIT_OK, Commands, Options, Parser
from mue_check.errors import SpecError
from mue_check.loads import read_load
from mue_check.spec import Experts
from mue_check.spec_text import parse_scenario

if TYPE_CHECKING:
    from mue_check.judge.interval import Interval
    from mue_check.sigma0.budget import Budget
    from mue_check.sigma0.calibration import DriftCalibration

MOST_NAMED = 12
"""At most this many experts are named. The others are counted."""


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    budget = commands.add_parser(
        "budget",
        help="predict how an uneven load of experts moves the tuned learning rate",
        description="Compute from the load of each expert how uneven it is, how far it moves sigma_0 and the optimal "
        "learning rate compared with an even load, and whether to keep the tuned learning rate.",
        epilog="example: mue_check budget --load 0.4,0.3,0.2,0.1 --spec 4e1a --batch 4096",
    )
    budget.add_argument(
        "--load",
        required=True,
        metavar="LOAD",
        help="count or share of all assignments for each routed expert: p1,p2,... or a file of them (one per line, "
        "CSV, or a JSON list)",
    )
    budget.add_argument(
        "--spec", required=True, metavar="SPEC", help="the model: a notation such as 128e8a1s, or a SPEC as for `rules`"
    )
    budget.add_argument("--batch", required=True, type=int, metavar="TOKENS", help="tokens per step")
    budget.add_argument(
        "--calibration", type=Path, metavar="FILE", help="measured gamma and kappa (default: the packaged ones)"
    )
    budget.add_argument(
        "--tolerance", type=float, default=0.5, metavar="OCTAVES", help="drift that does no harm (default: 0.5)"
    )
    budget.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
    budget.set_defaults(run=run)


def run(options: Options) -> int:
    """Read the load and the calibration, and print the budget."""
    import numpy as np

    from mue_check.sigma0.budget import make_budget
    from mue_check.sigma0.calibration import read_calibration

    experts = parse_experts(options.spec)
    load = np.array(read_load(options.load, experts.total))
    calibration = read_calibration(options.calibration)
    budget = make_budget(load, experts, options.batch, calibration, options.tolerance)
    if options.format == "json":
        print(json.dumps(_json(budget, calibration), indent=1, allow_nan=False))
    else:
        print("\n".join(_lines(budget, calibration, experts)))
    return EXIT_OK


def parse_experts(text: str) -> Experts:
    """The experts of a bare notation or of a SPEC. Raises SpecError if it has none."""
    if "=" not in text and not text.endswith(".toml"):
        return Experts.from_notation(text, hidden=1)
    model = parse_scenario(text).model
    if not isinstance(model.feed_forward, Experts):
        raise SpecError(f"SPEC {text!r} has no experts: give a mixture, for example 128e8a1s")
    return model.feed_forward


def _json(budget: "Budget", calibration: "DriftCalibration") -> dict[str, object]:
    values: dict[str, object] = asdict(budget)
    drift = budget.forecast.drift
    values["learning_rate_factor"] = {name: 2 ** getattr(drift, name) for name in ("mean", "low", "high")}
    values["advice"] = _advice(budget)
    values["calibration"] = {"made_by": calibration.made_by, "setting": calibration.setting}
    return values


def _lines(budget: "Budget", calibration: "DriftCalibration", experts: Experts) -> list[str]:
    routing = budget.routing.replace("_", "-")
    gamma = calibration.gamma[budget.routing]
    lines = [
        f"load         {experts.notation}: {budget.imbalance}",
        f"tokens/step  busiest {budget.busiest}, median {budget.median:.4g}, rarest {budget.rarest}",
    ]
    if budget.few:
        lines.append(f"             below 1 token per step: {_names(budget.few)}")
    if budget.dead:
        lines.append(f"             without tokens: {_names(budget.dead)}")
    lines += [
        f"sigma_0      {budget.forecast.shift} octaves against the even load ({routing} routing, "
        f"gamma {gamma.times(1)}); {budget.bound.shift.mean:+.2f} at the theory's gamma 1/2",
        f"             {budget.dense_shift} against the dense model of Bridge II, load and a/N together",
        f"LR optimum   {budget.forecast.drift} octaves, x {_factor(budget.forecast.drift)}; "
        f"{budget.bound.drift} at the theory's gamma 1/2, which content-blind routing has",
        f"do           {_advice(budget)}",
    ]
    lines += [f"warning      {warning}" for warning in budget.warnings]
    return [*lines, f"calibration  {calibration.setting}"]


def _advice(budget: "Budget") -> str:
    from mue_check.judge.verdict import Verdict

    tolerance = f"{budget.tolerance:g} octave"
    factor = _factor(budget.forecast.drift)
    advice = {
        Verdict.PASS: f"keep the tuned learning rate: its drift lies within +-{tolerance}",
        Verdict.FAIL: f"the optimum moves: multiply the tuned learning rate by {factor}",
        Verdict.INCONCLUSIVE: f"not decided within +-{tolerance}",
    }[budget.verdict]
    if not budget.sweep:
        return advice
    ends = budget.sweep[0], budget.sweep[-1]
    sweep = (
        f"sweep {len(budget.sweep)} learning rates around {math.sqrt(ends[0] * ends[1]):.3g} times the tuned one, from "
        f"{ends[0]:.3g} to {ends[1]:.3g} times it"
    )
    if budget.verdict is Verdict.INCONCLUSIVE:
        return f"{advice}: {sweep}"
    return f"{advice}, if small models are a guide. This one lies outside the calibration: before a long run {sweep}"


def _factor(drift: "Interval") -> str:
    return f"{2**drift.mean:.3g} [{2**drift.low:.3g}, {2**drift.high:.3g}]"


def _names(experts: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, experts[:MOST_NAMED]))
    more = f" and {len(experts) - MOST_NAMED} more" if len(experts) > MOST_NAMED else ""
    return f"expert{'s' * (len(experts) > 1)} {shown}{more}"
