"""What must be reached, beside what was measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mue_check.bench.cases import CPU_DENSE, CPU_WIDER, CUDA_CAPACITY, CUDA_MIXTURE, CUDA_SHORT, Case
from mue_check.bench.results import BarRow, LatencyRow, StepRow
from mue_check.precision import PRECISIONS

SEQUENTIAL = ("alone", "plain", "plain batched")
"""Ways that train run after run: a fused step is held against the quickest of them."""


@dataclass(frozen=True, kw_only=True)
class SpeedBar:
    """A fused step must be ``least`` times as quick as the quickest of ``over``."""

    device: str
    case: Case
    least: float
    over: tuple[str, ...]

    @property
    def text(self) -> str:
        """In words."""
        return f"at least {self.least:g} times as quick as {' or '.join(self.over)}"


@dataclass(frozen=True, kw_only=True)
class LatencyBar:
    """A mixture's step may take ``most`` times that of the dense model of its active width."""

    device: str
    case: Case
    most: float

    @property
    def text(self) -> str:
        """In words."""
        return f"at most {self.most:g} times the dense step"


SPEED_BARS = (
    SpeedBar(device="cpu", case=CPU_DENSE, least=2.5, over=("plain",)),
    SpeedBar(device="cpu", case=CPU_WIDER, least=1.3, over=("plain",)),
    *(
        SpeedBar(device="cuda", case=replace(case, precision=precision), least=least, over=SEQUENTIAL)
        for case, bars in ((CUDA_MIXTURE, (10, 10, 15)), (CUDA_SHORT, (30, 30, 30)))
        for precision, least in zip(PRECISIONS, bars, strict=True)
    ),
)
LATENCY_BARS = tuple(
    LatencyBar(device="cuda", case=replace(CUDA_CAPACITY, precision=precision), most=1.2) for precision in PRECISIONS
)


def compare_with_bars(steps: Sequence[StepRow], latency: Sequence[LatencyRow]) -> Iterator[BarRow]:
    """One row for each bar; of another device's, or of a precision that was not asked for, it says nothing."""
    for bar in SPEED_BARS:
        way = "captured" if bar.device == "cuda" else "eager"
        rows = {row.way: row for row in steps if row.case == bar.case and row.times}
        found = [times for name in bar.over if name in rows and (times := rows[name].times)]
        # on another device the same shape is another measurement
        measured = min(found, key=lambda times: times.median) if found and way in rows else None
        reached = None if measured is None else measured.median >= bar.least
        yield BarRow(device=bar.device, shape=bar.case.name, bar=bar.text, measured=measured, reached=reached)
    for limit in LATENCY_BARS:
        ratios = [row.ratio for row in latency if row.case == limit.case and row.way == "captured" and row.ratio]
        measured = ratios[0] if ratios else None
        reached = None if measured is None else measured.median <= limit.most
        yield BarRow(device=limit.device, shape=limit.case.name, bar=limit.text, measured=measured, reached=reached)
