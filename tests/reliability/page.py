"""The page reports/reliability.md: one section per campaign, each written by the command that it names."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "reports" / "reliability.md"


def write_section(title: str, command: str, body: str, page: Path = PAGE) -> None:
    """Put a campaign's result into the page, in place of its earlier result; sections are sorted by title."""
    text = page.read_text() if page.exists() else "# Reliability\n"
    head, *parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    sections = {part.splitlines()[0].removeprefix("## "): part.rstrip() for part in parts}
    sections[title] = f"## {title}\n\n`{command}`\n\n{body.strip()}"
    page.write_text("\n\n".join([head.rstrip(), *(sections[name] for name in sorted(sections))]) + "\n")
