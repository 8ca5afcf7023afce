"""Conclusions from the rows of a bench: the speed that must be reached, and how a step grows with its sizes."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from mue_check.bench.cases import CPU_DENSE, CPU_WIDER, CUDA_CAPACITY, CUDA_MIXTURE, CUDA_SHORT, FUSED, BenchCase
from mue_check.bench.results import BarRow, Growth, LatencyRow, StepRow
from mue_check.bench.timing import Spread
from mue_check.precision import PRECISIONS
from mue_check.spec import Dense, Experts

SEQUENTIAL = ("alone", "plain", "plain batched")
"""Ways that train one run after another. The fastest of them counts."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A limit on one case: how many times faster than ``over``; without ``over``, how much slower than dense."""

    device: str
    case: BenchCase
    limit: float
    over: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The limit in words."""
        if self.over:
            return f"at least {self.limit:g} times as fast as {' or '.join(self.over)}"
        return f"at most {self.limit:g} times the dense step"

    def reached(self, ratio: float) -> bool:
        """Whether a ratio keeps the limit."""
        return ratio >= self.limit if self.over else ratio <= self.limit

    def measured(self, steps: Sequence[StepRow], latency: Sequence[LatencyRow]) -> Spread | None:
        """The ratio that the limit is on, if this case was measured on this device."""
        fused = "captured" if self.device == "cuda" else "eager"
        if not self.over:
            return next((row.ratio for row in latency if row.case == self.case and row.way == fused), None)
        times = {row.way: row.times for row in steps if row.case == self.case and row.times}
        found = [times[way] for way in self.over if way in times]
        # without the fused way the same shape was measured on another device
        return min(found, key=lambda spread: spread.median) if found and fused in times else None


BARS = (
    Bar(device="cpu", case=CPU_DENSE, limit=2.5, over=("plain",)),
    Bar(device="cpu", case=CPU_WIDER, limit=1.3, over=("plain",)),
    *(
        Bar(device="cuda", case=replace(case, precision=precision), limit=limit, over=SEQUENTIAL)
        for case, limits in ((CUDA_MIXTURE, (10, 10, 15)), (CUDA_SHORT, (30, 30, 30)))
        for precision, limit in zip(PRECISIONS, limits, strict=True)
    ),
    *(Bar(device="cuda", case=replace(CUDA_CAPACITY, precision=precision), limit=1.2) for precision in PRECISIONS),
)


def compare_with_bars(steps: Sequence[StepRow], latency: Sequence[LatencyRow]) -> Iterator[BarRow]:
    """One row for each bar. It stays open where the case was not measured."""
    for bar in BARS:
        measured = bar.measured(steps, latency)
        reached = None if measured is None else bar.reached(measured.median)
        yield BarRow(device=bar.device, shape=bar.case.name, bar=bar.text, measured=measured, reached=reached)


Timed = tuple[BenchCase, str, float]
"""A case, the way, and seconds of a whole step of all its runs."""


def find_growth(steps: Sequence[StepRow], latency: Sequence[LatencyRow]) -> Iterator[Growth]:
    """Growth with runs R, width d, context T and experts N, of each fused way."""
    swept = [(r.case, r.way, r.seconds.median * r.case.runs) for r in steps if r.seconds and r.way in FUSED]
    mixtures = [(r.case, r.way, r.mixture.median * r.case.runs) for r in latency if r.mixture and r.grows == "capacity"]
    yield from _by("R", swept, lambda c: (c.runs, replace(c, runs=1)))
    yield from _by("d", swept, _without_width)
    yield from _by("T", swept, lambda c: (c.context, replace(c, context=1)))
    yield from _by("N", mixtures, _without_experts)


def _without_width(case: BenchCase) -> tuple[int, BenchCase] | None:
    spec = case.spec
    if not isinstance(spec.feed_forward, Dense) or spec.feed_forward.hidden != spec.width:
        return None
    return spec.width, replace(case, model=f"d=H,L={spec.depth}")


def _without_experts(case: BenchCase) -> tuple[int, BenchCase] | None:
    spec = case.spec
    assert isinstance(spec.feed_forward, Experts)
    active = f"d={spec.width},L={spec.depth},a={spec.feed_forward.activated},h={spec.feed_forward.hidden}"
    return spec.feed_forward.total, replace(case, model=active)


def _by(
    grows: str, timed: Iterable[Timed], split: Callable[[BenchCase], tuple[int, BenchCase] | None]
) -> Iterator[Growth]:
    groups: defaultdict[tuple[BenchCase, str], dict[int, float]] = defaultdict(dict)
    for case, way, seconds in timed:
        if (parts := split(case)) is not None:
            groups[parts[1], way][parts[0]] = seconds
    for (rest, way), points in groups.items():
        if len(points) < 3:
            continue
        sizes = sorted(points)
        first, last = sizes[0], sizes[-1]
        yield Growth(
            grows=grows,
            shape=_shape(rest, grows),
            way=way,
            sizes=tuple(sizes),
            seconds=tuple(points[size] for size in sizes),
            exponent=math.log(points[last] / points[first]) / math.log(last / first),
        )


def _shape(rest: BenchCase, grows: str) -> str:
    parts = [rest.model, f"batch {rest.batch}"]
    parts += [f"T={rest.context}"] if grows != "T" else []
    parts += [f"R={rest.runs}"] if grows != "R" else []
    return ", ".join([*parts, rest.precision])
