"""Drift of the learning rate's optimum against the shift of log2 sigma_0: the line, and what it foretells.

A point is weighed by se_drift^2 + kappa^2 se_shift^2 + tau^2, where tau is the scatter between arms that no error of
measurement explains (``judge.line``). Points of one ladder share their reference, and so half their errors' variance.

Simulated with 12 arms on 3 ladders, 4 or 5 seeds, errors as measured (0.15 octave a seed) and tau 0, 0.1 and 0.3, 400
times each, the intervals hold kappa in 0.95 to 0.97, a true drift in 0.94 to 0.98, and a newly measured one in 0.93 to
0.96. Where the ladders' own slopes spread by 0.2, kappa's holds the mean slope in 0.72 only: look at ``same_slope``,
which finds that in about half of such fits and claims it in 0.06 of those without.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from scipy import stats

from mue_check.errors import JudgeError
from mue_check.judge.interval import Interval, t_interval, t_quantile
from mue_check.sigma0.line import PointErrors, steadied
from mue_check.sigma0.stored import Stored, interval_json

SHARED = 0.5
"""Correlation of the errors of two points with one reference, when target and reference are equally noisy."""
DIFFER = 0.05
"""p-value below which ladders are said to have slopes of their own."""
DOUBT = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Middles of five equal parts of a confidence distribution."""
_NONE = t_interval([])
_NUMBERS = ("shift", "shift_se", "drift", "drift_se")


@dataclass(frozen=True, kw_only=True)
class KappaPoint:
    """One arm against its reference: shift of log2 sigma_0 and drift of the optimum, in octaves, each with its error.

    Points of one ``ladder`` share a reference.
    """

    label: str
    ladder: str
    shift: float
    shift_se: float
    drift: float
    drift_se: float

    def __post_init__(self) -> None:
        for name in _NUMBERS:
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

    @classmethod
    def from_json(cls, stored: Stored) -> "KappaPoint":
        """From its fields in plain JSON."""
        return cls(
            label=stored.text("label"),
            ladder=stored.text("ladder"),
            shift=stored.number("shift"),
            shift_se=stored.number("shift_se"),
            drift=stored.number("drift"),
            drift_se=stored.number("drift_se"),
        )


@dataclass(frozen=True, kw_only=True)
class KappaFit:
    """drift = ``kappa`` shift + ``intercept``, with extra scatter ``tau`` (octaves) between points.

    ``tau`` is its median, ``tau_doubted`` the root of the mean tau^2 over its confidence distribution, which
    predictions take: with the median alone they cover 0.92 in place of 0.95 (after Nagashima et al. 2019, Stat. Methods
    Med. Res. 28, 1689). Both are near 1e-6 where the errors explain all.
    ``covariance`` is that of (intercept, kappa), ``df`` its degrees of freedom. ``ordinary`` and ``robust`` are
    (intercept, slope) of unweighted fits, ``ladders`` each ladder's own slope (unbounded with too few points), and
    ``same_slope`` is the p-value that they have one: below 0.05 use the fit of the ladder in question alone.
    ``shifts`` is the range of shifts that was measured. ``origin``: the line was led through 0. ``reason``: why there
    is no fit.
    """

    kappa: Interval = _NONE
    intercept: Interval = _NONE
    tau: float = math.nan
    tau_doubted: float = math.nan
    covariance: tuple[tuple[float, float], tuple[float, float]] = ((math.nan, math.nan), (math.nan, math.nan))
    df: int = 0
    ordinary: tuple[float, float] = (math.nan, math.nan)
    robust: tuple[float, float] = (math.nan, math.nan)
    ladders: Mapping[str, Interval] = field(default_factory=dict)
    same_slope: float = math.nan
    shifts: tuple[float, float] = (math.nan, math.nan)
    points: tuple[KappaPoint, ...] = ()
    origin: bool = False
    reason: str | None = None

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

        It holds the line's error, tau, and the errors given, each with its degrees of freedom (joined after
        Satterthwaite). Raises JudgeError where there is no fit.
        """
        if self.reason is not None:
            raise JudgeError(f"no drift can be predicted: {self.reason}")
        design = np.array([1.0, shift])
        covariance = np.array(self.covariance)
        line = float(design @ covariance @ design) + self.tau_doubted**2
        # to second order: the slope's error meets the shift's
        moved = (self.kappa.mean**2 + covariance[1, 1]) * shift_se**2
        parts = ((line, self.df), (moved, shift_df), (drift_se**2, drift_df))
        total = sum(variance for variance, _ in parts)
        doubt = sum(variance**2 / df for variance, df in parts)
        mean = self.intercept.mean + self.kappa.mean * shift
        half = t_quantile(total**2 / doubt if doubt > 0 else math.inf) * math.sqrt(total)
        return Interval(mean, mean - half, mean + half, len(self.points))

    def to_json(self) -> dict[str, object]:
        """Plain JSON, in which an unbounded end of an interval is null; raises JudgeError where there is no fit."""
        if self.reason is not None:
            raise JudgeError(f"a fit that failed is not worth keeping: {self.reason}")
        return asdict(self) | {
            "kappa": interval_json(self.kappa),
            "intercept": interval_json(self.intercept),
            "ladders": {name: interval_json(slope) for name, slope in self.ladders.items()},
        }

    @classmethod
    def from_json(cls, value: object) -> "KappaFit":
        """What ``to_json`` made; raises JudgeError naming the field that is wrong."""
        stored = Stored.of(value, "kappa")
        ladders = stored.part("ladders")
        points = [Stored.of(point, f"kappa.points[{i}]") for i, point in enumerate(stored.items("points"))]
        covariance = Stored.of(dict(zip(("0", "1"), stored.items("covariance"), strict=False)), "kappa.covariance")
        df, tau = int(stored.number("df")), stored.number("tau")
        if df < 1 or tau < 0:
            raise JudgeError(f"kappa.df is {df} and kappa.tau {tau:g}: at least 1 and at least 0 are needed")
        return cls(
            kappa=stored.interval("kappa"),
            intercept=stored.interval("intercept"),
            tau=tau,
            tau_doubted=stored.number("tau_doubted"),
            covariance=(covariance.pair("0"), covariance.pair("1")),
            df=df,
            ordinary=stored.pair("ordinary"),
            robust=stored.pair("robust"),
            ladders={name: ladders.interval(name) for name in ladders.values},
            same_slope=stored.number("same_slope"),
            shifts=stored.pair("shifts"),
            points=tuple(KappaPoint.from_json(point) for point in points),
            origin=stored.get("origin") is True,
        )

    def __str__(self) -> str:
        if self.reason is not None:
            return f"no kappa: {self.reason}"
        apart = f"; ladders differ in slope (p = {self.same_slope:.2g})" if self.same_slope < DIFFER else ""
        return f"drift = {self.kappa} x shift, intercept {self.intercept}, scatter {self.tau:.2f} octaves{apart}"


def fit_kappa(points: Sequence[KappaPoint], *, origin: bool = False, shared: float = SHARED) -> KappaFit:
    """The line through the points, or with ``origin`` the one through 0 (a model against itself drifts by nothing).

    ``shared``: correlation of the errors of points of one ladder, which share a reference; 0 where they do not.
    """
    if not 0 <= shared < 1:
        raise JudgeError(f"shared={shared:g}: the correlation of errors must lie in [0, 1)")
    parameters = 1 if origin else 2
    reason = None
    shifts = [p.shift for p in points]
    if len(points) < parameters + 1:
        reason = f"{len(points)} point(s): at least {parameters + 1} are needed"
    elif (origin and not any(shifts)) or (not origin and max(shifts) - min(shifts) < 1e-9):
        reason = f"every point has the shift {shifts[0]:g}: shifts that differ are needed"
    if reason is not None:
        return KappaFit(points=tuple(points), origin=origin, reason=reason)
    errors = _errors(points, shared=shared, origin=origin)
    lines, df = {p: errors.solve(p) for p in DOUBT}, errors.df
    line = lines[0.5]
    width = t_quantile(df) * np.sqrt(np.diag(line.covariance))
    intercept, kappa = (
        Interval(float(m), float(m - w), float(m + w), len(points)) for m, w in zip(line.mean, width, strict=True)
    )
    x, y = errors.x, errors.y
    if origin:
        ordinary = (0.0, float(x @ y / (x @ x)))
        robust = (0.0, float(np.median(y[x != 0] / x[x != 0])))
    else:
        least, median = stats.linregress(x, y), stats.theilslopes(y, x)
        ordinary = (float(least.intercept), float(least.slope))
        robust = (float(median.intercept), float(median.slope))
    names = dict.fromkeys(p.ladder for p in points)
    ladders = {n: _slope([p for p in points if p.ladder == n], origin, shared) for n in names} if len(names) > 1 else {}
    (a, b), (_, d) = line.covariance.tolist()
    return KappaFit(
        kappa=kappa,
        intercept=intercept,
        tau=math.sqrt(line.scatter),
        tau_doubted=math.sqrt(np.mean([each.scatter for each in lines.values()])),
        covariance=((a, b), (b, d)),
        df=df,
        ordinary=ordinary,
        robust=robust,
        ladders=ladders,
        same_slope=errors.same_slope(line, np.array([p.ladder for p in points])),
        shifts=(min(shifts), max(shifts)),
        points=tuple(points),
        origin=origin,
    )


def _slope(points: Sequence[KappaPoint], origin: bool, shared: float) -> Interval:
    return fit_kappa(points, origin=origin, shared=shared).kappa


def _errors(points: Sequence[KappaPoint], *, shared: float, origin: bool) -> PointErrors:
    ladder = np.array([p.ladder for p in points])
    correlation = np.where(ladder[:, None] == ladder, shared, 0.0)
    np.fill_diagonal(correlation, 1.0)
    x_se, y_se = (steadied(np.array(se)) for se in ([p.shift_se for p in points], [p.drift_se for p in points]))
    return PointErrors(
        x=np.array([p.shift for p in points]),
        y=np.array([p.drift for p in points]),
        x_errors=correlation * np.outer(x_se, x_se),
        y_errors=correlation * np.outer(y_se, y_se),
        origin=origin,
    )
