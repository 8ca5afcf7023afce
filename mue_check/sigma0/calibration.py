"""The drift calibration: gamma and kappa as a study measured them, and the file that `mue_check budget` reads."""

import importlib.resources
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from mue_check.errors import CalibrationError, JudgeError
from mue_check.judge.interval import Interval, t_quantile
from mue_check.sigma0.kappa import KappaFit, Pair
from mue_check.spec import Experts

PACKAGED = "sigma0_calibration.json"
Routing = Literal["learned", "content_blind"]
Range = Literal["shortfall_bits", "experts", "activated", "tokens_per_expert", "batch"]


@dataclass(frozen=True, kw_only=True)
class Gamma:
    """An exponent with its standard error on ``df`` degrees of freedom, which are infinite where it is known."""

    mean: FiniteFloat
    se: Annotated[FiniteFloat, Field(ge=0)]
    df: Annotated[float, Field(ge=1)]

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
    gamma: Annotated[Mapping[Routing, Gamma], Field(min_length=2)]
    kappa: KappaFit
    range: Annotated[Mapping[Range, Pair], Field(min_length=5)]

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        plain: dict[str, object] = _ADAPTER.dump_python(self, mode="json", by_alias=True)
        return plain

    @classmethod
    def from_json(cls, text: str) -> "DriftCalibration":
        """Read what ``to_json`` wrote. CalibrationError names the first field that is wrong."""
        try:
            return _ADAPTER.validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise CalibrationError(f"{where}: {first['msg']}" if where else first["msg"]) from None
        except JudgeError as error:
            raise CalibrationError(str(error)) from None


_ADAPTER = TypeAdapter(DriftCalibration)


def routing_of(experts: Experts) -> Routing:
    """Which of the calibrated gammas applies to these experts."""
    return "content_blind" if experts.router == "content_blind" else "learned"


def read_calibration(path: Path | None = None) -> DriftCalibration:
    """From a file, or the one that comes with the package; raises CalibrationError."""
    where = f"the packaged {PACKAGED}" if path is None else f"calibration {str(path)!r}"
    source = importlib.resources.files(__package__).joinpath(PACKAGED) if path is None else path
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        hint = ": pass one with --calibration FILE" if path is None else ""
        raise CalibrationError(f"{where} cannot be read: {error.strerror}{hint}") from None
    except ValueError:
        raise CalibrationError(f"{where} is not text") from None
    try:
        return DriftCalibration.from_json(text)
    except CalibrationError as error:
        raise CalibrationError(f"{where} is not a calibration: {error}") from None
