"""Names and numbers as text, the same in every table and figure of a report."""

import math

from mue_check.judge.interval import Interval

NONE = "-"
_HUGE = 1000.0


def printable(text: str) -> str:
    """One line without control characters: names come from files that other people wrote."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def in_words(name: str) -> str:
    """A name in words: ``batch_at_fixed_tokens`` is "batch at fixed tokens"."""
    return printable(name.replace("_", " "))


def routing_words(routing: str) -> str:
    """A calibration's name for a routing: ``content_blind`` is "content-blind"."""
    return printable(routing.replace("_", "-"))


def interval_text(interval: Interval, digits: int = 2) -> str:
    """The interval, or "unresolved" where there is none."""
    if interval.n == 0 or not math.isfinite(interval.mean):
        return "unresolved"
    if interval.n == 1:
        return f"{interval.mean:+.{digits}f} [one seed]"
    return interval.text(digits)


def bounded_text(interval: Interval) -> str:
    """An interval of a fit, or a dash where the points do not bound it."""
    return interval.text() if interval.n and math.isfinite(interval.half_width) else NONE


def unsigned_text(interval: Interval) -> str:
    """An interval of a quantity that is never negative: a load, a sum of weights."""
    if interval.n < 2:
        return interval_text(interval).replace("+", "")
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def times_text(log2: Interval) -> str:
    """An interval of log2 ratios as ratios."""
    if log2.n == 0 or not math.isfinite(log2.mean):
        return NONE
    if log2.n == 1:
        return f"{_power(log2.mean):.2f} [one seed]"
    return f"{_power(log2.mean):.2f} [{_power(log2.low):.2f}, {_power(log2.high):.2f}]"


def _power(log2: float) -> float:
    """2 to that power, capped, because the interval of two seeds that disagree can exceed the largest float."""
    return float(2.0 ** min(log2, _HUGE))


def signed_text(value: float | None) -> str:
    """The number with its sign, or a dash where there is none."""
    return NONE if value is None else f"{value + 0.0:+.2f}"  # + 0.0: no "-0.00"


def number_text(value: float, digits: int = 2) -> str:
    """The number, or a dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE
