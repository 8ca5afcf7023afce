"""Files that are whole or absent: written beside their place, then moved into it."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mue_check.errors import StoreError


def write_atomic(path: Path, data: bytes, *, alone: bool = False) -> None:
    """Put ``data`` at ``path`` in one move; a reader, or a run killed at any moment, sees all of it or nothing.

    ``alone``: nobody else writes there, so that what a killed writer has left is written over.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if alone:
            temporary = str(path.with_name(f".{path.name}.part"))
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        else:
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(f"cannot write {str(path)!r}: {error.strerror}") from None


def write_json(path: Path, value: Mapping[str, object], *, alone: bool = False) -> None:
    """``value`` as sorted, indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode(), alone=alone)


def read_json(path: Path) -> dict[str, object]:
    """The object stored at ``path``; StoreError names a file that is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except ValueError:
        raise StoreError(f"{str(path)!r} is no JSON: remove it and run again") from None
    if not isinstance(value, dict):
        raise StoreError(f"{str(path)!r} holds no JSON object: remove it and run again")
    return value
