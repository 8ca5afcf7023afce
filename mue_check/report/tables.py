"""The tables of everything but drifts: laws, first steps, speed-up, routing variants, and what it cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mue_check.judge.law import LawResult
from mue_check.judge.verdict import Verdict, meets
from mue_check.questions.comparison import Comparison
from mue_check.report.costs import RungCost
from mue_check.report.findings import EarlyFinding, LawsFinding, RoutingFinding, SpeedupFinding
from mue_check.report.format import NONE, in_words, interval_text, printable, times_text, unsigned_text
from mue_check.report.summary import Summary, place
from mue_check.report.table import Cells, Row, Table, asked_columns, make_table


class _Judged(NamedTuple):
    """One law of one ladder."""

    comparison: Comparison
    result: LawResult


@dataclass(frozen=True, kw_only=True)
class LawGroup:
    """The laws of one ladder, on all corpora: ``headline`` is "width: 21 laws, 21 PASS"."""

    name: str
    headline: str
    table: Table
    as_expected: bool


def law_groups(summary: Summary) -> list[LawGroup]:
    """Every law of activation scales with its measured exponent or log2 ratio; the law says what is expected."""
    groups: dict[str, list[LawsFinding]] = {}
    for found in summary.laws:
        groups.setdefault(law_group_name(found.comparison), []).append(found)
    return [_law_group(name, _laws(found)) for name, found in groups.items()]


def law_group_name(comparison: Comparison) -> str:
    """The ladder, and whether somebody broke it on purpose."""
    return in_words(comparison.ladder) + (" (control)" if comparison.is_control else "")


def open_law_table(summary: Summary) -> Table:
    """The laws that are not PASS, of all ladders."""
    laws = [law for law in _laws(summary.laws) if law.result.verdict is not Verdict.PASS and law.comparison.expected]
    return _law_table("Laws that are not PASS", laws, asked_columns(laws, target=False))


def _laws(found: Iterable[LawsFinding]) -> list[_Judged]:
    return [_Judged(laws.comparison, result) for laws in found for result in laws.results]


def _law_group(name: str, laws: Sequence[_Judged]) -> LawGroup:
    columns = asked_columns(laws, target=False)
    del columns["axis"]
    return LawGroup(
        name=name,
        headline=f"{name}: {len(laws)} laws, {count_text(law.result.verdict for law in laws)}",
        table=_law_table(f"Laws of activation scales, {name}", laws, columns),
        as_expected=all(meets(law.result.verdict, law.comparison.expected) for law in laws if law.comparison.expected),
    )


def _law_table(caption: str, laws: Sequence[_Judged], asked: Cells[_Judged]) -> Table:
    cells = {
        **asked,
        "law": lambda law: law.result.law.statement,
        "form": lambda law: "slope" if law.result.law.form == "exponent" else "log2 ratio",
        "measured [95 %]": lambda law: interval_text(law.result.interval, 3),
        "worst": lambda law: law.result.worst,
        "verdict": lambda law: law.result.verdict.value,
        "expected": lambda law: law.comparison.expected,
    }
    if all(law.comparison.expected in ("", Verdict.PASS) for law in laws):
        del cells["expected"]
    return make_table(caption, laws, cells)


def early_table(summary: Summary) -> Table:
    """log2 of target over reference loss in the first steps: level, and trend per doubling of the step."""
    columns: Cells[EarlyFinding] = {
        **asked_columns(summary.earlies),
        "level [95 %] (log2)": lambda e: interval_text(e.early.level, 3),
        "trend [95 %] (per doubling)": lambda e: interval_text(e.early.trend, 4),
        "verdict": lambda e: e.early.verdict.value,
    }
    return make_table(
        "Early loss curves",
        summary.earlies,
        columns,
        note=lambda e: "" if e.early.trend.n else "a run diverged within these steps",
    )


def speedup_table(summary: Summary) -> Table:
    """Steps of the reference over those of the target for the same held-out loss."""
    columns: Cells[SpeedupFinding] = {
        **asked_columns(summary.speedups),
        "faster than": lambda s: s.comparison.sides[0].label,
        "times [95 %]": lambda s: times_text(s.speedup.overall),
        "at the lowest shared loss [95 %]": lambda s: times_text(s.speedup.by_level[-1]),
        "that loss, nats": lambda s: f"{s.speedup.levels[-1]:.3f}" if s.speedup.overall.n else NONE,
    }
    return make_table(
        "Convergence speed-up",
        summary.speedups,
        columns,
        numeric=("that loss, nats",),
        note=lambda s: "" if s.speedup.overall.n else "no loss that all runs of both reach",
    )


def routing_table(summary: Summary) -> Table:
    """Each routing variant: whether the optimum stays under it, and how it spreads its tokens."""
    # variants beneath one another, where a ladder's own order would have targets
    found = sorted(summary.routings, key=lambda r: (place(r.comparison)[:3], r.comparison.sides[-1].size))
    columns: Cells[RoutingFinding] = {
        "router": lambda r: r.comparison.router,
        "axis": lambda r: in_words(r.comparison.ladder),
        "target": lambda r: r.comparison.sides[-1].label,
        "corpus": lambda r: r.comparison.corpus,
        "rule": lambda r: r.comparison.rule,
        "drift [95 %] (octaves)": lambda r: interval_text(r.drift.drift.interval) if r.drift else NONE,
        "verdict": lambda r: r.drift.drift.verdict.value if r.drift else NONE,
        "laws of scale that fail": lambda r: failed_laws(r.laws.results) if r.laws else NONE,
        "busiest expert / mean": lambda r: unsigned_text(r.load.imbalance),
        "variance factor": lambda r: unsigned_text(r.load.variance_factor),
        "sum of weights": lambda r: unsigned_text(r.load.weight_sum),
    }
    return make_table("Routing variants", found, columns)


def failed_laws(results: Sequence[LawResult]) -> str:
    """How many fail, of how many, and the first of them."""
    failed = [result for result in results if result.verdict is Verdict.FAIL]
    return f"{len(failed)} of {len(results)}" + (f": {failed[0].law.name}" if failed else "")


def axis_cost_table(summary: Summary) -> Table:
    """Core-seconds per axis and in all, each cell once in each sum."""
    rows = [Row(cells=(in_words(cost.axis), f"{cost.core_seconds:.1f}")) for cost in summary.costs.axes]
    rows.append(Row(cells=("in all", f"{summary.costs.core_seconds:.1f}")))
    return Table(caption="Core-seconds by axis", header=("axis", "core-s"), rows=tuple(rows), numeric=(1,))


def rung_cost_table(summary: Summary) -> Table:
    """Core-seconds per rung."""
    asked = asked_columns(summary.costs.rungs, target=False)
    asked.pop("value", None)  # of one rung all values count
    cells: Cells[RungCost] = {
        **asked,
        "axis": lambda cost: law_group_name(cost.comparison),
        "rung": lambda cost: cost.side.label,
        "model": lambda cost: cost.side.model,
        "core-s": lambda cost: f"{cost.core_seconds:.1f}",
    }
    return make_table("Core-seconds by rung", summary.costs.rungs, cells, numeric=("core-s",))


def count_text(verdicts: Iterable[Verdict]) -> str:
    """``3 PASS, 1 INCONCLUSIVE``."""
    found = list(verdicts)
    return ", ".join(f"{found.count(verdict)} {verdict.value}" for verdict in Verdict if verdict in found)


def count_lines(summary: Summary) -> list[str]:
    """``drift: 3 PASS, 1 INCONCLUSIVE``, one line for each kind of question."""
    lines = []
    for kind, pairs in summary.verdicts.items():
        right = sum(meets(verdict, expected) for verdict, expected in pairs)
        counts = f"{right} of {len(pairs)} as expected" if kind == "control" else count_text(v for v, _ in pairs)
        lines.append(f"{kind}: {counts}")
    return lines


def rerun_commands(summary: Summary) -> list[str]:
    """The command lines that ask the study's questions again, each once."""
    return list(dict.fromkeys(printable(comparison.command) for comparison in summary.comparisons))
