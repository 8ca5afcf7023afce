"""Target loads: the share of all assignments that each expert should have, as written on the command line.

A load is ``uniform``, ``zipf:S`` (the share of the k-th expert falls as k^-S), ``hot:K:SHARE`` (K experts get SHARE of
all assignments, the others the rest), or one number per expert, joined by ``/``. With token choice a token chooses an
expert at most once, so no expert can have more than 1/a of all assignments, and each of G groups has exactly 1/G. A
load within these bounds is feasible. Nothing here imports torch.
"""

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path

from mue_check.errors import LoadError
from mue_check.input_files import parse_json, read_text

_IDS = {"", "expert", "expert_id", "expert_index", "id", "index"}
_LOADS = {"count", "counts", "load", "share", "tokens"}
Load = tuple[float, ...]
"""Share of all assignments by expert; the shares sum to 1."""


def zipf(experts: int, exponent: float) -> Load:
    """Shares that fall as k^-``exponent`` from the first expert to the last; 0 is uniform."""
    return _normalized([k**-exponent for k in range(1, experts + 1)])


def hot(experts: int, hot_experts: int, share: float) -> Load:
    """The first ``hot_experts`` share ``share`` of all assignments evenly, the others share the rest."""
    if not 0 < hot_experts < experts:
        raise LoadError(f"load hot:{hot_experts}:{share:g}: must be at least 1 and fewer than all {experts} experts")
    if not 0 < share < 1:
        raise LoadError(f"load hot:{hot_experts}:{share:g}: the share must lie between 0 and 1")
    rest = (1 - share) / (experts - hot_experts)
    return (share / hot_experts,) * hot_experts + (rest,) * (experts - hot_experts)


def spread_over_groups(load: Load, groups: int) -> Load:
    """Distribute the shares over groups so that every group has the same profile and the sum 1/G.

    Every G neighboring experts are pooled, and each group gets 1/G of the pool. Without this, a Zipf load over all
    experts would give the first group more than 1/G.
    """
    if groups == 1:
        return load
    size = len(load) // groups
    profile = _normalized([sum(load[k * groups : (k + 1) * groups]) for k in range(size)])
    return tuple(share / groups for _ in range(groups) for share in profile)


def parse_load(text: str, *, experts: int, groups: int = 1) -> Load:
    """Parse a target load. Raises LoadError; ``require_feasible`` checks whether the load is feasible."""
    name, *numbers = text.split(":")
    try:
        if name == "uniform" and not numbers:
            return zipf(experts, 0.0)
        if name == "zipf" and len(numbers) == 1:
            exponent = float(numbers[0])
            if not 0 <= exponent <= 10:
                raise LoadError(f"load {text!r}: the exponent must lie between 0 and 10")
            return spread_over_groups(zipf(experts, exponent), groups)
        if name == "hot" and len(numbers) == 2:
            return spread_over_groups(hot(experts, int(numbers[0]), float(numbers[1])), groups)
        shares = [float(part) for part in text.split("/")]
    except ValueError:
        raise LoadError(
            f"unknown load {text!r}: write uniform, zipf:EXPONENT, hot:EXPERTS:SHARE or a share per expert joined by /"
        ) from None
    return as_load(shares, experts=experts)


def read_load(source: str | Path, experts: int) -> Load:
    """Read the share of each expert from ``p1,p2,...`` or from a file of counts or shares (one per line, CSV with or
    without a header, or JSON).

    A text without a comma that is not a number is a path. Raises LoadError, which names the first wrong number.
    """
    text, where = _text(source)
    return as_load(_numbers(text, where), experts=experts, where=where)


def as_load(shares: Sequence[float], *, experts: int, where: str = "the load") -> Load:
    """Normalize shares or counts of ``experts`` experts. Zeros are allowed. Raises LoadError."""
    if not len(shares):
        raise LoadError(f"{where} is empty: give a number for each of {experts} experts")
    for expert, share in enumerate(shares):
        if not math.isfinite(share) or share < 0:
            raise LoadError(f"{where} gives expert {expert} the load {share:g}: it must be a finite number >= 0")
    if len(shares) != experts:
        raise LoadError(f"{where} has {len(shares)} numbers for {experts} experts: give one for each expert")
    # the sum of counts near the largest float would be infinite
    top = max(shares)
    if top == 0:
        raise LoadError(f"{where} is zero for every expert: some expert must have tokens")
    return _normalized([share / top for share in shares])


def require_feasible(load: Sequence[float], *, activated: int, groups: int = 1, rounding: float = 1e-6) -> None:
    """Refuse an infeasible load, and name the largest feasible share. ``rounding`` is a relative tolerance."""
    most = 1 / activated
    expert = max(range(len(load)), key=lambda e: load[e])
    if load[expert] > most * (1 + rounding):
        raise LoadError(
            f"expert {expert} has the share {load[expert]:.4g} of all assignments, but with a={activated} experts per "
            f"token the largest feasible share is 1/a = {most:.4g}"
        )
    size = len(load) // groups
    for group in range(groups):
        part = sum(load[group * size : (group + 1) * size])
        if not math.isclose(part, 1 / groups, rel_tol=rounding):
            raise LoadError(
                f"group {group} has the share {part:.4g} of all assignments, but each token takes a/G experts of every "
                f"group, so each of G={groups} has 1/G = {1 / groups:.4g}"
            )


def require_target(load: Load, *, activated: int, groups: int = 1) -> None:
    """Refuse a load that is infeasible, or under which an expert would learn nothing."""
    for expert, share in enumerate(load):
        if not share > 0:
            raise LoadError(
                f"target load of expert {expert} is {share:g}: must be above 0, or the expert learns nothing"
            )
    require_feasible(load, activated=activated, groups=groups)


def _normalized(shares: Sequence[float]) -> Load:
    total = sum(shares)
    return tuple(share / total for share in shares)


def _text(source: str | Path) -> tuple[str, str]:
    """The text, and a description of its source for messages."""
    if isinstance(source, str) and ("," in source or _is_number(source)):
        return source, "the load"
    where = f"load file {str(source)!r}"
    return read_text(Path(source), where, LoadError), where


def _numbers(text: str, where: str) -> list[float]:
    text = text.strip()
    if text.startswith(("[", "{")):
        values = parse_json(text, f"{where} begins with a bracket and", LoadError)
        if not isinstance(values, list) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            raise LoadError(f"{where} is JSON but not a list of numbers: give one number for each expert")
        return [_float(v) for v in values]
    if (column := _column(text, where)) is not None:
        return _checked(column, where)
    words: list[str] = []
    for line in text.splitlines():
        # an empty cell between two commas is a missing number, which must not be skipped like a space
        row = line.strip().rstrip(",;")
        words += [cell.strip() for cell in re.split("[,;]", row)] if re.search("[,;]", line) else row.split()
    return _checked(words, where)


def _checked(words: Sequence[str], where: str) -> list[float]:
    for at, word in enumerate(words):
        if not _is_number(word):
            raise LoadError(f"{where} has {word[:40]!r} as item {at + 1}: give only numbers, one for each expert")
    return [float(word) for word in words]


def _column(text: str, where: str) -> list[str] | None:
    """The load's column in a table with a header, in the order of a column of experts; None without a header.

    A table of one row has one column for each expert.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    separator = next((sign for sign in ",;\t" if lines and sign in lines[0]), ",")
    header, *rows = ([cell.strip() for cell in row] for row in csv.reader(lines or [""], delimiter=separator))
    if not rows or any(map(_is_number, header)):
        return None
    if trouble := next((row for row in rows if len(row) != len(header)), None):
        raise LoadError(f"{where} has {len(trouble)} cells in a row under {len(header)} names of columns")
    names = [name.lower() for name in header]
    ids = next((at for at, name in enumerate(names) if name in _IDS), None)
    others = [at for at in range(len(names)) if at != ids]
    if len(rows) == 1 and ids is None and len(others) > 1:
        return rows[0]
    named = [at for at in others if names[at] in _LOADS] if len(others) > 1 else others
    if len(named) != 1:
        raise LoadError(
            f"{where} has the columns {', '.join(header)[:80]}: call the load's {', '.join(sorted(_LOADS))}"
        )
    if ids is not None:
        experts = [row[ids] for row in rows]
        order = {expert: at for at, expert in enumerate(experts)}
        first = 1 if "0" not in order else 0
        if missing := next((e for e in range(first, first + len(rows)) if str(e) not in order), None):
            raise LoadError(f"{where} lacks expert {missing}: its column {header[ids]!r} must count them all")
        rows = [rows[order[str(expert)]] for expert in range(first, first + len(rows))]
    return [row[named[0]] for row in rows]


def _float(value: float) -> float:
    """The number as a float, infinite where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
