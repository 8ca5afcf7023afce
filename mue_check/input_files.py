"""Read files that people write: whatever they hold, there is a value or an error of one line."""

import json
import tomllib
from pathlib import Path
from typing import Any

from mue_check.errors import MueCheckError

_LARGEST = 1 << 26
"""Bytes. A larger file is not one that a person wrote."""
_NESTED = "its brackets are nested too deep"


def read_text(path: Path, where: str, error: type[MueCheckError]) -> str:
    """The text of a file; an ``error`` that begins with ``where`` if it cannot be read or is not text."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise error(f"{where} has more than {_LARGEST >> 20} MiB")
        return data.decode("utf-8-sig")
    except OSError as trouble:
        raise error(f"{where} cannot be read: {trouble.strerror}") from None
    except ValueError:  # its bytes are not UTF-8, or its name has a NUL
        raise error(f"{where} is not text") from None


def read_toml(path: Path, where: str, error: type[MueCheckError]) -> dict[str, Any]:
    """The table in a TOML file; an ``error`` that begins with ``where`` if there is none."""
    text = read_text(path, where, error)
    try:
        return tomllib.loads(text)
    except ValueError as trouble:  # also a number of more digits than Python reads
        raise error(f"{where} is not TOML: {trouble}") from None
    except RecursionError:
        raise error(f"{where} is not TOML that can be read: {_NESTED}") from None


def parse_json(text: str, where: str, error: type[MueCheckError]) -> Any:
    """The value of a JSON text; an ``error`` that begins with ``where`` if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        raise error(f"{where} is not JSON") from None
    except RecursionError:
        raise error(f"{where} is not JSON that can be read: {_NESTED}") from None
