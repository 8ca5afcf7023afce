"""Tables of any common layout as one row per run: wide panels, pivot tables, histories, and what runs are called."""

import math
import re
from collections.abc import Sequence

import pandas as pd

from mue_check.errors import JudgeError
from mue_check.sweeps.columns import RATES, Choice, loss_columns, rate_columns
from mue_check.sweeps.files import Raw
from mue_check.sweeps.names import by_pattern, meaning_of, names_of, number_of, numeric, short, values_in

_PANEL = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<end>__MIN|__MAX)?")
_OF_SEED = re.compile(r"(?P<loss>.*?)[\s_./-]*seed[\s_=./-]*(?P<seed>\d+)", re.IGNORECASE)
_TAIL = 0.1
"""Share of a history, at its end, over which the smoothed loss is a mean."""
_RUN = ("name", "seed", *RATES, "width", "depth", "experts", "top_k", "batch")
"""What tells runs apart, by the meanings of columns."""
_PERHAPS_COUNTERS = ("tokens", "steps", "parameters")
ENDED = "ended at"
"""The column that says at which step a history ended."""


def long_frame(raws: Sequence[Raw], choice: Choice) -> tuple[pd.DataFrame, list[str]]:
    """All tables as one, a row per run, and what was done to them."""
    said: list[str] = []
    frames = [_one(raw, choice, said, alone=len(raws) == 1) for raw in raws]
    frame = pd.concat(frames, ignore_index=True).apply(numeric)
    return _last_of_history(frame, choice, said), list(dict.fromkeys(said))


def _one(raw: Raw, choice: Choice, said: list[str], *, alone: bool) -> pd.DataFrame:
    frame = raw.frame.rename(columns=lambda name: str(name).strip())
    frame = frame.drop(
        columns=[name for name in names_of(frame) if name.startswith("Unnamed: ") or not name.strip("# ")][1:]
    )
    frame = _panel(frame, choice, said).apply(numeric)
    frame = _named(frame, raw.name, choice, said, alone=alone)
    frame = _seeds_across(frame, choice, said)
    if not rate_columns(names_of(frame), choice) or not loss_columns(names_of(frame), choice):
        frame = _pivot(frame, choice, said)
    return frame


def _seeds_across(frame: pd.DataFrame, choice: Choice, said: list[str]) -> pd.DataFrame:
    """A table with a column for the loss of each seed, as one row for each."""
    found = {name: parts for name in names_of(frame) if (parts := _OF_SEED.fullmatch(name))}
    losses = {parts["loss"] for parts in found.values()}
    if len(found) < 2 or len(losses) > 1 or not (losses == {""} or loss_columns(losses, choice)):
        return frame
    said.append(f"read as a column for each of {len(found)} seeds")
    others = frame.drop(columns=list(found))
    rows = [
        others.assign(seed=int(parts["seed"]), **{parts["loss"] or "loss": frame[name]})
        for name, parts in found.items()
    ]
    return pd.concat(rows, ignore_index=True)


def _panel(frame: pd.DataFrame, choice: Choice, said: list[str]) -> pd.DataFrame:
    """A panel of W&B, with a column ``run - metric`` for each run, as one row for each run and step."""
    parts = {name: found for name in names_of(frame) if (found := _PANEL.fullmatch(name))}
    if 2 * len(parts) <= len(frame.columns) - 1 or not parts:
        return frame
    metrics = loss_columns(dict.fromkeys(found["metric"] for found in parts.values()), choice)
    if not metrics:
        raise JudgeError("no metric of the panel is the loss by its name: give --loss")
    others = [name for name in names_of(frame) if name not in parts]
    # with the rates along x, a run is a whole curve: an arm
    is_curve = bool(rate_columns(others, choice))
    runs = [
        frame[others].assign(
            **({"arm": found["run"], **values_in(found["run"])} if is_curve else {"run": found["run"]}),
            **{metrics[0]: frame[name]},
        )
        for name, found in parts.items()
        if found["metric"] == metrics[0] and not found["end"]
    ]
    ends = any(found["end"] for found in parts.values())
    said.append(f"read as a panel of {len(runs)} runs{', without its __MIN and __MAX' if ends else ''}")
    return pd.concat(runs, ignore_index=True).dropna(subset=[metrics[0]])


def _named(frame: pd.DataFrame, file: str, choice: Choice, said: list[str], *, alone: bool) -> pd.DataFrame:
    """With columns for what the names of runs and of the file say, where the table does not."""
    named = [
        name
        for name in names_of(frame)
        if meaning_of(name) == "name" and not pd.api.types.is_numeric_dtype(frame[name])
    ]
    names = frame[named[0]] if named else pd.Series(file, index=frame.index)
    if choice.pattern is not None:
        found = by_pattern(choice.pattern, names)
        said.append(f"from names, by the pattern: {', '.join(names_of(found))}")
        return frame.drop(columns=[name for name in names_of(found) if name in frame]).join(found)
    if named and not rate_columns(names_of(frame), choice):
        found = pd.DataFrame([values_in(str(name)) for name in names], index=frame.index)
        frame = _add(frame, found.dropna(axis=1, how="all"), "the names of runs", said)
    if not alone or not rate_columns(names_of(frame), choice):
        value = number_of(file)
        said_by_it = {key: value for key, value in values_in(file).items() if not alone or meaning_of(key)}
        if any(meaning_of(key) == "rate" for key in said_by_it) and choice.x is None:
            frame = frame.drop(columns=_logged_rates(frame, choice))
        values = said_by_it or ({"lr": value} if value and not rate_columns(names_of(frame), choice) else {})
        frame = _add(frame, pd.DataFrame(values, index=frame.index), "the names of files", said)
    return frame if alone else frame.assign(file=file)


def _logged_rates(frame: pd.DataFrame, choice: Choice) -> list[str]:
    """Rates that change from step to step, if the table is the history of one run."""
    times = [frame[name].nunique() for name in names_of(frame) if meaning_of(name) == "time"]
    if max(times, default=0) < max(2, len(frame) / 2):
        return []
    return [name for name in rate_columns(names_of(frame), choice) if frame[name].nunique(dropna=False) > 1]


def _add(frame: pd.DataFrame, found: pd.DataFrame, where: str, said: list[str]) -> pd.DataFrame:
    known = {meaning_of(name) or short(name) for name in names_of(frame)}
    new = [name for name in names_of(found) if (meaning_of(name) or short(name)) not in known]
    if new:
        said.append(f"from {where}: {', '.join(new)}")
    return frame.join(found[new])


def _pivot(frame: pd.DataFrame, choice: Choice, said: list[str]) -> pd.DataFrame:
    """A table of losses with learning rates down and arms across, or the other way, as one row for each cell."""
    corner, *rest = names_of(frame)
    heads = {name: values_in(name) for name in rest}
    across = {name: next(iter(heads[name].values())) if len(heads[name]) == 1 else number_of(name) for name in rest}
    cells = [name for name in rest if pd.api.types.is_numeric_dtype(frame[name]) and not meaning_of(name)]
    down_name, across_name = [part.strip() for part in (*re.split(r"[\\/|↓→]+", corner), "")][:2]
    keys = {key for name in cells for key in heads[name]}
    across_name = across_name or (keys.pop() if len(keys) == 1 else "")
    down = frame[corner]
    if not rate_columns([down_name, across_name], choice):
        values = [across[name] for name in cells]
        if all(value is not None and 0 < value < 1 for value in values):
            across_name = choice.x or "lr"
        elif pd.api.types.is_numeric_dtype(down) and ((down > 0) & (down < 1)).all():
            down_name = choice.x or "lr"
    if len(cells) < 2 or not rate_columns([down_name, across_name], choice) or loss_columns(names_of(frame), choice):
        return frame
    across_name = across_name or "arm"
    numbers = all(across[name] is not None for name in cells)
    others = [name for name in rest if name not in cells]
    down_name = down_name or "arm"
    said.append(f"read as a pivot table of {across_name!r} across and {down_name!r} down")
    rows = [
        frame[others].assign(**{down_name: down, across_name: across[name] if numbers else name, "loss": frame[name]})
        for name in cells
    ]
    return pd.concat(rows, ignore_index=True)


def _last_of_history(frame: pd.DataFrame, choice: Choice, said: list[str]) -> pd.DataFrame:
    """One row for each run, if there are several: its last loss, and the mean over the last tenth of its history."""
    times = [
        name for name in names_of(frame) if meaning_of(name) == "time" and pd.api.types.is_numeric_dtype(frame[name])
    ]
    losses = loss_columns(names_of(frame), choice)
    if not times or not losses:
        return frame
    time, loss = times[0], losses[0]
    key = [name for name in names_of(frame) if name in (choice.x, choice.arm, "file") or meaning_of(name) in _RUN]
    for name in [name for name in names_of(frame) if meaning_of(name) in _PERHAPS_COUNTERS]:
        if key and (frame.groupby([*key, time], dropna=False, observed=True)[name].nunique() > 1).any():
            key.append(name)  # two values at one time: it counts no time, but tells runs apart
    if not key or not pd.api.types.is_numeric_dtype(frame[loss]):
        return frame
    frame, key = _without_schedules(frame, key, time, choice, said)
    groups = frame.sort_values(time, kind="stable").groupby(key, dropna=False, sort=False, observed=True)
    if not (groups[time].nunique() > 1).any():
        models = [name for name in key if meaning_of(name) not in ("name", "seed", *RATES)]
        last = (
            frame.groupby(models, dropna=False, observed=True)[time].transform("max") if models else frame[time].max()
        )
        # most runs end where the longest does: it says how far each came, and is no number of a run
        return frame.assign(**{ENDED: frame[time]}) if (frame[time] == last).mean() > 0.5 else frame
    rows = []
    for _, run in groups:
        reported = run.dropna(subset=[loss])
        last = (reported if len(reported) else run).iloc[-1].to_dict()
        tail = reported[loss].tail(max(math.ceil(_TAIL * len(reported)), 1))
        rows.append({**last, f"smooth {loss}": tail.mean(), ENDED: last[time]})
    said.append(f"read as histories: the last {loss!r} of each of {len(rows)} runs, and its mean over the last tenth")
    return pd.DataFrame(rows).drop(columns=times)


def _without_schedules(
    frame: pd.DataFrame, key: Sequence[str], time: str, choice: Choice, said: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Without learning rates that change within a run; the peak of each run where there is no other rate.

    A logged rate follows the schedule, and what is swept is the constant before it.
    """
    rates = [name for name in key if name == choice.x or meaning_of(name) in RATES]
    runs = [name for name in key if name not in rates]
    if not runs or frame.duplicated([*runs, time]).any():
        return frame, list(key)
    by_run = frame.groupby(runs, dropna=False, observed=True)
    moving = [name for name in rates if (by_run[name].nunique() > 1).any()]
    left = [name for name in rates if name not in moving]
    for name in moving:
        said.append(
            f"{name!r} changes within a run: {f'{left[0]!r} counts' if left else 'its peak in each run counts'}"
        )
        frame = frame.drop(columns=name) if left else frame.assign(**{name: by_run[name].transform("max")})
    return frame, [name for name in key if name not in moving or not left]
