"""The first table for a terminal: fixed columns, and as few as the study needs."""

from collections.abc import Callable, Sequence

from mue_check.report.drift_tables import goes_without_saying
from mue_check.report.findings import DriftFinding
from mue_check.report.format import in_words, interval_text, number_text, printable
from mue_check.report.summary import Summary
from mue_check.sigma0.report.section import sigma0_lines

_KNOBS = {"weight_decay": "wd", "init_std": "init std"}
"""As the command line names them, where a line has no room for words."""


def verdict_lines(summary: Summary) -> list[str]:
    """All drifts, with the reason under an optimum that is not resolved; then what was found of sigma_0."""
    sigma0 = [f"sigma_0: {printable(line)}" for line in sigma0_lines(summary)]
    found = [*summary.targets, *summary.controls]
    if not found:
        return sigma0 or [f"study {printable(summary.name)} holds no drift"]
    columns: dict[str, Callable[[DriftFinding], str]] = {
        "axis": _axis,
        "target": lambda d: d.side.label,
        "corpus": lambda d: d.comparison.corpus,
        "rule": lambda d: d.comparison.rule,
        "router": lambda d: _short(d.comparison.router),
        "drift (octaves)": lambda d: interval_text(d.drift.interval),
        "regret": lambda d: number_text(d.drift.regret, 4),
        "power": lambda d: number_text(d.drift.detectable),
        "verdict": lambda d: d.drift.verdict.value,
        "expected": lambda d: "" if goes_without_saying(d.comparison) else d.comparison.expected,
        "core-s": lambda d: f"{d.core_seconds:.1f}",
    }
    if len({d.comparison.router for d in found}) == 1:
        del columns["router"]
    if all(goes_without_saying(d.comparison) for d in found):
        del columns["expected"]
    rows = [[printable(cell(d)) for cell in columns.values()] for d in found]
    notes = [f"  unresolved: {printable(d.drift.reason)}" if d.drift.reason else "" for d in found]
    head, *lines = text_table(list(columns), rows)
    for at, note in reversed(list(enumerate(notes))):
        if note:
            lines.insert(at + 1, note)
    return [head, *lines, *sigma0]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The header and the rows in columns of one width each."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in (header, *rows)
    ]


def _axis(found: DriftFinding) -> str:
    c = found.comparison
    name = f"{'control, ' if c.is_control else ''}{in_words(c.ladder)}"
    return name if c.knob == "lr" else f"{name} ({_KNOBS.get(c.knob, c.knob)})"


def _short(router: str) -> str:
    return router.replace("+selection_bias", "+bias").replace("+auxiliary_loss", "+aux")
