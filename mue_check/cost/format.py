"""A plan in words: the table, what it rests on, and what a budget leaves of it."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mue_check.cost.calibration import Calibration
from mue_check.cost.plan import Plan, Row
from mue_check.cost.power import PowerLeft, controls_lost, power_left
from mue_check.cost.spreads import measured_spreads
from mue_check.cost.trim import Trimmed
from mue_check.judge.drift import MIN_SEEDS
from mue_check.routing.variants import is_users

HEADS = ("axis", "question", "tests", "cells", "stored", "runs", "steps", "FLOP", "seconds")
ASSUMED = (
    "optima lie as far apart as measured in reports/, laws of scale and early curves are clear with their first "
    "seeds; start-up and judging are not counted"
)
FLOOR = f"{MIN_SEEDS} seeds a drift, below which no interval is worth a verdict, and one target of each ladder"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What there is to tell: the full plan, the calibration behind it, and what a budget (seconds) has left of it."""

    full: Plan
    calibration: Calibration | None
    trimmed: Trimmed | None = None
    budget: float = 0.0

    @property
    def plan(self) -> Plan:
        """The one that is left."""
        return self.trimmed.plan if self.trimmed else self.full

    @property
    def power(self) -> list[PowerLeft]:
        """What its drifts can see."""
        return power_left(self.plan, measured_spreads(), before=self.full)

    def lines(self) -> list[str]:
        """Text for people."""
        plan = self.plan
        lines = _table([HEADS, *(_cells(row) for row in (*plan.rows, plan.total))], left=2)
        lines += ["", f"time         {_time(plan)}", f"calibration  {self._calibrated()}", f"assumed      {ASSUMED}"]
        lines += [f"notice       {notice}" for notice in plan.collected.settings.notices]
        if is_users(plan.collected.settings.router):
            lines.append("notice       your router is priced as if it were one matrix product")
        if self.trimmed:
            lines += ["", *self._budget_lines(self.trimmed)]
        return lines

    def values(self) -> dict[str, object]:
        """The same as plain JSON values."""
        values: dict[str, object] = {
            "command": command(self.plan),
            "rows": [asdict(row) for row in self.plan.rows],
            "total": asdict(self.plan.total),
            "workers": self.plan.workers,
            "wall_seconds": self.plan.wall_seconds,
            "calibration": asdict(self.calibration) if self.calibration else None,
            "assumed": ASSUMED,
        }
        if self.trimmed:
            values["budget"] = {
                "seconds": self.budget,
                "met": self.trimmed.fits,
                "floor": FLOOR,
                "untrimmed_wall_seconds": self.full.wall_seconds,
                "options": list(self.trimmed.options),
                "power": [{**asdict(row), "decidable": row.decidable} for row in self.power],
                "controls_lost": controls_lost(self.plan, self.full),
            }
        return values

    def _calibrated(self) -> str:
        if self.calibration is None:
            return "none: this machine has no such device (--calibration FILE takes one from a machine that has)"
        return str(self.calibration)

    def _budget_lines(self, trimmed: Trimmed) -> list[str]:
        wanted, found = duration(self.budget), _time(self.plan)
        if not trimmed.options and trimmed.fits:
            said = f"{wanted}: all of it fits"
        elif trimmed.fits:
            said = f"{wanted}: fits with {' '.join(trimmed.options)}, from {_time(self.full)}"
        else:
            said = f"{wanted}: NOT met; the floor ({FLOOR}) takes {found}: ask fewer axes (--axes) or take more workers"
        lines = [f"budget       {said}", f"run          {command(self.plan)}", ""]
        heads = ("drift of", "targets", "left out", "seeds", "tolerance", "half-width", "95 % power from", "")
        rows = [
            (
                f"{p.ladder}{'' if p.knob == 'lr' else f' ({p.knob})'} on {p.corpus}",
                " ".join(p.targets) or "-",
                " ".join(p.left_out) or "-",
                str(p.seeds),
                f"{p.tolerance:g}",
                f"{p.half_width:.2f}",
                f"{p.detectable:.2f}",
                "" if p.decidable else "cannot be decided: even no drift at all would be INCONCLUSIVE",
            )
            for p in self.power
        ]
        lines += [line.rstrip() for line in _table([heads, *rows], left=3)] if rows else ["no drift is asked"]
        lost = controls_lost(self.plan, self.full)
        return [*lines, *([f"controls that fall away: {', '.join(lost)}"] if lost else [])]


def command(plan: Plan) -> str:
    """What runs a plan."""
    cpu = plan.collected.settings.tier.device == "cpu"
    return shlex.join(["pytest", *plan.arguments, *(["-n", str(plan.workers)] if cpu and plan.workers > 1 else [])])


def duration(seconds: float) -> str:
    """90 s, 12m 30s, 2h 05m."""
    whole = math.ceil(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m {rest:02}s" if minutes < 120 else f"{minutes // 60}h {minutes % 60:02}m"


def _time(plan: Plan) -> str:
    if plan.wall_seconds is None or plan.total.seconds is None:
        return "unknown"
    cpu = plan.collected.settings.tier.device == "cpu"
    shared = f"{plan.workers} {'process' if cpu else 'GPU'}{'' if plan.workers == 1 else 'es' if cpu else 's'}"
    return f"{plan.total.seconds:.0f} {'core' if cpu else 'GPU'}-seconds, {duration(plan.wall_seconds)} on {shared}"


def _cells(row: Row) -> tuple[str, ...]:
    counts = (row.tests, row.cells, row.stored, row.runs, row.steps)
    seconds = "-" if row.seconds is None else f"{row.seconds:.1f}"
    return (row.axis, row.question, *map(str, counts), f"{row.flop:.2e}", seconds)


def _table(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Columns of equal width, the first ``left`` and words at the end to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells))
    return lines
