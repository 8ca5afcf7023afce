"""How evenly a router spreads its tokens, and how unequal the weights of a token's active experts are."""

from dataclasses import dataclass

import pandas as pd

from mue_check.judge.interval import Interval, t_interval
from mue_check.judge.verdict import Verdict

CLAIM_TOLERANCE = 1e-3
"""Relative: the rounding of float32 sums of weights."""


@dataclass(frozen=True, kw_only=True)
class RoutingLoad:
    """Means over layers, with intervals over seeds.

    ``imbalance``: the busiest expert's load over the mean load (1: even, N: collapse). ``variance_factor``: second
    moment of the active weights over that of equal weights, which the theory takes as 1 (arXiv 2605.23893).
    ``weight_sum``: sum of a token's active weights, before R. ``claim``: the sum that the router claims, if any.
    """

    imbalance: Interval
    variance_factor: Interval
    weight_sum: Interval
    claim: float | None

    @property
    def verdict(self) -> Verdict | None:
        """Whether the weights sum to what the router claims; None if it claims nothing."""
        if self.claim is None:
            return None
        off = max(abs(self.weight_sum.low - self.claim), abs(self.weight_sum.high - self.claim))
        return Verdict.PASS if off <= CLAIM_TOLERANCE * self.claim else Verdict.FAIL

    def __str__(self) -> str:
        return (
            f"busiest expert {self.imbalance} times the mean load, variance factor {self.variance_factor}, "
            f"weights sum to {self.weight_sum}"
        )


def judge_load(table: pd.DataFrame, claim: float | None = None) -> RoutingLoad:
    """Summarize a routing table with columns seed, layer, expert, load, weight_sum, variance_factor."""
    experts = table["expert"].nunique()
    layers = table.groupby(["seed", "layer"]).agg({"load": "max", "weight_sum": "first", "variance_factor": "first"})
    seeds = layers.groupby("seed").mean()
    return RoutingLoad(
        imbalance=t_interval(list(seeds["load"] * experts)),
        variance_factor=t_interval(list(seeds["variance_factor"])),
        weight_sum=t_interval(list(seeds["weight_sum"])),
        claim=claim,
    )
