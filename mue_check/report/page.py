"""The page: one HTML file with everything in it, readable without a network, in the dark, and on paper."""

import base64
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from mue_check.report.plots import Picture
from mue_check.report.summary import Summary
from mue_check.report.tables import (
    control_table,
    cost_table,
    count_lines,
    drift_table,
    early_table,
    law_table,
    printable,
    rerun_commands,
)

TEMPLATE = "template.html.j2"


def render_page(summary: Summary, pictures: Sequence[Picture]) -> str:
    """The HTML text. Whatever comes from records is escaped; figures are SVG inside the page."""
    source = files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(source)
    return template.render(
        name=printable(summary.name),
        verdict=summary.verdict.value,
        counts=count_lines(summary),
        drifts=drift_table(summary),
        laws=law_table(summary),
        earlies=early_table(summary),
        controls=control_table(summary),
        costs=cost_table(summary),
        pictures=pictures,
        data_uri=_data_uri,
        commands=rerun_commands(summary),
    )


def _data_uri(picture: Picture) -> str:
    """An image of its own, not a part of the page: names inside two figures cannot meet."""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}"
