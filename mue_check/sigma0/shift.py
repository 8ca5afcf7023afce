"""The shift of log2 sigma_0 between two models at the same learning rate, from the noise and signal of their gradients.

sigma_0 = eta sigma (arXiv 2605.23893), and each expert has its own sigma. A model's log2 sigma_0 is their mean in log2,
in which each expert counts once. Measurements decided that: weighted by load, the mean falls under an uneven load, and
so does the optimum, although a larger batch, which lowers sigma_0, raises the optimum. The unweighted mean predicts
drifts under loads; it is not their cause, as the causal probe shows (docs/sigma0.md).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.axes import Ladder, Rung
from mue_check.errors import JudgeError
from mue_check.judge.interval import Interval, jackknife_interval, t_interval
from mue_check.judge.verdict import Verdict, judge_interval
from mue_check.questions.drift import DriftFinding, ask_drift
from mue_check.questions.question import Finding
from mue_check.records import Store
from mue_check.sigma0.calibration import routing_of
from mue_check.sigma0.gamma import EXPERTS, noise_side
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.ladders import LABORATORIES, LEARNED_LOADS
from mue_check.sigma0.power_law import (
    MIN_SEEDS,
    VALUES,
    Replicates,
    mean_over_steps,
    power_law,
    read_replicates,
    select_form,
)
from mue_check.spec import Experts
from mue_check.spec_text import parse_scenario
from mue_check.study.comparison import Comparison, side_table
from mue_check.study.folder import Study

MATRIX = ["layer", "kind"]
MAX_UNRESOLVED = 0.2
"""Beyond it the shift would come from the power law more than from what was measured."""


@dataclass(frozen=True, kw_only=True)
class Sigma0Shift:
    """Target minus reference, in octaves. ``theory`` is what gamma = 1/2 predicts from the tokens.

    The power law of a matrix stands in for those of its experts whose signal is not known to be positive: leaving them
    out would leave out the noisiest. ``reason``: why there is no shift.
    """

    shift: Interval
    theory: float
    seeds: tuple[int, ...]
    reason: str | None = None

    @property
    def residual(self) -> Interval:
        """Measured minus theory, with the interval of the measured shift: the loads are known."""
        return self.shift.moved(-self.theory)

    def judge(self, tolerance: float) -> Verdict:
        """Whether it lies between 0 and the theory's shift, within ``tolerance`` octaves."""
        if self.reason is not None:
            return Verdict.INCONCLUSIVE
        return judge_interval(self.shift, tolerance, residual=self.theory)

    def __str__(self) -> str:
        if self.reason is not None:
            return f"no shift of sigma_0: {self.reason}"
        return f"sigma_0 shift {self.shift} octaves (theory {self.theory:+.2f}) over {len(self.seeds)} seeds"


@dataclass(frozen=True, kw_only=True)
class ShiftFinding(Finding):
    """The shift of log2 sigma_0 to one target; ``experts`` are the target's, None for a dense one.

    Under another load the shift is bounded by the theory's; elsewhere nothing is judged.
    """

    shift: Sigma0Shift
    experts: Experts | None

    @property
    def imbalance(self) -> Imbalance | None:
        """That of the target's load; None where no load was set."""
        load = self.experts.target_load if self.experts else ()
        return Imbalance.of(np.array(load)) if load else None

    @property
    def routing(self) -> str:
        """Learned or content_blind."""
        return routing_of(self.experts) if self.experts else "dense"


def ask_shift(study: Study, ladder: Ladder, target: Rung) -> ShiftFinding:
    """Measure the shift from the ladder's reference to ``target``, at one learning rate."""
    question = study.question(
        "sigma0",
        study.name("sigma0", ladder.name, target.label),
        ladder,
        study.tolerance,
        Verdict.RESIDUAL if ladder.name in LEARNED_LOADS else None,
    )
    with study.asking(question):
        sides = tuple(noise_side(study, ladder, rung) for rung in (ladder.reference, target))
        found = judge_stored_shift(study.store, replace(question, sides=sides))
        study.save(found.comparison)
    return found


def ask_sigma0_drift(study: Study, ladder: Ladder, target: Rung) -> DriftFinding:
    """Measure the drift to a target with as many seeds as a fit needs; nothing is expected of it."""
    seeds = LABORATORIES[study.tier.name].seeds_of_drift(study.tier)
    study = replace(study, tier=replace(study.tier, seeds=seeds, max_seeds=seeds))
    return ask_drift(study, ladder, target, finding=True)


def judge_stored_shift(store: Store, comparison: Comparison) -> ShiftFinding:
    """Compare the stored noise of the two sides."""
    reference, target = (_feed_forward(side_table(store, side)) for side in comparison.sides)
    model = parse_scenario(comparison.sides[-1].model).model
    shift = sigma0_shift(target, reference)
    return ShiftFinding(
        comparison=comparison,
        verdict=shift.judge(comparison.tolerance) if comparison.expected else None,
        measured=str(shift),
        shift=shift,
        experts=model.feed_forward if isinstance(model.feed_forward, Experts) else None,
    )


def _feed_forward(table: pd.DataFrame) -> pd.DataFrame:
    """Noise of the feed-forward matrices, dense or experts, as Adam sees it, averaged over the measured steps."""
    chosen = select_form(table[table["kind"].str.startswith((EXPERTS, "ffn_"))], "adam")
    means = mean_over_steps(chosen, ["seed", *MATRIX, "expert"], VALUES)
    # a dense matrix counts as one expert of its kind
    return means.assign(kind=means["kind"].str.replace("ffn_", EXPERTS))


def sigma0_shift(target: pd.DataFrame, reference: pd.DataFrame) -> Sigma0Shift:
    """Compare two tables as ``sigma0.gamma`` reads them, of one setting each, with further columns layer and kind.

    A dense matrix is one expert. Noise and signal are averaged over the common seeds; then follow the logarithm, the
    mean over experts, and the mean over (layer, kind). Raises JudgeError for a bad table.
    """
    arms = {"target": _arm(target, "target"), "reference": _arm(reference, "reference")}
    seeds = tuple(s for s in arms["target"].seeds if s in arms["reference"].seeds)
    arms = {name: arm.of_seeds(seeds) for name, arm in arms.items()}
    missing = {name: _missing(arm) for name, arm in arms.items()}
    worst = max(missing, key=lambda name: missing[name])
    reason = None
    if len(seeds) < MIN_SEEDS:
        reason = f"{len(seeds)} seed(s) in common: at least {MIN_SEEDS} are needed"
    elif missing[worst] > MAX_UNRESOLVED:
        reason = (
            f"{missing[worst]:.0%} of the experts are not resolved in the {worst} "
            f"(at most {MAX_UNRESOLVED:.0%} may be): measure with more batches or seeds"
        )
    if reason is not None:
        return Sigma0Shift(shift=t_interval([]), theory=math.nan, seeds=seeds, reason=reason)
    # all seeds decide which experts are resolved, so that the jackknife always compares the same experts
    (ours, known), (theirs, known_there) = ((arm.select(arm.alive), arm.resolved[arm.alive]) for arm in arms.values())
    shift = _level(ours, known) - _level(theirs, known_there)
    left_out = [_level(ours.without(s), known) - _level(theirs.without(s), known_there) for s in seeds]
    return Sigma0Shift(
        shift=jackknife_interval(shift, left_out),
        theory=float(_weights(theirs) @ theirs.log2_tokens - _weights(ours) @ ours.log2_tokens) / 2,
        seeds=seeds,
    )


def _arm(table: pd.DataFrame, name: str) -> Replicates:
    if "setting" in table.columns and table["setting"].nunique() > 1:
        found = ", ".join(map(str, table["setting"].unique()))
        raise JudgeError(f"the {name}'s noise table holds the settings {found}: a shift compares one setting with one")
    return read_replicates(table, [*MATRIX, "expert"])


def _weights(measured: Replicates) -> NDArray[np.float64]:
    """[P] equal for all experts of a matrix, and in sum for all matrices; they add up to 1."""
    groups = measured.points.groupby(MATRIX)["expert"]
    return np.asarray(1 / groups.transform("size") / groups.ngroups, dtype=np.float64)


def _missing(measured: Replicates) -> float:
    """Share of experts that are not resolved, averaged over matrices; 1 without seeds.

    An expert without tokens does not train and counts as resolved.
    """
    if not measured.seeds:
        return 1.0
    return float(_weights(measured) @ (~measured.resolved & (measured.tokens.sum(axis=0) > 0)))


def _level(alive: Replicates, resolved: NDArray[np.bool_]) -> float:
    """Mean of log2 sigma over experts; the power law of a matrix stands in for its experts that are not resolved."""
    sigma = np.zeros(len(resolved))
    sigma[resolved] = alive.select(resolved).log2_sigma
    for rows in alive.points.reset_index(drop=True).groupby(MATRIX).indices.values():
        if resolved[rows].all():
            continue
        matrix = alive.select(np.isin(np.arange(len(resolved)), rows))
        intercept, gamma = power_law(matrix)
        filled = intercept - gamma * matrix.log2_tokens
        if not math.isfinite(gamma):  # the tokens differ too little for a slope
            ratio = matrix.signal_to_noise
            level = ratio.mean() if ratio.mean() > 0 else ratio[resolved[rows]].mean()
            filled = np.full(len(rows), -math.log2(level) / 2)
        sigma[rows] = np.where(resolved[rows], sigma[rows], filled)
    return float(_weights(alive) @ sigma)
