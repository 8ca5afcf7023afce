"""A report as one HTML file that needs no network and reads well on a screen, in the dark, and on paper."""

import base64
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from mue_check.judge.verdict import Verdict
from mue_check.report.format import printable
from mue_check.report.section import Picture, Report

TEMPLATE = "template.html.j2"


def render_page(report: Report) -> str:
    """The HTML text. Text from records is escaped; figures are SVG inside the page."""
    source = files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(source)
    return template.render(
        name=printable(report.name), report=report, data_uri=_data_uri, verdicts=[verdict.value for verdict in Verdict]
    )


def _data_uri(picture: Picture) -> str:
    """An image by itself and not a part of the page, so that ids inside two figures cannot collide."""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}"
