"""How every figure looks: Okabe-Ito colors, one style, and text that cannot break a drawing."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import style
from matplotlib.axes import Axes

from mue_check.judge.interval import Interval
from mue_check.report.format import printable

INK = "#1b1b1b"
"""Text and axes. Not black, for which matplotlib writes no color that the dark style could replace."""
REFERENCE = "#111111"
TARGETS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito 2008, without the yellow, which is hard to read on white."""
BAND = "#009E73"
BAND_ALPHA, RESIDUAL_ALPHA = 0.13, 0.06
"""The tolerance, and in a lighter shade the residual of an approximate law."""
QUIET = "#595959"
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">", "p", "h")
DARK = {
    INK: "#e8e8e6",
    REFERENCE: "#ffffff",
    QUIET: "#a9adb1",
    "#ffffff": "#16181a",
    "#e3e3e3": "#33383d",
    "#0072b2": "#4fb0e8",
    "#d55e00": "#ff8f3c",
    "#009e73": "#2fc99c",
    "#cc79a7": "#e39bc4",
    "#e69f00": "#f0b429",
}
"""What colors become where the reader's system is dark."""
WIDTH = 9.0
"""Inches: the width of a figure that stands alone."""
FONT = 8.0
"""Points: the text of a panel."""
PANEL = (3.25, 2.5)
"""Inches: one of several figures that stand side by side, and fills the screen of a phone."""
SALT = "mue_check"

_STYLE: dict[str, object] = {
    "figure.dpi": 100,
    "savefig.dpi": 130,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "figure.titlesize": 12,
    "legend.frameon": True,
    "legend.facecolor": "#ffffff",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.75,
    "text.parse_math": False,  # a corpus may be named with dollar signs
    "svg.hashsalt": SALT,
    "svg.fonttype": "path",
}


@contextmanager
def house_style(font: float = 10) -> Iterator[None]:
    """The style in which figures are made and saved, regardless of the user's own matplotlibrc."""
    with style.context(["default", {**_STYLE, "font.size": font, "axes.titlesize": font + 0.5}]):
        yield


def plain(text: str) -> str:
    """Text that the font has glyphs for, and that a legend does not hide because of a leading underscore."""
    shown = printable(text).encode("ascii", "replace").decode()
    return f" {shown}" if shown.startswith("_") else shown


def shorten(text: str, width: int) -> str:
    """``plain`` text of at most ``width`` characters."""
    shown = plain(text)
    return shown if len(shown) <= width else shown[: width - 2] + ".."


def error_bar(interval: Interval) -> list[list[float]]:
    """The lengths of an error bar below and above the mean, in the form that matplotlib needs."""
    return [[interval.mean - interval.low], [interval.high - interval.mean]]


def draw_interval(axes: Axes, interval: Interval, row: float, color: str, *, marker: str = "*") -> None:
    """A marker at the mean, with the interval along x."""
    if math.isfinite(interval.half_width):
        axes.errorbar(interval.mean, row, xerr=error_bar(interval), color=color, capsize=4, linewidth=2)
    axes.plot(interval.mean, row, marker=marker, markersize=11 if marker == "*" else 7, color=color, zorder=5)
