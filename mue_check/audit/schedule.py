"""What the scheduler does to the groups: one factor on all of them is right, whatever it is."""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mue_check.audit.setup import SetUp, said

_APART = 1e-3
"""Groups whose factors differ by more than this are moved apart."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The groups after ``step`` scheduler steps: each learning rate over its initial one (NaN where that is 0)."""

    step: int
    factors: tuple[float, ...]

    @property
    def together(self) -> bool:
        """Whether one factor moved all groups."""
        known = [f for f in self.factors if not math.isnan(f)]
        return not known or max(known) - min(known) <= _APART * max(abs(f) for f in known)

    @property
    def factor(self) -> float:
        """The factor of the first group that has one."""
        return next((f for f in self.factors if not math.isnan(f)), math.nan)

    def __str__(self) -> str:
        groups: dict[str, list[int]] = {}
        for i, factor in enumerate(self.factors):
            groups.setdefault(f"{factor:.4g}", []).append(i)
        told = ", ".join(f"x {factor} in {_groups(which)}" for factor, which in groups.items())
        return f"{self.when}: {told}"

    @property
    def when(self) -> str:
        """How many steps after the start."""
        return f"after {self.step} scheduler step{'s' * (self.step != 1)}" if self.step else "as the groups came"


def initial_rates(setup: SetUp) -> list[float]:
    """The learning rate of each group before the schedule bends it: the peak where a warm-up leads to one."""
    one_cycle = any(type(s).__name__ == "OneCycleLR" for s in setup.schedulers)
    return [_initial(group, one_cycle) for group in setup.groups]


def _initial(group: Mapping[str, Any], one_cycle: bool) -> float:
    if one_cycle and "max_lr" in group:
        return float(group["max_lr"])
    return float(group.get("initial_lr", group.get("lr", math.nan)))


def moment_now(setup: SetUp, step: int) -> Moment:
    """The groups as they are; step 0 is how they came."""
    now = [float(group.get("lr", math.nan)) for group in setup.groups]
    pairs = zip(now, initial_rates(setup), strict=True)
    return Moment(step=step, factors=tuple(n / i if i else math.nan for n, i in pairs))


def step_schedule(setup: SetUp, steps: int) -> Iterator[Moment | str]:
    """A Moment after each scheduler step, or a line that says why there are no more. Steps the real objects."""
    if not setup.schedulers:
        return
    with warnings.catch_warnings():
        # schedulers warn of an order of steps, and of their own end, that training would not see
        warnings.simplefilter("ignore")
        for step in range(1, steps + 1):
            try:
                if step == 1:
                    for optimizer in setup.optimizers:
                        optimizer.step()
                for scheduler in setup.schedulers:
                    step_scheduler(scheduler, step)
            except Exception as error:
                # a OneCycleLR that is over raises, and a user's own may raise anything
                if step == 1:
                    yield f"the scheduler cannot be stepped: {said(error)}"
                return
            yield moment_now(setup, step)


def step_scheduler(scheduler: Any, step: int) -> None:
    """One step; a scheduler that asks for a loss gets one that falls."""
    if type(scheduler).__name__ == "ReduceLROnPlateau":
        scheduler.step(-float(step))
    else:
        scheduler.step()


def _groups(which: list[int]) -> str:
    return ("group " if len(which) == 1 else "groups ") + ", ".join(map(str, which))
