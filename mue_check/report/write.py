"""Write a report as files: one HTML page, Markdown, every figure as SVG, and JSON files."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mue_check.records.files import remove_leftovers, write_atomic, write_json
from mue_check.report.figures import figure_file
from mue_check.report.markdown import render_markdown
from mue_check.report.page import render_page
from mue_check.report.section import Report

LATEST = "latest"


def write_files(root: Path, report: Report, extra: Mapping[str, Mapping[str, object]], *, latest: bool = True) -> Path:
    """Write report.html, report.md, figures/ and the ``extra`` JSON files into the study; return the page's path.

    The same study gives the same bytes. With ``latest``, a link of that name next to the study points at it, where the
    system has links and nothing else has that name.
    """
    figures = {picture.name: figure_file(root, picture) for picture in report.pictures}
    write_atomic(root / "report.md", render_markdown(report).encode(), root=root)
    for name, values in extra.items():
        write_json(root / name, values, root=root)
    page = root / "report.html"
    write_atomic(page, render_page(report, figures).encode(), root=root)
    remove_leftovers(root)
    if latest:
        _point_latest(root)
    return page


def _point_latest(root: Path) -> None:
    """Replace the link in one step, so that no reader finds it missing."""
    study = root.resolve()
    link = study.parent / LATEST
    if LATEST in (root.name, study.name) or (link.exists() and not link.is_symlink()):
        return
    # a system without links, or a folder that is read-only, still has its report
    with suppress(OSError), tempfile.TemporaryDirectory(dir=study.parent, prefix=".latest-") as folder:
        made = Path(folder) / LATEST
        os.symlink(study.name, made, target_is_directory=True)
        made.replace(link)
