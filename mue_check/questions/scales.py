"""Scales: whether the laws of activations and weights hold along a ladder (``judge.laws``), as tables and figures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mue_check.axes import Ladder
from mue_check.judge.interval import Looks
from mue_check.judge.law import Law, LawResult, Rung, judge_law, log2_levels
from mue_check.judge.laws import COORDINATE_STEPS, DIFFUSION_LAWS, LAWS, ZERO_GATED_LAWS, ZERO_GATED_STEPS
from mue_check.judge.verdict import Verdict, join, meets
from mue_check.modalities import EPS
from mue_check.questions.case import ladder_cases, rule_ladder_cases
from mue_check.questions.display import count_text, grouped, ladder_name, merged, question_columns
from mue_check.questions.drift import Mutation
from mue_check.questions.question import Finding, JudgedKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import NONE, interval_text
from mue_check.report.palette import BAND, BAND_ALPHA, FONT, MARKERS, PANEL, QUIET, TARGETS, house_style, plain, shorten
from mue_check.report.section import Fold, Part, Section
from mue_check.report.table import Cells, Table, make_table
from mue_check.routing.variants import get_variant
from mue_check.spec import DiffusionSpec, Experts, ModelSpec
from mue_check.study.comparison import Comparison, Side, looks_note, side_table
from mue_check.study.folder import Study

COORDINATE_SEEDS = (12, 24, 48, 96)
"""Replicates; the larger numbers where the smaller leave the answer open."""
COORDINATE_INIT_STD, COORDINATE_LR = 0.05, 2.0**-8
"""Small init, so that what is learned outweighs what was drawn; small LR, so that 5 steps stay in one regime
(docs/choices.md)."""
DIFFUSION_INIT_STD = 0.02
"""Likewise for a diffusion transformer, whose gates and so the gradients of its blocks are small at first."""
_MAY_BE_ABSENT = ("router_logits", "weight.router", "weight.label_embedding", "weight.scale_shift_table")
"""A user's router may keep its logits to itself, or have no matrix; data may have no labels; few modulations share."""


@dataclass(frozen=True, kw_only=True)
class ScalesFinding(Finding):
    """The laws of one ladder, and the worst of their verdicts; ``rungs`` are its sides with their coordinates."""

    results: tuple[LawResult, ...]
    rungs: tuple[Rung, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each law."""
        return tuple(result.verdict for result in self.results)


def ask_scales(
    study: Study, ladder: Ladder, mutate: Mutation = lambda p: p, *, flaw: str = "", finding: bool = False
) -> ScalesFinding:
    """Judge the laws of ``ladder`` on all its rungs.

    ``mutate`` changes the targets' prescriptions and ``flaw`` their training: a mistake made on purpose, named
    by the mutated prescription's ``rule``. Nothing is expected of a ``finding``.
    """
    width = ladder.reference.model.width / 32  # the values above were chosen at d = 32
    start, steps = _start(ladder.reference.model)
    arms = []
    for rung in ladder.rungs:
        arm = study.arm(ladder, rung)
        if rung is not ladder.reference:
            arm = replace(arm, prescription=mutate(arm.prescription), flaw=flaw)
        base = replace(arm.base, **start)
        base = replace(base, lr=COORDINATE_LR / width, init_std=base.init_std / width**0.5)
        train = replace(arm.train, steps=steps[-1], warmup=0, final_lr=1.0)
        arms.append(replace(arm, base=base, train=train))
    rule = arms[-1].prescription.rule
    name = study.name("coordinates", ladder.name, rule=rule)
    expected = None if finding or not is_prescribed(ladder) else Verdict.PASS
    tolerance = LAWS[ladder.name][0].tolerance
    question = study.question("coordinates", name, ladder, tolerance, expected, rule=rule, looks=COORDINATE_SEEDS)
    return SCALES.answer(study, question, ladder.rungs, arms, steps)


def is_prescribed(ladder: Ladder) -> bool:
    """Whether the rule applies to this routing at all: weights of a known sum, from scores that learn.

    A router that claims no sum is not broken; what it does to the scales is a finding.
    """
    mixtures = [rung.model.feed_forward for rung in ladder.rungs if isinstance(rung.model.feed_forward, Experts)]
    return all(e.weight_sum is not None and get_variant(e.router).scored for e in mixtures)


def _start(model: ModelSpec) -> tuple[Mapping[str, float], tuple[int, ...]]:
    """The base values, where not those of the task, and the steps at which a model of d = 32 is measured."""
    if not isinstance(model, DiffusionSpec):
        return {"init_std": COORDINATE_INIT_STD}, COORDINATE_STEPS
    steps = ZERO_GATED_STEPS if model.zero_gates else COORDINATE_STEPS
    return {"init_std": DIFFUSION_INIT_STD, "eps": EPS}, steps


def laws_of(ladder: str, table: pd.DataFrame) -> list[Law]:
    """The laws of the ladder of that name that a table of coordinates can answer, for the family that it is of."""
    measured = set(table["coordinate"])
    laws = LAWS
    if "weight.patch_embedding" in measured:
        laws = ZERO_GATED_LAWS if set(ZERO_GATED_STEPS) <= set(table["step"]) else DIFFUSION_LAWS
    absent = [c for c in _MAY_BE_ABSENT if not any(name.endswith(c) for name in measured)]
    return [law for law in laws[ladder] if law.coordinate not in absent]


def judge_scales(ladder: str, rungs: Sequence[Rung], looks: Looks = ()) -> list[LawResult]:
    """Judge the laws of the ladder of that name on its rungs, in ascending size, at one of several ``looks``."""
    return [judge_law(law, rungs, looks) for law in laws_of(ladder, rungs[0].table)]


class ScalesKind(JudgedKind[ScalesFinding]):
    """Laws of activation scales, ladder by ladder."""

    kind = "coordinates"
    measurement = "coordinates"
    label = "coordinates"
    cases: ClassVar = {"ladder_case": ladder_cases, "rule_ladder_case": rule_ladder_cases}

    def judge(self, store: Store, comparison: Comparison) -> ScalesFinding:
        """Judge every law of the ladder."""

        def rung(side: Side) -> Rung:
            return Rung(label=side.label, size=side.size, table=side_table(store, side))

        rungs = [rung(side) for side in comparison.sides]
        results = judge_scales(comparison.ladder, rungs, comparison.looks)
        lines = map(str, sorted(results, key=lambda result: result.verdict is Verdict.PASS))  # PASS last
        return ScalesFinding(
            comparison=comparison,
            verdict=join(result.verdict for result in results),
            measured="\n".join(filter(None, (*lines, looks_note(comparison)))),
            results=tuple(results),
            rungs=tuple(rungs),
        )

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The laws that are not PASS; then a fold for each ladder with its table."""
        if found := merged(summary.of(ScalesFinding)):
            left = open_law_table(found)
            groups = grouped(found, lambda f: (ladder_name(f.comparison),))
            yield Section(
                part=Part.DETAILS,
                anchor="coordinates",
                title="Activation scales",
                tables=(left,) if left.rows else (),
                folds=tuple(law_fold(name, group) for (name,), group in groups),
            )


SCALES = ScalesKind()


class _Judged(NamedTuple):
    """One law of one ladder."""

    comparison: Comparison
    result: LawResult

    @property
    def is_as_expected(self) -> bool:
        return not self.comparison.expected or meets(self.result.verdict, self.comparison.expected)


def law_fold(name: str, found: Sequence[ScalesFinding]) -> Fold:
    """The laws of one ladder on all corpora, open where one is not as expected: "width: 21 laws, 21 PASS"."""
    laws = _laws(found)
    columns = question_columns(laws, target=False)
    del columns["axis"]
    return Fold(
        title=f"{name}: {len(laws)} laws, {count_text(law.result.verdict for law in laws)}",
        tables=(_law_table(f"Laws of activation scales, {name}", laws, columns),),
        is_open=not all(law.is_as_expected for law in laws),
        brief=True,
    )


def open_law_table(found: Iterable[ScalesFinding]) -> Table:
    """The laws that have an expected verdict and are not PASS, of all ladders."""
    laws = [law for law in _laws(found) if law.result.verdict is not Verdict.PASS and law.comparison.expected]
    return _law_table("Laws that are not PASS", laws, question_columns(laws, target=False))


def failed_laws(results: Sequence[LawResult]) -> str:
    """How many fail, of how many, and the first of them."""
    failed = [result for result in results if result.verdict is Verdict.FAIL]
    return f"{len(failed)} of {len(results)}" + (f": {failed[0].law.name}" if failed else "")


def _laws(found: Iterable[ScalesFinding]) -> list[_Judged]:
    return [_Judged(laws.comparison, result) for laws in found for result in laws.results]


def _law_table(caption: str, laws: Sequence[_Judged], columns: Cells[_Judged]) -> Table:
    cells = {
        **columns,
        "law": lambda law: law.result.law.statement,
        "form": lambda law: "slope" if law.result.law.form == "exponent" else "log2 ratio",
        "measured [95 %]": lambda law: interval_text(law.result.interval, 3),
        "off the line [95 %]": lambda law: interval_text(law.result.misfit, 3) if law.result.misfit else NONE,
        "worst": lambda law: law.result.worst,
        "verdict": lambda law: law.result.verdict.value,
        "expected": lambda law: law.comparison.expected,
    }
    if all(law.comparison.expected in ("", Verdict.PASS) for law in laws):
        del cells["expected"]
    return make_table(caption, laws, cells)


_NAMED = 5
"""Laws that are named; those that FAIL come first."""


def plot_laws(c: Comparison, results: Sequence[LawResult], rungs: Sequence[Rung]) -> Figure:
    """A line for each law: log2 of its quantity over what the law makes of the first rung's, which is 0 where it holds.

    Gray lines are of laws that PASS. The band is the widest tolerance.
    """
    wrong = sorted((r for r in results if r.verdict is not Verdict.PASS), key=lambda r: r.verdict is not Verdict.FAIL)
    at = np.arange(len(rungs))
    with house_style(FONT):
        figure = Figure(figsize=PANEL, layout="constrained")
        axes = figure.add_subplot()
        edge = np.max([_allowed(result, rungs) for result in results], axis=0)
        axes.fill_between(at, -edge, edge, color=BAND, alpha=BAND_ALPHA, linewidth=0)
        axes.axhline(0, color=QUIET, linewidth=1, linestyle="--")
        for result in results:
            if result not in wrong[:_NAMED]:
                axes.plot(at, _off(result, rungs), color=QUIET, linewidth=0.8, alpha=0.5, marker=".", markersize=3)
        for number, result in enumerate(wrong[:_NAMED]):
            color, marker = TARGETS[number % len(TARGETS)], MARKERS[number % len(MARKERS)]
            name = shorten(result.law.name, 28)
            axes.plot(at, _off(result, rungs), color=color, linewidth=1.6, marker=marker, markersize=4, label=name)
        low, high = axes.get_ylim()
        if high - low < 1:  # noise should not look like a slope
            axes.set_ylim((low + high - 1) / 2, (low + high + 1) / 2)
        axes.set_xticks(at, [plain(shorten(side.label, 14)) for side in c.sides])
        if sum(len(side.label) for side in c.sides) > 32:
            axes.tick_params(axis="x", rotation=18)
        axes.set_ylabel("log2(measured / law)")
        failed = sum(result.verdict is Verdict.FAIL for result in results)
        count = f"{failed} of {len(results)} laws FAIL" if failed else f"{len(results)} laws of scale"
        axes.set_title(f"{shorten(c.rule, 38)}: {count}")
        if wrong:
            axes.legend(fontsize=FONT - 1.5, loc="best", handlelength=1.4)
    return figure


def _off(result: LawResult, rungs: Sequence[Rung]) -> NDArray[np.float64]:
    """[rungs] octaves above what the law makes of the first rung, mean over seeds; NaN where a scale is zero."""
    levels = [values[np.isfinite(values)] for values in (log2_levels(result.law, rung) for rung in rungs)]
    means = np.array([values.mean() if values.size else np.nan for values in levels], dtype=np.float64)
    off: NDArray[np.float64] = means - means[0] - result.law.expected * _octaves(result, rungs)
    return off


def _allowed(result: LawResult, rungs: Sequence[Rung]) -> NDArray[np.float64]:
    if result.law.form == "ratio":
        return np.where(np.arange(len(rungs)) > 0, result.law.tolerance, 0.0)
    return result.law.tolerance * np.abs(_octaves(result, rungs))


def _octaves(result: LawResult, rungs: Sequence[Rung]) -> NDArray[np.float64]:
    """By what the law's expectation is multiplied at each rung: log2 of its size, or 1 for a ratio to the first."""
    if result.law.form == "ratio":
        return np.where(np.arange(len(rungs)) > 0, 1.0, 0.0)
    sizes = np.array([float(rung.size) for rung in rungs])
    return np.log2(sizes / sizes[0]) if (sizes > 0).all() else np.arange(len(rungs), dtype=np.float64)
