"""Controls: drifts whose right answer is known, so that a verdict shows whether the suite itself can be trusted."""

from collections.abc import Iterator
from dataclasses import replace

from mue_check.axes import Ladder, Rung
from mue_check.judge.verdict import Verdict
from mue_check.questions.axes_report import drift_summary
from mue_check.questions.display import Palette, knob_name, question_columns
from mue_check.questions.drift import DriftFinding, drift_arms, knob_in_name, measure_drift
from mue_check.questions.drift_plots import plot_curves, plot_drifts
from mue_check.questions.drift_report import table_of_drifts
from mue_check.questions.question import QuestionKind
from mue_check.questions.summary import Summary
from mue_check.report.section import Part, Picture, Section
from mue_check.report.table import Table
from mue_check.rules import Knob
from mue_check.study.folder import Study

NULL_SEED = 1000
"""First seed of the null control: far from every other replicate's."""
CONTROL_SEEDS = 12


def ask_null_control(study: Study, ladder: Ladder) -> DriftFinding:
    """The ladder's reference against itself with other seeds: PASS expected, at the tier's own tolerance."""
    study = replace(study, tolerance=study.tier.tolerance)
    arm = study.arm(ladder, ladder.reference)
    name = study.name("control-null", ladder.name, ladder.reference.label)
    arms = [replace(arm, first_seed=seed) for seed in (0, NULL_SEED)]
    return measure_drift(study, name, ladder, ladder.reference, arms, Verdict.PASS, axis="control")


def ask_positive_control(study: Study, ladder: Ladder, target: Rung, knob: Knob = "lr") -> DriftFinding:
    """The study's rule is one that is known to drift on this ladder: FAIL expected, at the tier's own tolerance.

    A user's wider tolerance says what is harmless to them, not what the suite must be able to see. A drift just beyond
    the tolerance takes more seeds than one within it.
    """
    tier = replace(study.tier, max_seeds=max(CONTROL_SEEDS, study.tier.max_seeds))
    study = replace(study, tier=tier, tolerance=tier.tolerance)
    arms = drift_arms(study, ladder, target, knob)
    name = study.name("control", ladder.name, target.label, *knob_in_name(knob))
    return measure_drift(study, name, ladder, target, arms, Verdict.FAIL, axis="control")


class ControlKind(QuestionKind):
    """The section of the controls. They are stored and judged as drifts."""

    label = "control"

    def sections(self, summary: Summary) -> Iterator[Section]:
        """All controls in one table and one figure, and their loss curves."""
        found, palette = controls(summary), Palette.of_study(summary.comparisons)
        if found:
            yield Section(
                part=Part.CONTROLS,
                anchor="controls",
                title="Controls",
                text="Questions whose answer is known: a control that is not as expected means that the suite, not the "
                "model, is wrong.",
                tables=(control_table(summary),),
                pictures=(
                    Picture.of(("controls",), f"Controls. {drift_summary(found)}", plot_drifts, found, palette),
                    *(_curves(d, palette) for d in found),
                ),
            )


def controls(summary: Summary) -> list[DriftFinding]:
    """The drifts whose answer is known."""
    return [d for d in summary.of(DriftFinding) if d.comparison.is_control]


def control_table(summary: Summary) -> Table:
    """The controls by name."""
    found = controls(summary)
    columns = question_columns(found)
    del columns["axis"]
    return table_of_drifts(summary, "Controls", found, {"control": lambda d: d.comparison.name, **columns})


def _curves(found: DriftFinding, palette: Palette) -> Picture:
    c = found.comparison
    alt = f"Loss against {knob_name(c.knob)} of {c.name}. {drift_summary([found])}"
    return Picture.of(("curves", c.name), alt, plot_curves, [found], palette)
