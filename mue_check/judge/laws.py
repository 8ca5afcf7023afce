"""The laws of each ladder: how activations and weights scale under Complete-muE, with the published exponents.

Those of a diffusion transformer are after arXiv 2505.15270: its conditioning has laws of its own. There is no law for
the weights of the unembedding, because two equivalent forms of it scale differently. Its output is judged instead.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mue_check.judge.law import Law, Quantity

_RULES = "arXiv 2203.03466 appendix J; arXiv 2605.23893"
_DEPTH = "arXiv 2505.01618 Table 1, alpha = 1"
COORDINATE_STEPS = (0, 1, 5)
_LAST = COORDINATE_STEPS[-1]
ZERO_GATED_STEPS = (0, 4, 8)
"""Where gates and final layer start at zero, step 1 moves the final layer alone and step 2 opens the gates. Blocks,
experts and routers move from step 3 on, and from step 4 on all of it shows."""


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


def _moves_as_the_reference(*coordinates: str, quantity: Quantity = "change") -> tuple[Law, ...]:
    """For ladders without a size to fit a slope against: the change is within a factor of 1.5 of the reference's."""
    return tuple(
        Law(
            name=f"{name} {quantity}",
            coordinate=name,
            quantity=quantity,
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
# not the output: in the first steps its change comes from the final layer alone, not from the branch
_SIZED = (_BRANCH_AT_INIT, *_keeps_moving("ffn_branch"))
_UNSIZED = (_BRANCH_AT_INIT, *_moves_as_the_reference("ffn_branch"))


def _laws(
    output: str,
    quantity: Quantity = "change",
    *,
    unscaled: Sequence[str],
    hidden: Sequence[str] = (),
    moving: Sequence[str] = (),
    vectors: Sequence[str] = (),
) -> Mapping[str, Sequence[Law]]:
    """By ladder, for a family whose ``output`` keeps its ``quantity``.

    ``unscaled`` are its input weights, ``vectors`` what starts at zero and learns like these; ``hidden`` and ``moving``
    are hidden weights and activations outside the blocks.
    """
    learns = (_slope(output, quantity, _LAST), *_keeps_moving("residual"))

    def width(of_block: Sequence[str], *also: str) -> tuple[Law, ...]:
        return (
            *learns,
            *_keeps_moving(*_BRANCHES, *moving, *also),
            _at_init(output),
            *_weights(unscaled, init=0.0, step=0.0),
            *(_slope(f"weight.{role}", "change", 1, 0.0, tolerance=0.05) for role in vectors),
            *_weights((*hidden, *_ATTENTION, *of_block), init=-0.5, step=-1.0),
        )

    return {
        "width": width(_DENSE),
        "width_of_mixture": width(_MIXTURE, "router_logits"),
        # 1/d_head makes the logits of attention small at first; their change grows to slope 0 only after many steps
        "width_of_heads": (_at_init("attention_logits"), *learns),
        "depth": (
            *learns,
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
            *_moves_as_the_reference(output, quantity=quantity),
            *_moves_as_the_reference("residual"),
        ),
    }


LAWS = _laws("logits", unscaled=("token_embedding", "position_embedding", "norm_gain"))
"""By ladder. Batch and duration have none: activations do not show betas, eps or weight decay; ``judge.audit`` does."""

# The RMS of the velocity, not its change: what is drawn at init falls with width, and these steps unlearn it
DIFFUSION_LAWS = _laws(
    "velocity",
    "rms",
    unscaled=("patch_embedding", "timestep_in", "label_embedding", "scale_shift_table"),
    hidden=("timestep_out", "modulation"),
    moving=("conditioning", "modulation", "final_modulation"),
    vectors=("bias",),
)
"""Likewise for a diffusion transformer whose gates are drawn. Branches are measured before their gate."""


def _of_zero_gates(laws: Sequence[Law]) -> tuple[Law, ...]:
    """The same at later steps, without what is zero at init."""
    later = dict(zip(COORDINATE_STEPS, ZERO_GATED_STEPS, strict=True))
    zero = ("velocity", "weight.modulation", "weight.scale_shift_table")
    return tuple(
        replace(law, step=later[law.step], name=law.name.replace("step 1", f"step {later[1]}"))
        for law in laws
        if law.step or law.coordinate not in zero
    )


ZERO_GATED_LAWS = {ladder: _of_zero_gates(laws) for ladder, laws in DIFFUSION_LAWS.items()}
"""Likewise for a diffusion transformer whose gates start at zero."""
