"""The laws of each ladder: how activations and weights scale under Complete-muE, with the published exponents.

There is no law for the weights of the unembedding, because two equivalent forms of it scale differently. The logits are
judged instead.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mue_check.judge.law import Law, Quantity

_RULES = "arXiv 2203.03466 appendix J; arXiv 2605.23893"
_DEPTH = "arXiv 2505.01618 Table 1, alpha = 1"
COORDINATE_STEPS = (0, 1, 5)
_LAST = COORDINATE_STEPS[-1]


def _slope(
    coordinate: str, quantity: Quantity, step: int, expected: float = 0.0, tolerance: float = 0.25, source: str = _RULES
) -> Law:
    return Law(
        name=f"{coordinate} {quantity}" + ("" if step == _LAST else " at init" if step == 0 else f" at step {step}"),
        coordinate=coordinate,
        quantity=quantity,
        step=step,
        form="exponent",
        expected=expected,
        tolerance=tolerance,
        source=source,
    )


def _keeps_moving(*coordinates: str) -> tuple[Law, ...]:
    """The change of an activation on the probe batch does not depend on size."""
    return tuple(_slope(name, "change", _LAST) for name in coordinates)


def _moves_as_the_reference(*coordinates: str) -> tuple[Law, ...]:
    """For ladders without a size to fit a slope against: the change is within a factor of 1.5 of the reference's."""
    return tuple(
        Law(
            name=f"{name} change",
            coordinate=name,
            quantity="change",
            step=_LAST,
            form="ratio",
            tolerance=0.585,  # log2(1.5)
            source=_RULES,
        )
        for name in coordinates
    )


def _at_init(coordinate: str) -> Law:
    """A product of random vectors with a multiplier of 1 / size falls as size^-1/2 at initialization."""
    return _slope(coordinate, "rms", 0, -0.5, tolerance=0.15)


def _weights(roles: Iterable[str], *, init: float, step: float) -> tuple[Law, ...]:
    """Exponents of a role's weights at initialization, and of their first update, which in Adam is the LR."""
    return tuple(
        law
        for role in roles
        for law in (
            _slope(f"weight.{role}", "rms", 0, init, tolerance=0.05),
            _slope(f"weight.{role}", "change", 1, step, tolerance=0.05),
        )
    )


_UNSCALED = ("token_embedding", "position_embedding", "norm_gain")
_ATTENTION = ("attention_qkv", "attention_out")
_DENSE = ("ffn_up", "ffn_gate", "ffn_down")
_MIXTURE = ("router", "expert_up", "expert_gate", "expert_down", "shared_up", "shared_gate", "shared_down")
_BRANCH_AT_INIT = Law(
    name="branch scale at init",
    coordinate="ffn_branch",
    quantity="rms",
    step=0,
    form="ratio",
    tolerance=0.0704,  # log2(1.05)
    source="arXiv 2605.23893, Bridges I and II: A, R and the down-projection's init preserve the branch",
)
_BRANCHES = ("attention_branch", "ffn_branch")
_MOVING = ("logits", "residual", *_BRANCHES)


def _width(hidden: Iterable[str], *moving: str) -> tuple[Law, ...]:
    return (
        *_keeps_moving(*_MOVING, *moving),
        _at_init("logits"),
        *_weights(_UNSCALED, init=0.0, step=0.0),
        *_weights((*_ATTENTION, *hidden), init=-0.5, step=-1.0),
    )


# not the logits: in the first steps their change comes from the unembedding alone, not from the branch
_SIZED = (_BRANCH_AT_INIT, *_keeps_moving("ffn_branch"))
_UNSIZED = (_BRANCH_AT_INIT, *_moves_as_the_reference("ffn_branch"))

LAWS: Mapping[str, Sequence[Law]] = {
    "width": _width(_DENSE),
    "width_of_mixture": _width(_MIXTURE, "router_logits"),
    # 1/d_head makes the logits of attention small at first; their change grows to slope 0 only after many steps
    "width_of_heads": (_at_init("attention_logits"), *_keeps_moving("logits", "residual")),
    "depth": (
        *_keeps_moving("logits", "residual"),
        *(_slope(branch, "rms", 0, -1.0, 0.1, _DEPTH) for branch in _BRANCHES),
        *(_slope(branch, "change", _LAST, -1.0, 0.25, _DEPTH) for branch in _BRANCHES),
    ),
    "activated_experts": _SIZED,
    "capacity": _SIZED,
    "granularity": _SIZED,
    "shared_experts": _UNSIZED,
    "routing_hybrids": _UNSIZED,
    "bridge_1": _UNSIZED,
    "bridge_2": _UNSIZED,
    "bridges_composed": _UNSIZED,
    "heldout": (
        *(
            replace(_BRANCH_AT_INIT, name=f"{branch} scale at init", coordinate=branch, over_blocks="sum")
            for branch in _BRANCHES
        ),
        *_moves_as_the_reference("logits", "residual"),
    ),
}
"""By ladder. Batch and duration have none: activations do not show betas, eps or weight decay; ``judge.audit`` does."""
