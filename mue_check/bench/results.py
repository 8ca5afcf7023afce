"""What a bench found, as rows that become JSON, a table and a figure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from mue_check.bench.cases import Case
from mue_check.bench.timing import Spread

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Measured on the device: products by precision, and a copy (read and written bytes)."""

    flops_per_second: Mapping[str, float]
    bytes_per_second: float


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """A case in one way: seconds per run and step; how many times the fused step's; shares of the ceilings."""

    case: Case
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
    case: Case
    way: str
    dense: Spread | None = None
    mixture: Spread | None = None
    ratio: Spread | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class CoordinateRow:
    """A coordinate check of all widths and seeds: whole seconds, and how many times the fused one's."""

    way: str
    models: tuple[str, ...]
    seeds: int
    steps: int
    seconds: Spread | None = None
    times: Spread | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Seconds of a whole step when one number grows and nothing else; ``exponent`` of the power between the ends."""

    grows: str
    shape: str
    way: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float


@dataclass(frozen=True, kw_only=True)
class BarRow:
    """A bar and what was measured against it; None where it was not. ``reached`` is None then too."""

    device: str
    shape: str
    bar: str
    measured: Spread | None
    reached: bool | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything that one bench found."""

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
    schema: int = field(default=SCHEMA)

    def as_json(self) -> dict[str, object]:
        """Plain JSON values; numbers that were not measured are null."""
        return asdict(self)
