"""How evenly a router spreads its tokens, and how unequal the weights of a token's active experts are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mue_check.errors import JudgeError
from mue_check.judge.interval import Interval, t_interval
from mue_check.judge.verdict import Verdict

CLAIM_TOLERANCE = 1e-3
"""Relative, for the mean over the tokens of a layer: the rounding of float32 sums of weights."""
TOKEN_TOLERANCE = 1e-2
"""Relative, for one token: weights may be rounded to bfloat16, which is 2^-8."""


@dataclass(frozen=True, kw_only=True)
class RoutingLoad:
    """Means over layers, with intervals over seeds. A mean can hide layers that are wrong in opposite directions, so
    ``verdict`` judges each layer of each seed; None if the router claims no sum.

    ``imbalance``: the busiest expert's load over the mean load (1: even, N: collapse). ``variance_factor``: second
    moment of the active weights over that of equal weights, which the theory takes as 1 (arXiv 2605.23893).
    ``weight_sum``: sum of a token's active weights, before R. ``claim``: the sum that the router claims, if any.
    ``worst`` says where the sum is farthest from the claim.
    """

    imbalance: Interval
    variance_factor: Interval
    weight_sum: Interval
    claim: float | None
    worst: str = ""
    verdict: Verdict | None = None

    def __str__(self) -> str:
        where = f", worst {self.worst}, claimed {self.claim:g}" if self.verdict is Verdict.FAIL else ""
        return (
            f"busiest expert {self.imbalance} times the mean load, variance factor {self.variance_factor}, "
            f"weights sum to {self.weight_sum}{where}"
        )


def judge_load(table: pd.DataFrame, claim: float | None = None) -> RoutingLoad:
    """Summarize a routing table with columns seed, layer, expert, load, weight_sum, variance_factor.

    Where it also has weight_sum_low and weight_sum_high, the extremes over tokens, they are judged too. JudgeError for
    a table without rows.
    """
    if table.empty:
        raise JudgeError("the routing table has no rows")
    experts = table["expert"].nunique()
    layers = table.groupby(["seed", "layer"])[["load", "weight_sum", "variance_factor"]].agg(_maximum)
    seeds = layers.groupby("seed").agg(_mean)
    worst, verdict = ("", None) if claim is None else _judge_sums(table, claim)
    return RoutingLoad(
        imbalance=t_interval(list(seeds["load"] * experts)),
        variance_factor=t_interval(list(seeds["variance_factor"])),
        weight_sum=t_interval(list(seeds["weight_sum"])),
        claim=claim,
        worst=worst,
        verdict=verdict,
    )


# pandas' own skip NaN
def _maximum(values: pd.Series[float]) -> float:
    return float(values.to_numpy().max())


def _mean(values: pd.Series[float]) -> float:
    return float(values.to_numpy().mean())


_TOLERANCES = {"weight_sum": CLAIM_TOLERANCE, "weight_sum_low": TOKEN_TOLERANCE, "weight_sum_high": TOKEN_TOLERANCE}


def _judge_sums(table: pd.DataFrame, claim: float) -> tuple[str, Verdict]:
    """Where the sum is farthest from the claim, and PASS if it is near enough everywhere. NaN is infinitely far."""
    columns = [name for name in _TOLERANCES if name in table]
    off = (table[columns].to_numpy(dtype=np.float64) / claim - 1) / [_TOLERANCES[name] for name in columns]
    off = np.nan_to_num(np.abs(off), nan=np.inf)
    row, column = np.unravel_index(np.argmax(off), off.shape)
    at, name = table.iloc[int(row)], columns[int(column)]
    where = "" if name == "weight_sum" else " for one token"
    worst = f"{at[name]:.4g}{where} in layer {at['layer']:.0f} of seed {at['seed']:.0f}"
    return worst, Verdict.PASS if off[row, column] <= 1 else Verdict.FAIL
