"""What the scheduler does to the groups: one factor on all of them is right, whatever it is."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mue_check.audit.setup import SetUp, said

STEPS = 2000
"""How far a schedule is looked at: most warm-ups hand over before."""
_LEAST, _GROUP_STEPS = 100, 100_000
"""Each group costs at each step: with many groups it is fewer steps, and never fewer than this."""
_APART = 1e-3
"""Groups whose factors differ by more than this are moved apart."""
_NOTHING = 1e-6
"""Factors that small are the end of a schedule, and differences between them rounding."""

T = TypeVar("T")


@dataclass(kw_only=True)
class Walk(Generic[T]):
    """The learning rates of all groups, as they came and after each scheduler step.

    ``measured`` was taken after step ``at``, when a rate was above 0 for the first time. ``peaks`` are the rates that
    the schedule bends; None where a schedule does not say them and still rises. ``momenta``: least and largest beta1,
    where the scheduler moves it. ``trouble``: why the schedule could not be followed.
    """

    rates: list[tuple[float, ...]] = field(default_factory=list)
    peaks: tuple[float, ...] | None = None
    momenta: tuple[float, float] | None = None
    trouble: str = ""
    at: int = 0
    measured: T

    @property
    def steps(self) -> int:
        """How many scheduler steps were taken."""
        return len(self.rates) - 1

    def factors(self, step: int) -> tuple[float, ...]:
        """Each learning rate over its peak; NaN where the peak is 0."""
        pairs = zip(self.rates[step], self.peaks or self.rates[-1], strict=True)
        return tuple(rate / peak if peak else math.nan for rate, peak in pairs)

    def factor(self, step: int) -> float:
        """The factor of the first group that has one."""
        return next((f for f in self.factors(step) if not math.isnan(f)), math.nan)

    @property
    def largest(self) -> float:
        """The largest factor after any scheduler step."""
        return max(self.factor(step) for step in range(min(1, self.steps), len(self.rates)))

    def apart(self) -> str:
        """When different factors first moved the groups, and which; "" where one moved all."""
        for step in range(len(self.rates)):
            if not _alike(self.factors(step)):
                groups: dict[str, list[int]] = {}
                for i, factor in enumerate(self.factors(step)):
                    groups.setdefault(f"{factor:.4g}", []).append(i)
                told = ", ".join(f"x {factor} in {_groups(which)}" for factor, which in groups.items())
                return f"{when(step)}: {told}"
        return ""


def walk_schedule(setup: SetUp, measure: Callable[[], T]) -> Walk[T]:
    """Step the real schedulers, and ``measure`` once on the way: after a scheduler step, as in training."""
    rates, momenta = [_rates(setup)], [_momenta(setup)]
    trouble, at, found = "", 0, list[T]()
    with warnings.catch_warnings():
        # schedulers warn of an order of steps, and of their own end, that training would not see
        warnings.simplefilter("ignore")
        for step in range(1, _limit(setup) + 1):
            if step == 1:
                _step_without_gradients(setup)
            try:
                for scheduler in setup.schedulers:
                    step_scheduler(scheduler, step)
            except Exception as error:
                # a OneCycleLR that is over raises, and a user's own may raise anything
                trouble = "" if step > 1 else f"the scheduler cannot be stepped: {said(error)}"
                break
            rates.append(_rates(setup))
            momenta.append(_momenta(setup))
            if not found and any(rate > 0 for rate in rates[-1]):
                found, at = [measure()], step
    if not found:
        found = [measure()]
    seen = [m for group in zip(*momenta, strict=True) if len(set(group)) > 1 for m in group]
    return Walk(
        rates=rates,
        peaks=_peaks(setup, rates),
        momenta=(min(seen), max(seen)) if seen else None,
        trouble=trouble,
        at=at,
        measured=found[0],
    )


def step_scheduler(scheduler: Any, step: int) -> None:
    """One step; a scheduler that asks for a loss gets one that falls."""
    if type(scheduler).__name__ == "ReduceLROnPlateau":
        scheduler.step(-float(step))
    else:
        scheduler.step()


def when(step: int) -> str:
    """How many steps after the start."""
    return f"after {step} scheduler step{'s' * (step != 1)}" if step else "as the groups came"


def _limit(setup: SetUp) -> int:
    if not setup.schedulers:
        return 0
    return max(_LEAST, min(STEPS, _GROUP_STEPS // max(1, len(setup.groups))))


def _step_without_gradients(setup: SetUp) -> None:
    """Schedulers want a step of the optimizer before theirs."""
    for optimizer in setup.optimizers:
        try:
            optimizer.step()
        except Exception:  # the user's own code; where values are measured it is told
            return


def _rates(setup: SetUp) -> tuple[float, ...]:
    return tuple(float(group.get("lr", math.nan)) for group in setup.groups)


def _momenta(setup: SetUp) -> tuple[float, ...]:
    betas = [group.get("betas") for group in setup.groups]
    return tuple(float(b[0]) if isinstance(b, tuple | list) and b else 0.0 for b in betas)


def _peaks(setup: SetUp, rates: Sequence[tuple[float, ...]]) -> tuple[float, ...] | None:
    """What the groups say, or what they reach where that is more (a cyclic schedule begins at its lowest).

    A schedule that is not torch's leaves no word of it in the groups: there it is what they reach, once they stop
    rising.
    """
    stated = [_stated(setup, group) for group in setup.groups]
    reached = [max((r for r in group if not math.isnan(r)), default=math.nan) for group in zip(*rates, strict=True)]
    if not setup.schedulers:
        return tuple(now if s is None else s for s, now in zip(stated, rates[0], strict=True))
    if any(s is None for s in stated):
        rising = len(rates) > 1 and any(a > b for a, b in zip(rates[-1], rates[-2], strict=True))
        return None if rising else tuple(reached)
    known = [s for s in stated if s is not None]
    above = [r / s if s else math.nan for r, s in zip(reached, known, strict=True)]
    return tuple(reached) if _alike(above) and max(above, default=1.0) > 1 + _APART else tuple(known)


def _stated(setup: SetUp, group: Mapping[str, Any]) -> float | None:
    if "max_lr" in group and any(type(s).__name__ == "OneCycleLR" for s in setup.schedulers):
        return float(group["max_lr"])
    return float(group["initial_lr"]) if "initial_lr" in group else None


def _alike(factors: Sequence[float]) -> bool:
    """Whether one factor moved all groups."""
    known = [f for f in factors if not math.isnan(f)]
    return not known or max(known) - min(known) <= _APART * max(map(abs, known)) + _NOTHING


def _groups(which: list[int]) -> str:
    return ("group " if len(which) == 1 else "groups ") + ", ".join(map(str, which))
