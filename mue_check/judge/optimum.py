"""The loss-vs-LR optimum of one arm: a parabola per seed in log2(LR), around the seed-averaged minimum.

The grid's argmin is 4 to 10 times noisier than the fit, so it only decides where to fit. Points that diverged are
stored but not fitted. A minimum must be shown: the lowest mean loss lies inside the grid, and the seeds' parabolas fall
significantly at the low end of the window and rise significantly at the high end. Else the optimum is unresolved.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, t_interval, t_quantile

WINDOW = 5
"""Points in the fit: the minimum and two on each side."""
SLOPE_LEVEL = 0.1
"""Two-sided level at which the slopes at both ends of the window must differ from 0, each in its own direction: the
usual test of a U shape at 5 % (Sasabuchi 1980; Lind & Mehlum 2010)."""
CLIFF, MISFIT = 0.5, 0.1
"""Shares of what the best runs learned: what a run beyond a cliff has lost, and the residual of a fit that is no valley
(docs/choices.md)."""
_ROUNDING = 2.0**-24
"""Relative rounding error of a loss: models train in float32."""


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
        """[S, L]: the loss ended higher than it began, or one of the two is not finite; or it lies beyond a cliff.

        A run beyond a cliff has lost, at a value above the seed's best, more than CLIFF of what that one learned. It
        belongs to no valley, and one such point in a window would fake a curvature.
        """
        # an initial loss that is NaN compares false with everything
        learned = np.isfinite(self.losses) & (self.losses <= self.initial[:, None])
        if not learned.size:
            return ~learned
        best = np.where(learned, self.losses, np.inf).min(axis=1, keepdims=True)
        above = np.cumsum(self.losses == best, axis=1) > 0
        with np.errstate(invalid="ignore"):
            fallen = above & (self.losses > best + CLIFF * (self.initial[:, None] - best))
        return np.asarray(~learned | fallen)

    @property
    def usable(self) -> NDArray[np.float64]:
        """[S, L] losses with diverged points as NaN."""
        return np.where(self.diverged, np.nan, self.losses)


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """log2(LR*) per seed. If it could not be resolved, ``reason`` says why and the other fields are unusable.

    ``curvature`` is in nats per octave squared, ``residual_sd`` and ``rounding`` (of one loss) are in nats.
    ``misfit`` is ``residual_sd`` as a share of what the best runs learned.
    """

    by_seed: Mapping[int, float] = field(default_factory=dict)
    loss_by_seed: Mapping[int, float] = field(default_factory=dict)
    curvature: float = math.nan
    residual_sd: float = math.nan
    misfit: float = math.nan
    rounding: float = math.nan
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


def lowest_at_an_end(curve: Curve) -> str:
    """That the loss is lowest at an end of the grid, beyond which nothing was tried; else empty."""
    best = mean_minimum(curve)
    if best not in (0, len(curve.values) - 1):
        return ""
    end = "lowest" if best == 0 else "highest"
    return f"the loss is lowest at the {end} value tried, log2 {curve.x[best]:.2f}"


def same_losses(seeds: Sequence[int], losses: NDArray[np.float64]) -> str:
    """Which seeds have the same ``losses`` [S, L], so that they are no independent runs; else empty."""
    distinct, counts = np.unique(losses, axis=0, return_counts=True)
    if len(distinct) == len(losses):
        return ""
    twin = distinct[int(np.argmax(counts))]
    twins = [str(seed) for seed, row in zip(seeds, losses, strict=True) if (row == twin).all()]
    return f"seeds {', '.join(twins)} have the same losses, so they count as one"


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


def vertex_sd(optimum: Optimum) -> float:
    """Standard error of one seed's vertex in octaves, from the residuals of the fits."""
    return _shift(optimum, max(optimum.residual_sd, optimum.rounding))


def rounding_sd(optimum: Optimum) -> float:
    """The part of ``vertex_sd`` that comes from rounding the losses."""
    return _shift(optimum, optimum.rounding)


def _shift(optimum: Optimum, sigma: float) -> float:
    """Standard error of a vertex for losses with error ``sigma``, by the delta method: sigma / (2 c sqrt(Sxx))."""
    x = np.asarray(optimum.window)
    return sigma / (2 * optimum.curvature * math.sqrt(float(((x - x.mean()) ** 2).sum())))


def fit_optimum(curve: Curve, points: int = WINDOW, level: float = SLOPE_LEVEL) -> Optimum:
    """The optimum of every seed of ``curve``, or the reason why it is unresolved.

    All seeds share the window of ``points`` values around the minimum of their mean. A seed whose vertex lies outside
    it (because it learned late, for example) is fitted again around its own minimum. If that fails too, the optimum is
    unresolved. At ``level`` 1 the slopes at both ends need the right sign and no significance.
    """
    best = mean_minimum(curve)
    if best < 0:
        return Optimum(reason="every value diverged")
    alive = np.flatnonzero(~np.isnan(curve.usable.mean(0)))
    if len(alive) < points:
        return Optimum(reason=f"only {len(alive)} usable values: {points} are needed")
    if at_an_end := lowest_at_an_end(curve):
        return Optimum(reason=at_an_end)
    x, losses = curve.x[alive], curve.usable[:, alive]
    shared = _window(len(alive), int(np.searchsorted(alive, best)), points)
    fits = _Parabolas.through(x[shared], losses[:, shared])
    low, high = x[shared][[0, -1]]
    span = f"{2.0**low:.2g} and {2.0**high:.2g} (log2 {low:.2f} and {high:.2f})"
    # a value that diverged just beyond the window is a rise, too
    first, last = alive[shared][[0, -1]]
    walls = first == alive[0] > 0, last == alive[-1] < len(curve.values) - 1
    if flat := fits.flat(walls, level):
        return Optimum(reason=f"no significant minimum between {span}: {flat}")
    if twins := same_losses(curve.seeds, losses):
        return Optimum(reason=twins)
    vertices: dict[int, _Vertex] = {}
    for i, (seed, row) in enumerate(zip(curve.seeds, losses, strict=True)):
        vertex = fits.vertex(i)
        if vertex is None:
            own = _window(len(alive), int(np.argmin(row)), points)
            vertex = _Parabolas.through(x[own], row[None, own]).vertex(0)
        if vertex is None:
            return Optimum(reason=f"seed {seed} has no minimum between {span}, nor around its lowest loss")
        vertices[seed] = vertex
    square = sum(v.residual for v in vertices.values())
    residual_sd = math.sqrt(square / (len(vertices) * (points - 3)))
    return Optimum(
        by_seed={seed: v.x for seed, v in vertices.items()},
        loss_by_seed={seed: v.loss for seed, v in vertices.items()},
        curvature=float(np.mean([v.curvature for v in vertices.values()])),
        residual_sd=residual_sd,
        misfit=float(np.mean(residual_sd / (curve.initial - losses.min(axis=1)))),
        rounding=fits.rounding,
        window=tuple(float(v) for v in x[shared]),
    )


@dataclass(frozen=True)
class _Vertex:
    """A fitted parabola: its vertex, its curvature, and its sum of squared residuals."""

    x: float
    loss: float
    curvature: float
    residual: float


def _window(count: int, best: int, points: int) -> slice:
    """``points`` neighbors of ``count`` values, centered on ``best`` where the grid allows."""
    first = min(max(best - points // 2, 0), count - points)
    return slice(first, first + points)


@dataclass(frozen=True, kw_only=True)
class _Parabolas:
    """Least-squares parabolas a + b u + c u^2 of S seeds over one window, where u is x minus its mean.

    ``u`` [W], ``coefficients`` [S, 3] as (a, b, c), ``residual`` [S] sums of squares, ``inverse`` [3, 3] of the
    normal equations, ``rounding`` error of one loss in nats.
    """

    center: float
    u: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    residual: NDArray[np.float64]
    inverse: NDArray[np.float64]
    rounding: float

    @classmethod
    def through(cls, x: NDArray[np.float64], losses: NDArray[np.float64]) -> "_Parabolas":
        """Fit ``losses`` [S, W] at ``x`` [W]."""
        center = float(x.mean())
        u = x - center
        design = np.vander(u, 3, increasing=True)
        inverse = np.asarray(np.linalg.inv(design.T @ design), dtype=np.float64)
        mean = losses.mean(axis=1, keepdims=True)  # a large constant would cost digits
        coefficients = (losses - mean) @ design @ inverse
        residual = np.square(losses - mean - coefficients @ design.T).sum(axis=1)
        coefficients[:, :1] += mean
        rounding = _ROUNDING * float(np.abs(losses).max())
        return cls(center=center, u=u, coefficients=coefficients, residual=residual, inverse=inverse, rounding=rounding)

    def vertex(self, seed: int) -> _Vertex | None:
        """The vertex of one seed; None if its parabola opens downwards or its vertex lies outside the window."""
        a, b, c = map(float, self.coefficients[seed])
        if not c > 0 or not self.u[0] <= -b / (2 * c) <= self.u[-1]:
            return None
        return _Vertex(
            x=self.center - b / (2 * c), loss=a - b * b / (4 * c), curvature=c, residual=float(self.residual[seed])
        )

    def flat(self, walls: tuple[bool, bool], level: float) -> str:
        """Where the mean parabola does not fall significantly at the low end, or rise at the high end; else empty.

        The error of a slope comes from the residuals of all seeds, and is no smaller than rounding makes it. ``walls``
        are the ends beyond which training diverges: there nothing else has to rise.
        """
        seeds = len(self.coefficients)
        df = seeds * (len(self.u) - 3)
        variance = max(float(self.residual.sum()) / df, self.rounding**2) / seeds
        for end, sign, verb, wall in zip(("low", "high"), (-1, 1), ("falls", "rises"), walls, strict=True):
            gradient = np.array([0.0, 1.0, 2 * self.u[0 if sign < 0 else -1]])
            slope = sign * float(gradient @ self.coefficients.mean(axis=0))
            half = t_quantile(df, level) * math.sqrt(variance * float(gradient @ self.inverse @ gradient))
            if not wall and not slope > half:
                return f"at its {end} end the fit {verb} by {slope:.2g} +- {half:.2g} nats per octave"
        return ""


def cubic_minimum(curve: Curve, optimum: Optimum) -> float:
    """log2 of the minimum of a cubic through the window of the only seed's parabola; NaN if it has none there.

    A wall that is steeper on one side moves the vertex of a parabola, and this minimum by less.
    """
    taken = np.isin(curve.x, optimum.window)
    x, losses = curve.x[taken], curve.usable[0, taken]
    center = float(x.mean())
    cubic = np.polynomial.Polynomial.fit(x - center, losses, 3)
    roots = [float(r.real) for r in cubic.deriv().roots() if abs(r.imag) < 1e-9 and cubic.deriv(2)(r.real) > 0]
    inside = [center + root for root in roots if x[0] <= center + root <= x[-1]]
    return inside[0] if inside else math.nan


def parabola_loss(optimum: Optimum, seed: int, x: float) -> float:
    """Loss in nats at log2(LR) = x, from the seed's own vertex and the mean curvature of the arm."""
    return optimum.loss_by_seed[seed] + optimum.curvature * (x - optimum.by_seed[seed]) ** 2
