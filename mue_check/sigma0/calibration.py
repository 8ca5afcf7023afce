"""What a study measured of gamma and kappa: the numbers that a drift budget is made from."""

import importlib.resources
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mue_check.errors import CalibrationError, JudgeError
from mue_check.judge.interval import Interval, t_quantile
from mue_check.sigma0.kappa import KappaFit
from mue_check.sigma0.stored import Stored

SCHEMA = 1
PACKAGED = "sigma0_calibration.json"
ROUTINGS = ("learned", "content_blind")
RANGES = ("shortfall_bits", "experts", "activated", "tokens_per_expert", "batch")


@dataclass(frozen=True, kw_only=True)
class Gamma:
    """An exponent with its standard error on ``df`` degrees of freedom; infinite where it is known."""

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
class Calibration:
    """``gamma`` by routing (learned, content_blind), ``kappa``, and the ``ranges`` [low, high] that were measured.

    ``made_by`` is the command that made it, ``setting`` says in a sentence on what model, corpus and steps.
    """

    made_by: str
    setting: str
    gamma: Mapping[str, Gamma]
    kappa: KappaFit
    ranges: Mapping[str, tuple[float, float]]

    def to_json(self) -> dict[str, object]:
        """Plain JSON of schema 1."""
        return {
            "schema": SCHEMA,
            "made_by": self.made_by,
            "setting": self.setting,
            "gamma": {name: {"mean": g.mean, "se": g.se, "df": g.df} for name, g in self.gamma.items()},
            "kappa": self.kappa.to_json(),
            "range": {name: list(ends) for name, ends in self.ranges.items()},
        }

    @classmethod
    def from_json(cls, value: object) -> "Calibration":
        """What ``to_json`` made; raises CalibrationError naming what is wrong."""
        try:
            stored = Stored.of(value, "calibration")
            if stored.get("schema") != SCHEMA:
                raise JudgeError(f"calibration.schema is {stored.get('schema')!r}: this version reads {SCHEMA}")
            gammas = {name: stored.part("gamma").part(name) for name in ROUTINGS}
            return cls(
                made_by=stored.text("made_by"),
                setting=stored.text("setting"),
                gamma={
                    name: Gamma(mean=g.number("mean"), se=g.number("se"), df=g.number("df"))
                    for name, g in gammas.items()
                },
                kappa=KappaFit.from_json(stored.get("kappa")),
                ranges={name: stored.part("range").pair(name) for name in RANGES},
            )
        except JudgeError as error:
            raise CalibrationError(str(error)) from None


def read_calibration(path: Path | None = None) -> Calibration:
    """From a file, or the one that comes with the package; raises CalibrationError."""
    if path is None:
        packaged = importlib.resources.files(__package__).joinpath(PACKAGED)
        if not packaged.is_file():
            raise CalibrationError("no calibration comes with this version: pass one with --calibration FILE")
        return _parse(packaged.read_text(encoding="utf-8"), f"the packaged {PACKAGED}")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CalibrationError(f"calibration {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise CalibrationError(f"calibration {str(path)!r} is no text") from None
    return _parse(text, f"calibration {str(path)!r}")


def _parse(text: str, where: str) -> Calibration:
    try:
        value = json.loads(text)
    except ValueError:
        raise CalibrationError(f"{where} is no JSON: give what a sigma_0 study wrote") from None
    try:
        return Calibration.from_json(value)
    except CalibrationError as error:
        raise CalibrationError(f"{where} is no calibration: {error}") from None
