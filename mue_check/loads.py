"""Target loads: which share of all assignments each expert shall have, as people ask for it. No tensors here.

``uniform``, ``zipf:S`` (share of the k-th expert as k^-S), ``hot:K:SHARE`` (K experts take SHARE of everything, the
others the rest), or one number per expert, joined by ``/``. Feasible is what token choice can do: an expert is
chosen at most once per token, so that none has more than 1/a of all assignments, and each of G groups has 1/G of them.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from mue_check.errors import LoadError

Load = tuple[float, ...]
"""Shares of all assignments by expert; sums to 1."""


def zipf(experts: int, exponent: float) -> Load:
    """Shares that fall as k^-``exponent`` from the first expert to the last; 0 is uniform."""
    return _normalized([k**-exponent for k in range(1, experts + 1)])


def hot(experts: int, hot_experts: int, share: float) -> Load:
    """The first ``hot_experts`` take ``share`` of all assignments evenly, the others the rest."""
    if not 0 < hot_experts < experts:
        raise LoadError(f"load hot:{hot_experts}:{share:g}: must be at least 1 and fewer than all {experts} experts")
    if not 0 < share < 1:
        raise LoadError(f"load hot:{hot_experts}:{share:g}: the share must lie between 0 and 1")
    rest = (1 - share) / (experts - hot_experts)
    return (share / hot_experts,) * hot_experts + (rest,) * (experts - hot_experts)


def spread_over_groups(load: Load, groups: int) -> Load:
    """The same shares dealt out so that each group has a whole profile: neighbours k G .. k G + G - 1 go to G groups.

    A Zipf load over all experts would give the first group more than its part. Sums stay 1 in all and 1/G a group.
    """
    if groups == 1:
        return load
    size = len(load) // groups
    profile = _normalized([sum(load[k * groups : (k + 1) * groups]) for k in range(size)])
    return tuple(share / groups for _ in range(groups) for share in profile)


def parse_load(text: str, *, experts: int, groups: int = 1) -> Load:
    """The target load of that name; LoadError on anything else. Whether it is feasible says ``require_feasible``."""
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
    """Shares of each expert from ``p1,p2,...`` or a file of numbers: counts or shares, one a line, CSV or JSON.

    What has no comma is taken for a path. Raises LoadError naming the first number that is wrong.
    """
    text, where = _text(source)
    return as_load(_numbers(text, where), experts=experts, where=where)


def as_load(shares: Sequence[float], *, experts: int, where: str = "the load") -> Load:
    """``shares`` (or counts) of ``experts`` experts, normalized; zeros are allowed. LoadError names what is wrong."""
    if not len(shares):
        raise LoadError(f"{where} is empty: give a number for each of {experts} experts")
    for expert, share in enumerate(shares):
        if not math.isfinite(share) or share < 0:
            raise LoadError(f"{where} gives expert {expert} the load {share:g}: it must be a finite number >= 0")
    if len(shares) != experts:
        raise LoadError(f"{where} has {len(shares)} numbers for {experts} experts: give one for each expert")
    # of counts near the end of floating point the sum would be infinite
    top = max(shares)
    if top == 0:
        raise LoadError(f"{where} is zero for every expert: some expert must have tokens")
    return _normalized([share / top for share in shares])


def require_feasible(load: Sequence[float], *, activated: int, groups: int = 1, rounding: float = 1e-6) -> None:
    """Refuse shares that token choice cannot have, naming the largest feasible one; ``rounding`` is relative."""
    most = 1 / activated
    expert = max(range(len(load)), key=lambda e: load[e])
    if load[expert] > most * (1 + rounding):
        raise LoadError(
            f"expert {expert} has the share {load[expert]:.4g} of all assignments, and with a={activated} experts a "
            f"token the largest feasible share is 1/a = {most:.4g}"
        )
    size = len(load) // groups
    for group in range(groups):
        part = sum(load[group * size : (group + 1) * size])
        if not math.isclose(part, 1 / groups, rel_tol=rounding):
            raise LoadError(
                f"group {group} has the share {part:.4g} of all assignments, and each token takes a/G experts of every "
                f"group: each of G={groups} has 1/G = {1 / groups:.4g}"
            )


def require_target(load: Load, *, activated: int, groups: int = 1) -> None:
    """Refuse a load that is infeasible, or under which an expert would learn nothing."""
    for expert, share in enumerate(load):
        if not share > 0:
            raise LoadError(f"target load of expert {expert} is {share:g}: must be above 0, or it learns nothing")
    require_feasible(load, activated=activated, groups=groups)


def _normalized(shares: Sequence[float]) -> Load:
    total = sum(shares)
    return tuple(share / total for share in shares)


def _text(source: str | Path) -> tuple[str, str]:
    """The text, and the words for where it stands."""
    if isinstance(source, str) and ("," in source or _is_number(source)):
        return source, "the load"
    where = f"load file {str(source)!r}"
    try:
        return Path(source).read_text(encoding="utf-8-sig"), where
    except OSError as error:
        raise LoadError(f"{where} cannot be read: {error.strerror} (or write the load as p1,p2,...)") from None
    except ValueError:
        raise LoadError(f"{where} is no text: give numbers, one for each expert") from None


def _numbers(text: str, where: str) -> list[float]:
    text = text.strip()
    if text.startswith(("[", "{")):
        try:
            values = json.loads(text)
        except ValueError:
            raise LoadError(f"{where} begins as JSON and is none: give a list of numbers") from None
        if not isinstance(values, list) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            raise LoadError(f"{where} is JSON and no list of numbers: give one number for each expert")
        return [float(v) for v in values]
    words: list[str] = []
    for line in text.splitlines():
        # nothing between two commas is a number that lacks, and not a space to be skipped
        row = line.strip().rstrip(",;")
        words += [cell.strip() for cell in re.split("[,;]", row)] if re.search("[,;]", line) else row.split()
    for at, word in enumerate(words):
        if not _is_number(word):
            raise LoadError(f"{where} has {word!r} in place {at + 1}: numbers alone are wanted, one for each expert")
    return [float(word) for word in words]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
