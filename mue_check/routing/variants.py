"""Routing variants by name: what each claims of its weights. No tensors here; ``models.routing`` computes them.

Beside them stand a user's own (``--router``, ``dropin``), whose names end in a hash of their source.
"""

import re
from dataclasses import dataclass
from typing import Literal

from mue_check.errors import SpecError

WeightSum = Literal["one", "groups", "free"]


@dataclass(frozen=True, kw_only=True)
class Router:
    """One way of choosing experts.

    ``weight_sum``: the active weights of a token sum to 1 ("one"), to the number of groups ("groups"), or to
    whatever comes out ("free"). ``least_activated`` and ``most_activated`` bound a where the design does. ``grouped``:
    it can take a/G experts of each of G groups. ``scored``: tokens select by score, which a bias can move and a loss
    even out.
    """

    name: str
    summary: str
    weight_sum: WeightSum
    source: str
    least_activated: int = 1
    most_activated: int | None = None
    grouped: bool = True
    scored: bool = True
    shared: int = 0
    """Shared experts that belong to the published design."""
    own_groups: int = 1
    """Groups of neighbours that the design has whatever a ladder asks: N is a multiple of it."""
    group_limit: int | None = None
    """From how many of its own groups a token's experts come at most; a group then ranks by its best two."""
    scale: float | None = None
    """What the active weights sum to where that is a published scale, which R does not undo ("free")."""
    drops: bool = False
    """Tokens may lose experts, or be taken by any number of them: no claim on each token's sum."""

    def takes(self, total: int, activated: int) -> bool:
        """Whether the design has a choice of ``activated`` experts among ``total`` at all."""
        size, rest = divmod(total, self.own_groups)
        reach = size * (self.group_limit or self.own_groups)
        return rest == 0 and activated <= reach and (self.group_limit is None or size >= 2)


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
            summary="experts drawn by a hash of sequence and place, equal weights: routing that learns nothing",
            weight_sum="one",
            source="a control",
            scored=False,
        ),
    )
}
BALANCES = ("none", "auxiliary_loss", "selection_bias")


_USERS: dict[str, Router] = {}
_USERS_NAME = re.compile(r"[\w-]+-[0-9a-f]{8}")
"""No built-in name has a hyphen. A name that looks like this is a user's router, whether it is loaded here or not:
records and reports are read without it, and only training needs it."""


def is_users(name: str) -> bool:
    """Whether that is the name of a user's router."""
    return name not in ROUTERS and _USERS_NAME.fullmatch(name) is not None


def register_router(router: Router) -> None:
    """Make a user's router known in this process; again under the same name replaces it."""
    if not is_users(router.name):
        raise SpecError(f"{router.name!r} is no user's router: its name must end in - and 8 hexadecimal digits")
    _USERS[router.name] = router


def get_router(name: str) -> Router:
    """The variant of that name; SpecError names the known ones."""
    if name in ROUTERS:
        return ROUTERS[name]
    if name in _USERS:
        return _USERS[name]
    if is_users(name):
        return Router(
            name=name, summary="a user's router, not loaded here", weight_sum="free", source="a record", grouped=False
        )
    raise SpecError(f"unknown router {name!r}: allowed are {', '.join(ROUTERS)}")
