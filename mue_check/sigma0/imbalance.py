"""How uneven a load is: the share of all assignments that each of N experts receives."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

EVEN = 1e-9
"""Coefficient of variation below which a load counts as even."""


@dataclass(frozen=True, kw_only=True)
class Imbalance:
    """Figures of one load.

    ``variation``: standard deviation over mean. ``entropy``: relative to that of the uniform load, in [0, 1]. ``peak``:
    the busiest expert over the mean. ``shortfall_bits``: mean over experts with tokens of log2(mean load / load), how
    much less a typical expert sees than under an even load; with an exponent gamma the mean of log2 sigma_0 shifts by
    gamma times that. ``dead``: experts without any token.
    """

    experts: int
    variation: float
    entropy: float
    peak: float
    shortfall_bits: float
    dead: int

    @classmethod
    def of(cls, load: NDArray[np.float64]) -> "Imbalance":
        """From counts or shares [N], at least 0 and not all 0."""
        p = load / load.sum()
        n = len(p)
        bits = float(scipy.stats.entropy(p, base=2))
        return cls(
            experts=n,
            variation=float(p.std() * n),
            entropy=bits / math.log2(n) if n > 1 else 1.0,
            peak=float(p.max() * n),
            shortfall_bits=float(-np.log2(p[p > 0] * n).mean()) + 0.0,  # no -0
            dead=int((p == 0).sum()),
        )

    def __str__(self) -> str:
        dead = f", {self.dead} without tokens" if self.dead else ""
        return (
            f"busiest expert {self.peak:.3g} times the mean, coefficient of variation {self.variation:.3g}, entropy "
            f"{self.entropy:.3f} of the uniform load's, a typical expert {self.shortfall_bits:.3g} bits short{dead}"
        )


SHORTFALL = "shortfall (bits)"
MEASURES: Mapping[str, Callable[[Imbalance], float]] = {
    "coefficient of variation": lambda i: i.variation,
    "1 - normalized entropy": lambda i: 1 - i.entropy,
    "max/mean - 1": lambda i: i.peak - 1,
    SHORTFALL: lambda i: i.shortfall_bits,
}
"""Each is 0 for the even load, where the residual is 0 too. Only the last one has a unit."""
