"""How far the target's loss curve is displaced against the reference's, in octaves: registration of whole curves.

    mean_a(x) = offset_a + gain_a f(x - shift_a) + own_a(x) + noise_a(x),    shift and log gain opposite in the two arms

The curves need no minimum of a known form: only that one shape f describes both, once shifted and stretched in loss
(self-modeling regression: Lawton, Sylvestre & Maggio 1972; Kneip & Gasser 1988; curve registration: Ramsay & Li 1998).
f is a Gaussian process, as is what an arm has for itself, own_a (Rasmussen & Williams 2006, chapter 5). own_a grows
with the height above the minimum: walls differ from model to model more than the place where they meet does.

The estimate is the mode of the marginal likelihood times weak priors. Its variance has two parts: what seeds say
(delete-one jackknife, a mean over seeds), and what the arms' own shapes leave open (Laplace's approximation).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from mue_check.judge.interval import PLAIN, Interval, Z, two_part_interval
from mue_check.judge.optimum import Curve

Floats = NDArray[np.float64]

LENGTH, SHARE = 1.8, 0.12
"""Medians of priors: over how many steps of the grid f bends, and what an arm has for itself, of its height."""
SPREADS = np.array([1.0, 0.7, 0.3, 0.7, 0.3])
"""Standard deviations of the normal priors of shift (steps), log scale, log length, log share and log gain."""
_FREE, _LEAST_NOISE = 10.0, 1e-2
"""Of the scale of a curve: the standard deviation of its offset, and the least noise."""
_FLAT = 1e-2
"""The least curvature of the cost along a parameter: a standard error of at most ten octaves."""
_FLAT_LEVEL = 0.05
_LEAST_SE = 0.5
"""Of the standard error that the noise of the points implies: where curves are flat, all seeds may agree by luck."""
_PRIOR_SEEDS = 3.0
"""As many seeds as the belief weighs that the seeds of two arms have nothing in common."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """``interval`` of the shift from reference to target, in octaves, and its parts.

    ``by_seed`` are jackknife pseudo-values of the seeds that both arms have. ``se`` is the standard error over seeds,
    ``shape_sd`` that of what the arms' own shapes leave open. ``left`` and ``right`` are the shifts of each wall alone.
    Where ``apart``, the interval of right minus left, excludes 0, no one shift describes the curves: then ``interval``
    reaches from wall to wall.
    """

    interval: Interval
    by_seed: Mapping[int, float]
    se: float
    shape_sd: float
    left: float
    right: float
    apart: Interval

    @property
    def misfit(self) -> bool:
        """Whether the walls move apart, at 95 %. Walls that do not say so may still differ: its power is weak."""
        return self.apart.low > 0 or self.apart.high < 0

    @property
    def walls(self) -> str:
        """How far each wall moved."""
        return f"left wall {self.left:+.2f}, right wall {self.right:+.2f}"


def register(reference: Curve, target: Curve, level: float = PLAIN) -> Registration:
    """The shift of ``target`` against ``reference`` with its interval at a two-sided ``level``.

    Each arm needs two seeds and two values at which some seed did not diverge. The arms need not share values or seeds.
    """
    arms = _Arm.of(reference), _Arm.of(target)
    pair = _Pair(arms)
    mode = pair.mode()
    means = [pair.y]
    for at, arm in enumerate(arms):
        rest = pair.y[pair.arm != at]
        means += [np.concatenate([m, rest] if at == 0 else [rest, m]) for m in arm.without_one()]
    y = np.array(means).T
    errors = pair.errors(mode)
    best = mode[0] + pair.moved(mode, errors, y)
    sides = [pair.shifts(mode, y, pair.wall(sign, best[0])) for sign in (-1.0, 1.0)]
    noise = pair.noise_variance(best[0], mode)
    shape = math.sqrt(max(errors[0, 0] - noise, pair.spread(mode) - noise, 0.0))
    least = noise * _LEAST_SE**2
    spread, moved = (_Influences.of(shifts, reference, target) for shifts in (best, sides[1] - sides[0]))
    apart = moved.interval(PLAIN)
    if any(arm.is_flat for arm in arms):  # whatever shift was found, it may be any
        shape = max(shape, float(np.ptp(pair.x)))
    if apart.low > 0 or apart.high < 0:  # the interval then reaches from wall to wall
        shape = math.hypot(shape, apart.mean / (2 * Z))
    return Registration(
        interval=spread.interval(level, least=least, shared=shape),
        by_seed=spread.by_seed,
        se=math.sqrt(max(spread.variance, least)),
        shape_sd=shape,
        left=float(sides[0][0]),
        right=float(sides[1][0]),
        apart=apart,
    )


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """One arm: ``x`` [K], usable ``losses`` [S, K] of ``seeds``, and their column effects ``mean`` [K].

    ``variance`` [K] of the column effects is smoothed; ``rest`` [S, K] is what they leave, in standard deviations.
    """

    x: Floats
    seeds: list[int]
    losses: Floats
    mean: Floats
    variance: Floats
    rest: Floats

    @classmethod
    def of(cls, curve: Curve) -> "_Arm":
        """A value at which every seed diverged says nothing, and nor does a seed that always diverged."""
        ok = np.isfinite(curve.usable)
        losses = curve.usable[ok.any(axis=1)][:, ok.any(axis=0)]
        mean, rest = _columns(losses)
        count = np.isfinite(losses).sum(axis=0)
        square = np.nansum(rest**2, axis=0) / np.maximum(count - 1, 1)
        # the noise changes slowly along the curve: smoothed over neighbors, and drawn to the mean
        near = np.convolve(np.pad(square, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
        return cls(
            x=curve.x[ok.any(axis=0)],
            seeds=[seed for seed, row in zip(curve.seeds, ok, strict=True) if row.any()],
            losses=losses,
            mean=mean,
            variance=(0.7 * near + 0.3 * near.mean()) / count,
            rest=np.nan_to_num(rest / np.sqrt(np.maximum(square, 1e-300))),
        )

    @property
    def is_flat(self) -> bool:
        """Whether the losses do not differ between values, by the F-test of a two-way table at 5 %."""
        seeds, values = self.losses.shape
        ratio = float((self.mean**2 / np.maximum(self.variance, 1e-300)).sum()) / (values - 1)
        return bool(scipy.stats.f.sf(ratio, values - 1, (seeds - 1) * (values - 1)) > _FLAT_LEVEL)

    def without_one(self) -> list[Floats]:
        """The column effects without each seed in turn. A value that only this seed has keeps its effect."""
        found = []
        for seed in range(len(self.losses)):
            rest = np.delete(self.losses, seed, axis=0)
            kept, mean = np.isfinite(rest).any(axis=0), self.mean.copy()
            mean[kept] = _columns(rest[:, kept])[0] + self.mean[kept].mean()
            found.append(mean - mean.mean())
        return found

    @property
    def valley(self) -> float:
        """The mean of x below the median of the column effects, weighted with depth."""
        depth = np.median(self.mean) - self.mean
        return float(np.average(self.x, weights=np.maximum(depth, 1e-300)))

    @property
    def height(self) -> Floats:
        """Above the lowest column effect, up to the median: a wall says no more the higher it is."""
        height = self.mean - self.mean.min()
        return np.asarray(np.minimum(height, np.median(height)))


def _columns(losses: Floats) -> tuple[Floats, Floats]:
    """Column effects [K], with mean 0, and rest [S, K] of ``losses`` = row + column + rest. NaN is missing."""
    column = np.zeros(losses.shape[1])
    for _ in range(20 if np.isnan(losses).any() else 1):
        row = np.nanmean(losses - column, axis=1, keepdims=True)
        column = np.nanmean(losses - row, axis=0)
    return column - column.mean(), losses - row - column


def _noise(arms: tuple[_Arm, _Arm]) -> Floats:
    """Covariance [N, N] of the noise of all column effects: a seed that learns late does so at several values.

    Correlations of few seeds are too noisy to be trusted: they are shrunk (Schaefer & Strimmer 2005).
    """
    seeds = sorted({seed for arm in arms for seed in arm.seeds})
    rest = np.concatenate([_by_seed(arm, seeds) for arm in arms], axis=1)
    df = np.repeat([len(arm.seeds) - 1 for arm in arms], [len(arm.x) for arm in arms])
    alike = rest.T @ rest / np.sqrt(np.outer(df, df)) * df.min() / (df.min() + _PRIOR_SEEDS)
    np.fill_diagonal(alike, 1.0)
    sd = np.sqrt(np.concatenate([arm.variance for arm in arms]))
    return np.asarray(alike * np.outer(sd, sd))


def _by_seed(arm: _Arm, seeds: list[int]) -> Floats:
    """What the column effects leave, with a row for each of ``seeds``: 0 for those that the arm lacks."""
    rows = np.zeros((len(seeds), len(arm.x)))
    rows[[seeds.index(seed) for seed in arm.seeds]] = arm.rest
    return rows


class _Pair:
    """Both arms' column effects as one vector ``y`` [N], and the cost of parameters.

    The parameters are (shift, log scale, log length, log share, log gain).
    """

    def __init__(self, arms: tuple[_Arm, _Arm]) -> None:
        self.y = np.concatenate([arm.mean for arm in arms])
        self.arm = np.repeat([0, 1], [len(arm.x) for arm in arms])
        self.x = np.concatenate([arm.x for arm in arms])
        scale = max(0.5 * sum(float(arm.mean.std()) for arm in arms), 1e-300)
        step = float(np.median(np.concatenate([np.diff(arm.x) for arm in arms])))
        apart = arms[1].valley - arms[0].valley
        self.start = np.array([apart, math.log(scale), math.log(LENGTH * step), math.log(SHARE), 0.0])
        self.spreads = SPREADS * np.array([step, 1, 1, 1, 1])
        self.noise = _noise(arms) + (_LEAST_NOISE * scale) ** 2 * np.eye(len(self.y))
        self.lows = [float(arm.x[np.argmin(arm.mean)]) for arm in arms]
        height = np.concatenate([arm.height for arm in arms]) + np.sqrt(np.diag(self.noise))
        same = np.equal.outer(self.arm, self.arm)
        self.apart, self.crossed = (np.subtract.outer(v, v).astype(np.float64) for v in (self.x, self.arm))
        self.own = np.outer(height, height) * same
        self.offset = (_FREE * scale) ** 2 * same
        self.sign = 2.0 * self.arm - 1
        self.signs = np.add.outer(self.sign, self.sign)

    def kernels(self, shift: Floats, log: Floats) -> tuple[Floats, Floats, Floats]:
        """Covariance of the shared shape [..., N, N] and of the own ones [N, N], and distances after the shift."""
        scale, length, share, gain = np.exp(log)
        distance = self.apart - np.asarray(shift)[..., None, None] * self.crossed
        size = scale * gain**self.sign
        shared = np.outer(size, size) * np.exp(-0.5 * (distance / length) ** 2)
        return shared, share**2 * self.own * np.exp(-0.5 * (self.apart / length) ** 2), distance

    def cost(self, p: Floats) -> tuple[float, Floats]:
        """Minus the log of marginal likelihood times priors, and its gradient [5]."""
        covariance, slopes = self.covariance(p)
        inverse = np.linalg.inv(covariance)
        weights = inverse @ self.y
        off = (p - self.start) / self.spreads
        value = 0.5 * (self.y @ weights + np.linalg.slogdet(covariance)[1] + off @ off)
        gradient = 0.5 * ((inverse - np.outer(weights, weights)) * slopes).sum(axis=(1, 2))
        return float(value), np.asarray(gradient + off / self.spreads)

    def covariance(self, p: Floats) -> tuple[Floats, Floats]:
        """Of the column effects [N, N], and its derivative by each parameter [5, N, N]."""
        shared, own, distance = self.kernels(p[0], p[1:])
        length = math.exp(p[2])
        slopes = [
            shared * distance * self.crossed / length**2,
            2 * shared,
            (shared * distance**2 + own * self.apart**2) / length**2,
            2 * own,
            shared * self.signs,
        ]
        return shared + own + self.offset + self.noise, np.array(slopes)

    def costs(self, shifts: Floats, log: Floats, y: Floats, noise: Floats) -> Floats:
        """Costs [G, Y] at ``shifts`` [G] for each column of ``y`` [N, Y], all else given."""
        shared, own, _ = self.kernels(shifts, log)
        root = np.linalg.cholesky(shared + own + self.offset + noise)
        white = np.linalg.solve(root, np.broadcast_to(y, (len(shifts), *y.shape)))
        logdet = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        off = (shifts - self.start[0]) / self.spreads[0]
        return np.asarray(0.5 * (white**2).sum(axis=1) + (logdet + 0.5 * off**2)[:, None])

    def mode(self) -> Floats:
        """The best parameters, from the best shifts on a grid."""
        reach = 0.5 * (self.x.max() - self.x.min())
        grid = self.start[0] + 0.5 * np.arange(-math.ceil(2 * reach), math.ceil(2 * reach) + 1)
        cost = self.costs(grid, self.start[1:], self.y[:, None], self.noise)[:, 0]
        local = [i for i in range(len(grid)) if cost[i] == cost[max(i - 2, 0) : i + 3].min()]
        box = [(grid[0], grid[-1]), *((v - 2, v + 2) for v in self.start[1:])]
        tries = [
            scipy.optimize.minimize(self.cost, [grid[i], *self.start[1:]], jac=True, method="L-BFGS-B", bounds=box)
            for i in sorted(local, key=lambda i: float(cost[i]))[:2]
        ]
        return np.asarray(min(tries, key=lambda found: float(found.fun)).x)

    def shifts(self, mode: Floats, y: Floats, noise: Floats) -> Floats:
        """The best shift [Y] for each column of ``y`` [N, Y], with the other parameters of ``mode``."""
        grid = mode[0] + 0.1 * np.arange(-20, 21)
        cost = self.costs(grid, mode[1:], y, noise)
        best = np.clip(cost.argmin(axis=0), 1, len(grid) - 2)
        below, least, above = (cost[best + i, np.arange(y.shape[1])] for i in (-1, 0, 1))
        bend = np.maximum(below - 2 * least + above, 1e-12)
        return np.asarray(grid[best] + 0.1 * np.clip(0.5 * (below - above) / bend, -1, 1))

    def wall(self, sign: float, shift: float) -> Floats:
        """Noise covariance that leaves the left (-1) or right (+1) wall to align: the other may be anywhere."""
        low = np.array([self.lows[0], self.lows[0] + shift])[self.arm]
        free = np.where(sign * (self.x - low) >= -0.5, 0.0, math.exp(2 * self.start[1]))
        return np.asarray(self.noise + np.diag(free))

    def noise_variance(self, shift: float, mode: Floats) -> float:
        """Variance of the shift if nothing but the noise of the points were unknown."""
        log, step = mode[1:].copy(), 0.15
        log[2] = math.log(1e-2)
        cost = self.costs(shift + step * np.array([-1, 0, 1]), log, self.y[:, None], self.noise)[:, 0]
        bend = float(cost[0] - 2 * cost[1] + cost[2]) / step**2 - self.spreads[0] ** -2
        return float(1 / max(bend, _FLAT))

    def errors(self, mode: Floats) -> Floats:
        """Covariance [5, 5] of all parameters: Laplace's approximation, without the prior of the shift.

        That prior chooses between modes, but it is no evidence: flat curves have no shift.
        """
        step = 1e-3 * np.eye(len(mode))
        bend = np.array([self.cost(mode + d)[1] - self.cost(mode - d)[1] for d in step]) / 2e-3
        bend[0, 0] -= self.spreads[0] ** -2
        values, vectors = np.linalg.eigh(0.5 * (bend + bend.T))
        return np.asarray(vectors / np.maximum(values, _FLAT) @ vectors.T)

    def spread(self, mode: Floats) -> float:
        """Variance of the shift over all its places, for given other parameters.

        Where other shifts describe the curves nearly as well, the curvature at the best one says too little.
        """
        reach = 0.5 * (self.x.max() - self.x.min())
        grid = mode[0] + np.linspace(-reach, reach, 8 * math.ceil(2 * reach) + 1)
        cost = self.costs(grid, mode[1:], self.y[:, None], self.noise)[:, 0]
        return float(np.average((grid - mode[0]) ** 2, weights=np.exp(cost.min() - cost)))

    def moved(self, mode: Floats, errors: Floats, y: Floats) -> Floats:
        """By how much [Y] the shift moves from ``mode``, to first order, for each column of ``y`` [N, Y].

        The other parameters move with it, which a shift for given others would leave out.
        """
        covariance, slopes = self.covariance(mode)
        weights = np.linalg.solve(covariance, np.column_stack([self.y, y]))
        pull = 0.5 * np.einsum("ny,pnm,my->py", weights, slopes, weights)
        return np.asarray(errors[0] @ (pull[:, 1:] - pull[:, :1]))


@dataclass(frozen=True, kw_only=True)
class _Influences:
    """An ``estimate``, and by how much each seed of the two arms moves it (n - 1 times, centered)."""

    estimate: float
    by_arm: tuple[Mapping[int, float], Mapping[int, float]]

    @classmethod
    def of(cls, shifts: Floats, reference: Curve, target: Curve) -> "_Influences":
        """From the estimate with all seeds, then without each seed of the reference, then of the target."""
        at, by_arm = 1, []
        for curve in (reference, target):
            seeds = [s for s, row in zip(curve.seeds, curve.usable, strict=True) if np.isfinite(row).any()]
            moved = (len(seeds) - 1) * (shifts[0] - shifts[at : at + len(seeds)])
            by_arm.append(dict(zip(seeds, (moved - moved.mean()).tolist(), strict=True)))
            at += len(seeds)
        return cls(estimate=float(shifts[0]), by_arm=(by_arm[0], by_arm[1]))

    @property
    def shared(self) -> list[int]:
        """The seeds that both arms have."""
        return [seed for seed in self.by_arm[0] if seed in self.by_arm[1]]

    @property
    def by_seed(self) -> dict[int, float]:
        """Pseudo-values of the seeds that both arms have."""
        return {seed: self.estimate + self.by_arm[0][seed] + self.by_arm[1][seed] for seed in self.shared}

    @property
    def _variances(self) -> tuple[float, float, float]:
        """Of the reference's mean and the target's, and twice their covariance, shrunk for few seeds.

        Pairing pays where the seeds of both arms have their order of data and their weights in common. The covariance
        of few seeds is too noisy to be trusted (Schaefer & Strimmer 2005).
        """
        count = [len(moved) for moved in self.by_arm]
        alone = [float(np.var(list(moved.values()), ddof=1)) / n for moved, n in zip(self.by_arm, count, strict=True)]
        both = len(self.shared)
        if both < 2:
            return alone[0], alone[1], 0.0
        covariance = np.cov([[moved[seed] for seed in self.shared] for moved in self.by_arm])[0, 1]
        trust = (both - 1) / (both - 1 + _PRIOR_SEEDS)
        return alone[0], alone[1], float(2 * trust * covariance * both / (count[0] * count[1]))

    @property
    def variance(self) -> float:
        """Of the estimate, over seeds."""
        return max(sum(self._variances), 0.0)

    @property
    def df(self) -> float:
        """Degrees of freedom of the variance (Satterthwaite 1946), as if the arms had nothing in common."""
        ours, theirs, _ = self._variances
        both = len(self.shared)
        trust = (both - 1) / (both - 1 + _PRIOR_SEEDS) if both > 1 else 0.0
        ways = (ours**2, theirs**2, 2 * trust**2 * ours * theirs)
        least = [len(moved) - 1 for moved in self.by_arm]
        spread = ways[0] / least[0] + ways[1] / least[1] + ways[2] / max(both - 1, 1)
        return (ours + theirs) ** 2 / spread if spread > 0 else float(min(least))

    def interval(self, level: float, least: float = 0.0, shared: float = 0.0) -> Interval:
        """Of the estimate, with at least the variance ``least``, and the standard error ``shared`` by all seeds."""
        n = min(len(moved) for moved in self.by_arm)
        se = math.sqrt(max(self.variance, least))
        return two_part_interval(self.estimate, se, self.df, n, level, shared=shared)
