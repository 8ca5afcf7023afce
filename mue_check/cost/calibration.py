"""A calibration of a device: seconds per unit of each kind of work, fitted to timings of a few small stacks."""

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
from mue_check.records.typed import from_json

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
    """Seconds per unit of each kind of work (``work.PRICED``).

    ``machine`` identifies the device, torch and the timed code. ``error`` is the median factor by which the fit misses
    a stack that was left out of it.
    """

    machine: Mapping[str, str]
    prices: Mapping[str, float]
    error: float
    stacks: int

    def seconds(self, work: Work) -> float:
        """Predicted seconds of one core, or of the GPU."""
        return math.fsum(amount * self.prices[name] for name, amount in zip(PRICED, work.priced, strict=True))

    @property
    def overhead(self) -> float:
        """Seconds that a step of one layer takes however small it is."""
        return 2 * self.prices["calls"]

    def __str__(self) -> str:
        rate = self.prices["flop"]
        products = f"{1e-9 / rate:.3g} GFLOP/s in matrix products, " if rate else ""
        return (
            f"{self.machine['device']}: {products}{self.overhead * 1e3:.3g} ms overhead in a step of one layer; "
            f"fitted to {self.stacks} stacks, leave-one-out error a factor of {self.error:.2f}"
        )


def fit_prices(timings: Sequence[Timing], machine: Mapping[str, str]) -> Calibration:
    """Non-negative least squares on relative errors, so that short and long steps have equal weight."""
    work = np.array([timing.work.priced for timing in timings])
    seconds = np.array([timing.seconds for timing in timings])
    misses = []
    for at in range(len(timings)):
        kept = np.arange(len(timings)) != at
        predicted = max(work[at] @ fit_relative(work[kept], seconds[kept]), 1e-12)
        misses.append(abs(math.log(predicted / seconds[at])))
    prices = fit_relative(work, seconds)
    return Calibration(
        machine=machine,
        prices=dict(zip(PRICED, map(float, prices), strict=True)),
        error=math.exp(float(np.median(misses))),
        stacks=len(timings),
    )


def fit_relative(work: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-negative prices with the least squared relative errors, by column of ``work``."""
    relative = work / seconds[:, None]
    scale = np.where((norm := np.linalg.norm(relative, axis=0)) > 0, norm, 1.0)
    return np.asarray(nnls(relative / scale, np.ones(len(seconds)))[0] / scale)


def calibration_path(machine: Mapping[str, str]) -> Path:
    """The file of a machine's calibration, in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "mue_check", f"calibration-{machine['kind']}.json")


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write it. StoreError if that fails."""
    write_json(path, asdict(calibration))


def read_calibration(path: Path) -> Calibration:
    """Read one. SpecError if the file is not a calibration of this version."""
    try:
        calibration = from_json(Calibration, read_json(path), str(path))
        if set(calibration.prices) != set(PRICED):
            raise StoreError(f"it has prices for {', '.join(calibration.prices)}")
    except StoreError as error:
        raise SpecError(f"{str(path)!r} is not a calibration of this version ({error}): use --calibrate") from None
    return calibration


def kept_calibration(machine: Mapping[str, str]) -> Calibration | None:
    """The cached calibration of this machine, if there is one and it is still valid."""
    path = calibration_path(machine)
    try:
        calibration = read_calibration(path) if path.exists() else None
    except SpecError:
        return None
    return calibration if calibration and calibration.machine == machine else None
