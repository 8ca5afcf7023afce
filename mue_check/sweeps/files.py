"""Files and folders as tables of text and numbers: CSV, Parquet, Excel, JSON, Markdown, runs in folders, Ray Tune."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pandas as pd

from mue_check.errors import JudgeError
from mue_check.input_files import parse_json, read_text
from mue_check.sweeps.csv_text import decode, read_csv
from mue_check.sweeps.names import meaning_of, values_in
from mue_check.user_code import first_line

_BINARY = {
    ".parquet": ("read_parquet", "pyarrow"),
    ".feather": ("read_feather", "pyarrow"),
    ".xlsx": ("read_excel", "openpyxl"),
}
"""How pandas reads each, and with which library."""
_PROSE = (".txt", ".md", ".markdown")
_KINDS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", *_BINARY, *_PROSE)
_SETTINGS = (".hydra/overrides.yaml", "hparams.yaml")
"""What Hydra and Lightning write of a run's settings, a line for each."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A table as it stands in a file. ``name`` is what the file is called, without its ending.

    ``is_object`` if it is no table, but one object of JSON, such as the settings or the results of a run.
    """

    frame: pd.DataFrame
    name: str
    is_object: bool = False


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
    if kind in _BINARY:
        yield Raw(frame=_binary(path, kind), name=stem)
        return
    text = decode(path)
    if not text.strip():
        raise JudgeError(f"{path}: the file is empty")
    if kind in (".md", ".markdown"):
        yield from _markdown(text, path)
    elif kind in (".json", ".jsonl", ".ndjson"):
        yield _json(text, path, stem, lines=kind != ".json")
    else:
        yield Raw(frame=read_csv(text, path), name=stem)


def _folder(path: Path) -> Iterator[Raw]:
    """One table of all trials of Ray Tune, or the tables in the folder, or else in folders within it."""
    reports = ("result.json", "progress.csv")
    trials = sorted(f.parent for f in path.rglob("params.json") if any((f.parent / name).exists() for name in reports))
    if trials:
        yield Raw(frame=pd.concat([_trial(trial) for trial in trials], ignore_index=True), name=path.name)
        return
    # texts only where there is nothing else, as a folder of runs may have its remarks
    data = [kind for kind in _KINDS if kind not in _PROSE]
    looks = ((kinds, pattern) for kinds in (data, _PROSE) for pattern in ("*", "**/*"))
    files = next(filter(None, (_tables(path, *look) for look in looks)), [])
    if not files:
        raise JudgeError(f"{path}: the folder has no table ({', '.join(_KINDS)}) and no result.json of Ray Tune")
    for parent, own in groupby(files, lambda file: file.parent):
        parents = parent.relative_to(path).parts
        settings = (file.read_text("utf-8", "replace") for name in _SETTINGS if (file := parent / name).is_file())
        words = (*parents, *settings) if parents else ()
        for raw in _joined([raw for file in own for raw in _read(file)]):
            yield replace(raw, name=" ".join((*words, raw.name)))


def _tables(folder: Path, kinds: Collection[str], pattern: str) -> list[Path]:
    """The files of these kinds, without hidden ones."""
    found = (
        file
        for file in folder.glob(pattern)
        if Path(file.name.lower().removesuffix(".gz")).suffix in kinds and file.is_file()
    )
    return sorted(file for file in found if not any(part[0] == "." for part in file.relative_to(folder).parts))


def _joined(raws: Sequence[Raw]) -> list[Raw]:
    """The tables of one folder. Objects that share no key are one run, and say what holds for the folder's table."""
    rows = [raw for raw in raws if raw.is_object]
    names = [str(name) for raw in rows for name in raw.frame]
    if not rows or len(names) > len(set(names)):
        return list(raws)
    run = pd.concat([raw.frame for raw in rows], axis=1)
    others = [raw for raw in raws if not raw.is_object]
    if not others:
        return [replace(rows[0], frame=run)]
    held = {str(name): run[name].iloc[0] for name in run if not isinstance(run[name].iloc[0], list)}
    # a history may log the rate of every step, and what was set is the one that was swept
    own = [{name for name in map(str, raw.frame) if meaning_of(name) != "rate"} for raw in others]
    return [
        replace(raw, frame=raw.frame.assign(**{name: cell for name, cell in held.items() if name not in known}))
        for raw, known in zip(others, own, strict=True)
    ]


def _trial(folder: Path) -> pd.DataFrame:
    """The reports of one trial, one row each, with its configuration."""
    result, progress, given = (folder / name for name in ("result.json", "progress.csv", "params.json"))
    rows = pd.DataFrame()
    if result.exists() and (text := read_text(result, str(result), JudgeError)).strip():
        rows = _json(text, result, "", lines=True).frame
    elif progress.exists() and (text := read_text(progress, str(progress), JudgeError)).strip():
        rows = read_csv(text, progress)
    config = parse_json(read_text(given, str(given), JudgeError), str(given), JudgeError) if given.exists() else {}
    if rows.empty:
        rows = pd.DataFrame([{"training_iteration": 0}])
    rows = rows.drop(columns=[c for c in rows if str(c).removeprefix("config.").removeprefix("config/") in config])
    failed = (folder / "error.txt").exists() or (folder / "error.pkl").exists()
    values = {f"config.{name}": value for name, value in config.items() if isinstance(value, str | int | float)}
    return rows.assign(**values, trial_id=folder.name, state="failed" if failed else "finished")


def _binary(path: Path, kind: str) -> pd.DataFrame:
    read, library = _BINARY[kind]
    try:
        frame: pd.DataFrame = getattr(pd, read)(path)
    except ImportError:
        raise JudgeError(f"{path}: pandas needs {library} for it: pip install {library}, or export CSV") from None
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise JudgeError(f"{path}: is no {kind} file: {first_line(error)}") from None
    return frame.reset_index() if any(frame.index.names) else frame


def _json(text: str, path: Path, name: str, *, lines: bool) -> Raw:
    """Records, a table of columns, or the form that pandas calls "split"; nested values become ``config.lr``."""
    value: Any
    if lines:
        rows = enumerate(text.splitlines(), 1)
        value = [parse_json(line, f"{path}, line {at}", JudgeError) for at, line in rows if line.strip()]
    else:
        value = parse_json(text, str(path), JudgeError)
    if isinstance(value, dict):
        if {"columns", "data"} <= set(value):
            return Raw(frame=pd.DataFrame(value["data"], columns=value["columns"]), name=name)
        lists = [inner for inner in value.values() if _is_records(inner)]
        if len(lists) == 1:
            value = lists[0]  # the runs, or the history of one run, among other things
        elif value and all(map(_is_run, value.values())):
            value = [{"name": key, **run} for key, run in value.items()]
    if _is_records(value):
        return Raw(frame=pd.json_normalize(value), name=name)
    try:
        if isinstance(value, dict) and value and all(isinstance(column, list | dict) for column in value.values()):
            return Raw(frame=pd.DataFrame(value), name=name)
    except ValueError as error:
        raise JudgeError(f"{path}: is no table: {first_line(error)}") from None
    if isinstance(value, dict) and value:
        return Raw(frame=pd.json_normalize([value]), name=name, is_object=True)
    raise JudgeError(f'{path}: is JSON, but no table: a list of rows such as [{{"lr": 1e-3, "loss": 2.5}}] is needed')


def _is_records(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


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
