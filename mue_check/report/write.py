"""Write a report as files: one HTML page, Markdown, every figure as SVG, and JSON files."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import matplotlib

import mue_check
from mue_check.records.files import remove_leftovers, write_atomic, write_json
from mue_check.report.markdown import render_markdown
from mue_check.report.page import render_page
from mue_check.report.section import Picture, Report, svg_of

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


def figure_file(root: Path, picture: Picture) -> bytes:
    """The SVG of a picture, which is in ``figures/`` of the study ``root`` afterwards.

    Drawing takes most of the time of a report. So a file there is used again if it was drawn by this code from the same
    data and has not been changed since: its last line is a digest of its SVG, of the code and of that data.
    """
    path = root / "figures" / f"{picture.name}.svg"
    drawn_from = picture.shows.encode() + _code()
    if path.is_file() and not path.is_symlink():
        stored = path.read_bytes()
        if stored == _marked(stored.rpartition(b"<!-- ")[0], drawn_from):
            return stored
    drawn = _marked(svg_of(picture.draw()), drawn_from)
    write_atomic(path, drawn, root=root)
    return drawn


def _marked(svg: bytes, drawn_from: bytes) -> bytes:
    return svg + f"<!-- {hashlib.sha256(svg + drawn_from).hexdigest()} -->\n".encode()


@cache
def _code() -> bytes:
    """A digest of the versions and of the package's code."""
    package = Path(mue_check.__file__).parent
    parts = [matplotlib.__version__.encode(), *(path.read_bytes() for path in sorted(package.rglob("*.py")))]
    return hashlib.sha256(b"\0".join(parts)).digest()
