"""The tables of drifts: of all targets, of the controls, and of the trend that they make."""

import math
from collections.abc import Sequence

from mue_check.judge.verdict import Verdict
from mue_check.questions.comparison import Comparison
from mue_check.report.findings import DriftFinding, TrendFinding
from mue_check.report.format import NONE, in_words, interval_text, knob_words, number_text
from mue_check.report.summary import TREND_LADDER, TREND_SIZE, Summary
from mue_check.report.table import Cells, Table, asked_columns, make_table

DRIFT = "drift [95 %] (octaves)"
POWER = "95 % power from"


def drift_table(summary: Summary) -> Table:
    """The first table of every report: all drifts but the controls."""
    found = summary.targets
    knobs = {d.comparison.knob for d in found}
    what = f"optimal {knob_words(*knobs)}" if len(knobs) == 1 else "optimum"
    tiers = ", ".join(dict.fromkeys(d.comparison.tier for d in found))
    return _drifts(f"Drift of the {what}, tier {tiers}", found, asked_columns(found))


def control_table(summary: Summary) -> Table:
    """The controls: the suite asked whether it can tell right from wrong."""
    found = summary.controls
    columns = asked_columns(found)
    del columns["axis"]
    return _drifts("Controls", found, {"control": lambda d: d.comparison.name, **columns})


def _drifts(caption: str, found: Sequence[DriftFinding], asked: Cells[DriftFinding]) -> Table:
    columns = {
        **asked,
        DRIFT: lambda d: interval_text(d.drift.interval),
        "regret, nats (of gain)": regret_text,
        POWER: lambda d: number_text(d.drift.detectable),
        "seeds": lambda d: str(d.drift.interval.n),
        "tolerance": lambda d: tolerance_text(d.comparison),
        "verdict": lambda d: d.drift.verdict.value,
        "expected": lambda d: d.comparison.expected,
        "core-s": lambda d: f"{d.core_seconds:.1f}",
    }
    if all(goes_without_saying(d.comparison) for d in found):
        del columns["expected"]
    return make_table(
        caption,
        found,
        columns,
        numeric=(POWER, "seeds", "tolerance", "core-s"),
        note=lambda d: f"unresolved: {d.drift.reason}" if d.drift.reason else "",
    )


def goes_without_saying(comparison: Comparison) -> bool:
    """Whether nothing is expected, or what a right implementation of a law, exact or approximate, gives."""
    usual = Verdict.RESIDUAL if comparison.residual else Verdict.PASS
    return not comparison.is_control and comparison.expected in ("", usual)


def tolerance_text(comparison: Comparison) -> str:
    """The tolerance, and in brackets what an approximate law leaves beyond it."""
    residual = f" ({comparison.residual:+g})" if comparison.residual else ""
    return f"{comparison.tolerance:g}{residual}"


def regret_text(found: DriftFinding) -> str:
    """Regret in nats with its share of the gain."""
    regret, share = found.drift.regret, found.regret_share
    if not math.isfinite(regret):
        return NONE
    return f"{regret:.4f} ({'no gain' if share is None else f'{share:.0%}'})"


def trend_table(summary: Summary) -> Table:
    """Octaves of drift per doubling of the size, and where that leads."""
    columns: Cells[TrendFinding] = {
        **asked_columns(summary.trends, target=False),
        "targets": lambda t: ", ".join(d.side.label for d in t.drifts),
        "octaves per doubling [95 %]": lambda t: interval_text(t.trend.slope, 3),
        f"drift at N = {TREND_SIZE:g} [95 %], extrapolated": lambda t: interval_text(t.trend.at_size),
        "seeds": lambda t: str(t.trend.slope.n),
    }
    return make_table(f"Trend along {in_words(TREND_LADDER)}", summary.trends, columns, numeric=("seeds",))
