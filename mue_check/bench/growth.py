"""How the time of a fused step grows when one number of its case grows and the others stay fixed."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from mue_check.bench.cases import FUSED, BenchCase
from mue_check.bench.results import Growth, LatencyRow, StepRow
from mue_check.spec import Dense, Experts

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
