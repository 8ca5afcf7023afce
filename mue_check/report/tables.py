"""Tables as text: the same rows for the terminal, the Markdown summary and the page."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mue_check.judge.interval import Interval
from mue_check.judge.verdict import Verdict
from mue_check.report.summary import DriftFinding, EarlyFinding, Summary

NONE = "-"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table; ``note`` is a sentence that belongs under it, ``verdict`` one of the cells or empty."""

    cells: tuple[str, ...]
    verdict: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under ``header``. ``numeric`` are the columns that are set flush right."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    numeric: tuple[int, ...] = ()


def printable(text: str) -> str:
    """One line without control characters: names come from files that others wrote."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def interval_text(interval: Interval, digits: int = 2) -> str:
    """The interval, or that there is none."""
    if interval.n == 0:
        return "unresolved"
    if interval.n == 1:
        return f"{interval.mean:+.{digits}f} [one seed]"
    return interval.text(digits)


def regret_text(found: DriftFinding) -> str:
    """Regret in nats with its share of the gain."""
    regret, share = found.drift.regret, found.regret_share
    if not math.isfinite(regret):
        return NONE
    return f"{regret:.4f} ({'no gain' if share is None else f'{share:.0%}'})"


def rerun_commands(summary: Summary) -> list[str]:
    """The command lines that ask the study's questions again, each once."""
    return list(dict.fromkeys(printable(comparison.command) for comparison in summary.comparisons))


def drift_table(summary: Summary) -> Table:
    """The first table of every report: all drifts but the controls."""
    return _drifts("Drift of the optimal learning rate", [d for d in summary.drifts if not d.comparison.is_control])


def control_table(summary: Summary) -> Table:
    """The controls: the suite asked whether it can tell right from wrong."""
    return _drifts("Controls", [d for d in summary.drifts if d.comparison.is_control])


def _drifts(caption: str, found: Sequence[DriftFinding]) -> Table:
    controls = any(d.comparison.is_control for d in found)
    columns: dict[str, Callable[[DriftFinding], str]] = {
        "control" if controls else "axis": lambda d: d.comparison.name if controls else d.comparison.axis,
        "target": lambda d: d.comparison.sides[-1].label,
        "corpus": lambda d: d.comparison.corpus,
        "rule": lambda d: d.comparison.rule,
        "tier": lambda d: d.comparison.tier,
        "drift [95 %] (octaves)": lambda d: interval_text(d.drift.interval),
        "regret, nats (of gain)": regret_text,
        "seeds": lambda d: str(d.drift.interval.n),
        "tolerance": lambda d: f"{d.comparison.tolerance:g}",
        "verdict": lambda d: d.drift.verdict.value,
        "expected": lambda d: d.comparison.expected,
        "core-s": lambda d: f"{d.core_seconds:.1f}",
    }
    if all(not d.comparison.is_control and d.comparison.expected == Verdict.PASS for d in found):
        del columns["expected"]
    rows = tuple(
        Row(
            cells=tuple(printable(cell(d)) for cell in columns.values()),
            verdict=d.drift.verdict.value,
            note=f"unresolved: {printable(d.drift.reason)}" if d.drift.reason else "",
        )
        for d in found
    )
    numeric = [at for at, name in enumerate(columns) if name in ("seeds", "tolerance", "core-s")]
    return Table(caption=caption, header=tuple(columns), rows=rows, numeric=tuple(numeric))


def law_table(summary: Summary) -> Table:
    """Every law of activation scales with its measured exponent or log2 ratio; the law says what is expected."""
    rows = []
    for found in summary.laws:
        c = found.comparison
        for result in found.results:
            law = result.law
            cells = (
                c.axis,
                c.corpus,
                c.rule,
                law.statement,
                "slope" if law.form == "exponent" else "log2 ratio",
                interval_text(result.interval, 3),
                result.worst,
                result.verdict.value,
            )
            rows.append(Row(cells=tuple(printable(cell) for cell in cells), verdict=result.verdict.value))
    header = ("axis", "corpus", "rule", "law", "form", "measured [95 %]", "worst", "verdict")
    return Table(caption="Laws of activation scales", header=header, rows=tuple(rows))


def early_table(summary: Summary) -> Table:
    """log2 of target over reference loss in the first steps: level, and trend per doubling of the step."""

    def row(found: EarlyFinding) -> Row:
        c = found.comparison
        numbers = (interval_text(found.early.level, 3), interval_text(found.early.trend, 4))
        cells = (c.axis, c.sides[-1].label, c.corpus, c.rule, *numbers, found.early.verdict.value)
        note = "" if found.early.trend.n else "a run diverged within these steps"
        return Row(cells=tuple(printable(cell) for cell in cells), verdict=found.early.verdict.value, note=note)

    header = ("axis", "target", "corpus", "rule", "level [95 %] (log2)", "trend [95 %] (per doubling)", "verdict")
    return Table(caption="Early loss curves", header=header, rows=tuple(row(found) for found in summary.earlies))


def cost_table(summary: Summary) -> Table:
    """Core-seconds per rung and in all."""
    rows = [
        Row(
            cells=(*(printable(v) for v in (c.axis, c.corpus, c.rule, c.label, c.model)), f"{c.core_seconds:.1f}"),
            verdict="",
        )
        for c in summary.costs
    ]
    rows.append(Row(cells=("in all", "", "", "", "", f"{summary.core_seconds:.1f}"), verdict=""))
    header = ("axis", "corpus", "rule", "rung", "model", "core-s")
    return Table(caption="Core-seconds", header=header, rows=tuple(rows), numeric=(5,))


def count_lines(summary: Summary) -> list[str]:
    """``drift: 3 PASS, 1 INCONCLUSIVE``, one line for each kind of question."""
    lines = []
    for kind, pairs in summary.verdicts.items():
        if kind == "control":
            right = sum(verdict == expected for verdict, expected in pairs)
            lines.append(f"{kind}: {right} of {len(pairs)} as expected")
            continue
        names = [verdict.value for verdict, _ in pairs]
        lines.append(f"{kind}: " + ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names))))
    return lines


def verdict_lines(summary: Summary) -> list[str]:
    """A fixed-width table of all drifts for a terminal, with the reason under an optimum that is not resolved."""
    header = ("axis", "corpus", "rule", "target", "drift (octaves)", "regret (nats)", "verdict", "expected", "core-s")
    if not summary.drifts:
        return [f"study {printable(summary.name)} holds no drift"]
    rows, notes = [], []
    for d in summary.drifts:
        c = d.comparison
        regret = f"{d.drift.regret:.4f}" if math.isfinite(d.drift.regret) else NONE
        cells = (
            *(printable(text) for text in (c.axis, c.corpus, c.rule, c.sides[-1].label)),
            *(interval_text(d.drift.interval), regret, d.drift.verdict.value),
            *(printable(c.expected) if c.is_control or c.expected != Verdict.PASS else "", f"{d.core_seconds:.1f}"),
        )
        rows.append(cells)
        notes.append(f"  unresolved: {printable(d.drift.reason)}" if d.drift.reason else "")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [_line(header, widths)]
    for cells, note in zip(rows, notes, strict=True):
        lines += [_line(cells, widths), note] if note else [_line(cells, widths)]
    return lines


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
