"""Files and folders as tables of text and numbers: CSV, Parquet, JSON, Markdown, and the results of Ray Tune."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mue_check.errors import JudgeError
from mue_check.input_files import parse_json, read_text
from mue_check.sweeps.csv_text import decode, read_csv
from mue_check.sweeps.names import values_in
from mue_check.user_code import first_line

_KINDS = (".csv", ".tsv", ".txt", ".parquet", ".json", ".jsonl", ".ndjson", ".md", ".markdown")


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A table as it stands in a file. ``name`` is what the file is called, without its ending."""

    frame: pd.DataFrame
    name: str


def read_tables(paths: Sequence[Path]) -> list[Raw]:
    """Every table in these files and folders. JudgeError, in one line, for what is no table."""
    found = [raw for path in paths for raw in _read(path)]
    for raw in found:
        if raw.frame.empty:
            raise JudgeError(f"{raw.name}: the table has no rows")
        twins = raw.frame.columns[raw.frame.columns.duplicated()]
        if len(twins):
            raise JudgeError(f"{raw.name}: two columns are named {str(twins[0])!r}")
    return found


def _read(path: Path) -> Iterator[Raw]:
    if path.is_dir():
        yield from _folder(path)
        return
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    if kind not in _KINDS:
        raise JudgeError(f"{path}: must be a folder, or end in {', '.join(_KINDS)}")
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    if kind == ".parquet":
        yield Raw(frame=_parquet(path), name=stem)
        return
    text = decode(path)
    if not text.strip():
        raise JudgeError(f"{path}: the file is empty")
    if kind in (".md", ".markdown"):
        yield from _markdown(text, path)
    elif kind in (".json", ".jsonl", ".ndjson"):
        yield Raw(frame=_json(text, path, lines=kind != ".json"), name=stem)
    else:
        yield Raw(frame=read_csv(text, path), name=stem)


def _folder(path: Path) -> Iterator[Raw]:
    """One table of all trials of Ray Tune, or the tables in the folder, or else in folders within it."""
    trials = sorted({file.parent for name in ("result.json", "progress.csv") for file in path.rglob(name)})
    if trials:
        yield Raw(frame=pd.concat([_trial(trial) for trial in trials], ignore_index=True), name=path.name)
        return
    files = _tables(path.iterdir())
    if not files and (files := _tables(path.rglob("*"))):
        for file in files:
            for raw in _read(file):
                parents = file.parent.relative_to(path).parts
                yield replace(raw, name=" ".join((*parents, raw.name)))
        return
    if not files:
        raise JudgeError(f"{path}: the folder has no table ({', '.join(_KINDS)}) and no result.json of Ray Tune")
    for file in files:
        yield from _read(file)


def _tables(files: Iterable[Path]) -> list[Path]:
    return sorted(file for file in files if file.name.lower().removesuffix(".gz").endswith(_KINDS) and file.is_file())


def _trial(folder: Path) -> pd.DataFrame:
    """The reports of one trial, one row each, with its configuration."""
    result, progress, given = (folder / name for name in ("result.json", "progress.csv", "params.json"))
    rows = pd.DataFrame()
    if result.exists() and (text := read_text(result, str(result), JudgeError)).strip():
        rows = _json(text, result, lines=True)
    elif progress.exists() and (text := read_text(progress, str(progress), JudgeError)).strip():
        rows = read_csv(text, progress)
    config = parse_json(read_text(given, str(given), JudgeError), str(given), JudgeError) if given.exists() else {}
    if rows.empty:
        rows = pd.DataFrame([{"training_iteration": 0}])
    rows = rows.drop(columns=[c for c in rows if str(c).removeprefix("config.").removeprefix("config/") in config])
    failed = (folder / "error.txt").exists() or (folder / "error.pkl").exists()
    values = {f"config.{name}": value for name, value in config.items() if isinstance(value, str | int | float)}
    return rows.assign(**values, trial_id=folder.name, state="failed" if failed else "finished")


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise JudgeError(f"{path}: pandas needs pyarrow for Parquet: pip install pyarrow, or export CSV") from None
    except (OSError, ValueError) as error:
        raise JudgeError(f"{path}: is not Parquet: {first_line(error)}") from None


def _json(text: str, path: Path, *, lines: bool) -> pd.DataFrame:
    """Records, a table of columns, or the form that pandas calls "split"; nested values become ``config.lr``."""
    value: Any
    try:
        value = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else None
    except ValueError:
        raise JudgeError(f"{path}: a line is not JSON") from None
    if not lines:
        value = parse_json(text, str(path), JudgeError)
    if isinstance(value, dict) and {"columns", "data"} <= set(value):
        return pd.DataFrame(value["data"], columns=value["columns"])
    if isinstance(value, dict) and len(value) == 1 and isinstance(inner := next(iter(value.values())), list):
        value = inner
    if isinstance(value, dict) and value and all(map(_is_run, value.values())):
        value = [{"name": name, **run} for name, run in value.items()]
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return pd.json_normalize(value)
    try:
        if isinstance(value, dict) and all(isinstance(column, list | dict) for column in value.values()):
            return pd.DataFrame(value)
    except ValueError as error:
        raise JudgeError(f"{path}: is no table: {first_line(error)}") from None
    raise JudgeError(f'{path}: is JSON, but no table: a list of rows such as [{{"lr": 1e-3, "loss": 2.5}}] is needed')


def _is_run(value: object) -> bool:
    """Whether it is the configuration and the results of a run; a column of pandas has numbers for keys."""
    return isinstance(value, dict) and not all(str(key).isdecimal() for key in value)


def _markdown(text: str, path: Path) -> Iterator[Raw]:
    """Every table with bars. What its heading says, such as "width 256", becomes columns; other headings are one."""
    lines, heading, found = text.splitlines(), "", False
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        if "|" in line and at + 1 < len(lines) and re.fullmatch(r"[|\s:-]*-[|\s:-]*", lines[at + 1].strip()):
            end = at + 2
            while end < len(lines) and "|" in lines[end]:
                end += 1
            yield Raw(frame=_pipe_table([line, *lines[at + 2 : end]], heading, path), name=path.stem)
            found, at = True, end
        else:
            heading = line if line else heading
            at += 1
    if not found:
        raise JudgeError(f"{path}: has no Markdown table (a line of | --- | under its header)")


def _pipe_table(lines: Sequence[str], heading: str, path: Path) -> pd.DataFrame:
    header, *rows = ([cell.strip() for cell in re.split(r"(?<!\\)\|", _bare(line))] for line in lines)
    header = [re.sub(r"^[*`_$]+|[*`_$]+$", "", name) for name in header]
    if wrong := [row for row in rows if len(row) != len(header)]:
        raise JudgeError(f"{path}: a row of a table has {len(wrong[0])} cells, and its header {len(header)}")
    frame = pd.DataFrame(rows, columns=header)
    title = heading.strip("#*_: ")
    values: dict[str, float | str] = {**values_in(title)} or ({"heading": title} if title else {})
    return frame.assign(**{key: value for key, value in values.items() if key not in header})


def _bare(line: str) -> str:
    """A line of a table without its outer bars."""
    return line.strip().removeprefix("|").removesuffix("|")
