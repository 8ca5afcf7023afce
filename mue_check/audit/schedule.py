"""What happens to the groups during training. A factor common to all groups is right; the rest stays as prescribed."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from mue_check.audit.setup import SetUp
from mue_check.audit.updates import EffectiveValues, measure_updates
from mue_check.user_code import describe_error

STEPS = 2000
"""How many scheduler steps are followed if the length of the run is not stated: most warm-ups end before."""
_EARLY = 12
"""In the first steps the optimizers are stepped too: they may change their groups themselves."""
_LEAST, _GROUP_STEPS = 100, 100_000
"""With many groups fewer steps are followed, as each group costs time at each step, but never fewer than this."""
_APART = 1e-3
"""Groups diverge if their factors differ by more than this."""
_NOTHING = 1e-6
"""Factors this small end a schedule, and differences between them are rounding."""
LONG = 100
"""A warm-up of more steps is mentioned where the length of the run is not stated."""
CONSTANT = ("weight_decay", "eps", "beta1", "beta2")
"""What the rules prescribe for the whole run."""


class Stated(NamedTuple):
    """The values that one group states."""

    lr: float
    weight_decay: float
    eps: float
    beta1: float
    beta2: float

    @classmethod
    def by(cls, group: Mapping[str, Any]) -> "Stated":
        """The group's values now."""
        betas = group.get("betas")
        pair = betas if isinstance(betas, tuple | list) and len(betas) == 2 else (0.0, 0.0)
        values = (group.get("lr", math.nan), group.get("weight_decay", 0.0), group.get("eps", 0.0), *pair)
        # Adafactor's eps is a pair
        return cls(*(math.nan if isinstance(value, tuple | list) else float(value) for value in values))


@dataclass(frozen=True, kw_only=True)
class Change:
    """A value that does not stay as it is: in which way, and in words.

    ``how``: it becomes another one in one step or by another factor in each group ("rewritten"), falls gradually by one
    factor for all groups ("falls"), or changes gradually in another way ("moves").
    """

    value: str
    how: Literal["rewritten", "falls", "moves"]
    says: str


@dataclass(frozen=True, kw_only=True)
class ScheduleTrace:
    """What all groups state at the start and after each step.

    ``updates`` were measured after step ``measured_at``, the first with a rate above 0, and ``late`` after the last
    one, unless its rates are 0. ``peaks`` are the rates that the schedule scales; None if it does not state them and
    still rises. ``whole``: the run was followed to its end. ``trouble``: why it could not be followed.
    """

    stated: Sequence[tuple[Stated, ...]]
    peaks: tuple[float, ...] | None
    whole: bool
    trouble: str
    measured_at: int
    updates: Mapping[int, EffectiveValues]
    late: Mapping[int, EffectiveValues]

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.stated) - 1

    def rates(self, step: int) -> tuple[float, ...]:
        """The learning rate of each group."""
        return tuple(group.lr for group in self.stated[step])

    def factors(self, step: int) -> tuple[float, ...]:
        """Each learning rate over its peak; NaN where the peak is 0."""
        return _ratios(self.rates(step), self.peaks or self.rates(-1))

    def factor(self, step: int) -> float:
        """The factor of the first group that has one."""
        return next((f for f in self.factors(step) if not math.isnan(f)), math.nan)

    @property
    def largest(self) -> float:
        """The largest factor after any step."""
        return max(self.factor(step) for step in range(min(1, self.steps), len(self.stated)))

    @property
    def rising(self) -> int:
        """For how many steps the rates rise and never fall; 0 if they fall later."""
        course = [self.factor(step) for step in range(1, len(self.stated))]
        return course.index(course[-1]) if course and sorted(course) == course else 0

    def divergence(self) -> str:
        """When the groups first had different factors, and which; "" if all have the same."""
        for step in range(len(self.stated)):
            if not _equal(self.factors(step)):
                return f"{when(step)}: {_by_group(f'x {factor:.4g}' for factor in self.factors(step))}"
        return ""

    def runs_backwards(self) -> str:
        """How the rates rise to their peak in the second half of the whole run; "" if they do not."""
        if not self.whole:
            return ""
        course = [self.factor(step) for step in range(1, len(self.stated))]
        rises = [b > a for a, b in pairwise(course)]
        # a warm-up and one more rise; a cycle may end anywhere
        if sum(now and not before for before, now in pairwise([False, *rises])) > 2:
            return ""
        late = course[len(course) // 2 :]
        low = min(late)
        rising = late[len(late) - 1 - late[::-1].index(low) :]
        if max(course) > 1.01 * course[-1] or low > 0.9 * course[-1] or sorted(rising) != rising:
            return ""
        first = self.steps - len(rising) + 1
        return f"from x {low:.4g} {when(first)} to x {course[-1]:.4g} at the end, the highest of the run"

    def changes(self) -> Iterator[Change]:
        """Everything but the learning rate that changes after ``measured_at``."""
        for value in CONSTANT:
            found = self._change(value)
            if found is not None:
                yield found

    def _change(self, value: str) -> Change | None:
        courses = [[getattr(group, value) for group in groups] for groups in self.stated[self.measured_at :]]
        start = courses[0]
        if all(course == start for course in courses):
            return None
        # of a beta it is 1 - beta that a schedule scales
        kept = [[1 - v for v in c] if value.startswith("beta") else c for c in courses]
        factors = [_ratios(now, kept[0]) for now in kept]
        apart = next((i for i, now in enumerate(factors) if not _equal(now) or _from_zero(kept[0], kept[i])), None)
        course = [next((f for f in now if not math.isnan(f)), 1.0) for now in factors]
        span = max(course) - min(course)
        jumps = [i for i in range(1, len(course)) if abs(course[i] - course[i - 1]) > span / 2 > 0]
        step = apart if apart is not None else jumps[0] if jumps else None
        if step is None:
            low, high = (f(v for c in courses for v in c) for f in (min, max))
            falls = value == "weight_decay" and course == sorted(course, reverse=True)
            return Change(value=value, how="falls" if falls else "moves", says=f"from {low:.4g} to {high:.4g}")
        moved = _by_group("" if a == b else f"{a:.4g} to {b:.4g}" for a, b in zip(start, courses[step], strict=True))
        return Change(value=value, how="rewritten", says=f"{when(self.measured_at + step)}: from {moved}")


def follow_schedule(setup: SetUp, total: int | None = None) -> ScheduleTrace:
    """Step the real schedulers, and measure the updates on the way: after a scheduler step, as in training.

    ``total``: the number of steps of the run, if it is known.
    """
    stated = [_stated(setup)]
    trouble, measured_at = "", 0
    updates = None if setup.schedulers else measure_updates(setup)
    limit = _limit(setup, total)
    with warnings.catch_warnings():
        # schedulers warn about the order of steps, and at their end; training would not show these warnings
        warnings.simplefilter("ignore")
        for step in range(1, limit + 1):
            if step <= _EARLY:
                _step_optimizers(setup)
            try:
                for scheduler in setup.schedulers:
                    step_scheduler(scheduler, step)
            except Exception as error:
                # a OneCycleLR raises at its end, and a user's scheduler may raise anything
                trouble = "" if step > 1 else f"the scheduler cannot be stepped: {describe_error(error)}"
                break
            stated.append(_stated(setup))
            if updates is None and any(group.lr > 0 for group in stated[-1]):
                updates, measured_at = measure_updates(setup), step
        late = measure_updates(setup) if any(group.lr > 0 for group in stated[-1]) else {}
    return ScheduleTrace(
        stated=stated,
        peaks=_peaks(setup, [tuple(group.lr for group in groups) for groups in stated]),
        whole=bool(setup.schedulers) and len(stated) - 1 == total,
        trouble=trouble,
        measured_at=measured_at,
        updates=measure_updates(setup) if updates is None else updates,
        late=late,
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


def _limit(setup: SetUp, total: int | None) -> int:
    if not setup.schedulers:
        return _EARLY
    most = max(_LEAST, _GROUP_STEPS // max(1, len(setup.groups)))
    return total if total and total <= most else min(STEPS, most)


def _step_optimizers(setup: SetUp) -> None:
    """Schedulers expect a step of the optimizer before theirs."""
    for optimizer in setup.optimizers:
        try:
            optimizer.step()
        except Exception:  # the user's code; measure_updates reports it
            return


def _stated(setup: SetUp) -> tuple[Stated, ...]:
    return tuple(map(Stated.by, setup.groups))


def _peaks(setup: SetUp, rates: Sequence[tuple[float, ...]]) -> tuple[float, ...] | None:
    """The rates that the groups state, or the rates they reach if those are higher (a cyclic schedule starts low).

    A scheduler that is not torch's states nothing in the groups, or one rate for all, which it multiplies by a factor
    of the group (timm). Then it is the rates they reach, once they stop rising.
    """
    stated = [_stated_peak(setup, group) for group in setup.groups]
    reached = [max((r for r in group if not math.isnan(r)), default=math.nan) for group in zip(*rates, strict=True)]
    if not setup.schedulers:
        return tuple(now if s is None else s for s, now in zip(stated, rates[0], strict=True))
    known = [s for s in stated if s is not None]
    own = any(not type(s).__module__.startswith("torch.") for s in setup.schedulers)
    if len(known) < len(stated) or (own and _equal(known) and all(_equal(_ratios(now, reached)) for now in rates)):
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


def _ratios(now: Sequence[float], start: Sequence[float]) -> tuple[float, ...]:
    return tuple(a / b if b else math.nan for a, b in zip(now, start, strict=True))


def _from_zero(start: Sequence[float], now: Sequence[float]) -> bool:
    return any(a == 0 != b for a, b in zip(start, now, strict=True))


def _by_group(texts: Iterator[str]) -> str:
    """``TEXT in groups 0, 2, ...``: each text once, with the groups that it is true of."""
    groups: dict[str, list[str]] = {}
    for i, text in enumerate(texts):
        if text:
            groups.setdefault(text, []).append(str(i))
    return ", ".join(f"{text} in group{'s' * (len(g) > 1)} {', '.join(g)}" for text, g in groups.items())
