"""The page reports/reliability.md: one section per campaign, each written by the command that it names."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

PAGE = Path(__file__).parents[2] / "reports" / "reliability.md"


class Found(Protocol):
    """The result of a campaign."""

    troubles: list[str]

    def text(self) -> str:
        """The result in Markdown."""


def campaign(
    name: str, title: str, run: Callable[..., Found], options: Mapping[str, int | float], doc: str | None
) -> int:
    """Run ``tests.reliability.NAME`` with its numeric options, and write its section; exit code 1 with any trouble.

    ``run`` takes the options by name, and a ``folder`` for its studies.
    """
    parser = argparse.ArgumentParser(description=doc)
    for option, default in options.items():
        parser.add_argument(f"--{option}", type=type(default), default=default)
    given = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        found = run(folder=Path(folder).resolve(), **given)
    print(found.text())
    first = next(iter(options))
    write_section(title, f"python -m tests.reliability.{name} --{first} {given[first]:g}", found.text())
    return int(bool(found.troubles))


def write_section(title: str, command: str, body: str, page: Path = PAGE) -> None:
    """Put a campaign's result into the page, in place of its earlier result; sections are sorted by title."""
    text = page.read_text() if page.exists() else "# Reliability\n"
    head, *parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    sections = {part.splitlines()[0].removeprefix("## "): part.rstrip() for part in parts}
    sections[title] = f"## {title}\n\n`{command}`\n\n{body.strip()}"
    page.write_text("\n\n".join([head.rstrip(), *(sections[name] for name in sorted(sections))]) + "\n")
