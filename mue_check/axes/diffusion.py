"""Ladders of diffusion models along which the optimum of the experts' learning rate is measured.

Sparsity lowers that optimum by up to an octave even under the right rule (docs/choices.md). So these ladders start at a
dense model and end where all experts are active, or keep both ends sparse. They reach mistakes by a factor of 8 or
more.
"""

from collections.abc import Callable, Mapping

from mue_check.axes.experts import dense_reference, mixture
from mue_check.axes.ladder import Ladder, Rung
from mue_check.axes.sizes import Sizes
from mue_check.spec import Experts

_MANY = 64


def _full(sizes: Sizes, *, size: int, groups: int = 1, router: str = "sigmoid_norm") -> Rung:
    """All of 64 experts active, together twice as wide as the model."""
    experts = Experts(total=_MANY, activated=_MANY, hidden=2 * sizes.width // _MANY, groups=groups, router=router)
    label = f"{experts.notation}-per-group" if router != "sigmoid_norm" else None
    return mixture(sizes, experts, size=size, label=label)


def _sparse(sizes: Sizes, total: int, activated: int) -> Rung:
    """Experts whose active width is the model's."""
    experts = Experts(total=total, activated=activated, hidden=sizes.width // activated)
    return mixture(sizes, experts, size=total)


def activated_by_group(sizes: Sizes) -> Ladder:
    """From the dense model to 64 active experts."""
    return Ladder.by_group([dense_reference(sizes), _full(sizes, size=_MANY)], axis="activated_experts")


def capacity_by_group(sizes: Sizes) -> Ladder:
    """Eight times as many experts."""
    return Ladder.by_group([_sparse(sizes, 8, 4), _sparse(sizes, 64, 4)], axis="capacity")


def granularity_by_group(sizes: Sizes) -> Ladder:
    """Each expert split into sixteen."""
    return Ladder.by_group([_sparse(sizes, 4, 2), _sparse(sizes, 64, 32)], axis="granularity")


def shared_by_group(sizes: Sizes) -> Ladder:
    """As many shared experts as routed ones, and many more."""
    rungs = [Experts(total=16, activated=16, hidden=sizes.width // 16, shared=16)]
    rungs += [Experts(total=4, activated=4, hidden=2 * sizes.width // _MANY, shared=_MANY - 4)]
    targets = [mixture(sizes, experts, size=experts.shared) for experts in rungs]
    return Ladder.by_group([dense_reference(sizes), *targets], axis="shared_experts")


def hybrids_by_group(sizes: Sizes) -> Ladder:
    """Eight groups that are normalized together, and each by itself."""
    summed = _full(sizes, size=3, groups=8, router="sigmoid_group_norm")
    return Ladder.by_group([dense_reference(sizes), _full(sizes, size=2, groups=8), summed], axis="routing_hybrids")


def bridge_1_by_group(sizes: Sizes) -> Ladder:
    """The Dense MoE of Bridge I."""
    return Ladder.by_group([dense_reference(sizes), _full(sizes, size=2)], axis="bridges", name="bridge_1")


BY_GROUP_OF_DIFFUSION: Mapping[str, Callable[[Sizes], Ladder]] = {
    "activated_experts_by_group": activated_by_group,
    "capacity_by_group": capacity_by_group,
    "granularity_by_group": granularity_by_group,
    "shared_experts_by_group": shared_by_group,
    "routing_hybrids_by_group": hybrids_by_group,
    "bridge_1_by_group": bridge_1_by_group,
}
"""By the name of the ladder of language models that each replaces."""
