"""From a study's records to the numbers that a drift budget is made from."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mue_check.judge.drift import Drift
from mue_check.questions.comparison import Comparison, Side
from mue_check.questions.stored import judge_stored_drift, judge_stored_gammas, judge_stored_shift
from mue_check.records import Store
from mue_check.sigma0.calibration import Calibration, Gamma
from mue_check.sigma0.gammas import Gammas
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.kappa import KappaPoint, fit_kappa
from mue_check.sigma0.ladders import BLIND_LOADS, LOADS, NATURAL, SIGMA0, load_use
from mue_check.sigma0.shift import Sigma0Shift
from mue_check.spec import Experts, Scenario, parse_scenario

OF_LOAD = (LOADS, BLIND_LOADS)
"""Ladders along which the load changes and nothing else. The batch moves the noise of every part of the model, the load
that of experts alone, so that its kappa is another one; and activated experts change what can be learned."""
RULES_OWN = "sigmoid_norm"


def calibrate(
    store: Store,
    comparisons: Sequence[Comparison],
    command: str,
    *,
    gammas: Mapping[str, Gammas] | None = None,
    points: Sequence[KappaPoint] | None = None,
) -> Calibration | None:
    """What the study's sigma_0 questions say; None where it lacks gamma of either routing or three drifts under loads.

    Fitted are the ladders of loads alone (OF_LOAD). The line is led through the origin: a model under its own load does
    not drift. Gamma of learned routing is that of a mixture yet unseen: the error holds the scatter between the
    mixtures and corpora that were measured. ``gammas`` by the name of their question, and ``points``, are those of
    ``kappa_points``: a caller that has judged them already need not wait for them again.
    """
    own = [c for c in comparisons if c.axis == SIGMA0 and c.router == RULES_OWN]
    learned, blind = (_gammas(store, own, router, gammas or {}) for router in (RULES_OWN, "content_blind"))
    points = [p for p in (kappa_points(store, own) if points is None else points) if p.ladder in OF_LOAD]
    if not learned or not blind or len(points) < 3:
        return None
    kappa = fit_kappa(points, origin=True)
    if kappa.reason is not None:
        return None
    scenarios = [_scenario(side) for c in own if c.kind == "sigma0" and c.ladder in OF_LOAD for side in c.sides]
    return Calibration(
        made_by=command,
        setting=_setting(own, scenarios),
        gamma={"learned": _unseen(learned), "content_blind": _unseen(blind)},
        kappa=kappa,
        ranges=_ranges(scenarios),
    )


def kappa_points(store: Store, comparisons: Iterable[Comparison]) -> list[KappaPoint]:
    """Shift of sigma_0 and drift of the optimum of every arm that has both and that a fit may see."""
    comparisons = list(comparisons)
    drifts = {arm_of(c): c for c in comparisons if c.kind == "drift" and c.knob == "lr"}
    points = []
    for c in comparisons:
        if c.kind != "sigma0" or load_use(c.ladder) != "fit" or arm_of(c) not in drifts:
            continue
        shift, (_, _, drift) = judge_stored_shift(store, c), judge_stored_drift(store, drifts[arm_of(c)])
        points += points_of(c, shift, drift)
    return points


def points_of(asked: Comparison, shift: Sigma0Shift, drift: Drift | None) -> list[KappaPoint]:
    """The arm of a shift as a point; none where it lacks either number or no fit may see it."""
    if load_use(asked.ladder) != "fit" or shift.reason is not None or drift is None or drift.reason is not None:
        return []
    return [KappaPoint.of(asked.sides[-1].label, asked.ladder, shift.shift, drift.interval)]


def arm_of(c: Comparison) -> tuple[str, ...]:
    """What a shift of sigma_0 and the drift that goes with it share."""
    return c.ladder, c.sides[-1].label, c.corpus, c.rule, c.router


def _gammas(store: Store, comparisons: Iterable[Comparison], router: str, known: Mapping[str, Gammas]) -> list[Gamma]:
    """Pooled gamma of each mixture with that router whose load is steered, trained under the loads."""
    found = []
    for c in comparisons:
        if c.kind != "gamma" or len(c.sides) < 2 or c.sides[0].label == NATURAL:
            continue
        experts = _scenario(c.sides[0]).model.feed_forward
        if isinstance(experts, Experts) and experts.router == router:
            pooled = (known.get(c.name) or judge_stored_gammas(store, c)).pooled
            if pooled.reason is None:
                found.append(Gamma.of(pooled.gamma))
    return found


def _unseen(gammas: Sequence[Gamma]) -> Gamma:
    """Gamma of the next mixture: one of several is drawn like them, and of a single one nothing more is known."""
    if len(gammas) == 1:
        return gammas[0]
    means = np.array([g.mean for g in gammas])
    scatter = float(means.std(ddof=1)) * math.sqrt(1 + 1 / len(means))
    return Gamma(mean=float(means.mean()), se=scatter, df=len(means) - 1)


def _scenario(side: Side) -> Scenario:
    return parse_scenario(side.model)


def _ranges(scenarios: Sequence[Scenario]) -> dict[str, tuple[float, float]]:
    values: dict[str, list[float]] = {
        name: [] for name in ("shortfall_bits", "experts", "activated", "tokens_per_expert", "batch")
    }
    for scenario in scenarios:
        experts = scenario.model.feed_forward
        assert isinstance(experts, Experts)
        load = np.array(experts.target_load)
        tokens = load * experts.activated * scenario.tokens_per_step
        values["shortfall_bits"].append(Imbalance.of(load).shortfall_bits)
        values["experts"].append(experts.total)
        values["activated"].append(experts.activated)
        values["tokens_per_expert"] += [float(tokens.min()), float(tokens.max())]
        values["batch"].append(scenario.tokens_per_step)
    return {name: (float(min(v)), float(max(v))) for name, v in values.items()}


def _setting(comparisons: Sequence[Comparison], scenarios: Sequence[Scenario]) -> str:
    """One sentence on what was measured, for people who must judge whether it is anything like theirs."""
    widths = sorted({s.model.width for s in scenarios})
    steps = sorted({s.steps for s in scenarios})
    corpora = sorted({c.corpus for c in comparisons})
    shown = [" to ".join(str(v) for v in dict.fromkeys((v[0], v[-1]))) for v in (widths, steps)]
    return f"small models, width {shown[0]}, trained {shown[1]} steps; gamma on {' and '.join(corpora)}"
