"""Gamma of one mixture: how the gradient noise of its experts depends on the tokens that they see.

The form that Adam sees, g / (sqrt(v) + eps), is judged: its noise moves the weights, and it resolves every expert where
the |G|^2 of the raw gradient comes from a few large entries (docs/choices.md). The raw form is reported too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mue_check.axes import Ladder, Rung
from mue_check.judge.verdict import Verdict, judge_interval
from mue_check.questions.question import Finding
from mue_check.records import Store
from mue_check.sigma0.ladders import LABORATORIES, NATURAL, experts_of
from mue_check.sigma0.power_law import Form, GammaFit, fit_gamma, mean_over_steps, select_form
from mue_check.spec import Experts, ModelSpec
from mue_check.spec_text import parse_scenario
from mue_check.study.arm import measure
from mue_check.study.comparison import Comparison, Side, side_table
from mue_check.study.folder import Study, side_of

THEORY = 0.5
"""arXiv 2605.23893: the noise of a mean of n independent tokens."""
TOLERANCE = 0.1
HALF_WIDTH = 0.05
"""Seeds are added until gamma of the up and down matrices of every layer is known to this."""
EXPERTS = "expert_"
_POINT = ["setting", "seed", "layer", "kind", "expert"]
_VALUES = ["noise", "signal", "adam_noise", "adam_signal"]


@dataclass(frozen=True, kw_only=True)
class MatrixGamma:
    """One kind of matrix in one layer: gamma as Adam sees it, and of the raw gradient."""

    layer: int
    kind: str
    adam: GammaFit
    raw: GammaFit


@dataclass(frozen=True, kw_only=True)
class MatrixNoise:
    """log2 sigma of one matrix under one setting, as Adam sees it; NaN where it is not resolved. Experts count as one
    matrix."""

    setting: str
    layer: int
    kind: str
    log2_sigma: float


@dataclass(frozen=True, kw_only=True)
class GammaFinding(Finding):
    """``pooled`` has one exponent for all matrices, each with its own level. ``model`` is that of the first side.

    ``noise`` is that of every matrix of the model. ``noise_scale`` by setting is the simple noise scale of the whole
    model in tokens, tr Sigma B / |G|^2 (arXiv 1812.06162): the batch at which noise equals signal; NaN where the signal
    is not positive.
    """

    model: ModelSpec
    matrices: tuple[MatrixGamma, ...]
    pooled: GammaFit
    pooled_raw: GammaFit
    noise: tuple[MatrixNoise, ...]
    noise_scale: Mapping[str, float]

    @property
    def experts(self) -> Experts:
        """Those of the mixture."""
        return experts_of(self.model)

    @property
    def is_natural(self) -> bool:
        """Whether the load is the one that the router produces."""
        return not self.experts.load

    @property
    def is_switched(self) -> bool:
        """Whether one model was measured under several loads, with its weights frozen."""
        return len(self.comparison.sides) == 1 and not self.is_natural

    @property
    def is_known(self) -> bool:
        """Whether no up or down matrix has an interval wider than HALF_WIDTH."""
        fits = [m.adam for m in self.matrices if m.kind.endswith(("_up", "_down"))]
        return all(fit.reason is None and fit.gamma.half_width <= HALF_WIDTH for fit in fits)


def ask_gamma(study: Study, ladder: Ladder, *, switched: bool = False) -> GammaFinding:
    """Measure gamma of one mixture over the loads of its ladder.

    ``switched``: the weights are trained under the first load and frozen, and the noise is measured under each load, so
    that experts differ only in their tokens. Content-blind routing must then give 1/2; it is the control. Otherwise
    nothing is expected, and where the load is steered, seeds are added up to the tier's limit until gamma is known.
    """
    lab = LABORATORIES[study.tier.name]
    rungs = ladder.targets[:1] if switched else ladder.targets
    loads = tuple(rung.load for rung in ladder.targets) if switched else ()
    control = switched and experts_of(rungs[0].model).router == "content_blind"
    name = study.name("gamma", ladder.name, *(["switched"] if switched else []))
    question = study.question(
        "gamma", name, ladder, TOLERANCE, Verdict.PASS if control else None, axis="control" if control else None
    )
    seeds = 0
    with study.asking(question):
        while True:
            seeds += lab.noise_seeds
            sides = tuple(noise_side(study, ladder, rung, loads, seeds=seeds) for rung in rungs)
            found = judge_stored_gamma(study.store, replace(question, sides=sides))
            is_settled = switched or ladder.steered_router is None or found.is_known
            if is_settled or seeds + lab.noise_seeds > lab.max_noise_seeds:
                study.save(found.comparison)
                return found


def noise_side(
    study: Study, ladder: Ladder, rung: Rung, loads: tuple[str, ...] = (), *, seeds: int | None = None
) -> Side:
    """Measure the gradient noise of a rung at its task's base values, halfway and at the end; under ``loads`` at the
    end. ``seeds`` are by default the tier's."""
    arm, chunk = study.arm(ladder, rung), LABORATORIES[study.tier.name].noise_seeds
    steps = (arm.train.steps,) if loads else (arm.train.steps // 2, arm.train.steps)
    cells = [
        arm.cell("gradient_noise", [arm.base.lr], range(first, first + chunk), steps, loads)
        for first in range(0, seeds or chunk, chunk)
    ]
    measure(cells, study.store)
    return side_of(rung, arm, [cell.key for cell in cells])


def judge_stored_gamma(store: Store, comparison: Comparison) -> GammaFinding:
    """Average noise and signal over the measured steps, and fit gamma over the loads."""
    # the setting is the load under which a row was measured, if that is not the load of training
    settings = [
        table.assign(setting=table["load"].where(table["load"] != "", side.label))
        for side, table in ((side, side_table(store, side)) for side in comparison.sides)
    ]
    points = mean_over_steps(pd.concat(settings, ignore_index=True), _POINT, ["tokens", *_VALUES])
    experts = points[points["kind"].str.startswith(EXPERTS)].copy()
    if [side.label for side in comparison.sides] == [NATURAL]:
        # each seed has another load: experts pair by how busy they are, not by their number
        busiest = experts.groupby(["setting", "seed", "layer", "kind"])["tokens"].rank(ascending=False, method="first")
        experts["expert"] = busiest.astype(int) - 1
    forms: dict[Form, pd.DataFrame] = {"adam": select_form(experts, "adam"), "raw": select_form(experts, "raw")}
    keys = experts[["layer", "kind"]].drop_duplicates().sort_values(["layer", "kind"])
    matrices = tuple(
        MatrixGamma(
            layer=int(layer),
            kind=str(kind),
            **{
                form: fit_gamma(table[(table["layer"] == layer) & (table["kind"] == kind)])
                for form, table in forms.items()
            },
        )
        for layer, kind in zip(keys["layer"], keys["kind"], strict=True)
    )
    each = "; ".join(f"layer {m.layer} {m.kind.removeprefix(EXPERTS)} {_short(m.adam)}" for m in matrices)
    pooled, pooled_raw = _pooled(forms["adam"], cross_checks=True), _pooled(forms["raw"])
    return GammaFinding(
        comparison=comparison,
        verdict=_judge_control(pooled) if comparison.is_control else None,
        measured=f"{pooled} ({each}); raw gradients: {_short(pooled_raw)}",
        model=parse_scenario(comparison.sides[0].model).model,
        matrices=matrices,
        pooled=pooled,
        pooled_raw=pooled_raw,
        noise=tuple(_noise(points)),
        noise_scale=_noise_scale(points),
    )


def _judge_control(fit: GammaFit) -> Verdict:
    """Whether gamma is 1/2, as theory predicts for content-blind routing."""
    if fit.reason is not None:
        return Verdict.INCONCLUSIVE
    return judge_interval(fit.gamma, TOLERANCE, center=THEORY)


def _pooled(table: pd.DataFrame, *, cross_checks: bool = False) -> GammaFit:
    """One fit of all matrices: each one's signal is scaled to a common level, so that only gamma is left."""
    sums = table.groupby(["layer", "kind"])[["noise", "signal"]].transform("sum")
    level = (sums["signal"] / sums["noise"]).where(lambda ratio: ratio > 0, np.nan)
    scaled = table.assign(
        signal=table["signal"] / level,
        setting=table["setting"] + " " + table["kind"] + " of layer " + table["layer"].astype(str),
    )
    return fit_gamma(scaled[level.notna()], cross_checks=cross_checks)


def _noise(points: pd.DataFrame) -> Sequence[MatrixNoise]:
    sums = points.groupby(["setting", "layer", "kind"], as_index=False)[_VALUES].sum()
    return [
        MatrixNoise(
            setting=str(row["setting"]),
            layer=int(row["layer"]),
            kind=str(row["kind"]),
            log2_sigma=_log2_sigma(row["adam_noise"], row["adam_signal"]),
        )
        for row in sums.to_dict("records")
    ]


def _log2_sigma(noise: float, signal: float) -> float:
    return math.log2(noise / signal) / 2 if noise > 0 and signal > 0 else math.nan


def _noise_scale(points: pd.DataFrame) -> dict[str, float]:
    scales = {}
    for setting, rows in points.groupby("setting"):
        noise, signal = rows["noise"].sum(), rows["signal"].sum()
        # a shared parameter has seen every token of the batch
        batch = rows.loc[rows["expert"] < 0, "tokens"].max()
        scales[str(setting)] = float(noise / signal * batch) if signal > 0 else math.nan
    return scales


def _short(fit: GammaFit) -> str:
    return "none" if fit.reason is not None else str(fit.gamma)
