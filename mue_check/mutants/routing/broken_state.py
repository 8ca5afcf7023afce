"""Mistakes with what a forward pass leaves behind: rows 12 and 19 of the table."""

import torch
from torch import Tensor

from mue_check.mutants.routing.blocks import SwitchBlock
from mue_check.mutants.routing.bug import Bug
from mue_check.mutants.routing.gates import SwitchRouter, Weighted
from mue_check.mutants.routing.selection import TorchtitanRouter

JITTER = 0.01
"""router_jitter_noise of transformers' Switch."""


class JitterInPlace(SwitchRouter):
    """Exploration noise for the gate, multiplied into the tokens themselves."""

    def forward(self, x: Tensor) -> Weighted:
        """In training the caller's tensor changes."""
        if self.training:
            x *= torch.empty_like(x).uniform_(1 - JITTER, 1 + JITTER)
        return super().forward(x)


class JitterReachesExperts(SwitchBlock):
    """The experts see the gate's noise, and so does whoever keeps the block's input."""

    router_class = JitterInPlace


class BiasMovesInForward(TorchtitanRouter):
    """The balancing bias moves with every micro-batch, by the sign of that one's load."""

    def count(self, load: Tensor) -> None:
        """Count, and update at once."""
        super().count(load)
        self.update_bias()


STATE = (
    Bug(
        row=12,
        name="jitter_in_place",
        summary="the router's jitter changes its input in place",
        seen="huggingface/transformers #33969",
        candidate="router",
        caught_by="input-mutation",
        factory=JitterInPlace,
        claim=SwitchRouter.routing_spec,
        twin=SwitchRouter,
    ),
    Bug(
        row=12,
        name="jitter_reaches_experts",
        summary="the router's jitter changes what the experts see",
        seen="huggingface/transformers #33969",
        candidate="block",
        caught_by="input-mutation",
        factory=JitterReachesExperts,
        claim=SwitchBlock.routing_spec,
        twin=SwitchBlock,
    ),
    Bug(
        row=19,
        name="bias_moves_in_forward",
        summary="the balancing bias is updated in forward, once per micro-batch",
        seen="pytorch/torchtitan PR#1304",
        candidate="router",
        caught_by="micro-batches",
        factory=BiasMovesInForward,
        claim=TorchtitanRouter.routing_spec,
        twin=TorchtitanRouter,
    ),
)
