"""The rows of a bench, which become JSON, a table and a figure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from mue_check.bench.cases import BenchCase
from mue_check.bench.timing import Spread

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Measured on the device: matrix products by precision, and a copy (read and written bytes)."""

    flops_per_second: Mapping[str, float]
    bytes_per_second: float


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """A case in one way: seconds per run and step, the same relative to the fused step, and shares of the ceilings."""

    case: BenchCase
    way: str
    seconds: Spread | None = None
    times: Spread | None = None
    share_of_matmul: float | None = None
    share_of_bandwidth: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class LatencyRow:
    """A mixture's step over that of the dense model of its active width."""

    grows: str
    case: BenchCase
    way: str
    dense: Spread | None = None
    mixture: Spread | None = None
    ratio: Spread | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class CoordinateRow:
    """A coordinate check of all widths and seeds: total seconds, and the same relative to ours."""

    way: str
    models: tuple[str, ...]
    seeds: int
    steps: int
    seconds: Spread | None = None
    times: Spread | None = None
    note: str = ""


BenchRow = StepRow | LatencyRow | CoordinateRow


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Seconds of a whole step as one number grows. ``exponent`` is that of the power law between the two ends."""

    grows: str
    shape: str
    way: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float


@dataclass(frozen=True, kw_only=True)
class BarRow:
    """A bar and what was measured against it; both are None where nothing was."""

    device: str
    shape: str
    bar: str
    measured: Spread | None
    reached: bool | None


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """Everything that one bench has found so far."""

    device: str
    device_name: str
    torch: str
    threads: int
    command: str
    ceilings: Ceilings
    steps: tuple[StepRow, ...]
    latency: tuple[LatencyRow, ...]
    coordinates: tuple[CoordinateRow, ...]
    growth: tuple[Growth, ...]
    bars: tuple[BarRow, ...]
    problems: tuple[str, ...] = ()
    """Ways that do not do the same work as the others, or that failed."""
    not_reached: tuple[str, ...] = ()
    """Tasks that have not been measured (yet)."""
    schema: int = field(default=SCHEMA)

    def as_json(self) -> dict[str, object]:
        """Plain JSON values. Numbers that were not measured are null."""
        return asdict(self)
