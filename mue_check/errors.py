"""The errors that mue_check raises on purpose. Their messages have one line, and no secret of the environment."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

_SECRET = re.compile("TOKEN|KEY|SECRET|PASSW", re.IGNORECASE)
"""In the name of an environment variable whose value is never shown."""
_SHORTEST = 6
"""Characters of a secret: shorter values, such as "false", occur in ordinary words."""
_ASSIGNED = re.compile(r"\b([A-Z0-9_]*(?:TOKEN|KEY|SECRET|PASSW)[A-Z0-9_]*=)\S+")
_IN_URL = re.compile(r"(\w://)[^\s/@]+@")
_HIDDEN = "***"


def hide_secrets(text: str) -> str:
    """The text with three stars for values of secret environment variables, and for users and passwords in URLs."""
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST and value in text and not os.path.exists(value):
            text = text.replace(value, _HIDDEN)
    return _IN_URL.sub(rf"\1{_HIDDEN}@", _ASSIGNED.sub(rf"\1{_HIDDEN}", text))


def unknown(what: str, name: str, allowed: Iterable[str]) -> str:
    """That there is no ``what`` of that name, the closest one that there is, and all of them."""
    names = [str(each) for each in allowed]
    by_lower_case = {each.lower(): each for each in names}
    close = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.7)
    hint = f" (did you mean {by_lower_case[close[0]]!r}?)" if close else ""
    return f"unknown {what} {name!r}{hint}: allowed are {', '.join(names)}"


def with_article(kind: type) -> str:
    """The name of a type after the article that it sounds like: ``an AdamW``, ``a str``."""
    name = kind.__name__
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


class MueCheckError(Exception):
    """A request cannot be fulfilled. The message names what is wrong, the value, and what is allowed."""

    def __str__(self) -> str:
        return hide_secrets(super().__str__())


class SpecError(MueCheckError):
    """A specification of a model or a training that cannot be built."""


class RuleError(MueCheckError):
    """A transfer rule that does not know a role, or that gives an impossible hyperparameter."""


class DataError(MueCheckError):
    """A corpus that is missing, too short, or not made of tokens."""


class StoreError(MueCheckError):
    """A study folder that cannot be read or written."""


class ClusterError(MueCheckError):
    """A cluster that cannot be joined, or that lost a batch more often than batches are retried."""


class ClaimError(MueCheckError):
    """A claim about a router that contradicts itself, or a router that cannot be read without one."""


class JudgeError(MueCheckError):
    """Measurements that cannot be judged, such as an incomplete table or an unbounded interval."""


class LoadError(SpecError):
    """A load of experts that is invalid (a negative share, too few numbers) or that no router could reach."""


class CalibrationError(MueCheckError):
    """A calibration of the drift budget that is missing, broken, or a different kind of file."""


class TimingError(MueCheckError):
    """Timings from which nothing can be predicted: the device is busy, or no prices fit them."""


class UnreadableError(ClaimError):
    """Something about a candidate could not be determined. The message says what to declare. This is not a failure."""
