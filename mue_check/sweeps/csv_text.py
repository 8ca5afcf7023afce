"""CSV as programs in several countries write it: its encoding, separator, decimal sign and thousands separator."""

import ast
import csv
import gzip
import io
import json
import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from mue_check.errors import JudgeError
from mue_check.user_code import first_line

_LARGEST = 1 << 26
"""Bytes."""
_DOT = re.compile(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?")
_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
_GROUPS = r"[-+]?[1-9]\d{{0,2}}(?:(?:\{0}\d{{3}}){{2,}}(?:\{1}\d+)?|\{0}\d{{3}}\{1}\d+)"
"""Numbers with a thousands separator that can be nothing else: two of them, or one and a decimal sign."""
_SHAPED = re.compile(r"[-+]?[1-9]\d{0,2}[.,]\d{3}")
"""May be a thousand or a fraction."""


_NO_TABLE = re.compile(
    r"\s*(?:(?P<html><(?:!doctype|html|head|body|table|\?xml))|(?P<lfs>version https://git-lfs))", re.IGNORECASE
)
_WHAT_ELSE = {
    "html": "it is a web page; was it downloaded without a login?",
    "lfs": "it is a pointer of Git LFS: run git lfs pull",
}


class Signs(NamedTuple):
    """The decimal sign, and the thousands separator if there is one."""

    decimal: Literal[".", ","]
    thousands: str | None


def decode(path: Path) -> str:
    """The text of a file, unpacked if it is gzip: UTF-8, UTF-16 with its mark, or Windows' western one. JudgeError."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, EOFError) as error:
        raise JudgeError(f"{path} cannot be read: {getattr(error, 'strerror', None) or first_line(error)}") from None
    except ValueError:
        raise JudgeError(f"{path} is not text") from None
    if len(data) > _LARGEST:
        raise JudgeError(f"{path} has more than {_LARGEST >> 20} MiB")
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding)
        except ValueError:
            continue
        if "\0" not in text:
            return text
    raise JudgeError(f"{path} is not text")


def read_csv(text: str, path: Path) -> pd.DataFrame:
    """The table in a text of CSV. JudgeError if it is none, or if its numbers can be read in two ways."""
    if found := _NO_TABLE.match(text):
        raise JudgeError(f"{path}: is no table of CSV: {_WHAT_ELSE[found.lastgroup or '']}")
    lines = text.lstrip("\n").splitlines(keepends=True)
    while lines and lines[0].startswith("#") and len(lines) > 1 and not _has(lines[0], lines[1]):
        lines.pop(0)  # a remark of the program that wrote it
    said = re.fullmatch(r"\"?sep=(.)\"?\s*", lines[0]) if len(lines) > 1 else None  # as Excel takes it
    lines = lines[1:] if said else lines
    header = lines[0] if lines else ""
    separator = said[1] if said else max(",;\t|", key=header.count)
    if separator not in header and len({len(line.split()) for line in lines if line.strip()}) == 1:
        lines, separator = ["\t".join(line.split()) + "\n" for line in lines if line.strip()], "\t"  # as printed
    body = "".join(lines)
    try:
        names, *rows = csv.reader(io.StringIO(body), delimiter=separator)
        signs = signs_of({cell.strip() for row in rows for cell in row if "," in cell or "." in cell}, separator, path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pandas only warns of rows that are longer than the header
            frame = pd.read_csv(
                io.StringIO(body), sep=separator, decimal=signs.decimal, thousands=signs.thousands, index_col=False
            )
    except (ValueError, Warning, csv.Error) as error:
        raise JudgeError(f"{path}: is no table of CSV: {first_line(error)}") from None
    return _opened(_without_headers(_without_twins(frame, names, path)))


def _has(remark: str, header: str) -> bool:
    """Whether a line that begins with # may be the header itself: it has as many cells as the next."""
    return any(remark.count(sign) == header.count(sign) > 0 for sign in ",;\t|")


def signs_of(cells: Collection[str], separator: str, path: Path) -> Signs:
    """From numbers that can be read in one way alone. JudgeError where others are left that can be read in two.

    Semicolons separate where the comma is the decimal sign.
    """
    decimal: Literal[".", ","] = "."
    american, european = (
        any(re.fullmatch(_GROUPS.format(*signs), cell) for cell in cells) for signs in ((",", "."), (".", ","))
    )
    dots = american or any(_DOT.fullmatch(cell) and not _SHAPED.fullmatch(cell) for cell in cells)
    commas = european or any(_COMMA.fullmatch(cell) and not _SHAPED.fullmatch(cell) for cell in cells)
    if commas and not dots:
        decimal = ","
    shaped = min((cell for cell in cells if _SHAPED.fullmatch(cell) and "," in cell), default="")
    if shaped and separator == ";" and not dots:
        commas, decimal = True, ","
    if shaped and not dots and not commas:
        raise JudgeError(
            f"{path}: {shaped!r} may be {shaped.replace(',', '.')} or {shaped.replace(',', '')}: write it so"
        )
    # beside numbers with a point, 1,024 is a thousand; beside numbers with a comma, 1.024 is only if others must be
    thousands = "," if (american or shaped) and dots and not commas else "." if european and not dots else None
    return Signs(decimal=decimal, thousands=thousands)


def _without_twins(frame: pd.DataFrame, header: list[str], path: Path) -> pd.DataFrame:
    """Without columns that stand there twice. JudgeError if two of one name differ: pandas would rename the second."""
    for at, name in enumerate(header):
        first = header.index(name)
        if name.strip() and first < at and at < len(frame.columns):
            if not frame.iloc[:, first].equals(frame.iloc[:, at]):
                raise JudgeError(f"{path}: two columns are named {name!r}, and differ")
            frame = frame.rename(columns={frame.columns[at]: f"Unnamed: {at}"})
    return frame


def _without_headers(frame: pd.DataFrame) -> pd.DataFrame:
    """Without headers that stand between the rows, as files that were joined have them."""
    repeated = (frame.astype(str) == [str(name) for name in frame.columns]).all(axis=1)
    return frame[~repeated].reset_index(drop=True) if repeated.any() else frame


def _opened(frame: pd.DataFrame) -> pd.DataFrame:
    """Cells that hold a configuration, as JSON or as Python prints it, as columns ``config.lr``."""
    for name in [str(column) for column in frame.columns]:
        texts = frame[name].map(lambda cell: isinstance(cell, str) and cell.lstrip().startswith("{"))
        if texts.any() and (texts | frame[name].isna()).all():
            cells = [_mapping(cell) if held else {} for cell, held in zip(frame[name], texts, strict=True)]
            if all(isinstance(cell, dict) for cell in cells):
                inner = pd.json_normalize(cells).add_prefix(f"{name}.").set_axis(frame.index)
                frame = frame.drop(columns=name).join(inner)
    return frame


def _mapping(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(re.sub(r"\b(?:nan|NaN)\b", "None", re.sub(r"\binf\b", "1e999", text)))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
