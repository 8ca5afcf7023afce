"""Which column is the learning rate, which the loss, which the arm: as the user says, else by name and by content."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from mue_check.errors import JudgeError, unknown
from mue_check.sweeps.names import meaning_of, number_of, short

RATES = ("rate", "log2 rate", "log10 rate", "ln rate", "log rate")
_NO_DESIGN = {*RATES, "seed", "time", "name", "state", "bookkeeping"}
_LOSSES = (
    r"(val|valid|validation|eval|test|held_?out)\w*[/_.]?\w*(loss|nll|ce|cross_entropy)",
    r"(final_)?loss(_(mean|final|last))?",
    r".*loss(_(mean|final|last))?",
    r".*(nll|cross_entropy|bpb|bits_per_byte)",
    r".*(ppl|perplexity)",
    r"(value|values_0|objective)",
)
"""Names of losses, best first."""
_NO_LOSS = re.compile(r"aux|balanc|z_?loss|router|std|stderr|_err|loss_?scal|min$|max$")
_SMOOTH = re.compile(r"smooth|ema|running|moving|avg")
_AXES = ("width", "depth", "experts", "top_k", "batch", "tokens", "steps", "parameters")
"""The order in which known columns are taken for the arm."""
FEWEST_RATES = 3
"""A column is a choice of the experimenter if its usual value occurs with so many learning rates."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the user says about the columns. What is None is guessed."""

    x: str | None = None
    loss: str | None = None
    arm: str | None = None
    pair: tuple[str, ...] | None = None
    seed: str | None = None
    pattern: str | None = None


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns by their roles. Of two ``losses``, the second is the first with other smoothing.

    ``design`` are all columns that the experimenter chose: ``arm``, ``pair`` and what else differs.
    """

    x: str
    losses: tuple[str, ...]
    arm: str | None
    pair: tuple[str, ...]
    seed: str | None
    design: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line for the user, who may disagree."""
        smooth = f" ({self.losses[1]!r} as its other smoothing)" if len(self.losses) > 1 else ""
        arm = "none" if self.arm is None else repr(self.arm)
        pair = ", ".join(map(repr, self.pair)) or "none"
        seed = "none" if self.seed is None else repr(self.seed)
        return f"x {self.x!r}, loss {self.losses[0]!r}{smooth}, arm {arm}, pair {pair}, seed {seed}"


def rate_columns(columns: Iterable[str], choice: Choice) -> list[str]:
    """The columns of the swept value: the one that the user names, else all that sound like it."""
    if choice.x is not None:
        return [name for name in columns if choice.x in (name, short(name))]
    return [name for name in columns if meaning_of(name) in RATES]


def loss_columns(columns: Iterable[str], choice: Choice) -> list[str]:
    """The columns that may be the loss, best first."""
    names = list(columns)
    if choice.loss is not None:
        return [name for name in names if choice.loss in (name, short(name))]
    plain = [name for name in names if not _NO_LOSS.search(name.lower()) and not _SMOOTH.search(name.lower())]
    bare = {name: short(re.sub(r"\s*[(\[](nats?|bits?)\b[^()\[\]]*[)\]]$", "", name)).lower() for name in plain}
    return [name for pattern in _LOSSES for name in plain if re.fullmatch(pattern, bare[name])]


def find_columns(frame: pd.DataFrame, choice: Choice) -> Columns:
    """The role of every column. JudgeError, which names the columns that there are, where a guess is impossible."""
    names = [str(name) for name in frame.columns]
    for option, name in _named(choice):
        if not any(name in (column, short(column)) for column in names):
            raise JudgeError(f"--{option}: {unknown('column', name, names)}")
    rates = rate_columns(names, choice)
    x = _only(rates, "the learning rate", "--x", names)
    if other := next((name for name in rates if name != x and not _same_rate(frame, x, name)), None):
        raise JudgeError(f"the learning rate may be {x!r} or {other!r}, which differ: choose with --x")
    loss = loss_columns(names, choice)
    if not loss:
        raise JudgeError(f"no column is the loss by its name: give --loss; there are {_listed(names)}")
    losses = _with_smoothing(loss[0], names, frozen=choice.loss is not None)
    for role, column in (("--x", x), *(("--loss", each) for each in losses)):
        if not pd.api.types.is_numeric_dtype(frame[column]) or pd.api.types.is_bool_dtype(frame[column]):
            raise JudgeError(f"{role} {column!r}: {_text_in(frame[column])!r} is no number")
    seeds = [name for name in names if meaning_of(name) == "seed"]
    seed = _exact(choice.seed, names) if choice.seed else seeds[0] if len(seeds) == 1 else None
    design = tuple(
        name
        for name in names
        if name not in (x, seed, *losses) and meaning_of(name) not in _NO_DESIGN and _is_chosen(frame, name, x)
    )
    given = tuple(_exact(name, names) for name in choice.pair or ())
    arm = _exact(choice.arm, names) if choice.arm else _arm(frame, design, given)
    roles = [name for name in (x, losses[0], arm, seed, *given) if name is not None]
    if twice := [name for name in roles if roles.count(name) > 1]:
        raise JudgeError(f"column {twice[0]!r} has two roles: each of --x, --loss, --arm, --pair, --seed needs its own")
    pair = given if choice.pair is not None or arm is None else _pair(frame, design, arm)
    return Columns(x=x, losses=losses, arm=arm, pair=pair, seed=seed, design=design)


def _named(choice: Choice) -> list[tuple[str, str]]:
    named = [(option, getattr(choice, option)) for option in ("x", "loss", "arm", "seed")]
    named += [("pair", name) for name in choice.pair or ()]
    return [(option, name) for option, name in named if name is not None]


def _exact(name: str, names: Sequence[str]) -> str:
    return name if name in names else next(column for column in names if short(column) == name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _only(found: Sequence[str], what: str, option: str, names: Sequence[str]) -> str:
    if not found:
        raise JudgeError(f"no column is {what} by its name: give {option}; there are {_listed(names)}")
    if len(found) > 1 and len({meaning_of(name) for name in found}) == 1 and len(found) != len(set(map(short, found))):
        raise JudgeError(f"{what} may be {_listed(found)}: choose with {option}")
    return found[0]


def _same_rate(frame: pd.DataFrame, one: str, other: str) -> bool:
    """Whether two columns of rates are the same up to a constant factor, or are not both plain numbers."""
    if meaning_of(one) != "rate" or meaning_of(other) != "rate":
        return True
    both = frame[[one, other]].apply(pd.to_numeric, errors="coerce").dropna()
    ratio = both[other] / both[one]
    return bool(both.empty or (both <= 0).any(axis=None) or ratio.max() <= 1.01 * ratio.min())


def _text_in(column: "pd.Series") -> str:
    return str(next(cell for cell in column if isinstance(cell, bool) or number_of(cell) is None))


def _with_smoothing(loss: str, names: Sequence[str], *, frozen: bool) -> tuple[str, ...]:
    """The loss and its smoothed twin. The smoothed one comes first, as it has less noise, unless the loss was named."""

    def plain(name: str) -> str:
        return re.sub(r"[^a-z]", "", _SMOOTH.sub("", short(name).lower()).replace("ed_", "_"))

    twin = [name for name in names if name != loss and _SMOOTH.search(name.lower()) and plain(name) == plain(loss)]
    if not twin:
        return (loss,)
    return (loss, twin[0]) if frozen else (twin[0], loss)


def _is_chosen(frame: pd.DataFrame, name: str, x: str) -> bool:
    """Whether the experimenter chose the values: each occurs with several learning rates, and there are several."""
    if not frame[name].map(pd.api.types.is_hashable).all():
        return False
    rates = frame.groupby(name, observed=True)[x].nunique()
    return len(rates) > 1 and float(rates.median()) >= FEWEST_RATES


def _arm(frame: pd.DataFrame, design: Sequence[str], pair: Sequence[str]) -> str | None:
    """What differs between the curves; of several columns that do, one whose name is known and that others follow."""
    left = [name for name in design if name not in pair and _varies_within(frame, name, pair)]
    known = [name for axis in _AXES for name in left if meaning_of(name) == axis]
    matched = [name for name in known if _varies_within(frame, name, pair or _pair(frame, design, name))]
    if len(left) <= 1 or known:
        return next(iter(matched or known or left), None)
    if all(_follows(frame, name, [left[0], *pair]) for name in left[1:]):
        return left[0]
    raise JudgeError(f"the arms may differ in {_listed(left)}: choose with --arm")


def _pair(frame: pd.DataFrame, design: Sequence[str], arm: str) -> tuple[str, ...]:
    """What else was varied, so that arms are compared where it is equal."""
    free = [name for name in design if name != arm and _varies_within(frame, name, [arm])]
    pair: list[str] = []
    for name in sorted(free, key=lambda name: ("tokens", "parameters").count(meaning_of(name)), reverse=True):
        if not _follows(frame, name, [arm, *pair]):
            pair.append(name)
    return tuple(pair)


def _varies_within(frame: pd.DataFrame, name: str, by: Sequence[str]) -> bool:
    """Whether the column takes several values where those of ``by`` are equal."""
    values = frame.groupby(list(by), observed=True)[name].nunique() if by else [frame[name].nunique()]
    return bool((pd.Series(values) > 1).any())


def _follows(frame: pd.DataFrame, name: str, by: Sequence[str]) -> bool:
    """Whether the columns of ``by`` determine this one."""
    return not _varies_within(frame, name, by)
