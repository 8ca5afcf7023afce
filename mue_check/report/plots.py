"""All figures of a study, in the order of the page, each with a file name and words for those who cannot see it."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal, TypeVar

from matplotlib.figure import Figure

from mue_check.questions.comparison import Comparison
from mue_check.report.compare import side_by_side
from mue_check.report.compare_plots import plot_sides
from mue_check.report.curve_plots import plot_curves
from mue_check.report.drift_plots import plot_controls, plot_drifts
from mue_check.report.finding_plots import is_drawn, plot_routers, plot_speedups
from mue_check.report.findings import DriftFinding, Finding
from mue_check.report.format import DEFAULT_ROUTER, in_words, interval_text, knob_words, printable, times_text
from mue_check.report.palette import Palette, house_style, palette_of
from mue_check.report.scale_plots import drawn_laws, plot_early, plot_laws
from mue_check.report.summary import Summary
from mue_check.report.tables import law_group_name
from mue_check.report.trend_plots import plot_trends
from mue_check.sigma0.report.figures import sigma0_figures

Section = Literal[
    "overview", "drift", "trend", "curves", "coordinates", "early", "speedup", "routing", "sigma0", "controls"
]
_Found = TypeVar("_Found")
_Asked = TypeVar("_Asked", bound=Finding)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as files. ``name`` is fit for a file; ``alt`` says what the figure shows, with its numbers.

    Figures of one ``group`` fold together, those without stand open.
    """

    section: Section
    group: str
    name: str
    alt: str
    svg: bytes
    png: bytes


def draw_pictures(summary: Summary) -> list[Picture]:
    """Every figure of the study."""
    palette = palette_of(summary)
    return [
        *_overview(summary),
        *_drift_pictures(summary, palette),
        *_trend_pictures(summary, palette),
        *_speedup_pictures(summary, palette),
        *_routing_pictures(summary, palette),
        *_sigma0_pictures(summary, palette),
        *_curve_pictures(summary.targets, palette),
        *_law_pictures(summary, palette),
        *_early_pictures(summary, palette),
        *_control_pictures(summary, palette),
    ]


def _overview(summary: Summary) -> Iterator[Picture]:
    """All drifts at one glance, where there is more than one ladder to look at."""
    if len({d.comparison.ladder for d in summary.targets}) > 1:
        sides = side_by_side([summary.name], [summary])
        alt = f"Drift along every ladder. {_drift_words(summary.targets)}"
        yield _picture("overview", ("overview",), alt, plot_sides(sides))


def _drift_pictures(summary: Summary, palette: Palette) -> Iterator[Picture]:
    for (ladder, *rest), found in _groups(summary.targets, lambda d: (d.comparison.ladder, *_unusual(d.comparison))):
        if not any(d.drift.interval.n for d in found):
            continue  # the table says why
        alt = f"{_title('Drift', (ladder, *rest))}. {_drift_words(found)}"
        yield _picture("drift", ("drift", ladder, *rest), alt, plot_drifts(found, palette))


def _trend_pictures(summary: Summary, palette: Palette) -> Iterator[Picture]:
    found = summary.trends
    if found:
        said = "; ".join(
            f"{t.comparison.corpus}, {t.comparison.rule}: {interval_text(t.trend.slope, 3)} octave per doubling, "
            f"{interval_text(t.trend.at_size)} at {t.trend.size:g}, extrapolated"
            for t in found
        )
        ladder = found[0].comparison.ladder
        yield _picture("trend", ("trend", ladder), f"{_title('Trend', [ladder])}. {said}", plot_trends(found, palette))


def _speedup_pictures(summary: Summary, palette: Palette) -> Iterator[Picture]:
    for key, found in _along_ladders(s for s in summary.speedups if is_drawn(s)):
        words = "; ".join(f"{s.comparison.sides[-1].label} {times_text(s.speedup.overall)} times" for s in found)
        yield _picture(
            "speedup", ("speedup", *key), f"{_title('Speed-up', key)}. {words}", plot_speedups(found, palette)
        )


def _routing_pictures(summary: Summary, palette: Palette) -> Iterator[Picture]:
    ladders = {r.comparison.ladder for r in summary.routings}
    drifts = [d for d in summary.targets if d.comparison.ladder in ladders and d.comparison.knob == "lr"]
    for key, found in _groups(drifts, lambda d: (d.comparison.ladder,)):
        words = "; ".join(f"{d.comparison.router}: {_drift_words([d])}" for d in found)
        alt = f"{_title('Drift under each router', key)}. {words}"
        yield _picture("routing", ("routing", *key), alt, plot_routers(found, palette))


def _sigma0_pictures(summary: Summary, palette: Palette) -> Iterator[Picture]:
    for name, alt, figure in sigma0_figures(summary):
        yield _picture("sigma0", ("sigma0", name), alt, figure)
    yield from _curve_pictures(summary.sigma0_drifts, palette, section="sigma0", group="Loss curves")


def _curve_pictures(
    drifts: Iterable[DriftFinding], palette: Palette, *, section: Section = "curves", group: str = ""
) -> Iterator[Picture]:
    for key, found in _along_ladders(drifts):
        c = found[0].comparison
        alt = f"{_title(f'Loss against {knob_words(c.knob)}', key)}. {_drift_words(found)}"
        figure = plot_curves(found, palette)
        yield _picture(section, ("curves", *key), alt, figure, group=group or in_words(c.ladder))


def _law_pictures(summary: Summary, palette: Palette) -> Iterator[Picture]:
    for laws in summary.laws:
        shown = drawn_laws(laws)
        if not shown:
            continue
        words = "; ".join(f"{r.law.name} {interval_text(r.interval)} {r.verdict}" for r in shown)
        key, group = _ladder(laws.comparison), law_group_name(laws.comparison)
        if laws.comparison.is_control:
            key = (laws.comparison.name,)
        alt = f"{_title('Activation scales', key)}. {words}"
        yield _picture("coordinates", ("coordinates", *key), alt, plot_laws(laws, palette), group=group)


def _early_pictures(summary: Summary, palette: Palette) -> Iterator[Picture]:
    for key, found in _along_ladders(summary.earlies):
        words = "; ".join(
            f"{e.comparison.sides[-1].label} trend {interval_text(e.early.trend, 4)} {e.early.verdict}" for e in found
        )
        alt, group = f"{_title('Early loss curves', key)}. {words}", in_words(found[0].comparison.ladder)
        yield _picture("early", ("early", *key), alt, plot_early(found, palette), group=group)


def _control_pictures(summary: Summary, palette: Palette) -> Iterator[Picture]:
    controls = summary.controls
    if controls:
        alt = f"Controls. {_drift_words(controls)}"
        yield _picture("controls", ("controls",), alt, plot_controls(controls, palette))
    for d in controls:
        alt = f"Loss against {knob_words(d.comparison.knob)} of {d.comparison.name}. {_drift_words([d])}"
        figure = plot_curves([d], palette)
        yield _picture("controls", ("curves", d.comparison.name), alt, figure, group="loss curves of the controls")


def _title(what: str, key: Sequence[str]) -> str:
    return f"{what} along {in_words(key[0])}" + "".join(f", {name}" for name in key[1:])


def _ladder(c: Comparison) -> tuple[str, ...]:
    return c.ladder, c.corpus, c.rule, *_unusual(c)


def _unusual(c: Comparison) -> tuple[str, ...]:
    """What sets a ladder's question apart from the usual one of its kind, for a picture of its own."""
    knob = (c.knob,) if c.knob != "lr" else ()
    return (*knob, *((c.router,) if c.router != DEFAULT_ROUTER else ()))


def _along_ladders(found: Iterable[_Asked]) -> Iterable[tuple[tuple[str, ...], list[_Asked]]]:
    return _groups(found, lambda f: _ladder(f.comparison))


def _groups(
    found: Iterable[_Found], key: Callable[[_Found], tuple[str, ...]]
) -> Iterable[tuple[tuple[str, ...], list[_Found]]]:
    groups: dict[tuple[str, ...], list[_Found]] = {}
    for item in found:
        groups.setdefault(key(item), []).append(item)
    return groups.items()


def _drift_words(found: Sequence[DriftFinding]) -> str:
    return "; ".join(
        f"{d.side.label} on {d.comparison.corpus} {interval_text(d.drift.interval)} {d.drift.verdict}" for d in found
    )


def _picture(section: Section, key: tuple[str, ...], alt: str, figure: Figure, *, group: str = "") -> Picture:
    return Picture(
        section=section,
        group=group,
        name=file_name("-".join(key)),
        alt=printable(alt),
        svg=figure_bytes(figure, "svg"),
        png=figure_bytes(figure, "png"),
    )


def figure_bytes(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """The figure as a file's content; without dates, so that the same study gives the same bytes."""
    out = BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with house_style():
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def file_name(text: str) -> str:
    """``text`` if it is fit for a file name, else what is left of it with a hash, so that no two become one."""
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-")[:80]
    return clean if clean == text else f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
