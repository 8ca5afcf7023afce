"""Files of a study: written atomically, without following links out of it, and with a digest that shows a change.

A file is written under a temporary name and then moved into place. A record is a JSON object whose first member is the
SHA-256 of the rest of the file.
"""

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from mue_check.errors import StoreError

UNUSABLE = (OSError, ValueError)
"""What the use of a path raises: ValueError for a null byte in it."""
LEFT_OVER_SECONDS = 3600.0
"""Age at which a temporary file is the leftover of a killed writer. Writing one takes less than a second."""
_SEAL = re.compile(rb'\{\n "digest": "([0-9a-f]{64})",\n')
_TEMPORARY = re.compile(r"\..+\.part")


def write_atomic(path: Path, data: bytes, *, root: Path | None = None, alone: bool = False) -> None:
    """Write ``data`` to ``path`` atomically: after a kill at any moment the file is complete or absent.

    Folders below ``root`` (by default the file's own folder) are made, and a link among them is refused.
    ``alone`` says that no other process writes this file; the leftover of a killed writer is then removed at once.
    """
    temporary = f".{path.name}.part" if alone else f".{secrets.token_hex(8)}.part"
    try:
        with open_folder(path.parent, root or path.parent) as folder:
            if alone:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            handle = os.open(temporary, flags, 0o644, dir_fd=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    os.fchmod(file.fileno(), 0o644)
                os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
    except UNUSABLE as error:
        raise StoreError(f"cannot write {str(path)!r}: {reason_of(error)}") from None


def append_line(path: Path, line: str, *, root: Path) -> None:
    """Add a line to a text file, in one piece. Follows no link below ``root``. StoreError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    try:
        with open_folder(path.parent, root) as folder:
            handle = os.open(path.name, flags, 0o644, dir_fd=folder)
            with os.fdopen(handle, "ab") as file:
                file.write(f"{line}\n".encode())
    except UNUSABLE as error:
        raise StoreError(f"cannot write {str(path)!r}: {reason_of(error)}") from None


@contextmanager
def open_folder(folder: Path, root: Path) -> Iterator[int]:
    """A descriptor of ``folder``, which is made if it is absent. OSError for a link below ``root``.

    ``root`` itself may be a link: that is its owner's choice.
    """
    root.mkdir(parents=True, exist_ok=True)
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in folder.relative_to(root).parts:
            if part == "..":
                raise OSError(0, "it is outside its folder")
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=handle)
            try:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            except NotADirectoryError:
                raise OSError(0, f"{part} in it is a link or a file, where a folder is needed") from None
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def remove_file(path: Path, *, root: Path) -> None:
    """Remove a file if it exists. Follows no link below ``root``. StoreError."""
    try:
        with open_folder(path.parent, root) as folder, suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=folder)
    except UNUSABLE as error:
        raise StoreError(f"cannot remove {str(path)!r}: {reason_of(error)}") from None


def remove_leftovers(root: Path) -> None:
    """Remove temporary files of killed writers from a study: those older than LEFT_OVER_SECONDS. Follows no link."""
    oldest = time.time() - LEFT_OVER_SECONDS
    folders = [root, *(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())]
    for path in (path for folder in folders for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)):
        with suppress(OSError):  # its writer, or another process, may remove it first
            if path.lstat().st_mtime < oldest:
                path.unlink()


def write_json(path: Path, value: Mapping[str, object], *, root: Path | None = None) -> None:
    """Write sorted, indented JSON atomically."""
    write_atomic(path, _text(value), root=root)


def write_record(path: Path, value: Mapping[str, object], *, root: Path, alone: bool = False) -> None:
    """Write a JSON object with its digest, below the folder ``root`` of a study."""
    write_atomic(path, sealed(value), root=root, alone=alone)


def sealed(value: Mapping[str, object]) -> bytes:
    """The file of a record: the JSON object ``value``, which must not be empty, after the digest of its text."""
    rest = _text(value).removeprefix(b"{\n")
    return f'{{\n "digest": "{hashlib.sha256(rest).hexdigest()}",\n'.encode() + rest


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file. StoreError where there is none."""
    return _parse(path, _bytes(path))


def read_record(path: Path) -> dict[str, object]:
    """The JSON object in a record, without its digest. StoreError where the digest is absent or does not fit."""
    data = _bytes(path)
    seal = _SEAL.match(data)
    value = _parse(path, data)
    if seal is None:
        raise StoreError(
            f"{str(path)!r} does not begin with a digest: it was changed, or stored by version 0.3 or earlier; "
            "use a new study folder"
        )
    if hashlib.sha256(data[seal.end() :]).hexdigest() != seal[1].decode():
        raise StoreError(f"{str(path)!r} was changed after it was stored (its digest differs): remove it and run again")
    del value["digest"]
    return value


def _text(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except UNUSABLE as error:
        raise StoreError(f"cannot read {str(path)!r}: {reason_of(error)}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _parse(path: Path, data: bytes) -> dict[str, object]:
    try:
        value = _DECODER.decode(data.decode())
    except (ValueError, RecursionError):
        raise StoreError(f"{str(path)!r} is no JSON: remove it and run again") from None
    if not isinstance(value, dict):
        raise StoreError(f"{str(path)!r} holds no JSON object: remove it and run again")
    return value


def reason_of(error: Exception) -> str:
    """Why a path is UNUSABLE, in words."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
