"""Which model a record is of: a name that people can read, and hashes of its code and of what it makes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mue_check.errors import ClaimError
from mue_check.models.user_router.sources import digits, own_files, source_hash
from mue_check.own_model.candidate import FUNCTIONS, Candidate, ModelError, optimizers_of

_LONGEST = 40
"""Of a name, which goes into the names of files."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """``code`` changes with the user's functions, their files and their own imports; ``source`` also with what they
    make of one size, since an object may hold numbers that are not in its code."""

    name: str
    code: str
    source: str
    device: str


def identify(user: Candidate, axis: str, size: float, lr: float) -> Identity:
    """The identity of a candidate at one size. ModelError if its code is in no file."""
    try:
        sources = user.source or [source_hash(function, user.place) for function in _functions(user)]
    except ClaimError as error:
        raise ModelError(f"{error}: put it into a file") from None
    model = user.build(axis, size, 0)
    optimizer = user.optimize(model, lr)
    user.schedule(optimizer)
    with torch.no_grad():
        loss = user.loss_of(model, user.batch(0)).item()
    shapes = [f"{name} {list(p.shape)} {p.dtype}" for name, p in model.named_parameters()]
    options = [_options(group) for each in optimizers_of(optimizer) for group in each.param_groups]
    stem = Path(user.place).stem if user.place.endswith(".py") else user.place.rpartition(".")[2]
    readable = re.sub(r"\W+", "-", "-".join(filter(None, (stem, user.attribute)))).strip("-")[:_LONGEST]
    code = digits(*sorted(set(sources)))
    return Identity(
        name=readable or "model",
        code=code,
        source=digits(code, *shapes, *options, f"{loss:.4g}"),
        device="cuda" if next(model.parameters()).device.type == "cuda" else "cpu",
    )


def _options(group: dict[str, Any]) -> str:
    numbers = {name: value for name, value in group.items() if isinstance(value, int | float | str | tuple)}
    return f"{len(group['params'])} {sorted(numbers.items())}"


def files_of(user: Candidate) -> dict[Path, str]:
    """The user's own files, each with the name of its module."""
    if user.source:
        return {}
    return {file: name for function in _functions(user) for file, name in own_files(function, user.place).items()}


def _functions(user: Candidate) -> list[Callable[..., Any]]:
    """Those of the user; those in mup's table of models one by one."""
    given = [getattr(user, name) for name in FUNCTIONS if getattr(user, name) is not None]
    return [part for each in given for part in getattr(each, "models", {}).values() or (each,)]
