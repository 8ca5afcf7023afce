"""Axis by axis: a row of small figures for each axis, with its loss curves, its drifts and its laws of scale."""

from collections.abc import Iterable, Iterator, Sequence

from mue_check.axes.ladder import BY_GROUP
from mue_check.judge.verdict import Verdict, join, meets
from mue_check.questions.display import (
    Palette,
    along_ladders,
    count_text,
    figure_title,
    grouped,
    knob_name,
    ladder_key,
    merged,
)
from mue_check.questions.drift import DriftFinding, main_drifts
from mue_check.questions.drift_plots import plot_curves, plot_drifts, row_name
from mue_check.questions.question import Finding, QuestionKind
from mue_check.questions.scales import ScalesFinding, plot_laws
from mue_check.questions.summary import Summary
from mue_check.report.format import in_words, interval_text
from mue_check.report.section import Fold, Part, Picture, Section, Strip, file_name
from mue_check.report.table import Cells, Table, make_table
from mue_check.study.comparison import Comparison


class AxesKind(QuestionKind):
    """The overview of a study, from its drifts and laws."""

    label = "axes"

    def sections(self, summary: Summary) -> Iterator[Section]:
        """A strip for each axis; those with an answer that is not as expected come first."""
        if strips := sorted(_strips(summary), key=lambda strip: strip[0]):
            yield Section(
                part=Part.ANSWERS, anchor="axes", title="Axis by axis", strips=tuple(strip for _, strip in strips)
            )


def anchor_of(c: Comparison) -> str:
    """The anchor of the strip that contains a drift or a law."""
    return f"axis-{file_name(_axis(c))}"


def _axis(c: Comparison) -> str:
    """Its ladder, without the suffix of the ladders of role groups, which appear in the same strip."""
    return c.ladder.removesuffix(BY_GROUP)


def _strips(summary: Summary) -> Iterator[tuple[bool, Strip]]:
    """Each with whether all of it is as expected."""
    palette = Palette.of_study(summary.comparisons)
    laws = [f for f in merged(summary.of(ScalesFinding)) if not f.comparison.is_control]
    for (axis,), found in grouped([*merged(main_drifts(summary)), *laws], lambda f: (_axis(f.comparison),)):
        main = [f for f in found if f.comparison.expected] or found
        others = [f for f in found if f not in main]
        verdicts = [verdict for f in main for verdict in f.verdicts]
        count = count_text(v for f in main if isinstance(f, ScalesFinding) for v in f.verdicts)
        drifts = [f for f in main if isinstance(f, DriftFinding)]
        rules = {f.comparison.rule for f in others}
        more = tuple(_pictures(others, palette, "others"))
        yield (
            all(meets(v, f.comparison.expected) for f in main if f.comparison.expected for v in f.verdicts),
            Strip(
                anchor=anchor_of(main[0].comparison),
                title=in_words(axis),
                verdict=join(verdicts),
                text=f"laws of scale: {count}" if count else "",
                tables=(_drift_table(in_words(axis), drifts),) if drifts else (),
                pictures=tuple(_pictures(main, palette)),
                others=Fold(title=f"{len(rules)} other rules or mutants: {len(more)} figures", pictures=more)
                if more
                else None,
            ),
        )


def _drift_table(axis: str, drifts: Sequence[DriftFinding]) -> Table:
    cells: Cells[DriftFinding] = {
        "target": lambda d: row_name(d, drifts),
        "drift [95 %]": lambda d: interval_text(d.drift.interval),
        "verdict": lambda d: d.drift.verdict.value,
    }
    return make_table(f"Drifts along {axis}", drifts, cells)


def _pictures(found: Iterable[Finding], palette: Palette, *key: str) -> Iterator[Picture]:
    """Loss curves, drifts and laws, in this order."""
    drifts = [f for f in found if isinstance(f, DriftFinding)]
    yield from curve_pictures(drifts, palette)
    if drifts:
        axis = _axis(drifts[0].comparison)
        alt = f"{figure_title('Drift', (axis,))}. {drift_summary(drifts)}"
        yield Picture.of(("drift", axis, *key), alt, plot_drifts, drifts, palette)
    for laws in (f for f in found if isinstance(f, ScalesFinding)):
        c, open_ = laws.comparison, [r for r in laws.results if r.verdict is not Verdict.PASS]
        words = "; ".join(f"{r.law.name} {interval_text(r.interval)} {r.verdict}" for r in open_)
        alt = f"{figure_title('Activation scales', ladder_key(c))}: {count_text(laws.verdicts)}. {words}"
        yield Picture.of(("coordinates", *ladder_key(c)), alt, plot_laws, c, laws.results, laws.rungs)


def curve_pictures(found: Iterable[DriftFinding], palette: Palette) -> Iterator[Picture]:
    """The loss curves, ladder by ladder."""
    for key, drifts in along_ladders(found):
        alt = f"{figure_title(f'Loss against {knob_name(drifts[0].comparison.knob)}', key)}. {drift_summary(drifts)}"
        yield Picture.of(("curves", *key), alt, plot_curves, drifts, palette)


def drift_summary(found: Iterable[DriftFinding]) -> str:
    """The drifts for the description of a figure."""
    return "; ".join(
        f"{d.side.label} on {d.comparison.corpus} {interval_text(d.drift.interval)} {d.drift.verdict}" for d in found
    )
