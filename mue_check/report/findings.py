"""What each kind of question found, with what the figures need of it.

Shapes: S seeds, T steps. Losses in nats per token, drifts in octaves of the swept base value.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mue_check.judge.drift import Drift
from mue_check.judge.early import EarlyComparison
from mue_check.judge.law import LawResult
from mue_check.judge.load import RoutingLoad
from mue_check.judge.optimum import Curve
from mue_check.judge.speedup import Speedup
from mue_check.judge.trend import Trend
from mue_check.judge.verdict import Verdict
from mue_check.questions.comparison import Comparison, Side
from mue_check.sigma0.forecast import Forecasted
from mue_check.sigma0.gammas import Gammas
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.shift import Sigma0Shift
from mue_check.spec import Experts, ModelSpec


class Finding(Protocol):
    """Any of them: it answers a question."""

    @property
    def comparison(self) -> Comparison:
        """The question."""


@dataclass(frozen=True, kw_only=True)
class DriftFinding:
    """One drift with both curves; ``core_seconds`` is what the target's rung cost."""

    comparison: Comparison
    reference: Curve
    target: Curve
    drift: Drift
    core_seconds: float

    @property
    def side(self) -> Side:
        """The target."""
        return self.comparison.sides[-1]

    @property
    def regret_share(self) -> float | None:
        """Regret over gain; None where the target wins nothing that could be lost."""
        return self.drift.regret / self.drift.gain if self.drift.gain > 0 else None


@dataclass(frozen=True, kw_only=True)
class LawsFinding:
    """The laws of one ladder; ``tables`` are the coordinates of its sides, in their order."""

    comparison: Comparison
    results: tuple[LawResult, ...]
    tables: tuple[pd.DataFrame, ...]


@dataclass(frozen=True, kw_only=True)
class EarlyFinding:
    """log2(target loss / reference loss), ``ratio`` [S, T], at ``steps`` [T], with what the judge says of it."""

    comparison: Comparison
    early: EarlyComparison
    steps: NDArray[np.int64]
    ratio: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SpeedupFinding:
    """How many times faster the target reaches the reference's losses."""

    comparison: Comparison
    speedup: Speedup


@dataclass(frozen=True, kw_only=True)
class RoutingFinding:
    """How one rung's router spreads its tokens; ``drift`` is the rung's own, ``laws`` its ladder's, where asked."""

    comparison: Comparison
    load: RoutingLoad
    drift: DriftFinding | None
    laws: LawsFinding | None


@dataclass(frozen=True, kw_only=True)
class TrendFinding:
    """The drifts of one ladder under one rule, as a line through its reference."""

    drifts: tuple[DriftFinding, ...]
    trend: Trend

    @property
    def comparison(self) -> Comparison:
        """The first of its questions."""
        return self.drifts[0].comparison

    @property
    def reference_size(self) -> int:
        """Where the drift is 0."""
        return self.comparison.sides[0].size


@dataclass(frozen=True, kw_only=True)
class GammaFinding:
    """Gamma of one mixture over its loads. ``model`` is the mixture under the first of them."""

    comparison: Comparison
    gammas: Gammas
    model: ModelSpec

    @property
    def experts(self) -> Experts:
        """The mixture's."""
        assert isinstance(self.model.feed_forward, Experts)
        return self.model.feed_forward

    @property
    def switched(self) -> bool:
        """Whether the loads changed at frozen weights: then one arm was looked at under several loads."""
        return len(self.comparison.sides) == 1 and not self.natural

    @property
    def natural(self) -> bool:
        """Whether the load is what the router made of it."""
        return not self.experts.load


@dataclass(frozen=True, kw_only=True)
class ShiftFinding:
    """The shift of log2 sigma_0 to one arm, with the ``drift`` of the same arm where that was asked.

    ``imbalance`` is that of the target's load; None where it has none. ``routing``: content_blind, or learned.
    """

    comparison: Comparison
    shift: Sigma0Shift
    drift: Drift | None
    imbalance: Imbalance | None
    routing: str

    @property
    def side(self) -> Side:
        """The target."""
        return self.comparison.sides[-1]


@dataclass(frozen=True, kw_only=True)
class ForecastFinding:
    """A drift that the budget foretold; ``forecast`` is None without a calibration to foretell from."""

    comparison: Comparison
    drift: Drift
    forecast: Forecasted | None

    @property
    def side(self) -> Side:
        """The target."""
        return self.comparison.sides[-1]

    @property
    def verdict(self) -> Verdict:
        """Whether the drift fell into the interval; open where there is no interval."""
        return self.forecast.verdict if self.forecast else Verdict.INCONCLUSIVE
