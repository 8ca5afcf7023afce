"""A forecast put to the test: did the drift of a load that no fit has seen fall where the budget said?"""

from dataclasses import dataclass

import numpy as np

from mue_check.judge.drift import Drift
from mue_check.judge.interval import Interval
from mue_check.judge.verdict import Verdict
from mue_check.sigma0.budget import forecast_drift
from mue_check.sigma0.calibration import Calibration
from mue_check.spec import Experts


@dataclass(frozen=True, kw_only=True)
class Forecasted:
    """A measured drift and what the budget foretold of such a measurement, in octaves."""

    drift: Drift
    forecast: Interval

    @property
    def verdict(self) -> Verdict:
        """PASS where the measured mean lies in the interval, FAIL where not; without a drift neither."""
        if self.drift.reason is not None:
            return Verdict.INCONCLUSIVE
        inside = self.forecast.low <= self.drift.interval.mean <= self.forecast.high
        return Verdict.PASS if inside else Verdict.FAIL

    def __str__(self) -> str:
        return f"foretold {self.forecast} octaves, measured: {self.drift}"


def judge_forecast(drift: Drift, experts: Experts, calibration: Calibration) -> Forecasted:
    """The measured ``drift`` of ``experts`` under their load against what ``calibration`` foretells of it."""
    forecast = forecast_drift(np.array(experts.target_load), experts, calibration, drift.interval)
    return Forecasted(drift=drift, forecast=forecast)
