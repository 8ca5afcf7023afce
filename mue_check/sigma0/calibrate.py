"""From the findings of a study to the calibration of the drift budget."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from mue_check.errors import CalibrationError, JudgeError
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import Findings
from mue_check.sigma0.calibration import DriftCalibration, Gamma, Range, read_calibration
from mue_check.sigma0.gamma import GammaFinding
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.kappa import KappaFit, KappaPoint, Pair, fit_kappa
from mue_check.sigma0.ladders import BLIND_LOADS, LOADS, SIGMA0, experts_of, load_use
from mue_check.sigma0.shift import ShiftFinding
from mue_check.spec import Scenario
from mue_check.spec_text import parse_scenario
from mue_check.study.comparison import Comparison

OF_LOAD = (LOADS, BLIND_LOADS)
"""Ladders along which only the load changes. A larger batch lowers the noise of every part of the model, a load that of
the experts alone, so that kappa differs; and other activated experts are another model."""
RULES_OWN = "sigmoid_norm"
MIN_DRIFTS = 3
BUDGET = "loads, through 0 (the budget's)"


def calibrate(findings: Findings) -> DriftCalibration | None:
    """What a drift budget is computed from; None without gamma of both routings and three drifts under loads.

    The line is fitted to the ladders of loads, through 0. Gamma of learned routing is the one to expect of another
    mixture: its error contains the scatter between the measured mixtures and corpora.
    """
    learned, blind = (_trained_gammas(findings, router) for router in (RULES_OWN, "content_blind"))
    points = _of_load(kappa_points(findings))
    kappa = _fit(points, origin=True)
    if not learned or not blind or len(points) < MIN_DRIFTS or isinstance(kappa, str):
        return None
    own = [f.comparison for f in findings.found if f.comparison.axis == SIGMA0 and f.comparison.router == RULES_OWN]
    scenarios = [
        parse_scenario(side.model)
        for s in findings.of(ShiftFinding)
        if s.comparison in own and s.comparison.ladder in OF_LOAD
        for side in s.comparison.sides
    ]
    return DriftCalibration(
        schema=1,
        made_by=_command(own),
        setting=_setting(own, scenarios),
        gamma={"learned": _expected_gamma(learned), "content_blind": _expected_gamma(blind)},
        kappa=kappa,
        range=_ranges(scenarios),
    )


def calibration_for(findings: Findings) -> DriftCalibration | None:
    """The study's own calibration, else the packaged one, else none."""
    try:
        return calibrate(findings) or read_calibration()
    except CalibrationError:
        return None


def kappa_points(findings: Findings) -> list[KappaPoint]:
    """One point for each target that a fit may use and that has both a shift and a drift."""
    drifts = drifts_by_arm(findings)
    return [
        KappaPoint.of(s.side.label, s.comparison.ladder, s.shift.shift, drift.drift.interval)
        for s in findings.of(ShiftFinding)
        if s.comparison.router == RULES_OWN and s.shift.reason is None and load_use(s.comparison.ladder) == "fit"
        if (drift := drifts.get(arm_of(s.comparison))) and drift.drift.reason is None
    ]


def kappa_fits(points: Sequence[KappaPoint]) -> dict[str, KappaFit | str]:
    """By name, the line of the budget, and for comparison lines with an intercept; or the reason why there is none."""
    loads = _of_load(points)
    return {BUDGET: _fit(loads, origin=True), "loads": _fit(loads), "every ladder": _fit(points)}


def _of_load(points: Sequence[KappaPoint]) -> list[KappaPoint]:
    return [point for point in points if point.ladder in OF_LOAD]


def _fit(points: Sequence[KappaPoint], *, origin: bool = False) -> KappaFit | str:
    try:
        return fit_kappa(points, origin=origin)
    except JudgeError as error:
        return str(error)


def drifts_by_arm(findings: Findings) -> Mapping[tuple[str, ...], DriftFinding]:
    """The laboratory's drifts of the learning rate."""
    found = (d for d in findings.of(DriftFinding) if d.comparison.axis == SIGMA0 and d.comparison.knob == "lr")
    return {arm_of(d.comparison): d for d in found}


def arm_of(c: Comparison) -> tuple[str, ...]:
    """What a shift of sigma_0 and the drift of the same target have in common."""
    return c.ladder, c.sides[-1].label, c.corpus, c.rule, c.router


def _trained_gammas(findings: Findings, router: str) -> list[Gamma]:
    """Gamma of each mixture with that router that was trained under steered loads."""
    return [
        Gamma.of(g.pooled.gamma)
        for g in findings.of(GammaFinding)
        if g.comparison.axis == SIGMA0 and g.comparison.router == RULES_OWN and g.experts.router == router
        if len(g.comparison.sides) > 1 and g.pooled.reason is None
    ]


def _expected_gamma(gammas: Sequence[Gamma]) -> Gamma:
    """Gamma of the next mixture: drawn from the same distribution as the measured ones; of a single one, its own."""
    if len(gammas) == 1:
        return gammas[0]
    means = np.array([g.mean for g in gammas])
    scatter = float(means.std(ddof=1)) * math.sqrt(1 + 1 / len(means))
    return Gamma(mean=float(means.mean()), se=scatter, df=len(means) - 1)


def _ranges(scenarios: Iterable[Scenario]) -> dict[Range, Pair]:
    values: dict[Range, list[float]] = {}
    for scenario in scenarios:
        for name, value in _quantities(scenario):
            values.setdefault(name, []).append(float(value))
    return {name: (min(found), max(found)) for name, found in values.items()}


def _quantities(scenario: Scenario) -> Iterator[tuple[Range, float]]:
    experts = experts_of(scenario.model)
    load = np.array(experts.target_load)
    tokens = load * experts.activated * scenario.tokens_per_step
    yield "shortfall_bits", Imbalance.of(load).shortfall_bits
    yield "experts", experts.total
    yield "activated", experts.activated
    yield "tokens_per_expert", tokens.min()
    yield "tokens_per_expert", tokens.max()
    yield "batch", scenario.tokens_per_step


def _setting(comparisons: Sequence[Comparison], scenarios: Sequence[Scenario]) -> str:
    """One sentence on what was measured, so that people can judge whether it resembles their model."""
    width, steps = (
        " to ".join(str(v) for v in dict.fromkeys((min(values), max(values))))
        for values in ([s.model.width for s in scenarios], [s.steps for s in scenarios])
    )
    corpora = " and ".join(sorted({c.corpus for c in comparisons}))
    return f"small models, width {width}, trained {steps} steps; gamma on {corpora}"


def _command(comparisons: Sequence[Comparison]) -> str:
    """The command of the first question, without the test that it names."""
    return re.sub(r"'?([^\s':]+)::(?:[^']*'|\S*)", r"\1", comparisons[0].command)
