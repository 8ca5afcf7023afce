"""The drift calibration: gamma and kappa as a study measured them, and the file that `mue_check budget` reads."""

import importlib.resources
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mue_check.errors import CalibrationError, JudgeError, StoreError
from mue_check.input_files import parse_json, read_text
from mue_check.judge.interval import Interval, t_quantile
from mue_check.records.typed import from_json, read_number, refuse
from mue_check.sigma0.kappa import KappaFit, Pair
from mue_check.spec import Experts

_LARGEST = 1e12
"""No octave, exponent or batch is larger, and squares of it are numbers too."""
PACKAGED = "sigma0_calibration.json"
Routing = Literal["learned", "content_blind"]
Range = Literal["shortfall_bits", "experts", "activated", "tokens_per_expert", "batch"]


@dataclass(frozen=True, kw_only=True)
class Gamma:
    """An exponent with its standard error on ``df`` degrees of freedom, which are infinite where it is known."""

    mean: float
    se: float
    df: float

    def __post_init__(self) -> None:
        if not (self.se >= 0 and self.df >= 1):
            raise JudgeError(f"gamma has se {self.se:g} and df {self.df:g}: at least 0 and at least 1 are needed")

    @classmethod
    def of(cls, interval: Interval) -> "Gamma":
        """From an interval over seeds."""
        return cls(mean=interval.mean, se=interval.standard_error, df=interval.n - 1)

    def times(self, factor: float) -> Interval:
        """95 % interval of ``factor`` times gamma."""
        half = t_quantile(self.df) * self.se * abs(factor)
        n = int(self.df) + 1 if math.isfinite(self.df) else 0
        return Interval(self.mean * factor, self.mean * factor - half, self.mean * factor + half, n)


@dataclass(frozen=True, kw_only=True)
class DriftCalibration:
    """What a drift budget is computed from.

    ``made_by`` is the command that made it, ``setting`` describes model, corpus and steps in a sentence.
    ``range`` [low, high] is what was measured.
    """

    schema: Literal[1]
    made_by: str
    setting: str
    gamma: Mapping[Routing, Gamma]
    kappa: KappaFit
    range: Mapping[Range, Pair]

    def to_json(self) -> dict[str, object]:
        """Plain JSON of schema 1, which calls ``tau_predicted`` tau_doubted."""
        kappa = {"tau_doubted" if name == "tau_predicted" else name: v for name, v in vars(self.kappa).items()}
        plain = {**vars(self), "kappa": kappa}
        stored: dict[str, object] = json.loads(json.dumps(plain, default=_plain))
        return stored

    @classmethod
    def from_json(cls, text: str) -> "DriftCalibration":
        """Read what ``to_json`` wrote. CalibrationError names the first field that is wrong."""
        value = parse_json(text, "it", CalibrationError)
        if any(abs(number) > _LARGEST for number in _numbers(value)):
            raise CalibrationError(f"it has a number above {_LARGEST:g}")
        if isinstance(value, dict) and isinstance(kappa := value.get("kappa"), dict):
            kappa.pop("reason", None)  # files of older versions have it
            if "tau_doubted" in kappa:
                kappa["tau_predicted"] = kappa.pop("tau_doubted")
        try:
            return from_json(cls, value, "calibration", {Interval: _read_interval})
        except (StoreError, JudgeError) as error:
            raise CalibrationError(str(error)) from None


def _numbers(value: object) -> Iterator[float]:
    """All numbers in plain JSON."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)


def _plain(value: object) -> object:
    """A dataclass as plain JSON."""
    return value.as_json() if isinstance(value, Interval) else vars(value)


def _read_interval(value: object, where: str) -> Interval:
    if not isinstance(value, dict) or set(value) != {"mean", "low", "high", "n"} or type(value["n"]) is not int:
        refuse(value, where, "an interval with mean, low, high and n")
    absent = {"mean": math.nan, "low": -math.inf, "high": math.inf}
    ends = {name: read_number(value[name], f"{where}.{name}") for name in absent if value[name] is not None}
    return Interval(**(absent | ends), n=value["n"])


def routing_of(experts: Experts) -> Routing:
    """Which of the calibrated gammas applies to these experts."""
    return "content_blind" if experts.router == "content_blind" else "learned"


def read_calibration(path: Path | None = None) -> DriftCalibration:
    """From a file, or the one that comes with the package; raises CalibrationError."""
    where = f"the packaged {PACKAGED}" if path is None else f"calibration {str(path)!r}"
    source = importlib.resources.files(__package__).joinpath(PACKAGED)
    try:
        text = source.read_text(encoding="utf-8") if path is None else read_text(path, where, CalibrationError)
    except OSError as error:
        raise CalibrationError(f"{where} cannot be read: {error.strerror}: pass one with --calibration FILE") from None
    try:
        return DriftCalibration.from_json(text)
    except CalibrationError as error:
        raise CalibrationError(f"{where} is not a calibration: {error}") from None
