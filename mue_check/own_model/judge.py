"""From coordinates to verdicts: the exponent of each quantity against size, its interval over seeds, and a verdict."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mue_check.judge.interval import Interval, Looks, look_level, t_interval, two_part_interval
from mue_check.judge.verdict import Verdict, join, judge_interval
from mue_check.own_model.measure import Coordinates, Key, Kind
from mue_check.own_model.roles import Expected, ModelRole, Range

Levels = NDArray[np.float64]
"""[S, N] log2 of a quantity by seed and size."""
_SAME_RATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One exponent: what was measured at each size, and what was expected (None: shown, not judged)."""

    name: str
    levels: Levels
    interval: Interval
    expected: Range | None
    verdict: Verdict | None
    worst: str = ""
    """The member of a group that fails, or what is wrong other than the exponent."""

    @property
    def off(self) -> float:
        """How far the exponent lies outside its range."""
        if self.expected is None or not math.isfinite(self.interval.mean):
            return math.inf if self.verdict is Verdict.FAIL else 0.0
        low, high = self.expected
        return max(low - self.interval.mean, self.interval.mean - high, 0.0)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One module's output or one parameter, over all layers of that name."""

    kind: Kind
    name: str
    role: str
    members: int
    quantities: tuple[Quantity, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The worst of its quantities; None if nothing is judged."""
        verdicts = [q.verdict for q in self.quantities if q.verdict is not None]
        return join(verdicts) if verdicts else None

    @property
    def worst(self) -> Quantity:
        """The quantity with the row's verdict that is farthest off."""
        having = [q for q in self.quantities if q.verdict is self.verdict] or list(self.quantities)
        return max(having, key=lambda q: q.off)

    @property
    def badness(self) -> tuple[int, float]:
        """Sorts rows, the worst first."""
        order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS, None)
        return order.index(self.verdict), -self.worst.off


def judge_rows(
    table: Mapping[float, Sequence[Coordinates]], expected: Mapping[Key, Expected], tolerance: float, looks: Looks
) -> list[Row]:
    """One row for each group of names that differ in numbers alone, of one kind of module and one role, in the order of
    a forward pass.

    A group is judged by the RMS over its members, which is known best. It also fails if one member surely breaks its
    law, since errors in opposite directions cancel. ``table`` maps each size to its seeds.
    """
    kinds = {name: kind for seeds in table.values() for name, kind in seeds[0].kinds.items()}
    groups: dict[tuple[Key, str], dict[ModelRole, list[Key]]] = {}
    for key, law in expected.items():
        # a Sequential numbers modules of different kinds
        groups.setdefault((key.group, kinds.get(key.module, "")), {}).setdefault(law.role, []).append(key)
    alike = Counter(group for (group, _), roles in groups.items() for _ in roles)
    # names of layers that not every size has count for their group as well
    partial: dict[tuple[Key, str], set[Key]] = {}
    for key in {key for seeds in table.values() for found in seeds for key in found.rms} - expected.keys():
        partial.setdefault((key.group, kinds.get(key.module, "")), set()).add(key)
    judging = _Judging(sizes=np.log2(list(table)), level=look_level(looks), tolerance=tolerance)
    rows = []
    for group, roles in groups.items():
        for keys in roles.values():
            name = keys[0] if len(keys) == 1 and alike[group[0]] > 1 else group[0]
            rows.append(_judge_group(name, keys, {*keys, *partial.pop(group, ())}, expected, table, judging))
    return rows


@dataclass(frozen=True, kw_only=True)
class _Judging:
    sizes: NDArray[np.float64]
    level: float
    tolerance: float

    def quantity(self, name: str, levels: Levels, expected: Range | None) -> Quantity:
        """The exponent of levels: one slope for all seeds, and an offset for each.

        What is left over estimates the noise. Over sizes too it has more degrees of freedom than the slopes of the
        seeds have, and it grows where the levels follow no power law.
        """
        interval = t_interval([])
        if np.isfinite(levels).all():  # 0 and NaN have no exponent
            x, seeds = self.sizes - self.sizes.mean(), len(levels)
            slope = float((levels.mean(0) @ x) / (x @ x))
            rest = levels - levels.mean(1, keepdims=True) - slope * x
            df = levels.size - seeds - 1
            se = math.sqrt(np.square(rest).sum() / df / (seeds * (x @ x)))
            interval = two_part_interval(slope, se, df, seeds, self.level, shared=0.0)
        verdict = None
        if expected is not None and interval.n:
            middle, half = sum(expected) / 2, (expected[1] - expected[0]) / 2
            verdict = judge_interval(interval, half + self.tolerance, center=middle)
        return Quantity(name=name, levels=levels, interval=interval, expected=expected, verdict=verdict)


def _judge_group(
    group: Key,
    keys: Sequence[Key],
    every: Set[Key],
    expected: Mapping[Key, Expected],
    table: Mapping[float, Sequence[Coordinates]],
    judging: _Judging,
) -> Row:
    law, kind = expected[keys[0]], group.kind
    combined = _judged(_values(table, every), law, judging, kind)
    # where sizes differ in members, such as layers, those of one number are not comparable
    alone = keys if len(keys) > 1 and every == set(keys) else ()
    single = {key: _judged(_values(table, [key]), expected[key], judging, kind) for key in alone}
    quantities = []
    for at, whole in enumerate(combined):
        fails = [(k, q[at]) for k, q in single.items() if at < len(q) and q[at].verdict is Verdict.FAIL]
        if fails and whole.verdict is not Verdict.FAIL:
            key, worst = max(fails, key=lambda pair: pair[1].off)
            whole = replace(worst, worst=key.name)
        quantities.append(whole)
    idle = [size for size, seeds in table.items() if kind == "parameter" and any(k.name in seeds[0].idle for k in keys)]
    notes = [f"its gradient is 0 within rounding at size {idle[0]:g}"] if idle else []
    if idle:
        quantities = [q if q.name == "RMS" else replace(q, expected=None, verdict=None) for q in quantities]
    rates = _moved_rates(table, [k.name for k in keys]) if kind == "parameter" else None
    if rates is not None:
        quantities.append(rates)
    return Row(
        kind=kind,
        name=group.name,
        role=str(law.role),
        members=len(keys),
        quantities=tuple(quantities),
        notes=tuple(notes),
    )


def _judged(values: tuple[Levels, Levels], law: Expected, judging: _Judging, kind: Kind) -> list[Quantity]:
    """RMS and change; of a parameter that does not start at zero, the change is judged over the RMS."""
    rms, change = values
    if not law.rms and not law.change and not law.relative:
        with np.errstate(all="ignore"):
            return [judging.quantity(n, np.log2(v), None) for n, v in (("RMS", rms), ("change", change))]
    out = []
    for name, numbers, wanted in (("RMS", rms, law.rms), ("change", change, law.change)):
        relative = name == "change" and law.relative is not None and bool((rms > 0).all())
        with np.errstate(all="ignore"):
            levels = np.log2(numbers / rms if relative else numbers)
        target = law.relative if relative else wanted
        quantity = judging.quantity("change / RMS" if relative else name, levels, target)
        broken = _broken(numbers, name, kind) if target is not None or name == "RMS" else ""
        if broken:
            quantity = replace(quantity, interval=t_interval([]), verdict=Verdict.FAIL, worst=broken)
        out.append(quantity)
    return out


def _broken(numbers: Levels, name: str, kind: Kind) -> str:
    """What no exponent can be fitted to. Zero everywhere is fine, and NaN is a pass that cannot be compared."""
    if np.isinf(numbers).any() or (name == "RMS" and np.isnan(numbers).any() and kind == "parameter"):
        return "not finite"
    zero = (numbers == 0).all(axis=0)
    if zero.any() and not zero.all():
        return "zero at some sizes only"
    return ""


def _values(table: Mapping[float, Sequence[Coordinates]], keys: Collection[Key]) -> tuple[Levels, Levels]:
    """RMS over these names of the RMS and of the change, [S, N] each; names that are absent or NaN do not count."""

    seeds = range(min(len(found) for found in table.values()))

    def over(of: Callable[[Coordinates], Mapping[Key, float]]) -> Levels:
        numbers = np.array([[[of(f[s]).get(k, math.nan) for k in keys] for f in table.values()] for s in seeds])
        known = ~np.isnan(numbers)
        with np.errstate(all="ignore"):  # 0 / 0 where nothing is known
            mean: Levels = np.square(np.where(known, numbers, 0.0)).sum(axis=2) / known.sum(axis=2)
        return np.sqrt(mean)

    return over(lambda found: found.rms), over(lambda found: found.change)


def _moved_rates(table: Mapping[float, Sequence[Coordinates]], names: Sequence[str]) -> Quantity | None:
    """A failed quantity if a scheduler changes the learning rate of these parameters relative to the others."""
    for size, found in table.items():
        rates = found[0].rates
        largest = [max(at) for at in zip(*rates.values(), strict=True)]
        for name in names:
            shares = [rate / top for rate, top in zip(rates.get(name, ()), largest, strict=False) if top > 0]
            moved = [s for s in shares if abs(s / shares[0] - 1) > _SAME_RATE] if shares and shares[0] else []
            if moved:
                says = f"{name} at size {size:g}: {shares[0]:.4g} of the largest rate when built, {moved[0]:.4g} later"
                return Quantity(
                    name="learning rate",
                    levels=np.empty((0, 0)),
                    interval=t_interval([]),
                    expected=None,
                    verdict=Verdict.FAIL,
                    worst=says,
                )
    return None
