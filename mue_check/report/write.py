"""The report of a study as files: one HTML page, one Markdown summary, and every figure as PNG and SVG."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from mue_check.records.files import write_atomic, write_json
from mue_check.report.markdown import render_markdown
from mue_check.report.page import render_page
from mue_check.report.plots import draw_pictures
from mue_check.report.summary import Summary, summarize
from mue_check.sigma0.calibration import PACKAGED

LATEST = "latest"


def write_report(root: Path, summary: Summary | None = None) -> Path:
    """Write report.html, report.md and figures/ into the study and return the page's path.

    A study of sigma_0 that knows enough for a drift budget gets its calibration as a file, too.

    ``summary`` is the study's, where the caller has judged it already.

    The same study gives the same bytes. A link ``latest`` beside the study points at it, where the
    system has links and nobody keeps something else under that name. StoreError when it cannot be judged.
    """
    summary = summary or summarize(root)
    pictures = draw_pictures(summary)
    for picture in pictures:
        write_atomic(root / "figures" / f"{picture.name}.png", picture.png)
        write_atomic(root / "figures" / f"{picture.name}.svg", picture.svg)
    write_atomic(root / "report.md", render_markdown(summary, pictures).encode())
    if summary.calibration is not None:
        write_json(root / PACKAGED, summary.calibration.to_json())
    page = root / "report.html"
    write_atomic(page, render_page(summary, pictures).encode())
    _point_latest(root)
    return page


def _point_latest(root: Path) -> None:
    """Make the link in one move, so that no reader finds it missing."""
    study = root.resolve()
    link = study.parent / LATEST
    if LATEST in (root.name, study.name) or (link.exists() and not link.is_symlink()):
        return
    # a convenience: a system without links, or a folder that may not be written, still has its report
    with suppress(OSError), tempfile.TemporaryDirectory(dir=study.parent, prefix=".latest-") as folder:
        made = Path(folder) / LATEST
        os.symlink(study.name, made, target_is_directory=True)
        made.replace(link)
