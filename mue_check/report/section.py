"""What a report is made of: sections in one order, which page and Markdown both draw."""

import hashlib
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from io import BytesIO
from typing import Any, ParamSpec

from matplotlib.figure import Figure

from mue_check.judge.verdict import Verdict
from mue_check.report.format import printable
from mue_check.report.palette import DARK, house_style
from mue_check.report.table import Table

P = ParamSpec("P")
_DIGITS = re.compile(rb"(\d\d\.\d\d)\d+")
"""Coordinates from 10 points on need no more than a hundredth of a point."""
_DARK_RULES = "".join(
    f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
    for light, dark in DARK.items()
    for what in ("fill", "stroke")
)
_IN_THE_DARK = f"<style>@media (prefers-color-scheme:dark){{{_DARK_RULES}}}</style>".encode()


class Part(IntEnum):
    """The part of the report that contains a section. Within a part, sections keep the order of their questions."""

    FAILURES = 0
    ANSWERS = 1
    DETAILS = 2
    CONTROLS = 3
    APPENDIX = 4


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure that ``draw`` makes. ``name`` is its file name, ``alt`` describes it with its numbers.

    ``shows`` is a digest of what it is drawn from.
    """

    name: str
    alt: str
    draw: Callable[[], Figure]
    shows: str

    @classmethod
    def of(
        cls, key: Sequence[str], alt: str, plot: Callable[P, Figure], *args: P.args, **kwargs: P.kwargs
    ) -> "Picture":
        """The figure that ``plot`` draws from these arguments, when it is written; its file is named after ``key``."""
        draw = partial(plot, *args, **kwargs)
        # Now, because drawing may fill caches inside of the arguments. Pickles are only written, never read: a study
        # may come from anyone.
        shows = hashlib.sha256(pickle.dumps(draw)).hexdigest()
        return cls(name=file_name("-".join(key)), alt=printable(alt), draw=draw, shows=shows)


@dataclass(frozen=True, kw_only=True)
class _Titled:
    """Tables and pictures under a title."""

    title: str
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def within(self) -> "tuple[_Titled, ...]":
        """The parts that it contains."""
        return ()

    @property
    def all_pictures(self) -> tuple[Picture, ...]:
        """Its pictures, then those of its parts."""
        return (*self.pictures, *(picture for part in self.within for picture in part.all_pictures))


@dataclass(frozen=True, kw_only=True)
class Fold(_Titled):
    """Tables and pictures that open with a click. ``brief``: Markdown leaves out the tables."""

    is_open: bool = False
    brief: bool = False


@dataclass(frozen=True, kw_only=True)
class Strip(_Titled):
    """A row of small figures beside their table; ``others`` is less important, and opens with a click."""

    anchor: str
    verdict: Verdict
    text: str = ""
    others: Fold | None = None

    @property
    def within(self) -> tuple[_Titled, ...]:
        """The fold, if there is one."""
        return (self.others,) if self.others else ()


@dataclass(frozen=True, kw_only=True)
class Section(_Titled):
    """One heading of the report. ``terms`` are words with their definitions, ``commands`` are shell commands."""

    part: Part
    anchor: str
    text: str = ""
    lines: tuple[str, ...] = ()
    strips: tuple[Strip, ...] = ()
    folds: tuple[Fold, ...] = ()
    terms: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()

    @property
    def within(self) -> tuple[_Titled, ...]:
        """Its strips and folds."""
        return (*self.strips, *self.folds)


@dataclass(frozen=True, kw_only=True)
class Report:
    """A sentence of conclusion with its verdict, a few lines that sum up, and the sections in their order.

    ``facts`` say what was measured where and when, by name.
    """

    name: str
    verdict: Verdict
    conclusion: str
    lines: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    sections: tuple[Section, ...]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of all sections."""
        return tuple(picture for section in self.sections for picture in section.all_pictures)


def svg_of(figure: Figure) -> bytes:
    """The figure as a file's content; without dates, so that the same study gives the same bytes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # takes long to import, and few processes draw

    out = BytesIO()
    with house_style():
        canvas: Any = FigureCanvasSVG(figure)  # it has no types
        canvas.print_svg(out, metadata={"Date": None, "Creator": None})  # savefig would draw the figure twice
    return _DIGITS.sub(rb"\1", out.getvalue()).replace(b"<defs>", _IN_THE_DARK + b"<defs>", 1)


def file_name(text: str) -> str:
    """``text`` if it is fit for a file name, else what is left of it with a hash, so that no two become one."""
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-")[:80]
    return clean if clean == text else f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
