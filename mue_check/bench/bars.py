"""The speed that a release must reach, next to what was measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mue_check.bench.cases import CPU_DENSE, CPU_WIDER, CUDA_CAPACITY, CUDA_MIXTURE, CUDA_SHORT, BenchCase
from mue_check.bench.results import BarRow, LatencyRow, StepRow
from mue_check.bench.timing import Spread
from mue_check.precision import PRECISIONS

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
