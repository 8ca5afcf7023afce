"""Ladders of diffusion models along which the optimum of the experts' learning rate is measured.

Sparsity lowers that optimum by up to an octave even under the right rule (docs/choices.md). So these ladders start at a
dense model and end where all experts are active, or keep both ends sparse. They reach mistakes by a factor of 8 or
more.
"""

from collections.abc import Mapping

from mue_check.axes.experts import dense_reference, mixture
from mue_check.axes.ladder import Ladder, Rung
from mue_check.axes.sizes import Sizes
from mue_check.spec import Experts

_MANY = 64


def diffusion_by_group(sizes: Sizes) -> Mapping[str, Ladder]:
    """By name, the ladders that replace those of language models."""
    dense = dense_reference(sizes)

    def full(size: int, *, groups: int = 1, router: str = "sigmoid_norm") -> Rung:
        """All of 64 experts active, together twice as wide as the model."""
        experts = Experts(total=_MANY, activated=_MANY, hidden=2 * sizes.width // _MANY, groups=groups, router=router)
        label = f"{experts.notation}-per-group" if router != "sigmoid_norm" else None
        return mixture(sizes, experts, size=size, label=label)

    def sparse(total: int, activated: int) -> Rung:
        """Experts whose active width is the model's."""
        return mixture(sizes, Experts(total=total, activated=activated, hidden=sizes.width // activated), size=total)

    # as many shared experts as routed ones, then many more
    shared = [
        mixture(sizes, Experts(total=16, activated=16, hidden=sizes.width // 16, shared=16), size=16),
        mixture(sizes, Experts(total=4, activated=4, hidden=2 * sizes.width // _MANY, shared=_MANY - 4), size=60),
    ]
    # groups that are normalized together, then each by itself
    grouped = [full(2, groups=8), full(3, groups=8, router="sigmoid_group_norm")]
    ladders = (
        Ladder.by_group([dense, full(_MANY)], axis="activated_experts"),
        Ladder.by_group([sparse(8, 4), sparse(64, 4)], axis="capacity"),
        Ladder.by_group([sparse(4, 2), sparse(64, 32)], axis="granularity"),
        Ladder.by_group([dense, *shared], axis="shared_experts"),
        Ladder.by_group([dense, *grouped], axis="routing_hybrids"),
        Ladder.by_group([dense, full(2)], axis="bridges", name="bridge_1"),
    )
    return {ladder.name: ladder for ladder in ladders}
