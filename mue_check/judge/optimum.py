"""The loss-vs-LR optimum of one arm: a parabola per seed in log2(LR), around the seed-averaged minimum.

The grid's argmin is 4 to 10 times noisier than the fit, so it only decides where to fit. Points that diverged are
stored but not fitted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, t_interval

WINDOW = 5
"""Points in the fit: the minimum and two on each side."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Losses of one arm: ascending ``values`` [L] of the swept knob, ``losses`` [S, L] in nats, ``initial`` losses [S].

    A missing loss is NaN.
    """

    values: NDArray[np.float64]
    seeds: tuple[int, ...]
    losses: NDArray[np.float64]
    initial: NDArray[np.float64]

    @property
    def x(self) -> NDArray[np.float64]:
        """log2 of the swept values."""
        return np.log2(self.values)

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """[S, L]: the loss ended higher than it began, or one of the two is not finite."""
        # an initial loss that is NaN compares false with everything
        return ~(np.isfinite(self.losses) & (self.losses <= self.initial[:, None]))

    @property
    def usable(self) -> NDArray[np.float64]:
        """[S, L] losses with diverged points as NaN."""
        return np.where(self.diverged, np.nan, self.losses)


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """log2(LR*) per seed. If it could not be resolved, ``reason`` says why and the other fields are unusable."""

    by_seed: Mapping[int, float] = field(default_factory=dict)
    loss_by_seed: Mapping[int, float] = field(default_factory=dict)
    curvature: float = math.nan
    residual_sd: float = math.nan
    window: tuple[float, ...] = ()
    reason: str | None = None

    @property
    def resolved(self) -> bool:
        """Whether every seed has an optimum inside the window."""
        return self.reason is None

    @property
    def interval(self) -> Interval:
        """Mean and t-interval of log2(LR*) over seeds."""
        return t_interval(list(self.by_seed.values()))


def mean_minimum(curve: Curve) -> int:
    """Index of the lowest seed-averaged loss among learning rates where no seed diverged; -1 if there are none."""
    mean = curve.usable.mean(0)
    return -1 if np.isnan(mean).all() else int(np.nanargmin(mean))


def lacking(curve: Curve) -> tuple[int, int]:
    """How many more points the fit needs (below, above) the grid for a window that is centered on the minimum.

    If points above the minimum diverged, the window cannot be centered, and the missing points go below.
    """
    best = mean_minimum(curve)
    half = WINDOW // 2
    if best < 0:
        return WINDOW, 0
    alive = ~np.isnan(curve.usable.mean(0))
    above = 0
    while best + above + 1 < len(alive) and alive[best + above + 1]:
        above += 1
    if best + above + 1 < len(alive) and above < half:
        return max(0, WINDOW - 1 - above - best), 0
    return max(0, half - best), max(0, half - above)


def fit_optimum(curve: Curve) -> Optimum:
    """The optimum of every seed of ``curve``, or the reason why it is unresolved.

    All seeds share the window around the minimum of their mean. A seed whose vertex lies outside it (because it learned
    late, for example) is fitted again around its own minimum. If that fails too, the optimum is unresolved.
    """
    best = mean_minimum(curve)
    if best < 0:
        return Optimum(reason="every value diverged")
    alive = np.flatnonzero(~np.isnan(curve.usable.mean(0)))
    if len(alive) < WINDOW:
        return Optimum(reason=f"only {len(alive)} usable values: {WINDOW} are needed")
    x, losses = curve.x[alive], curve.usable[:, alive]
    shared = _window(len(alive), int(np.searchsorted(alive, best)))
    vertices: dict[int, _Vertex] = {}
    for seed, row in zip(curve.seeds, losses, strict=True):
        own = _window(len(alive), int(np.argmin(row)))
        vertex = _fit(x[shared], row[shared]) or _fit(x[own], row[own])
        if vertex is None:
            low, high = x[shared][[0, -1]]
            return Optimum(
                reason=f"seed {seed} has no minimum between log2 values {low:.2f} and {high:.2f}, "
                "nor around its lowest loss"
            )
        vertices[seed] = vertex
    square = sum(v.residual for v in vertices.values())
    return Optimum(
        by_seed={seed: v.x for seed, v in vertices.items()},
        loss_by_seed={seed: v.loss for seed, v in vertices.items()},
        curvature=float(np.mean([v.curvature for v in vertices.values()])),
        residual_sd=math.sqrt(square / (len(vertices) * (WINDOW - 3))),
        window=tuple(float(v) for v in x[shared]),
    )


@dataclass(frozen=True)
class _Vertex:
    """A fitted parabola: its vertex, its curvature, and its sum of squared residuals."""

    x: float
    loss: float
    curvature: float
    residual: float


def _window(points: int, best: int) -> slice:
    """WINDOW neighbors, centered on ``best`` where the grid allows."""
    first = min(max(best - WINDOW // 2, 0), points - WINDOW)
    return slice(first, first + WINDOW)


def _fit(x: NDArray[np.float64], loss: NDArray[np.float64]) -> _Vertex | None:
    """The least-squares parabola; None if it opens downwards or its vertex lies outside ``x``."""
    center = x.mean()
    c, b, a = np.polyfit(x - center, loss, 2)
    if not c > 0 or not x[0] <= center - b / (2 * c) <= x[-1]:
        return None
    residual = loss - np.polyval([c, b, a], x - center)
    return _Vertex(
        x=float(center - b / (2 * c)),
        loss=float(a - b * b / (4 * c)),
        curvature=float(c),
        residual=float(residual @ residual),
    )


def parabola_loss(optimum: Optimum, seed: int, x: float) -> float:
    """Loss in nats at log2(LR) = x, from the seed's own vertex and the mean curvature of the arm."""
    return optimum.loss_by_seed[seed] + optimum.curvature * (x - optimum.by_seed[seed]) ** 2
