"""The page: one HTML file with everything in it, readable without a network, in the dark, and on paper."""

import base64
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from mue_check.report.drift_tables import control_table, drift_table, trend_table
from mue_check.report.format import printable
from mue_check.report.plots import Picture
from mue_check.report.summary import Summary
from mue_check.report.tables import (
    axis_cost_table,
    count_lines,
    early_table,
    law_groups,
    rerun_commands,
    routing_table,
    rung_cost_table,
    speedup_table,
)
from mue_check.sigma0.report.section import sigma0_details, sigma0_lines, sigma0_tables

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
        contents=_contents(summary),
        drifts=drift_table(summary),
        trends=trend_table(summary),
        speedups=speedup_table(summary),
        routings=routing_table(summary),
        sigma0_lines=sigma0_lines(summary),
        sigma0_tables=sigma0_tables(summary),
        sigma0_details=sigma0_details(summary),
        laws=law_groups(summary),
        earlies=early_table(summary),
        controls=control_table(summary),
        axis_costs=axis_cost_table(summary),
        rung_costs=rung_cost_table(summary),
        groups=_groups(pictures),
        data_uri=_data_uri,
        commands=rerun_commands(summary),
    )


def _contents(summary: Summary) -> list[tuple[str, str]]:
    """(anchor, title) of the sections that the page has."""
    sections: list[tuple[str, str, object]] = [
        ("drift", "Drift of the optimum", summary.targets),
        ("trend", "Trend", summary.trends),
        ("speedup", "Speed-up", summary.speedups),
        ("routing", "Routing variants", summary.routings),
        ("sigma0", "sigma_0", summary.has_sigma0),
        ("curves", "Loss curves", summary.targets),
        ("coordinates", "Activation scales", summary.laws),
        ("early", "First steps", summary.earlies),
        ("controls", "Controls", summary.controls),
        ("verdicts", "How to read a verdict", True),
        ("cost", "What it cost", True),
        ("again", "Run again", True),
    ]
    return [(anchor, title) for anchor, title, there in sections if there]


def _groups(pictures: Sequence[Picture]) -> dict[str, dict[str, list[Picture]]]:
    """Pictures by section, then by group, in their order."""
    groups: dict[str, dict[str, list[Picture]]] = {}
    for picture in pictures:
        groups.setdefault(picture.section, {}).setdefault(picture.group, []).append(picture)
    return groups


def _data_uri(picture: Picture) -> str:
    """An image of its own, not a part of the page: names inside two figures cannot meet."""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}"
