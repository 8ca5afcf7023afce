"""Atomic writes: a file is written under a temporary name, then moved into place."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mue_check.errors import StoreError


def write_atomic(path: Path, data: bytes, *, alone: bool = False) -> None:
    """Write ``data`` to ``path`` atomically: after a kill at any moment the file is complete or absent.

    ``alone`` says that no other process writes this file; leftovers of a killed writer are then overwritten.
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
    """Write sorted, indented JSON atomically."""
    write_atomic(path, (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode(), alone=alone)


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file. StoreError where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except ValueError:
        raise StoreError(f"{str(path)!r} is no JSON: remove it and run again") from None
    if not isinstance(value, dict):
        raise StoreError(f"{str(path)!r} holds no JSON object: remove it and run again")
    return value
