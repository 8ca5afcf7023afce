"""The built-in routing variants as routers of the published signature, so that they pass through the same checks."""

import torch
from torch import Tensor, nn

from mue_check.errors import ClaimError
from mue_check.models.choice import DenseRouting
from mue_check.models.routing import DEEPSEEK_SCALE, route
from mue_check.routing.claim import claim_of
from mue_check.routing.factory import Factory
from mue_check.routing.variants import get_router
from mue_check.spec import Experts

_GROUPS = 2
"""Groups of those variants that have any."""
_CLAIMS: dict[str, dict[str, object]] = {
    "sigmoid_norm": {"gate": "sigmoid"},
    "sigmoid_group_norm": {"gate": "sigmoid", "weight_sum": "groups", "groups": _GROUPS, "per_group_k": 2},
    "softmax_norm": {"gate": "softmax"},
    "switch": {"gate": "softmax", "weight_sum": "free", "top_k": 1},
    "deepseek_v3": {"gate": "sigmoid", "weight_sum": DEEPSEEK_SCALE, "groups": 4, "group_limit": 2},
    "moge": {"gate": "softmax", "weight_sum": "free", "groups": _GROUPS, "per_group_k": 1},
    "sigmoid_mean": {"gate": "sigmoid", "weight_sum": "free"},
    "expert_choice": {"kind": "expert_choice", "gate": "softmax", "weight_sum": "free", "causal": False},
}


class BuiltinRouter(nn.Module):
    """One routing variant for one run: x [tokens, d_model] -> (weights, indices), or by expert for expert_choice."""

    def __init__(self, experts: Experts, d_model: int) -> None:
        super().__init__()
        self.experts = experts
        self.weight = nn.Parameter(torch.randn(experts.total, d_model) / d_model**0.5)
        if get_router(experts.router).scored:
            self.register_buffer("selection_bias", torch.zeros(experts.total))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and indices, both [T, a]; for expert_choice both [E, C]."""
        logits = nn.functional.linear(x.float(), self.weight.float())
        bias = self.get_buffer("selection_bias").float().unsqueeze(0) if "selection_bias" in self._buffers else None
        routing = route(logits.unsqueeze(0), self.experts, bias_RE=bias)
        assert not isinstance(routing, DenseRouting)
        return routing.weights.squeeze(0), routing.indices.squeeze(0)


def builtin_router(name: str) -> Factory:
    """A factory (d_model, n_experts, top_k) with the claim of that variant; ClaimError where it cannot stand alone."""
    kind = get_router(name)
    if name == "content_blind":
        raise ClaimError("builtin:content_blind routes by the tokens themselves, and is no module of activations")

    def factory(d_model: int, n_experts: int, top_k: int) -> nn.Module:
        groups = _GROUPS if name in ("sigmoid_group_norm", "moge") else 1
        experts = Experts(total=n_experts, activated=top_k, hidden=d_model, groups=groups, router=name)
        return BuiltinRouter(experts, d_model)

    bias = "selection_bias" if kind.scored else None
    claim = {**_CLAIMS[name], "fp32_gate": True, "selection_bias": bias}
    factory.routing_spec = claim_of(claim, name)  # type: ignore[attr-defined]
    return factory
