"""Steer the load of scored routing to a target: the sign rule, iterated within each batch.

The published rule moves the bias once per step, by the load of the previous step (arXiv 2408.15664). At the learning
rates of a sweep the scores move further between two steps than that rule can follow (docs/choices.md), so here it runs
many rounds on the batch that it routes. The bias never enters the weights.
"""

import torch
from torch import Tensor

from mue_check.routing.choice import assignments
from mue_check.routing.variants import route, scores
from mue_check.spec import Experts

ROUNDS, FIRST_STEP, SHRINK = 20, 0.5, 0.75
"""Rounds per batch. The first moves the bias by that many standard deviations of the scores, each later one by less."""


class LoadSteering:
    """A selection bias per layer, run and expert, [L, R, E], that gives each expert its share of every batch.

    Each batch begins where the last one ended. A share need not be a whole number of tokens: ``owed`` [L, R, E] are the
    assignments that a batch could not give, which the next one adds to its target, so that the mean load is exact.
    """

    def __init__(self, experts: Experts, *, depth: int, runs: int, device: torch.device) -> None:
        self.experts = experts
        self.target_E = torch.tensor(experts.target_load, device=device)
        self.bias_LRE = torch.zeros(depth, runs, experts.total, device=device)
        self.owed_LRE = torch.zeros_like(self.bias_LRE)

    def buffers(self) -> list[Tensor]:
        """Everything that a batch changes in place."""
        return [self.bias_LRE, self.owed_LRE]

    def copy(self) -> "LoadSteering":
        """A copy with its own buffers: for a forward pass that leaves no trace."""
        depth, runs, _ = self.bias_LRE.shape
        other = LoadSteering(self.experts, depth=depth, runs=runs, device=self.bias_LRE.device)
        for mine, theirs in zip(self.buffers(), other.buffers(), strict=True):
            theirs.copy_(mine)
        return other

    def begin_at(self, other: "LoadSteering", run: int) -> None:
        """Take over that run's bias in all runs."""
        self.bias_LRE.copy_(other.bias_LRE[:, run : run + 1].expand_as(self.bias_LRE))

    @torch.no_grad()
    def solve(self, layer: int, logits_RME: Tensor) -> Tensor:
        """The bias [R, E] under which this batch has the target load."""
        logits_RME = logits_RME.detach()
        tokens, total = logits_RME.shape[1:]
        bias_RE, owed_RE = self.bias_LRE[layer], self.owed_LRE[layer]
        target_RE = self.target_E * (tokens * self.experts.activated) + owed_RE
        step_R1 = scores(logits_RME, self.experts.router).std(dim=(1, 2)).unsqueeze(-1) * FIRST_STEP
        for round_ in range(ROUNDS):
            load_RE = self._load(logits_RME, bias_RE, tokens, total)
            bias_RE.add_(torch.sign(target_RE - load_RE) * (step_R1 * SHRINK**round_))
        missing_RE = target_RE - self._load(logits_RME, bias_RE, tokens, total)
        owed_RE.copy_(missing_RE.clamp(-1, 1))
        return bias_RE.clone()

    def _load(self, logits_RME: Tensor, bias_RE: Tensor, tokens: int, total: int) -> Tensor:
        return assignments(route(logits_RME, self.experts, bias_RE=bias_RE), tokens, total).sum(1)
