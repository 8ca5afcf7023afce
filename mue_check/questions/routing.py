"""Routing: how a mixture routes after a short training: load, weight sum, variance factor."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mue_check.axes import Ladder, Rung
from mue_check.errors import SpecError
from mue_check.judge.load import CLAIM_TOLERANCE, RoutingLoad, judge_load
from mue_check.judge.verdict import Verdict
from mue_check.questions.axes_report import drift_summary
from mue_check.questions.display import Palette, figure_title, grouped, setting_of
from mue_check.questions.drift import DriftFinding, main_drifts
from mue_check.questions.drift_plots import plot_drifts
from mue_check.questions.drift_report import DRIFT
from mue_check.questions.question import Finding, JudgedKind
from mue_check.questions.scales import ScalesFinding, failed_laws
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import NONE, in_words, interval_text, unsigned_text
from mue_check.report.section import Part, Picture, Section
from mue_check.report.table import Cells, Table, make_table
from mue_check.spec import Experts
from mue_check.study.comparison import Comparison, side_table
from mue_check.study.folder import Study


@dataclass(frozen=True, kw_only=True)
class RoutingFinding(Finding):
    """How one rung's router spreads its tokens.

    The verdict is whether the weights sum to what the router claims; None where it claims nothing.
    """

    load: RoutingLoad


def ask_routing(study: Study, ladder: Ladder, rung: Rung) -> RoutingFinding:
    """The routing of one rung at the task's base values.

    PASS is expected where the router claims what its weights sum to; the rest is a finding.
    """
    experts = rung.model.feed_forward
    if not isinstance(experts, Experts):
        raise SpecError(f"{rung.label} of {ladder.name} is dense and routes nothing")
    arm = study.arm(ladder, rung)
    claim = experts.claimed_sum
    name = study.name("routing", ladder.name, rung.label)
    question = study.question("routing", name, ladder, CLAIM_TOLERANCE, None if claim is None else Verdict.PASS)
    question = replace(question, weight_sum=claim)
    return ROUTING.answer(study, question, [rung], [arm], replicates=study.tier.seeds)


class RoutingKind(JudgedKind[RoutingFinding]):
    """Routing variants: their loads and weights, and whether the optimum stays under each."""

    kind = "routing"
    measurement = "routing"
    label = "routing"

    def judge(self, store: Store, comparison: Comparison) -> RoutingFinding:
        """Judge the load."""
        (side,) = comparison.sides
        load = judge_load(side_table(store, side), comparison.weight_sum)
        return RoutingFinding(comparison=comparison, verdict=load.verdict, measured=str(load), load=load)

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The table, and a figure of the drifts under each router for each ladder."""
        if found := summary.of(RoutingFinding):
            yield Section(
                part=Part.ANSWERS,
                anchor="routing",
                title="Routing variants",
                text="Whether the optimum stays under each router, and how the router spreads its tokens: the busiest "
                "expert's load over the mean load (1 is even), the second moment of a token's active weights over that "
                "of equal ones (the theory assumes 1), and the sum of its active weights.",
                tables=(routing_table(summary),),
                pictures=tuple(_pictures(summary, {r.comparison.ladder for r in found})),
            )


ROUTING = RoutingKind()


def routing_table(summary: Summary) -> Table:
    """Each routing variant: whether the optimum stays under it, and how it spreads its tokens."""
    found = summary.of(RoutingFinding)
    drifts = {(setting_of(d.comparison), d.side.label): d for d in reversed(summary.of(DriftFinding)) if d.is_lr_drift}
    laws = {setting_of(each.comparison): each for each in reversed(summary.of(ScalesFinding))}

    def of_drift(row: RoutingFinding, text: Callable[[DriftFinding], str]) -> str:
        drift = drifts.get((setting_of(row.comparison), row.side.label))
        return text(drift) if drift else NONE

    def failing_laws(row: RoutingFinding) -> str:
        ladder = laws.get(setting_of(row.comparison))
        return failed_laws(ladder.results) if ladder else NONE

    # the variants of one rung below each other, where a ladder's own order would group by router
    ladders = list(dict.fromkeys(r.comparison.ladder for r in found))
    rows = sorted(found, key=lambda r: (ladders.index(r.comparison.ladder), r.side.size))
    columns: Cells[RoutingFinding] = {
        "router": lambda r: r.comparison.router,
        "axis": lambda r: in_words(r.comparison.ladder),
        "target": lambda r: r.side.label,
        "corpus": lambda r: r.comparison.corpus,
        "rule": lambda r: r.comparison.rule,
        DRIFT: lambda r: of_drift(r, lambda d: interval_text(d.drift.interval)),
        "verdict": lambda r: of_drift(r, lambda d: d.verdict.value),
        "laws of scale that fail": failing_laws,
        "busiest expert / mean": lambda r: unsigned_text(r.load.imbalance),
        "variance factor": lambda r: unsigned_text(r.load.variance_factor),
        "sum of weights": lambda r: unsigned_text(r.load.weight_sum),
        "sum as claimed": lambda r: NONE if r.verdict is None else r.verdict.value,
    }
    return make_table(
        "Routing variants",
        rows,
        columns,
        note=lambda r: f"weights sum to {r.load.worst}" if r.verdict is Verdict.FAIL else "",
    )


def _pictures(summary: Summary, ladders: set[str]) -> Iterator[Picture]:
    drifts = [d for d in main_drifts(summary) if d.comparison.ladder in ladders and d.comparison.knob == "lr"]
    for key, found in grouped(drifts, lambda d: (d.comparison.ladder,)):
        words = "; ".join(f"{d.comparison.router}: {drift_summary([d])}" for d in found)
        alt = f"{figure_title('Drift under each router', key)}. {words}"
        yield Picture.of(("routing", *key), alt, plot_drifts, found, Palette.of_study(summary.comparisons))
