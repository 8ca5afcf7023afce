"""The built-in variants as modules with the signature of a user's router, so that both pass through the same checks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mue_check.errors import ClaimError
from mue_check.routing.choice import DenseChoice, Mixture
from mue_check.routing.variants import Variant, get_variant, route


class BuiltinRouter(nn.Module):
    """One variant for one run: x [tokens, d_model] -> (weights, indices), both [T, a]; for expert_choice [E, C]."""

    def __init__(self, variant: Variant, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        if not variant.claim.takes(n_experts, top_k):
            raise ValueError(
                f"{variant.name} cannot choose {top_k} of {n_experts} experts: its claim is {variant.claim}"
            )
        groups = variant.claim.groups if variant.grouped else 1
        self.experts = Mixture(router=variant.name, total=n_experts, activated=top_k, groups=groups)
        self.weight = nn.Parameter(torch.randn(n_experts, d_model) / d_model**0.5)
        if variant.claim.selection_bias:
            self.register_buffer(variant.claim.selection_bias, torch.zeros(n_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and indices of the tokens."""
        logits = nn.functional.linear(x.float(), self.weight.float())
        biases = [bias.float().unsqueeze(0) for bias in self.buffers()]
        choice = route(logits.unsqueeze(0), self.experts, bias_RE=biases[0] if biases else None)
        assert not isinstance(choice, DenseChoice)
        return choice.weights.squeeze(0), choice.indices.squeeze(0)


def builtin_router(name: str) -> Callable[[int, int, int], nn.Module]:
    """A factory (d_model, n_experts, top_k) with its claim; ClaimError where it cannot stand alone."""
    variant = get_variant(name)
    if variant.by_place:
        raise ClaimError(f"builtin:{name} routes by the tokens themselves, and is no module of activations")

    def factory(d_model: int, n_experts: int, top_k: int) -> nn.Module:
        return BuiltinRouter(variant, d_model, n_experts, top_k)

    factory.routing_spec = variant.claim  # type: ignore[attr-defined]
    return factory
