"""A plan as text and as JSON: the table, its assumptions, and what a budget leaves of it."""

import math
import shlex
from dataclasses import asdict, dataclass, fields

from mue_check.cost.calibration import Calibration
from mue_check.cost.plan import Plan, Row
from mue_check.cost.simulated import measured_spreads
from mue_check.cost.trim import PowerLeft, Trimmed, controls_lost, power_left
from mue_check.judge.drift import MIN_SEEDS
from mue_check.routing.variants import is_users
from mue_check.terminal import text_table

ASSUMED = (
    "optima vary as much as measured in reports/; scale laws and early curves need no extra seeds; "
    "start-up and judging are not counted"
)
FLOOR = f"{MIN_SEEDS} seeds per drift, the fewest that give a useful interval, and one target of each ladder"


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """The full plan, its calibration, and what a budget (in seconds) left of it."""

    full: Plan
    calibration: Calibration | None
    trimmed: Trimmed | None = None
    budget: float = 0.0

    @property
    def plan(self) -> Plan:
        """The trimmed plan, or the full one without a budget."""
        return self.trimmed.plan if self.trimmed else self.full

    @property
    def power(self) -> list[PowerLeft]:
        """What the drifts of the plan can detect."""
        return power_left(self.plan, measured_spreads(), before=self.full)

    def lines(self) -> list[str]:
        """The report as lines of text."""
        plan, settings = self.plan, self.plan.run.settings
        heads = [field.name.replace("flop", "FLOP") for field in fields(Row)]
        lines = text_table(heads, [_cells(row) for row in (*plan.rows, plan.total)], numeric=range(2, len(heads)))
        calibration = self.calibration or "none: this machine has no such device; --calibration FILE reads one"
        lines += ["", f"time         {_time(plan)}", f"calibration  {calibration}", f"assumed      {ASSUMED}"]
        lines += [f"notice       {notice}" for notice in settings.notices]
        if is_users(settings.router):
            lines.append("notice       your router is priced as a single matrix product")
        return [*lines, "", *self._budget_lines(self.trimmed)] if self.trimmed else lines

    def values(self) -> dict[str, object]:
        """Plain JSON values."""
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

    def _budget_lines(self, trimmed: Trimmed) -> list[str]:
        if not trimmed.options and trimmed.fits:
            result = "all of it fits"
        elif trimmed.fits:
            result = f"fits with {' '.join(trimmed.options)}; without them {_time(self.full)}"
        else:
            result = f"NOT met: the minimum ({FLOOR}) takes {_time(self.plan)}; run fewer --axes or use more workers"
        lines = [f"budget       {duration(self.budget)}: {result}", f"run          {command(self.plan)}", ""]
        heads = ("drift of", "targets", "left out", "seeds", "tolerance", "half-width", "detectable drift", "")
        rows = [
            (
                f"{p.ladder}{'' if p.knob == 'lr' else f' ({p.knob})'} on {p.corpus}",
                " ".join(p.targets) or "-",
                " ".join(p.left_out) or "-",
                str(p.seeds),
                f"{p.tolerance:g}",
                f"{p.half_width:.2f}",
                f"{p.detectable:.2f}",
                "" if p.decidable else "undecidable: even a model without drift would be INCONCLUSIVE",
            )
            for p in self.power
        ]
        lines += text_table(heads, rows, numeric=range(3, 7)) if rows else ["no drift is measured"]
        lost = controls_lost(self.plan, self.full)
        return [*lines, *([f"controls left out: {', '.join(lost)}"] if lost else [])]


def command(plan: Plan) -> str:
    """The command that runs a plan."""
    workers = ["-n", str(plan.workers)] if plan.on_cpu and plan.workers > 1 else []
    return shlex.join(["mue_check", "suite", *plan.arguments, *workers])


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
    unit, worker, plural = ("core", "process", "es") if plan.on_cpu else ("GPU", "GPU", "s")
    workers = f"{plan.workers} {worker}{'' if plan.workers == 1 else plural}"
    return f"{plan.total.seconds:.0f} {unit}-seconds, {duration(plan.wall_seconds)} on {workers}"


def _cells(row: Row) -> tuple[str, ...]:
    counts = (row.tests, row.cells, row.stored, row.runs, row.steps)
    seconds = "-" if row.seconds is None else f"{row.seconds:.1f}"
    return (row.axis, row.question, *map(str, counts), f"{row.flop:.2e}", seconds)
