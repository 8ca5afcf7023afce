"""The figures of a report as files, drawn again only where what they show has changed.

Drawing takes most of the time of a report. The last line of a figure's file is a digest of its SVG, of the code and of
the data that it was drawn from.
"""

import hashlib
from functools import cache
from pathlib import Path

import matplotlib

import mue_check
from mue_check.records.files import write_atomic
from mue_check.report.section import Picture, svg_of


def figure_file(root: Path, picture: Picture) -> bytes:
    """The SVG of a picture, which is in ``figures/`` of the study ``root`` afterwards.

    A file there is used again if it was drawn by this code from the same data and has not been changed since.
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
