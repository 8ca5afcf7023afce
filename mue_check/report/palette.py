"""How every figure looks: Okabe-Ito colours, one for each rung in all plots, and text that cannot break a drawing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from matplotlib import style

from mue_check.report.summary import Summary
from mue_check.report.tables import printable

REFERENCE = "#000000"
TARGETS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito 2008, without the yellow, which cannot be read on white."""
BAND = "#009E73"
QUIET = "#595959"
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH = 9.0
"""Inches: 900 px at the dpi of a page."""
SALT = "mue_check"

_STYLE: dict[str, object] = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "figure.titlesize": 12,
    "legend.frameon": False,
    "text.parse_math": False,  # a corpus may be named with dollar signs
    "svg.hashsalt": SALT,
    "svg.fonttype": "path",
}


@contextmanager
def house_style() -> Iterator[None]:
    """The style in which figures are made and saved, whatever the user's own matplotlibrc says."""
    with style.context(["default", _STYLE]):
        yield


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colour by rung label."""

    colours: Mapping[str, str]

    def __getitem__(self, label: str) -> str:
        return self.colours[label]


def palette_of(summary: Summary) -> Palette:
    """References black, and no colour twice on one axis while there are enough; controls take their rung's colour."""
    ladders: dict[str, dict[str, int]] = {}
    colours: dict[str, str] = {}
    for c in summary.comparisons:
        colours.setdefault(c.sides[0].label, REFERENCE)
        ladders.setdefault(c.axis, {}).update({side.label: side.size for side in c.sides})
    for ladder in ladders.values():
        for label in sorted(ladder, key=lambda name: (ladder[name], name)):
            taken = [colours.get(other) for other in ladder]
            free = [colour for colour in TARGETS if colour not in taken]
            colours.setdefault(label, free[0] if free else TARGETS[len(colours) % len(TARGETS)])
    return Palette(colours=colours)


def plain(text: str) -> str:
    """Text that the font has glyphs for, and that a legend does not hide for its leading underscore."""
    shown = printable(text).encode("ascii", "replace").decode()
    return f" {shown}" if shown.startswith("_") else shown


def shorten(text: str, width: int) -> str:
    """``plain`` text of at most ``width`` characters."""
    shown = plain(text)
    return shown if len(shown) <= width else shown[: width - 2] + ".."
