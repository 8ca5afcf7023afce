"""The report of drifts: the main table, and the lines for a terminal."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from mue_check.judge.interval import looks_text
from mue_check.judge.optimum import MISFIT
from mue_check.judge.verdict import Verdict
from mue_check.questions.case import rule_cases, target_cases
from mue_check.questions.display import in_unit_of, knob_name, ladder_name, merged, question_columns
from mue_check.questions.drift import DriftFinding, judge_stored_drift, main_drifts
from mue_check.questions.question import JudgedKind
from mue_check.questions.summary import Summary
from mue_check.records import Store
from mue_check.report.format import NONE, in_words, interval_text, number_text, signed_text
from mue_check.report.section import Part, Section
from mue_check.report.table import Cells, Table, make_table, text_table
from mue_check.spec import is_diffusion
from mue_check.study.comparison import Comparison, with_looks_note

DRIFT = "drift [95 %] (octaves)"
PARABOLAS = "by parabolas"
DETECTABLE = "detectable drift"


class DriftKind(JudgedKind[DriftFinding]):
    """Drifts of the optimum: of all targets, with their loss curves."""

    kind = "drift"
    measurement = "loss_grid"
    label = "drift"
    cases: ClassVar = {"target_case": target_cases, "rule_case": rule_cases}
    terms: ClassVar = {
        "Drift": "By how many octaves the target's loss curve is displaced against the reference's, from registration "
        "of the whole curves: +1 is twice the learning rate.",
        "Walls apart": "The left and the right wall of the valley moved by different amounts, so no one shift "
        "describes the curves. The interval then reaches from wall to wall.",
        "By parabolas": "A cross-check: log2 of the optimum of each seed's parabola, target minus reference, paired by "
        "seed. It is narrower where its model holds, and its error from the grid is in no interval.",
        "Regret": "What the target loses by keeping the reference's value, in nats per token (diffusion models: mean "
        "squared error), and as a share of what it gains over the reference when both are at their optimum.",
        "Looks": "The numbers of seeds at which the verdict may be read, fixed in advance, in brackets after the "
        "number used. Seeds are added until the answer is clear, so each look has a wider interval than a single one "
        "would need: together they contain the true drift in 95 of 100 measurements.",
        "Predicted": "The drift that theory predicts for this rule, in octaves, where the right rule has none: log2 of "
        "a wrong multiplier, and a third of that on the learning rate of the feed-forward, which learns three matrices "
        "in a row. Blind: it is below the detectable drift, so the measurement cannot show that the rule is wrong.",
        "Detectable drift": "The smallest drift, in octaves, that this measurement would have called FAIL in 95 of "
        "100 repetitions. A PASS says nothing about smaller drifts.",
    }

    def judge(self, store: Store, comparison: Comparison) -> DriftFinding:
        """Fit both optima."""
        return judge_stored_drift(store, comparison)

    def sections(self, summary: Summary) -> Iterator[Section]:
        """The main table; of diffusion models, also the optima themselves."""
        if main_drifts(summary):
            yield Section(
                part=Part.ANSWERS, anchor="drift", title="Drift of the optimum", tables=(drift_table(summary),)
            )
        right = [d for d in summary.of(DriftFinding) if d.is_lr_drift and d.comparison.is_right]
        fitted = [d for d in right if d.drift.is_fitted and not d.drift.registration]
        if any(is_diffusion(d.side.model) for d in fitted):
            yield Section(
                part=Part.ANSWERS,
                anchor="across",
                title="Same rule, own numbers",
                text="Each corpus has its own reference and its own optimum, which the rule carries to all targets.",
                tables=(across_table(fitted),),
            )

    def headlines(self, summary: Summary) -> list[str]:
        """All drifts in as few columns as the study needs."""
        found = merged(d for d in summary.of(DriftFinding) if d.comparison.axis not in summary.own_axes)
        if not found:
            return []
        columns: dict[str, Callable[[DriftFinding], str]] = {
            "axis": _axis,
            "target": lambda d: d.side.label,
            "corpus": lambda d: d.comparison.corpus,
            "rule": lambda d: d.comparison.rule,
            "router": lambda d: _short_router(d.comparison.router),
            "predicted": lambda d: signed_text(d.comparison.predicted),
            "drift (octaves)": lambda d: interval_text(d.drift.interval),
            "regret": lambda d: number_text(d.drift.regret, 4),
            "detectable": lambda d: number_text(d.drift.detectable),
            "verdict": lambda d: d.drift.verdict.value,
            "expected": lambda d: "" if _is_expected_by_default(d.comparison) else d.comparison.expected,
            "core-s": lambda d: f"{summary.costs.of(d.side.cells):.1f}",
        }
        if len({d.comparison.router for d in found}) == 1:
            del columns["router"]
        _drop_empty(columns, found)
        return text_table(make_table("", found, columns, note=drift_note))


def drift_table(summary: Summary) -> Table:
    """All drifts but the controls."""
    found = merged(main_drifts(summary))
    knobs = {d.comparison.knob for d in found}
    what = f"optimal {knob_name(*knobs)}" if len(knobs) == 1 else "optimum"
    tiers = ", ".join(dict.fromkeys(d.comparison.tier for d in found))
    return table_of_drifts(summary, f"Drift of the {what}, tier {tiers}", found, question_columns(found))


def table_of_drifts(summary: Summary, caption: str, found: Sequence[DriftFinding], first: Cells[DriftFinding]) -> Table:
    """Drifts, with ``first`` columns that describe their questions."""
    columns: dict[str, Callable[[DriftFinding], str]] = {
        **first,
        "predicted": lambda d: signed_text(d.comparison.predicted),
        DRIFT: lambda d: interval_text(d.drift.interval),
        PARABOLAS: lambda d: interval_text(d.drift.parabola) if d.drift.registration and d.drift.is_fitted else NONE,
        in_unit_of((d.comparison for d in found), "regret, nats (of gain)"): regret_text,
        DETECTABLE: lambda d: number_text(d.drift.detectable),
        "seeds": seeds_text,
        "tolerance": lambda d: tolerance_text(d.comparison),
        "verdict": lambda d: d.drift.verdict.value,
        "expected": lambda d: d.comparison.expected,
        "core-s": lambda d: f"{summary.costs.of(d.side.cells):.1f}",
    }
    _drop_empty(columns, found)
    if not any(d.drift.registration for d in found):
        del columns[PARABOLAS]
    numeric = ("predicted", DETECTABLE, "seeds", "tolerance", "core-s")
    return make_table(caption, found, columns, numeric=numeric, note=drift_note)


def across_table(found: Sequence[DriftFinding]) -> Table:
    """log2 of the optimal learning rate of each reference and target, in base values, corpus by corpus."""
    order = list(dict.fromkeys(d.comparison.corpus for d in found))
    columns: Cells[DriftFinding] = {
        "corpus": lambda d: d.comparison.corpus,
        "axis": lambda d: ladder_name(d.comparison),
        "reference": lambda d: d.comparison.sides[0].label,
        "its log2 LR* [95 %]": lambda d: interval_text(d.drift.reference.interval),
        "target": lambda d: d.side.label,
        "its log2 LR* [95 %], base value": lambda d: interval_text(d.drift.target.interval),
        "drift [95 %]": lambda d: interval_text(d.drift.interval),
        "verdict": lambda d: d.verdict.value,
    }
    return make_table(
        "Optimal learning rates across modalities",
        sorted(found, key=lambda d: order.index(d.comparison.corpus)),
        columns,
    )


def drift_note(found: DriftFinding) -> str:
    """What a reader must know about a drift: why it is unresolved or what it cannot show, what its curves lack, and
    whether its interval covers less than 95 %."""
    drift = found.drift
    if drift.reason:
        return with_looks_note(in_unit_of([found.comparison], f"unresolved: {drift.reason}"), found.comparison)
    notes = [blind_text(found)]
    if drift.registration:
        notes.append(f"walls apart: {drift.registration.walls}" if drift.registration.misfit else "")
        notes.append("" if drift.is_fitted else f"no parabolas: {drift.cross_check}")
    else:
        fits = {"reference": drift.reference, "target": drift.target}
        notes += [
            f"no parabola: {arm}, residual {fit.residual_sd:.3f}" for arm, fit in fits.items() if fit.misfit > MISFIT
        ]
    return with_looks_note("; ".join(filter(None, notes)), found.comparison)


def blind_text(found: DriftFinding) -> str:
    """Says that a wrong rule passes because theory predicts no drift, or one too small to be detected; else empty."""
    c, detectable = found.comparison, found.drift.detectable
    if c.predicted is None or c.is_right or found.verdict is Verdict.FAIL:
        return ""
    if c.predicted == 0:
        return "blind: theory predicts no drift"
    if not abs(c.predicted) < detectable < math.inf:
        return ""
    return f"blind: the predicted drift of {signed_text(c.predicted)} octave is too small to be detected"


def seeds_text(found: DriftFinding) -> str:
    """The number of seeds, followed by all planned looks in brackets."""
    looks = found.drift.looks
    return f"{found.drift.interval.n} ({looks_text(looks)})" if len(looks) > 1 else str(found.drift.interval.n)


def _is_expected_by_default(c: Comparison) -> bool:
    """Whether nothing is expected, or the verdict that every correct implementation gives."""
    return not c.is_control and c.expected in ("", Verdict.RESIDUAL if c.residual else Verdict.PASS)


def _drop_empty(columns: dict[str, Callable[[DriftFinding], str]], found: Sequence[DriftFinding]) -> None:
    """Remove the columns "predicted" and "expected" where they would tell nothing."""
    if all(_is_expected_by_default(d.comparison) for d in found):
        del columns["expected"]
    if all(d.comparison.predicted is None for d in found):
        del columns["predicted"]


def tolerance_text(comparison: Comparison) -> str:
    """The tolerance, and in brackets the residual of an approximate law."""
    residual = f" ({comparison.residual:+g})" if comparison.residual else ""
    return f"{comparison.tolerance:g}{residual}"


def regret_text(found: DriftFinding) -> str:
    """Regret in nats, with its share of the gain."""
    regret, gain = found.drift.regret, found.drift.gain
    if not math.isfinite(regret):
        return NONE
    return f"{regret:.4f} ({f'{regret / gain:.0%}' if gain > 0 else 'no gain'})"


def _axis(found: DriftFinding) -> str:
    c = found.comparison
    name = f"{'control, ' if c.is_control else ''}{in_words(c.ladder)}"
    return name if c.knob == "lr" else f"{name} ({knob_name(c.knob, short=True)})"


def _short_router(router: str) -> str:
    return router.replace("+selection_bias", "+bias").replace("+auxiliary_loss", "+aux")
