"""Routers and blocks of torchtitan and Megatron-core, wrapped so that the checks can call them, with their claims.

Neither library is imported: a module is known by the attributes that its published classes have. On the command line,
``torchtitan:NAME`` and ``megatron:NAME`` wrap what the factory NAME returns.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from mue_check.errors import ClaimError
from mue_check.routing.claim import ATTRIBUTE, RoutingSpec

Factory = Callable[..., nn.Module]


class MegatronBlock(nn.Module):
    """A MoELayer with the batch first, [B, T, D], and without the bias that it returns beside its output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D]: the layer's output, whose own axes are [T, B, D]."""
        returned = self.layer(x.transpose(0, 1))
        y: Tensor = returned[0] if isinstance(returned, tuple) else returned
        return y.transpose(0, 1)


class TorchtitanRouter(nn.Module):
    """A TokenChoiceTopKRouter with the bias of the MoE that it belongs to."""

    def __init__(self, moe: nn.Module) -> None:
        super().__init__()
        router, bias = moe.get_submodule("router"), getattr(moe, "expert_bias", None)
        self.router = router
        self.register_buffer("expert_bias", bias)

    def forward(self, x: Tensor) -> Any:
        """Weights and indices [T, a], and the tokens per expert."""
        return self.router(x, self.expert_bias)


def torchtitan_block(make: Factory) -> Factory:
    """A factory of torchtitan's MoE, called as any block's, with the claim that its attributes make."""
    return _carrying(make, lambda moe: moe, _torchtitan_claim(make))


def torchtitan_router(make: Factory) -> Factory:
    """The router alone of the MoE that ``make(d_model, d_expert, n_experts, top_k)`` returns."""
    return _router_of(make, TorchtitanRouter, _torchtitan_claim(make))


def megatron_block(make: Factory) -> Factory:
    """A factory of Megatron-core's MoELayer, called as any block's, with the claim that its config makes."""
    claim = _megatron_claim(make)
    bias = claim.selection_bias and f"layer.router.{claim.selection_bias}"
    return _carrying(make, MegatronBlock, replace(claim, router="layer.router", selection_bias=bias))


def megatron_router(make: Factory) -> Factory:
    """The TopKRouter alone of the MoELayer that ``make(d_model, d_expert, n_experts, top_k)`` returns."""
    return _router_of(make, lambda layer: layer.get_submodule("router"), _megatron_claim(make))


ADAPTERS = {
    ("torchtitan", "block"): torchtitan_block,
    ("torchtitan", "router"): torchtitan_router,
    ("megatron", "block"): megatron_block,
    ("megatron", "router"): megatron_router,
}


def _torchtitan_claim(make: Factory) -> RoutingSpec:
    """By ``score_func``, ``route_norm`` and ``route_scale`` of the router, ``score_before_experts`` of the MoE."""
    moe = _sample(make, "torchtitan's MoE", "router.score_func")
    router = moe.router
    groups = getattr(router, "num_expert_groups", None) or 1
    return RoutingSpec(
        gate=router.score_func,
        order="score_first",
        weight_sum=float(router.route_scale) if router.route_norm else "free",
        groups=groups,
        group_limit=router.num_limited_groups if groups > 1 else None,
        selection_bias=None if getattr(moe, "expert_bias", None) is None else "expert_bias",
        apply_on="input" if getattr(moe, "score_before_experts", False) else "output",
        shared=getattr(moe, "shared_experts", None) is not None,
        router="router",
    )


def _megatron_claim(make: Factory) -> RoutingSpec:
    """By the config's ``moe_router_...`` fields."""
    config = _sample(make, "Megatron's MoELayer", "config.moe_router_topk").config
    sigmoid = config.moe_router_score_function == "sigmoid"
    first = sigmoid or bool(getattr(config, "moe_router_pre_softmax", False))
    groups = getattr(config, "moe_router_num_groups", None) or 1
    factor = getattr(config, "moe_expert_capacity_factor", None)
    scale = float(getattr(config, "moe_router_topk_scaling_factor", None) or 1)
    return RoutingSpec(
        kind="capacity" if factor else "token_choice",
        capacity_factor=factor,
        gate="sigmoid" if sigmoid else "softmax",
        order="score_first" if first else "select_first",
        weight_sum=scale if sigmoid or not first else "free",
        groups=groups,
        group_limit=config.moe_router_group_topk if groups > 1 else None,
        selection_bias="expert_bias" if getattr(config, "moe_router_enable_expert_bias", False) else None,
        shared=bool(getattr(config, "moe_shared_expert_intermediate_size", None)),
        router="router",
    )


def _sample(make: Factory, what: str, attribute: str) -> Any:
    """One module of the factory; ClaimError if it lacks the attribute by which the library's are known."""
    made: Any = make(24, 16, 16, 2)
    found = made
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise ClaimError(f"{type(made).__name__} is not {what}: it has no {attribute}")
    return made


def _carrying(make: Factory, wrap: Callable[[nn.Module], nn.Module], claim: RoutingSpec) -> Factory:
    def factory(d_model: int, d_expert: int, n_experts: int, top_k: int) -> nn.Module:
        return wrap(make(d_model, d_expert, n_experts, top_k))

    setattr(factory, ATTRIBUTE, claim)
    return factory


def _router_of(make: Factory, wrap: Callable[[nn.Module], nn.Module], claim: RoutingSpec) -> Factory:
    def factory(d_model: int, n_experts: int, top_k: int) -> nn.Module:
        return wrap(make(d_model, 8, n_experts, top_k))

    setattr(factory, ATTRIBUTE, replace(claim, router=None, shared=False, apply_on="output"))
    return factory
