"""All figures of a study, in the order of the page, each with a file name and words for those who cannot see it."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal, TypeVar

from matplotlib.figure import Figure

from mue_check.report.curve_plots import plot_curves
from mue_check.report.drift_plots import plot_controls, plot_drifts
from mue_check.report.palette import house_style, palette_of
from mue_check.report.scale_plots import plot_early, plot_laws
from mue_check.report.summary import DriftFinding, EarlyFinding, Summary
from mue_check.report.tables import interval_text, printable
from mue_check.study.comparison import Comparison

Section = Literal["drift", "curves", "coordinates", "early", "controls"]
_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as files. ``name`` is fit for a file; ``alt`` says what the figure shows, with its numbers."""

    section: Section
    name: str
    alt: str
    svg: bytes
    png: bytes


def draw_pictures(summary: Summary) -> list[Picture]:
    """Every figure of the study."""
    palette = palette_of(summary)
    plain = [d for d in summary.drifts if not d.comparison.is_control]
    controls = [d for d in summary.drifts if d.comparison.is_control]
    pictures = []
    for (axis,), found in _groups(plain, lambda d: (d.comparison.axis,)):
        alt = f"Drift along {axis}. {_drift_words(found)}"
        pictures.append(_picture("drift", ("drift", axis), alt, plot_drifts(found, palette)))
    for key, found in _groups(plain, lambda d: _ladder(d.comparison)):
        alt = f"Loss against learning rate, {', '.join(key)}. {_drift_words(found)}"
        pictures.append(_picture("curves", ("curves", *key), alt, plot_curves(found, palette)))
    for laws in summary.laws:
        words = "; ".join(f"{r.law.name} {interval_text(r.interval)} {r.verdict}" for r in laws.results)
        key = _ladder(laws.comparison)
        alt = f"Activation scales, {', '.join(key)}. {words}"
        pictures.append(_picture("coordinates", ("coordinates", *key), alt, plot_laws(laws, palette)))
    for key, early in _groups(summary.earlies, lambda e: _ladder(e.comparison)):
        alt = f"Early loss curves, {', '.join(key)}. {_early_words(early)}"
        pictures.append(_picture("early", ("early", *key), alt, plot_early(early, palette)))
    if controls:
        alt = f"Controls. {_drift_words(controls)}"
        pictures.append(_picture("controls", ("controls",), alt, plot_controls(controls, palette)))
    for d in controls:
        alt = f"Loss against learning rate of {d.comparison.name}. {_drift_words([d])}"
        pictures.append(_picture("controls", ("curves", d.comparison.name), alt, plot_curves([d], palette)))
    return pictures


def _ladder(comparison: Comparison) -> tuple[str, ...]:
    return comparison.axis, comparison.corpus, comparison.rule


def _groups(
    found: Iterable[_Found], key: Callable[[_Found], tuple[str, ...]]
) -> Iterable[tuple[tuple[str, ...], list[_Found]]]:
    groups: dict[tuple[str, ...], list[_Found]] = {}
    for item in found:
        groups.setdefault(key(item), []).append(item)
    return groups.items()


def _drift_words(found: Sequence[DriftFinding]) -> str:
    return "; ".join(
        f"{d.comparison.sides[-1].label} on {d.comparison.corpus} {interval_text(d.drift.interval)} {d.drift.verdict}"
        for d in found
    )


def _early_words(found: Sequence[EarlyFinding]) -> str:
    return "; ".join(
        f"{e.comparison.sides[-1].label} trend {interval_text(e.early.trend, 4)} {e.early.verdict}" for e in found
    )


def _picture(section: Section, key: tuple[str, ...], alt: str, figure: Figure) -> Picture:
    return Picture(
        section=section,
        name=file_name("-".join(key)),
        alt=printable(alt),
        svg=_bytes(figure, "svg", {"Date": None, "Creator": None}),
        png=_bytes(figure, "png", {"Software": None}),
    )


def _bytes(figure: Figure, kind: str, metadata: dict[str, str | None]) -> bytes:
    """The figure as a file's content; without dates, so that the same study gives the same bytes."""
    out = BytesIO()
    with house_style():
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def file_name(text: str) -> str:
    """``text`` if it is fit for a file name, else what is left of it with a hash, so that no two become one."""
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-")[:80]
    return clean if clean == text else f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
