"""A report as one HTML file that needs no network and reads well on a screen, a phone, in the dark, and on paper."""

import base64
import gzip
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from mue_check.judge.verdict import Verdict
from mue_check.report.format import printable
from mue_check.report.palette import PANEL
from mue_check.report.section import Report

TEMPLATE = "template.html.j2"
_GLYPH = re.compile(rb'<path id="DejaVuSans-[^>]*/>')
"""The outline of a letter, named after the font and the letter."""
_SIZE = re.compile(rb'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"')
_STICKY = ("verdict", "caught by")
"""Columns that stay in sight when a table scrolls."""
_PIXELS = 96 / 72
"""Of a point."""


def render_page(report: Report, figures: Mapping[str, bytes]) -> str:
    """The HTML text. ``figures`` are the SVGs by the names of their pictures.

    Text from records is escaped. Figures are gzipped, and the letters that they share are stored once.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_text(TEMPLATE)).render(
        name=printable(report.name),
        report=report,
        style=_text("page.css"),
        script=_text("page.js"),
        glyphs=packed(glyphs_of(figures.values())),
        figure=lambda picture: packed(_GLYPH.sub(b"", figures[picture.name])),
        size=lambda picture: size_of(figures[picture.name]),
        sticky=_STICKY,
        panel=round(PANEL[0] * 96),
        verdicts=[verdict.value for verdict in Verdict],
    )


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def size_of(svg: bytes) -> tuple[int, int]:
    """Width and height in pixels, so that a figure has its place before it is drawn."""
    match = _SIZE.search(svg)
    if match is None:
        raise ValueError("a figure without a size")
    return round(float(match[1]) * _PIXELS), round(float(match[2]) * _PIXELS)


def glyphs_of(figures: Iterable[bytes]) -> bytes:
    """The letters that the figures draw, each once: half of every figure, and the same in all of them."""
    return b"".join(sorted({glyph for svg in figures for glyph in _GLYPH.findall(svg)}))


def packed(svg: bytes) -> str:
    """A part of a figure as base64 of gzipped SVG, which a script of the page unpacks.

    Each figure becomes a separate image and not a part of the page, so that ids inside two figures cannot collide.
    """
    return base64.b64encode(gzip.compress(svg, mtime=0)).decode()
