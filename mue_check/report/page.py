"""A report as one HTML file that needs no network and reads well on a screen, in the dark, and on paper."""

import base64
import gzip
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from mue_check.judge.verdict import Verdict
from mue_check.report.format import printable
from mue_check.report.section import Picture, Report

TEMPLATE = "template.html.j2"


def render_page(report: Report) -> str:
    """The HTML text. Text from records is escaped; figures are gzipped SVG inside the page."""
    source = files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(source)
    return template.render(
        name=printable(report.name), report=report, packed=packed, verdicts=[verdict.value for verdict in Verdict]
    )


def packed(picture: Picture) -> str:
    """The figure as base64 of gzipped SVG, an eighth of its size, which a script of the page unpacks.

    Each becomes a separate image and not a part of the page, so that ids inside two figures cannot collide.
    """
    return base64.b64encode(gzip.compress(picture.svg, mtime=0)).decode()
