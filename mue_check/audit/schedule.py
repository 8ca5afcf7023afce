"""What the schedulers do to the groups. A factor common to all groups is right; its course does not matter."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mue_check.audit.setup import SetUp
from mue_check.audit.updates import EffectiveValues, measure_updates
from mue_check.user_code import describe_error

STEPS = 2000
"""How many scheduler steps are followed: most warm-ups end before."""
_LEAST, _GROUP_STEPS = 100, 100_000
"""With many groups fewer steps are followed, as each group costs time at each step, but never fewer than this."""
_APART = 1e-3
"""Groups diverge if their factors differ by more than this."""
_NOTHING = 1e-6
"""Factors this small end a schedule, and differences between them are rounding."""


@dataclass(frozen=True, kw_only=True)
class ScheduleTrace:
    """The learning rates of all groups at the start and after each scheduler step.

    ``updates`` were measured after step ``measured_at``, the first with a rate above 0. ``peaks`` are the rates that
    the schedule scales; None if it does not state them and still rises. ``beta1_range``: smallest and largest beta1,
    if the scheduler changes it. ``trouble``: why the schedule could not be followed.
    """

    rates: Sequence[tuple[float, ...]]
    peaks: tuple[float, ...] | None
    beta1_range: tuple[float, float] | None
    trouble: str
    measured_at: int
    updates: Mapping[int, EffectiveValues]

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

    def divergence(self) -> str:
        """When the groups first had different factors, and which; "" if all have the same."""
        for step in range(len(self.rates)):
            if not _equal(self.factors(step)):
                groups: dict[str, list[str]] = {}
                for i, factor in enumerate(self.factors(step)):
                    groups.setdefault(f"{factor:.4g}", []).append(str(i))
                listed = (f"x {f} in group{'s' * (len(g) > 1)} {', '.join(g)}" for f, g in groups.items())
                return f"{when(step)}: {', '.join(listed)}"
        return ""


def follow_schedule(setup: SetUp) -> ScheduleTrace:
    """Step the real schedulers, and measure the updates once on the way: after a scheduler step, as in training."""
    rates, beta1s = [_rates(setup)], [_beta1s(setup)]
    trouble, measured_at = "", 0
    updates: dict[int, EffectiveValues] | None = None
    with warnings.catch_warnings():
        # schedulers warn about the order of steps, and at their end; training would not show these warnings
        warnings.simplefilter("ignore")
        for step in range(1, _limit(setup) + 1):
            if step == 1:
                _step_optimizers(setup)
            try:
                for scheduler in setup.schedulers:
                    step_scheduler(scheduler, step)
            except Exception as error:
                # a OneCycleLR raises at its end, and a user's scheduler may raise anything
                trouble = "" if step > 1 else f"the scheduler cannot be stepped: {describe_error(error)}"
                break
            rates.append(_rates(setup))
            beta1s.append(_beta1s(setup))
            if updates is None and any(rate > 0 for rate in rates[-1]):
                updates, measured_at = measure_updates(setup), step
    changing = [b for group in zip(*beta1s, strict=True) if len(set(group)) > 1 for b in group]
    return ScheduleTrace(
        rates=rates,
        peaks=_peaks(setup, rates),
        beta1_range=(min(changing), max(changing)) if changing else None,
        trouble=trouble,
        measured_at=measured_at,
        updates=measure_updates(setup) if updates is None else updates,
    )


def step_scheduler(scheduler: Any, step: int) -> None:
    """Take one step; a scheduler that needs a loss gets a falling one."""
    if type(scheduler).__name__ == "ReduceLROnPlateau":
        scheduler.step(-float(step))
    else:
        scheduler.step()


def when(step: int) -> str:
    """The time of a step in words."""
    return f"after {step} scheduler step{'s' * (step != 1)}" if step else "before the first scheduler step"


def _limit(setup: SetUp) -> int:
    if not setup.schedulers:
        return 0
    return max(_LEAST, min(STEPS, _GROUP_STEPS // max(1, len(setup.groups))))


def _step_optimizers(setup: SetUp) -> None:
    """Schedulers expect a step of the optimizer before theirs."""
    for optimizer in setup.optimizers:
        try:
            optimizer.step()
        except Exception:  # the user's code; measure_updates reports it
            return


def _rates(setup: SetUp) -> tuple[float, ...]:
    return tuple(float(group.get("lr", math.nan)) for group in setup.groups)


def _beta1s(setup: SetUp) -> tuple[float, ...]:
    betas = [group.get("betas") for group in setup.groups]
    return tuple(float(b[0]) if isinstance(b, tuple | list) and b else 0.0 for b in betas)


def _peaks(setup: SetUp, rates: Sequence[tuple[float, ...]]) -> tuple[float, ...] | None:
    """The rates that the groups state, or the rates they reach if those are higher (a cyclic schedule starts low).

    A scheduler that is not torch's states nothing in the groups. Then it is the rates they reach, once they stop
    rising.
    """
    stated = [_stated_peak(setup, group) for group in setup.groups]
    reached = [max((r for r in group if not math.isnan(r)), default=math.nan) for group in zip(*rates, strict=True)]
    if not setup.schedulers:
        return tuple(now if s is None else s for s, now in zip(stated, rates[0], strict=True))
    known = [s for s in stated if s is not None]
    if len(known) < len(stated):
        rising = len(rates) > 1 and any(a > b for a, b in zip(rates[-1], rates[-2], strict=True))
        return None if rising else tuple(reached)
    above = [r / s if s else math.nan for r, s in zip(reached, known, strict=True)]
    return tuple(reached) if _equal(above) and max(above, default=1.0) > 1 + _APART else tuple(known)


def _stated_peak(setup: SetUp, group: Mapping[str, Any]) -> float | None:
    if "max_lr" in group and any(type(s).__name__ == "OneCycleLR" for s in setup.schedulers):
        return float(group["max_lr"])
    return float(group["initial_lr"]) if "initial_lr" in group else None


def _equal(factors: Sequence[float]) -> bool:
    """Whether all groups have one factor."""
    known = [f for f in factors if not math.isnan(f)]
    return not known or max(known) - min(known) <= _APART * max(map(abs, known)) + _NOTHING
