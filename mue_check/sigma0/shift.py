"""The shift of log2 sigma_0 between two models at the same learning rate, from their gradients' noise and signal.

sigma_0 = eta sigma (arXiv 2605.23893), and each expert has a sigma of its own. A model's sigma_0 is their mean in
log2, each expert counted once. That is a choice by measurement: weighted by load the mean falls where the load is
uneven, and the optimum, which rises where the batch makes sigma_0 fall, falls there too. It foretells drifts under
loads; a mechanism it is not, as the causal probe shows (docs/sigma0.md).
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.errors import JudgeError
from mue_check.judge.interval import Interval, jackknife_interval, t_interval
from mue_check.judge.verdict import Verdict, judge_interval
from mue_check.sigma0.gamma import power_law
from mue_check.sigma0.noise import MIN_SEEDS, Replicates, read_replicates

MATRIX = ["layer", "kind"]
MAX_UNRESOLVED = 0.2
"""Beyond it the shift would be what the power law says, and not what was measured."""


@dataclass(frozen=True, kw_only=True)
class Sigma0Shift:
    """Target minus reference, in octaves. ``theory`` is what gamma = 1/2 makes of the tokens.

    ``unresolved_share``: that of experts (the larger of both models') whose signal is not known to be positive;
    ``unresolved`` names them. The power law of their own matrix stands for them, since those left out are the noisy
    ones. ``reason``: why there is no shift.
    """

    shift: Interval
    theory: float
    unresolved_share: float
    unresolved: tuple[str, ...]
    seeds: tuple[int, ...]
    reason: str | None = None

    @property
    def residual(self) -> Interval:
        """Measured minus theory, with the interval of the measured; the loads are taken as known."""
        s = self.shift
        return Interval(s.mean - self.theory, s.low - self.theory, s.high - self.theory, s.n)

    def judge(self, tolerance: float) -> Verdict:
        """Whether it is bounded: between none and the theory's, within ``tolerance`` octaves."""
        if self.reason is not None:
            return Verdict.INCONCLUSIVE
        return judge_interval(self.shift, tolerance, residual=self.theory)

    def __str__(self) -> str:
        if self.reason is not None:
            return f"no shift of sigma_0: {self.reason}"
        return f"sigma_0 shift {self.shift} octaves (theory {self.theory:+.2f}) over {len(self.seeds)} seeds"


def sigma0_shift(target: pd.DataFrame, reference: pd.DataFrame) -> Sigma0Shift:
    """From two tables as ``judge.gamma`` reads them, of one setting each, with columns layer and kind in addition.

    A dense matrix is one expert. Noise and signal are averaged over the seeds that both have, then follow the
    logarithm, the mean over experts, and the mean over (layer, kind). Raises JudgeError for a bad table.
    """
    arms = {"target": _arm(target, "target"), "reference": _arm(reference, "reference")}
    seeds = tuple(s for s in arms["target"].seeds if s in arms["reference"].seeds)
    arms = {name: arm.of_seeds(seeds) for name, arm in arms.items()}
    unresolved = tuple(f"{arm}: {name}" for arm, m in arms.items() for name in m.names(~m.resolved & _loaded(m)))
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
        return Sigma0Shift(
            shift=t_interval([]),
            theory=math.nan,
            unresolved_share=missing[worst],
            unresolved=unresolved,
            seeds=seeds,
            reason=reason,
        )
    # which experts are resolved is settled with all seeds: the jackknife then compares like with like
    (ours, known), (theirs, known_there) = ((arm.select(arm.alive), arm.resolved[arm.alive]) for arm in arms.values())
    shift = _level(ours, known) - _level(theirs, known_there)
    left_out = [_level(ours.without(s), known) - _level(theirs.without(s), known_there) for s in seeds]
    return Sigma0Shift(
        shift=jackknife_interval(shift, left_out),
        theory=float(_weights(theirs) @ theirs.log2_tokens - _weights(ours) @ ours.log2_tokens) / 2,
        unresolved_share=missing[worst],
        unresolved=unresolved,
        seeds=seeds,
    )


def _arm(table: pd.DataFrame, name: str) -> Replicates:
    if "setting" in table.columns and table["setting"].nunique() > 1:
        found = ", ".join(map(str, table["setting"].unique()))
        raise JudgeError(f"the {name}'s noise table holds the settings {found}: a shift is between one and one")
    return read_replicates(table, [*MATRIX, "expert"])


def _weights(measured: Replicates) -> NDArray[np.float64]:
    """[P] alike for all experts of a matrix, and for all matrices: the sum is 1."""
    groups = measured.points.groupby(MATRIX)["expert"]
    return np.asarray(1 / groups.transform("size") / groups.ngroups, dtype=np.float64)


def _loaded(measured: Replicates) -> NDArray[np.bool_]:
    """[P]: has tokens. An expert without any does not train, and nothing of it is missing."""
    return np.asarray(measured.tokens.sum(axis=0) > 0, dtype=np.bool_)


def _missing(measured: Replicates) -> float:
    """Share of the experts with tokens that are not resolved, averaged over matrices; 1 without seeds."""
    if not measured.seeds:
        return 1.0
    return float(_weights(measured) @ (~measured.resolved & _loaded(measured)))


def _level(alive: Replicates, resolved: NDArray[np.bool_]) -> float:
    """Mean of log2 sigma over experts. Each matrix's power law over all its experts stands for those not resolved."""
    sigma = np.zeros(len(resolved))
    sigma[resolved] = alive.select(resolved).log2_sigma
    for rows in alive.points.reset_index(drop=True).groupby(MATRIX).indices.values():
        if resolved[rows].all():
            continue
        matrix = alive.select(np.isin(np.arange(len(resolved)), rows))
        intercept, gamma = power_law(matrix)
        filled = intercept - gamma * matrix.log2_tokens
        if not math.isfinite(gamma):  # the tokens are too alike for a slope
            ratio = matrix.signal_to_noise
            level = ratio.mean() if ratio.mean() > 0 else ratio[resolved[rows]].mean()
            filled = np.full(len(rows), -math.log2(level) / 2)
        sigma[rows] = np.where(resolved[rows], sigma[rows], filled)
    return float(_weights(alive) @ sigma)
