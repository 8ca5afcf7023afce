"""Routing variants by name: what each claims of its weights. No tensors here; ``models.routing`` computes them."""

from dataclasses import dataclass
from typing import Literal

from mue_check.errors import SpecError

WeightSum = Literal["one", "groups", "free"]


@dataclass(frozen=True, kw_only=True)
class Router:
    """One way of choosing experts.

    ``weight_sum``: the active weights of a token sum to 1 ("one"), to the number of groups ("groups"), or to
    whatever comes out ("free"). ``most_activated`` bounds a where the design does. ``grouped``: it can take a/G
    experts of each of G groups. ``scored``: tokens select by score, which a bias can move and a loss even out.
    """

    name: str
    summary: str
    weight_sum: WeightSum
    source: str
    most_activated: int | None = None
    grouped: bool = True
    scored: bool = True
    shared: int = 0
    """Shared experts that belong to the published design."""


ROUTERS = {
    router.name: router
    for router in (
        Router(
            name="sigmoid_norm",
            summary="sigmoid scores, top a, weights normalized over all active experts",
            weight_sum="one",
            source="arXiv 2605.23893",
        ),
        Router(
            name="sigmoid_group_norm",
            summary="sigmoid scores, top a/G of each group, each group's weights normalized by itself",
            weight_sum="groups",
            source="arXiv 2605.23893, per-group normalization",
        ),
        Router(
            name="softmax_norm",
            summary="softmax over all experts, top a, weights normalized over the active ones",
            weight_sum="one",
            source="Mixtral, arXiv 2401.04088",
        ),
        Router(
            name="switch",
            summary="softmax over all experts, the one best expert, weighted by its probability",
            weight_sum="free",
            source="Switch Transformer, arXiv 2101.03961",
            most_activated=1,
            grouped=False,
        ),
        Router(
            name="deepseek_v3",
            summary="sigmoid scores, selection within the best groups, normalized, then times 2.5; one shared expert",
            weight_sum="free",
            source="DeepSeek-V3, arXiv 2412.19437",
            grouped=False,
            shared=1,
        ),
        Router(
            name="moge",
            summary="softmax over all experts, top a/G of each group, weights not normalized",
            weight_sum="free",
            source="Pangu Pro MoE, arXiv 2505.21411",
        ),
        Router(
            name="expert_choice",
            summary="each expert takes its best tokens, a/N of the batch, weighted by softmax over experts",
            weight_sum="free",
            source="arXiv 2202.09368",
            grouped=False,
            scored=False,
        ),
        Router(
            name="sigmoid_mean",
            summary="sigmoid scores, top a, the weighted sum divided by a",
            weight_sum="free",
            source="DMFT-MoE, arXiv 2601.20205",
        ),
        Router(
            name="content_blind",
            summary="experts drawn by a hash of the token's prefix, equal weights: routing that learns nothing",
            weight_sum="one",
            source="a control",
            scored=False,
        ),
    )
}
BALANCES = ("none", "auxiliary_loss", "selection_bias")


def get_router(name: str) -> Router:
    """The variant of that name; SpecError names the known ones."""
    try:
        return ROUTERS[name]
    except KeyError:
        raise SpecError(f"unknown router {name!r}: allowed are {', '.join(ROUTERS)}") from None
