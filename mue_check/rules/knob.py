"""Knobs: the values that can be swept, and what a value of one does to each role.

A global knob is a field of ``HyperParameters``. The other knobs change one group of roles and leave the rest at their
base values, as module-wise tuning does (arXiv 2512.22382). The global optimum is set by few groups, and hides where the
optimum of another group lies.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from mue_check.errors import RuleError, unknown
from mue_check.rules.prescription import Factors, HyperParameters
from mue_check.rules.roles import CONDITIONING, DENSE_FFN, EMBEDDINGS, ROUTED, SHARED, Role

Knob = Literal[
    "lr",
    "weight_decay",
    "init_std",
    "lr:embedding",
    "lr:attention",
    "lr:feed_forward",
    "lr:router",
    "lr:unembedding",
    "lr:patch_embedding",
    "lr:conditioning",
    "weight_decay:embedding",
    "weight_decay:attention",
    "weight_decay:feed_forward",
    "weight_decay:router",
    "weight_decay:unembedding",
    "weight_decay:patch_embedding",
    "weight_decay:conditioning",
    "init_std:embedding",
    "init_std:attention",
    "init_std:feed_forward",
    "init_std:router",
    "init_std:unembedding",
    "init_std:patch_embedding",
    "init_std:conditioning",
    "multiplier:embedding",
    "multiplier:attention",
    "multiplier:feed_forward",
    "multiplier:router",
    "multiplier:unembedding",
    "multiplier:patch_embedding",
    "multiplier:conditioning",
]
"""``QUANTITY`` or ``QUANTITY:GROUP``. The value of a multiplier is a factor, 1 at the base; all others replace the base
value. ``lr:GROUP`` keeps learning rate times weight decay. ``multiplier:GROUP`` scales the init std and the learning
rate of the group's last matrix: Adam then trains as if the matrix's output were multiplied, up to eps."""
KNOBS: tuple[Knob, ...] = get_args(Knob)

ATTENTION = frozenset({Role.ATTENTION_QKV, Role.ATTENTION_OUT})
GROUPS: Mapping[str, frozenset[Role]] = {
    "embedding": EMBEDDINGS,
    "attention": ATTENTION,
    "feed_forward": (DENSE_FFN | ROUTED | SHARED) - {Role.ROUTER},
    "router": frozenset({Role.ROUTER}),
    "unembedding": frozenset({Role.UNEMBEDDING}),
    "patch_embedding": frozenset({Role.PATCH_EMBEDDING}),
    "conditioning": CONDITIONING,
}
"""The roles of each group. Gains and biases belong to none: they keep their base values. A diffusion
model has ``patch_embedding`` and ``conditioning`` in place of ``embedding``; its final layer is its unembedding."""
_INNER = frozenset(
    (CONDITIONING - {Role.MODULATION})
    | {Role.ATTENTION_QKV}
    | {role for role in Role if role.endswith(("_up", "_gate"))}
)


def parse_knob(text: str) -> Knob:
    """The knob of that name; ``QUANTITY:readout`` is another for that of the unembedding. RuleError lists all."""
    for knob in KNOBS:
        if knob == text.strip().replace(":readout", ":unembedding"):
            return knob
    raise RuleError(unknown("knob", text, KNOBS))


def quantity_of(knob: Knob) -> str:
    """``lr``, ``weight_decay``, ``init_std`` or ``multiplier``."""
    return knob.partition(":")[0]


def group_of(knob: Knob) -> str:
    """The group that a knob changes; empty for a global knob."""
    return knob.partition(":")[2]


def is_judged_whole(knob: Knob) -> bool:
    """Whether the drift of a knob is that of whole curves (``judge.registration``): it is for every knob of a group."""
    return group_of(knob) != ""


def base_value(knob: Knob, base: HyperParameters) -> float:
    """The value at which nothing changes."""
    quantity = quantity_of(knob)
    return 1.0 if quantity == "multiplier" else float(getattr(base, quantity))


def knob_factors(knob: Knob, value: float, base: HyperParameters) -> Mapping[Role, Factors]:
    """What a value of a group's knob multiplies, by role; nothing for a global knob, which replaces a base value."""
    group = group_of(knob)
    if not group:
        return {}
    times = value / base_value(knob, base)
    match quantity_of(knob):
        case "lr":
            factors = Factors(lr=times, weight_decay=1 / times)
        case "weight_decay":
            factors = Factors(weight_decay=times)
        case "init_std":
            factors = Factors(init_std=times)
        case _:
            factors = Factors(init_std=times, lr=times, weight_decay=1 / times)
            return dict.fromkeys(GROUPS[group] - _INNER, factors)
    return dict.fromkeys(GROUPS[group], factors)
