"""A bench as one figure: step time against R, mixtures against dense, and growth."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, LogLocator, NullFormatter

from mue_check.bench.cases import FUSED, WAYS, BenchCase
from mue_check.bench.results import BenchResult, LatencyRow, StepRow
from mue_check.bench.table import PUBLISHED
from mue_check.bench.timing import Spread
from mue_check.report.palette import BAND_ALPHA, MARKERS, QUIET, REFERENCE, TARGETS, WIDTH, house_style
from mue_check.spec import Experts

COLOURS = dict(zip(WAYS, (*TARGETS, REFERENCE), strict=True))


def plot(result: BenchResult) -> Figure:
    """Four panels: two sweeps over R, mixtures against dense, growth."""
    with house_style():
        figure = Figure(figsize=(WIDTH, 7.6), layout="constrained")
        panels = figure.subplots(2, 2)
        swept = _sweeps(result.steps)
        for axes, family in zip_longest(panels[0], swept):
            if family:
                _step_times(axes, *family)
            else:
                axes.set_axis_off()
        _latency(panels[1][0], result.latency)
        _growth(panels[1][1], result)
        figure.suptitle(f"Bench on {result.device_name}, torch {result.torch}", x=0.01, ha="left")
    return figure


def _sweeps(steps: Sequence[StepRow]) -> list[tuple[BenchCase, list[StepRow]]]:
    """The two families of cases that differ only in R and have the most sizes."""
    families: defaultdict[BenchCase, list[StepRow]] = defaultdict(list)
    for row in (row for row in steps if row.seconds):
        families[replace(row.case, runs=1)].append(row)
    return sorted(families.items(), key=lambda item: -len({row.case.runs for row in item[1]}))[:2]


def _step_times(axes: Axes, case: BenchCase, rows: Sequence[StepRow]) -> None:
    for at, way in enumerate(WAYS):
        points = {row.case.runs: row.seconds for row in rows if row.way == way and row.seconds is not None}
        _spreads(axes, points, COLOURS[way], MARKERS[at], way, scale=1e3)
    _log_axes(axes, sorted({row.case.runs for row in rows}))
    axes.set(xlabel="runs R", ylabel="ms per run and step")
    axes.set_title(f"{case.model}, {case.tokens} tokens, {case.precision}")
    axes.legend(fontsize=8)


def _spreads(axes: Axes, points: Mapping[int, Spread], colour: str, marker: str, label: str, scale: float = 1) -> None:
    """Medians against sizes, with bars from the lowest to the highest."""
    if not points:
        return
    x = sorted(points)
    y = [scale * points[size].median for size in x]
    below = [scale * (points[size].median - points[size].low) for size in x]
    above = [scale * (points[size].high - points[size].median) for size in x]
    axes.errorbar(x, y, (below, above), color=colour, marker=marker, markersize=5, elinewidth=1, label=label)


def _latency(axes: Axes, rows: Sequence[LatencyRow]) -> None:
    labels = {"capacity": "capacity: N experts, a = 8", "granularity": "granularity: a of 4a experts"}
    precision = rows[0].case.precision if rows else ""
    sizes: set[int] = set()
    for at, (grows, (low, high)) in enumerate(PUBLISHED.items()):
        points: dict[int, Spread] = {}
        for row in rows:
            ffn = row.case.spec.feed_forward
            assert isinstance(ffn, Experts)
            # the first way of a case is the faster one
            if row.grows == grows and row.case.precision == precision and row.ratio is not None:
                points.setdefault(ffn.total if grows == "capacity" else ffn.activated, row.ratio)
        sizes.update(points)
        axes.axhspan(low, high, color=TARGETS[at], alpha=BAND_ALPHA, linewidth=0)
        _spreads(axes, points, TARGETS[at], MARKERS[at], labels[grows])
    _log_axes(axes, sorted(sizes))
    axes.axhline(1, color=QUIET, linewidth=1)
    axes.set(xlabel="N, or a", ylabel="mixture's step over the dense step")
    axes.set_title("Mixtures at equal active width; bands: published, H100")
    if sizes:
        axes.legend(fontsize=8)


def _growth(axes: Axes, result: BenchResult) -> None:
    if not result.growth:
        axes.set_axis_off()
        return
    first: dict[str, str] = {}
    way = next(name for name in FUSED if any(g.way == name for g in result.growth))
    drawn = [g for g in result.growth if g.way == way and first.setdefault(g.grows, g.shape) == g.shape]
    for at, growth in enumerate(drawn):
        x = [size / growth.sizes[0] for size in growth.sizes]
        y = [seconds / growth.seconds[0] for seconds in growth.seconds]
        label = f"{growth.grows} from {growth.sizes[0]}: power {growth.exponent:.2f}"
        axes.plot(x, y, color=TARGETS[at], marker=MARKERS[at], markersize=5, label=label)
    _log_axes(axes, [1, 2, 4, 8, 16, 32])
    ends = axes.get_xlim()
    axes.plot([1, ends[1]], [1, ends[1]], color=QUIET, linewidth=1, linestyle="--", label="in proportion")
    axes.set_xlim(ends)
    axes.set(xlabel="times as large", ylabel="times the whole step")
    axes.set_title(f"Growth of the {way} step, all runs together")
    axes.legend(fontsize=8)


def _log_axes(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_formatter(NullFormatter())
