"""How every figure looks: Okabe-Ito colours, one for each rung of a ladder, and text that cannot break a drawing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from matplotlib import style

from mue_check.questions.comparison import Comparison
from mue_check.report.format import DEFAULT_ROUTER, in_words, knob_words, printable
from mue_check.report.summary import Summary

REFERENCE = "#000000"
TARGETS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito 2008, without the yellow, which cannot be read on white."""
BAND = "#009E73"
BAND_ALPHA, RESIDUAL_ALPHA = 0.13, 0.06
"""The tolerance, and lighter what an approximate law leaves beyond it."""
QUIET = "#595959"
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">", "p", "h")
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
    """Colour by (ladder, router, rung label): a reference of one ladder is a target of another."""

    colours: Mapping[tuple[str, str, str], str]

    def of(self, comparison: Comparison, label: str) -> str:
        """The colour of a rung that a question names."""
        return self.colours[comparison.ladder, comparison.router, label]


def palette_of(summary: Summary) -> Palette:
    """References black; a target keeps its colour from ladder to ladder, but no colour serves twice on one of them.

    Controls take their rung's colour.
    """
    ladders: dict[tuple[str, str], dict[str, int]] = {}
    references: dict[tuple[str, str], set[str]] = {}
    for c in summary.comparisons:
        sizes = ladders.setdefault((c.ladder, c.router), {})
        sizes.update({side.label: side.size for side in c.sides})
        if len(c.sides) > 1:
            references.setdefault((c.ladder, c.router), set()).add(c.sides[0].label)
    usual: dict[str, str] = {}
    colours: dict[tuple[str, str, str], str] = {}
    for ladder, sizes in ladders.items():
        black = references.get(ladder, set())
        colours.update({(*ladder, label): REFERENCE for label in black})
        taken: set[str] = set()
        for at, label in enumerate(sorted(sizes.keys() - black, key=lambda name: (sizes[name], name))):
            wanted = (usual.get(label), *TARGETS)
            colour = next((c for c in wanted if c and c not in taken), TARGETS[at % len(TARGETS)])
            usual.setdefault(label, colour)
            taken.add(colour)
            colours[*ladder, label] = colour
    return Palette(colours=colours)


def heading(comparison: Comparison) -> str:
    """``width on markov, rule complete_mue``, with the swept value and the router where they are not the usual ones."""
    value = "" if comparison.knob == "lr" else f", {knob_words(comparison.knob)}"
    router = "" if comparison.router == DEFAULT_ROUTER else f", router {shorten(comparison.router, 30)}"
    where = f"{shorten(in_words(comparison.ladder), 30)} on {shorten(comparison.corpus, 30)}"
    return f"{where}, rule {shorten(comparison.rule, 30)}{value}{router}"


def plain(text: str) -> str:
    """Text that the font has glyphs for, and that a legend does not hide for its leading underscore."""
    shown = printable(text).encode("ascii", "replace").decode()
    return f" {shown}" if shown.startswith("_") else shown


def shorten(text: str, width: int) -> str:
    """``plain`` text of at most ``width`` characters."""
    shown = plain(text)
    return shown if len(shown) <= width else shown[: width - 2] + ".."
