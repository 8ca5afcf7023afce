"""Base shapes of microsoft/mup: the .bsh files that ``mup.save_base_shapes`` writes, read without mup or YAML.

A file maps each parameter's name to a list with the base size of every axis, or null where an axis is no width.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from mue_check.errors import RuleError
from mue_check.input_files import read_text

BaseShapes = Mapping[str, tuple[float | None, ...]]
_NAME = re.compile(r"""(['"]?)([\w.]+)\1:\s*(\[\s*\])?""")
_SIZE = re.compile(r"-\s+(null|~|\d+(?:\.\d*)?)")


def read_base_shapes(path: str) -> BaseShapes:
    """Name -> base sizes. RuleError names the first line that is no part of such a file."""
    shapes: dict[str, list[float | None]] = {}
    sizes: list[float | None] | None = None
    for number, line in enumerate(read_text(Path(path), f"--base-shapes {path}", RuleError).splitlines(), start=1):
        text = line.split("#")[0].strip()
        if name := _NAME.fullmatch(text):
            sizes = shapes.setdefault(name[2], [])
        elif (size := _SIZE.fullmatch(text)) and sizes is not None:
            sizes.append(None if size[1] in ("null", "~") else float(size[1]))
        elif text:
            raise RuleError(f"--base-shapes {path}: line {number}, {line.strip()[:60]!r}, is neither a name nor a size")
    if not shapes:
        raise RuleError(f"--base-shapes {path}: holds no shapes")
    return {name: tuple(found) for name, found in shapes.items()}
