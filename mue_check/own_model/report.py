"""The report of a user's model: what fails, the worst first, as text and as JSON."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mue_check.audit.report import AuditReport
from mue_check.judge.verdict import Verdict, join
from mue_check.own_model.judge import Row
from mue_check.own_model.measure import WHOLE
from mue_check.own_model.roles import Growth, ModelRole, Range
from mue_check.own_model.what_next import what_next
from mue_check.questions.display import count_text
from mue_check.questions.drift import DriftFinding
from mue_check.questions.own_optima import optima_of
from mue_check.questions.question import Finding
from mue_check.report.format import NONE, in_words, interval_text
from mue_check.report.table import text_table as terminal_table
from mue_check.terminal import text_table

_GROWS = {
    Growth.WIDTH: "the fan-in of matrices grows",
    Growth.PARTS: "the number of experts or other parts grows, and no fan-in",
    Growth.DEPTH: "the number of blocks grows",
    Growth.NONE: "no shape grows: what lies within residual blocks is shown and not judged",
}
_MOST = 12
"""Mismatches of one audit that are printed."""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """The audit at one size."""

    size: float
    report: AuditReport


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """The result. ``faults`` are what differs at the base size; ``rows`` are in the order of a forward pass."""

    axis: str
    sizes: tuple[float, ...]
    seeds: int
    lr: float
    updates: int
    tolerance: float
    growth: Growth
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    audits: tuple[Audited, ...] = ()
    transfer: tuple[Finding, ...] = ()
    """The answers of the study: early curves, tune once and drifts."""

    @property
    def verdict(self) -> Verdict:
        """The worst of the coordinates, the base size, the audits and the study."""
        return join(self.verdicts)

    @property
    def verdicts(self) -> list[Verdict]:
        """Those of all that is judged."""
        return [
            *(row.verdict for row in self.rows if row.verdict is not None),
            *(Verdict.FAIL for _ in self.faults),
            *(audited.report.verdict for audited in self.audits),
            *(verdict for found in self.transfer for verdict in found.verdicts),
        ]

    @property
    def sorted_rows(self) -> list[Row]:
        """The worst first; what is not judged last."""
        return sorted(self.rows, key=lambda row: row.badness)

    @property
    def first_suspects(self) -> list[Row]:
        """Where to look: the parameters that fail, because nothing upstream moves them; else the first output."""
        failed = [row for row in self.rows if row.verdict is Verdict.FAIL]
        parameters = [row for row in failed if row.kind == "parameter"]
        if parameters or not failed:
            return parameters
        # what is wrong at initialization is wrong before anything moves
        first = ([row for row in failed if row.worst.name == "RMS"] or failed)[0]
        raw = [row for row in self.rows if row.role == ModelRole.RAW_READOUT]
        return raw if first.name == WHOLE and raw else [first]  # its multiplier may come after the readout's own module

    def text(self, *, every: bool = False) -> str:
        """Lines for a terminal: rows that are not PASS, or ``every`` row."""
        return "\n".join(self._lines(every))

    def __str__(self) -> str:
        return self.text()

    def _lines(self, every: bool) -> Iterator[str]:
        sizes = ", ".join(f"{size:g}" for size in self.sizes)
        updates = f"{self.updates} update{'s' * (self.updates > 1)}"
        yield f"{self.axis} {sizes}: {self.seeds} seeds, {updates} at lr {self.lr:g}; {_GROWS[self.growth]}"
        yield from (f"warning: {warning}" for warning in self.warnings)
        shown = [row for row in self.sorted_rows if every or row.verdict not in (Verdict.PASS, None)]
        if shown:
            yield ""
            yield from text_table(_HEADER, [_cells(row) for row in shown])
            yield ""
        for fault in self.faults:
            yield f"base: FAIL: {fault}"
        for audited in self.audits:
            yield f"audit at {self.axis}={audited.size:g}: {audited.report.verdict}"
            lines = [*map(str, audited.report.offences), *audited.report.unjudged]
            yield from (f"  {line}" for line in lines[:_MOST])
            if len(lines) > _MOST:
                yield f"  and {len(lines) - _MOST} more"
        for found in self.transfer:
            if not isinstance(found, DriftFinding):
                kind = in_words(found.comparison.kind)
                yield f"{kind} to {found.side.label}: {found.verdict}: {found.measured}"
        for optima in optima_of(self.transfer):
            yield from ("", *terminal_table(optima.table), optima.measured)
        if self.first_suspects:
            yield f"look first at: {', '.join(row.name for row in self.first_suspects)}"
        for at, suspect in enumerate(what_next(self.axis, self.growth, self.rows), start=1):
            yield f"likely cause {at}: {suspect}"
        counted = ", ".join(
            f"{n} {'not judged' if verdict is None else verdict}"
            for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS, None)
            if (n := sum(row.verdict is verdict for row in self.rows))
        )
        answers = count_text(verdict for found in self.transfer for verdict in found.verdicts)
        studied = f"; of {len(self.transfer)} answers of the study {answers}" if self.transfer else ""
        yield f"{self.verdict}: of {len(self.rows)} outputs and parameters {counted}{studied}"

    def to_json(self) -> str:
        """Everything, as one JSON object; unknown numbers are null."""
        value = {
            "verdict": self.verdict,
            "axis": self.axis,
            "sizes": self.sizes,
            "seeds": self.seeds,
            "lr": self.lr,
            "updates": self.updates,
            "tolerance": self.tolerance,
            "growth": self.growth,
            "first_suspects": [row.name for row in self.first_suspects],
            "base": self.faults,
            "warnings": self.warnings,
            "rows": [_row_as_json(row) for row in self.sorted_rows],
            "transfer": [_answer_as_json(found) for found in self.transfer],
            "audits": [{"size": a.size, **json.loads(a.report.to_json())} for a in self.audits],
        }
        return json.dumps(value, indent=1)


_HEADER = ("verdict", "what", "name", "role", "quantity", "exponent [95 %]", "expected", "RMS", "change", "")


def _cells(row: Row) -> tuple[str, ...]:
    worst = row.worst
    exponents = {q.name: f"{q.interval.mean:+.2f}" if q.interval.n else NONE for q in row.quantities}
    return (
        str(row.verdict or NONE),
        row.kind,
        row.name + (f" ({row.members})" if row.members > 1 else ""),
        row.role,
        worst.name,
        interval_text(worst.interval) if worst.interval.n else NONE,
        range_text(worst.expected),
        exponents.get("RMS", NONE),
        exponents.get("change", exponents.get("change / RMS", NONE)),
        "; ".join(filter(None, (worst.worst, *row.notes))),
    )


def range_text(expected: Range | None) -> str:
    """``-0.50``, or ``-0.50 to +0.00``."""
    if expected is None:
        return NONE
    low, high = expected
    return f"{low + 0.0:+.2f}" if low == high else f"{low + 0.0:+.2f} to {high + 0.0:+.2f}"


def _row_as_json(row: Row) -> dict[str, Any]:
    quantities = [
        {"name": q.name, "expected": q.expected, "verdict": q.verdict, "worst": q.worst, **q.interval.as_json()}
        for q in row.quantities
    ]
    return {"verdict": row.verdict, "what": row.kind, **vars(row), "quantities": quantities}


def _answer_as_json(found: Finding) -> dict[str, Any]:
    c = found.comparison
    sizes = [side.size for side in c.sides]
    return {"question": c.name, "kind": c.kind, "sizes": sizes, "verdict": found.verdict, "measured": found.measured}
