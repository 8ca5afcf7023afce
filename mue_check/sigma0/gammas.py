"""Gamma of every matrix of the experts, and of all together, with the noise of the other parts beside it.

Judged is the form that Adam sees, of g / (sqrt(v) + eps): its noise is what moves the weights, and where the raw
gradient's |G|^2 is that of a few large entries it resolves every expert (docs/choices.md). The raw form stands beside.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mue_check.judge.verdict import Verdict, judge_interval
from mue_check.sigma0.gamma import GammaFit, fit_gamma

THEORY = 0.5
"""arXiv 2605.23893: the noise of a mean of n independent tokens."""
TOLERANCE = 0.1
EXPERTS = "expert_"
_POINT = ["setting", "seed", "layer", "kind", "expert"]
_RAW, _ADAM = ("noise", "signal"), ("adam_noise", "adam_signal")


@dataclass(frozen=True, kw_only=True)
class MatrixGamma:
    """One kind of matrix in one layer: its gamma as Adam sees it, and raw."""

    layer: int
    kind: str
    adam: GammaFit
    raw: GammaFit


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the model under one setting: log2 of sigma as Adam sees it and raw, NaN where it is not resolved."""

    setting: str
    layer: int
    kind: str
    adam: float
    raw: float


@dataclass(frozen=True, kw_only=True)
class Gammas:
    """``pooled`` has one exponent for all matrices, each with a level of its own.

    ``parts`` are all parts of the model, an expert matrix as a whole. ``noise_scale`` by setting is the simple noise
    scale of the whole model in tokens, tr Sigma B / |G|^2 (arXiv 1812.06162): the batch at which noise and signal are
    alike; NaN where the signal is not positive.
    """

    matrices: tuple[MatrixGamma, ...]
    pooled: GammaFit
    pooled_raw: GammaFit
    parts: tuple[Part, ...]
    noise_scale: Mapping[str, float]

    @property
    def verdict(self) -> Verdict:
        """Whether the pooled gamma is the theory's: what content-blind routing must give."""
        if self.pooled.reason is not None:
            return Verdict.INCONCLUSIVE
        return judge_interval(self.pooled.gamma, TOLERANCE, center=THEORY)

    def known_to(self, half_width: float) -> bool:
        """Whether up and down of every layer have an interval no wider."""
        asked = [m.adam for m in self.matrices if m.kind.endswith(("_up", "_down"))]
        return all(fit.reason is None and fit.gamma.half_width <= half_width for fit in asked)

    def __str__(self) -> str:
        each = "; ".join(f"layer {m.layer} {m.kind.removeprefix(EXPERTS)} {_short(m.adam)}" for m in self.matrices)
        return f"{self.pooled} ({each}); raw gradients: {_short(self.pooled_raw)}"


def judge_gammas(tables: Mapping[str, pd.DataFrame], *, ranked: bool = False) -> Gammas:
    """From gradient_noise tables by setting. Noise and signal are averaged over the steps looked at, then judged.

    ``ranked``: experts are told apart by how busy they are and not by their number, since each seed has another load.
    """
    table = pd.concat([t.assign(setting=_settings(t, name)) for name, t in tables.items()], ignore_index=True)
    values = ["tokens", *_RAW, *_ADAM]
    points = table.groupby(_POINT, as_index=False)[values].mean()
    experts = points[points["kind"].str.startswith(EXPERTS)].copy()
    if ranked:
        busiest = experts.groupby(["setting", "seed", "layer", "kind"])["tokens"].rank(ascending=False, method="first")
        experts["expert"] = busiest.astype(int) - 1
    adam, raw = (_as_plain(experts, names) for names in (_ADAM, _RAW))
    keys = experts[["layer", "kind"]].drop_duplicates().sort_values(["layer", "kind"])
    return Gammas(
        matrices=tuple(
            MatrixGamma(layer=int(layer), kind=str(kind), adam=_fit(adam, layer, kind), raw=_fit(raw, layer, kind))
            for layer, kind in zip(keys["layer"], keys["kind"], strict=True)
        ),
        pooled=_pooled(adam),
        pooled_raw=_pooled(raw),
        parts=tuple(_parts(points)),
        noise_scale=_noise_scale(points),
    )


def feed_forward(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the feed-forward, dense or experts, in the form that Adam sees: what a shift of sigma_0 is about."""
    chosen = table[table["kind"].str.startswith((EXPERTS, "ffn_"))]
    keys = ["seed", "layer", "kind", "expert"]
    means = chosen.groupby(keys, as_index=False)[["tokens", *_ADAM]].mean()
    plain = _as_plain(means, _ADAM)
    # a dense matrix is compared with the experts' of its kind, and is one expert
    return plain.assign(kind=plain["kind"].str.replace("ffn_", EXPERTS))


def _settings(table: pd.DataFrame, name: str) -> pd.Series:
    """The load under which a row was measured, where it is another one than that of training."""
    return table["load"].where(table["load"] != "", name)


def _as_plain(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    noise, signal = names
    return table.assign(noise=table[noise], signal=table[signal]).drop(columns=list(_ADAM), errors="ignore")


def _fit(table: pd.DataFrame, layer: int, kind: str) -> GammaFit:
    return fit_gamma(table[(table["layer"] == layer) & (table["kind"] == kind)])


def _pooled(table: pd.DataFrame) -> GammaFit:
    """One fit of all matrices: each one's signal is scaled so that all have one level, and gamma is what is left."""
    sums = table.groupby(["layer", "kind"])[["noise", "signal"]].transform("sum")
    level = (sums["signal"] / sums["noise"]).where(lambda ratio: ratio > 0, np.nan)
    scaled = table.assign(
        signal=table["signal"] / level,
        setting=table["setting"] + " " + table["kind"] + " of layer " + table["layer"].astype(str),
    )
    return fit_gamma(scaled[level.notna()])


def _parts(points: pd.DataFrame) -> list[Part]:
    sums = points.groupby(["setting", "layer", "kind"], as_index=False)[[*_RAW, *_ADAM]].sum()
    return [
        Part(
            setting=str(row["setting"]),
            layer=int(row["layer"]),
            kind=str(row["kind"]),
            adam=_log2(row["adam_noise"], row["adam_signal"]),
            raw=_log2(row["noise"], row["signal"]),
        )
        for row in sums.to_dict("records")
    ]


def _log2(noise: float, signal: float) -> float:
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
