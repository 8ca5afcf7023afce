"""Reading stored results back: every field is checked, and the error names the one that is wrong."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mue_check.errors import JudgeError
from mue_check.judge.interval import Interval


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An object of plain JSON, and the ``path`` under which an error names it."""

    values: Mapping[str, object]
    path: str

    @classmethod
    def of(cls, value: object, path: str) -> "Stored":
        """``value``, which must be an object."""
        if not isinstance(value, Mapping):
            raise JudgeError(f"{path} is {_short(value)}: an object is needed")
        return cls(values=value, path=path)

    def get(self, name: str) -> object:
        """The field, which must be there."""
        if name not in self.values:
            raise JudgeError(f"{self.path} lacks {name!r}")
        return self.values[name]

    def part(self, name: str) -> "Stored":
        """A field that is an object."""
        return Stored.of(self.get(name), f"{self.path}.{name}")

    def items(self, name: str) -> Sequence[object]:
        """A field that is a list."""
        value = self.get(name)
        if not isinstance(value, list | tuple):
            raise JudgeError(f"{self.path}.{name} is {_short(value)}: a list is needed")
        return value

    def number(self, name: str) -> float:
        """A field that is a finite number."""
        return _number(self.get(name), f"{self.path}.{name}")

    def pair(self, name: str) -> tuple[float, float]:
        """A field that is a list of two finite numbers."""
        values = self.items(name)
        if len(values) != 2:
            raise JudgeError(f"{self.path}.{name} has {len(values)} values: 2 are needed")
        first, second = (_number(v, f"{self.path}.{name}[{i}]") for i, v in enumerate(values))
        return first, second

    def text(self, name: str) -> str:
        """A field that is a string."""
        value = self.get(name)
        if not isinstance(value, str):
            raise JudgeError(f"{self.path}.{name} is {_short(value)}: a string is needed")
        return value

    def interval(self, name: str) -> Interval:
        """What ``interval_json`` made; null is an end without bound."""
        part = self.part(name)
        mean, low, high = (
            absent if part.get(key) is None else part.number(key)
            for key, absent in (("mean", math.nan), ("low", -math.inf), ("high", math.inf))
        )
        return Interval(mean, low, high, int(part.number("n")))


def interval_json(interval: Interval) -> dict[str, float | None]:
    """An interval in plain JSON, where an unbounded end is null."""
    ends = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: value if math.isfinite(value) else None for name, value in ends.items()} | {"n": interval.n}


def _number(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise JudgeError(f"{path} is {_short(value)}: a finite number is needed")
    return float(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
