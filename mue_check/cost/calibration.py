"""What this device takes for each kind of work: a few small stacks timed, and a price fitted to each kind."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from mue_check.cost.work import PRICED, Work
from mue_check.errors import SpecError, StoreError
from mue_check.records.files import read_json, write_json

Progress = Callable[[int, int], None]
"""Called with how many stacks are done, and of how many."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A piece of work and the seconds that it took."""

    label: str
    work: Work
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Seconds per unit of each kind of work (``work.PRICED``) on one device.

    ``machine`` is what it holds for: device, torch and the code that was timed. ``error`` is the median factor by which
    what was left out of the fit is missed.
    """

    machine: Mapping[str, str]
    prices: Mapping[str, float]
    error: float
    stacks: int

    def seconds(self, work: Work) -> float:
        """Predicted seconds of one core, or of the GPU."""
        return math.fsum(getattr(work, name) * price for name, price in self.prices.items())

    @property
    def overhead(self) -> float:
        """Seconds of a step of one layer, whatever its size."""
        return self.prices["steps"] + self.prices["layers"]

    def __str__(self) -> str:
        rate = self.prices["flop"]
        speed = f"{1e-9 / rate:.3g} GFLOP/s in products, " if rate else ""
        return (
            f"{self.machine['device']}: {speed}{self.overhead * 1e3:.3g} ms a step of one layer; {self.stacks} stacks "
            f"timed, each missed by a factor of {self.error:.2f} when left out"
        )


def fit_prices(timings: Sequence[Timing], machine: Mapping[str, str]) -> Calibration:
    """Non-negative least squares on relative errors, so that a short step counts like a long one."""
    work = np.array([timing.work.priced for timing in timings])
    seconds = np.array([timing.seconds for timing in timings])
    everyone = np.arange(len(timings))
    missed = []
    for left in everyone:
        prices = _fit(work[everyone != left], seconds[everyone != left])
        missed.append(abs(math.log(max(work[left] @ prices, 1e-12) / seconds[left])))
    prices = _fit(work, seconds)
    return Calibration(
        machine=machine,
        prices=dict(zip(PRICED, map(float, prices), strict=True)),
        error=math.exp(float(np.median(missed))),
        stacks=len(timings),
    )


def _fit(work: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    relative = work / seconds[:, None]
    scale = np.where((norm := np.linalg.norm(relative, axis=0)) > 0, norm, 1.0)
    return np.asarray(nnls(relative / scale, np.ones(len(seconds)))[0] / scale)


def calibration_path(machine: Mapping[str, str]) -> Path:
    """Where the calibration of a machine is kept, in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "mue_check", f"calibration-{machine['kind']}.json")


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Keep it; StoreError where that cannot be."""
    write_json(path, asdict(calibration))


def read_calibration(path: Path) -> Calibration:
    """One that was kept; SpecError for a file that is none."""
    try:
        raw = read_json(path)
        calibration = Calibration(**raw)  # type: ignore[arg-type]  # looked at in the next line
        if set(calibration.prices) != set(PRICED):
            raise KeyError(", ".join(calibration.prices))
    except (StoreError, TypeError, KeyError, AttributeError) as error:
        raise SpecError(f"{str(path)!r} is no calibration of this version ({error}): use --calibrate") from None
    return calibration


def kept_calibration(machine: Mapping[str, str]) -> Calibration | None:
    """The one of this machine, if it is there and holds for it."""
    path = calibration_path(machine)
    if not path.exists():
        return None
    try:
        calibration = read_calibration(path)
    except SpecError:
        return None
    return calibration if calibration.machine == machine else None
