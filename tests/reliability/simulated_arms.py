"""Simulated arms for the campaign of coverage. Their curves are not the judge's own model, a parabola with even noise.

All curves of an arm are translated by the optimum of its seed, so the true drift is known exactly, however little a
curve looks like a parabola.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mue_check.judge.optimum import Curve
from mue_check.study.search import GROUP, Grid, LossSearch, grid_of

START = -6.5
"""log2 of the learning rate at which the search of the reference begins."""
CURVATURE, NOISE, COMMON, OWN, OFFSET = 0.016, 0.004, 0.12, 0.1, 0.26
"""Of the Markov source: nats per octave squared, nats, and octaves: spread of a seed in both arms, of one arm's own
seeds, and of the reference's optimum around START (docs/choices.md, cost/spreads.json)."""

Floats = NDArray[np.float64]
Shape = Callable[[Floats], Floats]
"""Loss above the minimum, in nats, at octaves above the optimum."""


def parabola(u: Floats) -> Floats:
    """The judge's own model."""
    return CURVATURE * u**2


def cubic(u: Floats) -> Floats:
    """Steeper above the optimum than below it: by a half at one and a half octaves."""
    return CURVATURE * u**2 + 0.0015 * u * np.minimum(np.abs(u), 4.0) ** 2


def plateaus(u: Floats) -> Floats:
    """Flat beyond two octaves from the optimum."""
    return 0.04 * (1 - np.exp(-CURVATURE * u**2 / 0.04))


def group(u: Floats) -> Floats:
    """As the feed-forward's rate on ``pairs``: a gentle wall below, a steep one above that ends on a plateau."""
    below, above = (
        1 / (1 + np.exp(np.clip(1.2 * (u + 1.2), -50, 50))),
        1 / (1 + np.exp(-np.clip(2.2 * (u - 1.6), -50, 50))),
    )
    return np.asarray(0.045 * (below - 0.0475) + 0.15 * (above - 0.0148))


def minimum_above(u: Floats) -> Floats:
    """Another minimum four and a half octaves above, 0.03 nats higher."""
    return np.minimum(CURVATURE * u**2, 0.03 + CURVATURE * (u - 4.5) ** 2)


def minimum_below(u: Floats) -> Floats:
    """Another minimum four and a half octaves below, 0.03 nats higher."""
    return minimum_above(-u)


GLOBAL = grid_of("lr", 0.75)


@dataclass(frozen=True, kw_only=True)
class Generator:
    """How the curves of both arms come about.

    ``noise`` grows by the factor 2^``noise_growth`` per octave. A seed's loss rises by ``rise`` nats, or diverges,
    ``wall`` octaves above its optimum, give or take ``wall_sd``. A share ``late`` of an arm's seeds learns late at low
    rates: 0.15 nats more there. ``starts`` are distances of the reference's optimum from where its search begins, in
    octaves, one of which is drawn. ``target_shape`` is that of the target if it differs.
    """

    name: str
    shape: Shape = parabola
    target_shape: Shape | None = None
    noise: float = NOISE
    noise_growth: float = 0.0
    wall: float = 99.0
    wall_sd: float = 0.15
    rise: float = np.inf
    late: float = 0.0
    common: float = COMMON
    own: float = OWN
    starts: Sequence[float] = (0.0,)
    grid: Grid = GLOBAL

    def pair(self, rng: np.random.Generator, drift: float, seeds: int) -> list["SimulatedSearch"]:
        """The searches of a reference and of a target whose optimum lies ``drift`` octaves higher."""
        middle = START + rng.choice(self.starts) + OFFSET * rng.normal()
        shared = self.common * rng.normal(size=seeds)
        return [
            self._arm(rng, self.shape, middle + shared),
            self._arm(rng, self.target_shape or self.shape, middle + drift + shared),
        ]

    def _arm(self, rng: np.random.Generator, shape: Shape, optima: Floats) -> "SimulatedSearch":
        optima = optima + self.own * rng.normal(size=optima.shape)
        late = rng.random(optima.shape) < self.late
        walls = self.wall + self.wall_sd * rng.normal(size=optima.shape)

        def losses(replicate: int, x: Floats) -> Floats:
            u = x - optima[replicate]
            loss = 2.9 + shape(u) + 0.15 * late[replicate] / (1 + np.exp((u + 0.75) / 0.25))
            loss += self.noise * 2 ** (self.noise_growth * np.clip(u, -4, 4)) * rng.normal(size=u.shape)
            beyond = u - walls[replicate]
            if np.isfinite(self.rise):
                return np.asarray(loss + self.rise / (1 + np.exp(-np.clip(beyond / 0.1, -50, 50))))
            return np.where(beyond > 0, np.nan, loss)

        return SimulatedSearch(losses, self.grid)


# The step has the size, in relation to the curvature, and the place of those in three of the curves that
# reports/example measured: width d128, the composite, and twice the duration.
GENERATORS = (
    Generator(name="noise grows with the rate", noise_growth=0.5),
    Generator(name="cubic curves", shape=cubic),
    Generator(name="walled curves: a step of 0.053 nats", wall=1.1, rise=0.053),
    Generator(name="walled curves: divergence", wall=1.5),
    Generator(name="late learners", late=0.12),
    Generator(name="unpaired seeds", common=0.0, own=0.12),
    Generator(name="plateaus", shape=plateaus),
    Generator(name="two minima", shape=minimum_above, starts=(0.0, 4.5)),
    Generator(name="a group's valley", shape=group, noise=0.015, common=0.02, own=0.15, grid=GROUP),
)
FAR_TARGET = Generator(name="far target", shape=minimum_above, target_shape=minimum_below)
"""The reference has its deeper minimum where its search begins, the target four and a half octaves above."""


@dataclass
class SimulatedSearch(LossSearch):
    """The real search, on losses that are drawn instead of trained and kept in memory instead of a store."""

    losses: Callable[[int, Floats], Floats]
    grid: Grid
    _known: dict[tuple[int, float], float] = field(default_factory=dict)
    _measured: dict[int, set[float]] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """How many runs it would have trained."""
        return len(self._known)

    def curve(self) -> Curve:
        """As ``read_curve``: over the values that every replicate has."""
        seeds = sorted(self._measured)
        x = sorted(set.intersection(*self._measured.values()))
        losses = np.array([[self._known[seed, value] for value in x] for seed in seeds])
        return Curve(values=2.0 ** np.array(x), seeds=tuple(seeds), losses=losses, initial=np.full(len(seeds), 99.0))

    def _measure(self, missing: Mapping[int, Sequence[float]]) -> None:
        for replicate, x in missing.items():
            drawn = self.losses(replicate, np.array(x))
            self._known.update(((replicate, value), float(loss)) for value, loss in zip(x, drawn, strict=True))
