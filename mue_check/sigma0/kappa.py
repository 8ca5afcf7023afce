"""kappa: drift of the optimal learning rate per octave of shift of sigma_0, as a line through measured points.

A point weighs by se_drift^2 + kappa^2 se_shift^2 + tau^2, where tau is the scatter between points that no error of
measurement explains (``NoisyPoints``). Points of one ladder share their reference, and so half of their variance.

Simulated with 12 points on 3 ladders, 4 or 5 seeds, errors as measured (0.15 octave a seed) and tau 0, 0.1 and 0.3, 400
times each, the intervals contain kappa in 0.95 to 0.97, a true drift in 0.94 to 0.98, and a newly measured one in 0.93
to 0.96 of the cases. Where the slopes of the ladders spread by 0.2, the interval contains their mean in 0.72 only:
``same_slope`` detects that in about half of such fits, and in 0.06 of those whose ladders have one slope.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from mue_check.errors import JudgeError
from mue_check.judge.interval import Interval, t_interval, t_quantile
from mue_check.sigma0.line import SHARED, NoisyPoints, damped

DIFFER = 0.05
"""p-value below which ladders count as having different slopes."""
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the confidence distribution of tau^2: the middles of five equal parts."""


Pair = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class KappaPoint:
    """A target against its reference: shift of log2 sigma_0 and drift of the optimum in octaves, with standard errors.

    Points of one ``ladder`` share a reference.
    """

    label: str
    ladder: str
    shift: float
    shift_se: float
    drift: float
    drift_se: float

    def __post_init__(self) -> None:
        for name in ("shift", "shift_se", "drift", "drift_se"):
            value = getattr(self, name)
            if not math.isfinite(value) or (name.endswith("_se") and value < 0):
                raise JudgeError(f"point {self.label!r} has {name} {value:g}: a finite value (errors >= 0) is needed")

    @classmethod
    def of(cls, label: str, ladder: str, shift: Interval, drift: Interval) -> "KappaPoint":
        """From intervals over seeds; JudgeError where one is unbounded."""
        return cls(
            label=label,
            ladder=ladder,
            shift=shift.mean,
            shift_se=shift.standard_error,
            drift=drift.mean,
            drift_se=drift.standard_error,
        )


@dataclass(frozen=True, kw_only=True)
class KappaFit:
    """drift = ``kappa`` shift + ``intercept``, with extra scatter ``tau`` (octaves) between points.

    ``tau`` is its median; ``tau_predicted``, the root of the mean tau^2 over its confidence distribution, is what
    predictions use: with the median they cover 0.92 instead of 0.95 (after Nagashima et al. 2019, Stat. Methods Med.
    Res. 28, 1689). Both are near 1e-6 where the errors explain everything.
    ``covariance`` is that of (intercept, kappa), ``df`` its degrees of freedom. ``ordinary`` and ``robust`` are
    (intercept, slope) of unweighted fits, ``ladders`` the slope of each ladder alone (unbounded with too few points).
    ``same_slope`` is the p-value that the ladders have one slope: below DIFFER use the fit of one ladder.
    ``shifts`` is the measured range of shifts. ``origin``: the line was forced through 0.
    """

    kappa: Interval
    intercept: Interval
    tau: float
    tau_predicted: float
    covariance: tuple[Pair, Pair]
    df: int
    ordinary: Pair
    robust: Pair
    ladders: Mapping[str, Interval]
    same_slope: float
    shifts: Pair
    points: tuple[KappaPoint, ...]
    origin: bool

    def __post_init__(self) -> None:
        for name in ("kappa", "intercept"):
            if not math.isfinite(getattr(self, name).mean):
                raise JudgeError(f"kappa has no mean of {name}: a finite number is needed")
        for name, least in (("tau", 0), ("tau_predicted", 0), ("df", 1)):
            if not getattr(self, name) >= least:
                raise JudgeError(f"kappa has {name} {getattr(self, name):g}: at least {least} is needed")
        (a, b), (c, d) = self.covariance
        if not (a >= 0 and d >= 0 and math.isclose(b, c) and b * c <= a * d * (1 + 1e-9)):
            raise JudgeError(f"kappa has the covariance {self.covariance}, and no errors have that")

    def predict(
        self,
        shift: float,
        shift_se: float = 0.0,
        drift_se: float = 0.0,
        *,
        shift_df: float = math.inf,
        drift_df: float = math.inf,
    ) -> Interval:
        """95 % interval for a newly measured drift at ``shift``, or for the true one when ``drift_se`` is 0.

        It combines the error of the line, tau, and the given errors, each with its degrees of freedom (after
        Satterthwaite).
        """
        design = np.array([1.0, shift])
        covariance = np.array(self.covariance)
        line = float(design @ covariance @ design) + self.tau_predicted**2
        # to second order: the errors of slope and shift multiply
        moved = (self.kappa.mean**2 + covariance[1, 1]) * shift_se**2
        parts = ((line, self.df), (moved, shift_df), (drift_se**2, drift_df))
        total = sum(variance for variance, _ in parts)
        inverse_df = sum(variance**2 / df for variance, df in parts)
        mean = self.intercept.mean + self.kappa.mean * shift
        half = t_quantile(total**2 / inverse_df if inverse_df > 0 else math.inf) * math.sqrt(total)
        return Interval(mean, mean - half, mean + half, len(self.points))

    def __str__(self) -> str:
        differ = f"; ladders differ in slope (p = {self.same_slope:.2g})" if self.same_slope < DIFFER else ""
        return f"drift = {self.kappa} x shift, intercept {self.intercept}, scatter {self.tau:.2f} octaves{differ}"


def fit_kappa(points: Sequence[KappaPoint], *, origin: bool = False) -> KappaFit:
    """The line through the points; with ``origin`` through 0 as well, since a model does not drift against itself.

    JudgeError says why the points allow no line.
    """
    noisy = _noisy_points(points, origin=origin)
    lines = {p: noisy.solve(p) for p in QUANTILES}
    line = lines[0.5]
    intercept, kappa = noisy.intervals(line)
    x, y = noisy.x, noisy.y
    if origin:
        ordinary = (0.0, float(x @ y / (x @ x)))
        robust = (0.0, float(np.median(y[x != 0] / x[x != 0])))
    else:
        squares, median = scipy.stats.linregress(x, y), scipy.stats.theilslopes(y, x)
        ordinary = (float(squares.intercept), float(squares.slope))
        robust = (float(median.intercept), float(median.slope))
    names = dict.fromkeys(p.ladder for p in points)
    ladders = {n: _slope([p for p in points if p.ladder == n], origin) for n in names} if len(names) > 1 else {}
    (a, b), (_, d) = line.covariance.tolist()
    return KappaFit(
        kappa=kappa,
        intercept=intercept,
        tau=math.sqrt(line.scatter),
        tau_predicted=math.sqrt(np.mean([each.scatter for each in lines.values()])),
        covariance=((a, b), (b, d)),
        df=noisy.df,
        ordinary=ordinary,
        robust=robust,
        ladders=ladders,
        same_slope=noisy.same_slope(line, np.array([p.ladder for p in points])),
        shifts=(float(x.min()), float(x.max())),
        points=tuple(points),
        origin=origin,
    )


def _slope(points: Sequence[KappaPoint], origin: bool) -> Interval:
    try:
        noisy = _noisy_points(points, origin=origin)
    except JudgeError:
        return t_interval([])
    return noisy.intervals(noisy.solve())[1]


def _noisy_points(points: Sequence[KappaPoint], *, origin: bool) -> NoisyPoints:
    least, shifts = 2 if origin else 3, [p.shift for p in points]
    if len(points) < least:
        raise JudgeError(f"{len(points)} point(s): at least {least} are needed")
    if (origin and not any(shifts)) or (not origin and max(shifts) - min(shifts) < 1e-9):
        raise JudgeError(f"every point has the shift {shifts[0]:g}: shifts that differ are needed")
    ladder = np.array([p.ladder for p in points])
    correlation = np.where(ladder[:, None] == ladder, SHARED, 0.0)
    np.fill_diagonal(correlation, 1.0)
    x_se, y_se = (damped(np.array(se)) for se in ([p.shift_se for p in points], [p.drift_se for p in points]))
    return NoisyPoints(
        x=np.array(shifts),
        y=np.array([p.drift for p in points]),
        x_errors=correlation * np.outer(x_se, x_se),
        y_errors=correlation * np.outer(y_se, y_se),
        origin=origin,
    )
