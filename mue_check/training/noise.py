"""Gradients of many independent batches at the weights of one run: their mean, and their scatter around it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.models.balancing import LayerRouting
from mue_check.models.parameters import Parameter, stable_seed
from mue_check.models.routers import clone
from mue_check.training.load_scaling import EXPERT_AXIS
from mue_check.training.run import Stack

CLONES = 16
"""Batches computed together on the run axis, each with its own copy of the weights and so its own gradient."""


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Unbiased estimates of one parameter's batch gradient, by expert [E] (or [1] for what all tokens share).

    ``noise`` is tr Sigma, the sample variance summed over entries; ``signal`` is |G|^2 = |mean|^2 - tr Sigma / K,
    which may be negative (arXiv 1812.06162, appendix A). The Adam forms are of g / (sqrt(v) + eps) with the run's own
    second moments, frozen.
    """

    noise: Tensor
    signal: Tensor
    adam_noise: Tensor
    adam_signal: Tensor


@dataclass(frozen=True, kw_only=True)
class GradientNoise:
    """Scatter by parameter name, and the mean number of tokens that each expert saw in a batch, [L, E]."""

    scatter: Mapping[str, Scatter]
    tokens_LE: Tensor | None


def estimate(mean: Tensor, square: Tensor, batches: int) -> tuple[Tensor, Tensor]:
    """(tr Sigma, |G|^2) from |mean gradient|^2 and the sum over ``batches`` of |gradient|^2; both unbiased."""
    noise = (square - batches * mean) / (batches - 1)
    return noise, mean - noise / batches


def gradient_noise(stack: Stack, run: int, batches: int, *, seed: int, load: str = "") -> GradientNoise:
    """The noise at the present weights of one run, from ``batches`` batches of the size that it trains on.

    ``seed`` alone determines the batches, which are drawn from the training part with replacement. The stack does not
    change. ``batches`` is a multiple of CLONES. ``load`` steers these batches to another load than that of training.
    """
    if batches < 2 or batches % CLONES:
        raise ValueError(f"{batches} batches: must be a multiple of {CLONES}")
    routers = None if stack.routers is None else stack.routers.clones(run, CLONES, stack.device, load)
    # in float32 even if training computes in bfloat16: rounding is not noise of the data
    leaves = {name: clone(value, run, CLONES).requires_grad_(True) for name, value in stack.state.parameters.items()}
    generator = torch.Generator().manual_seed(stable_seed(seed, "noise"))
    weights = _preconditioner(stack, run)
    sums = {p.name: _Sums.zeros(p, stack.device) for p in stack.state.declared}
    loads: list[Tensor] = []
    for _ in range(batches // CLONES):
        layers: list[LayerRouting] | None = None if routers is None else []
        inputs = stack.examples.drawn(CLONES, generator)
        losses_R = stack.model.losses(leaves, inputs, routers=routers, layers=layers)
        gradients = torch.autograd.grad(losses_R.sum(), list(leaves.values()), allow_unused=True)
        for p, gradient in zip(stack.state.declared, gradients, strict=True):
            if gradient is not None:
                sums[p.name].add(gradient, weights[p.name])
        if layers:
            loads.append(torch.stack([layer.assignments().sum(1).mean(0) for layer in layers]))
    return GradientNoise(
        scatter={name: value.scatter(weights[name], batches) for name, value in sums.items()},
        tokens_LE=torch.stack(loads).mean(0) if loads else None,
    )


def _preconditioner(stack: Stack, run: int) -> dict[str, Tensor]:
    """1 / (sqrt(v) + eps) of each entry, as in Adam's next step; ones before the first step."""
    done = int(stack.counter)
    if not done:
        return {p.name: torch.ones(p.shape, device=stack.device) for p in stack.state.declared}
    bias2 = stack.optimizer.table[done - 1, 2]
    flat = (stack.state.second.sqrt() * bias2 + stack.optimizer.eps).reciprocal()
    return {name: view[run] for name, view in stack.state.named(flat).items()}


@dataclass(kw_only=True)
class _Sums:
    """Sums over the batches for one parameter: gradients, and squares by expert, plain and preconditioned."""

    axis: int | None
    total: Tensor
    square: Tensor
    adam_square: Tensor

    @classmethod
    def zeros(cls, p: Parameter, device: torch.device) -> "_Sums":
        axis = EXPERT_AXIS.get(p.role)
        experts = 1 if axis is None else p.shape[axis]
        total = torch.zeros(p.shape, dtype=torch.float64, device=device)
        square = torch.zeros(experts, dtype=torch.float64, device=device)
        return cls(axis=axis, total=total, square=square, adam_square=square.clone())

    def add(self, gradient_R: Tensor, weight: Tensor) -> None:
        self.total += gradient_R.sum(0)
        self.square += self._by_expert(gradient_R.square().sum(0))
        self.adam_square += self._by_expert((gradient_R * weight).square().sum(0))

    def scatter(self, weight: Tensor, batches: int) -> Scatter:
        mean = self.total / batches
        noise, signal = estimate(self._by_expert(mean.square()), self.square, batches)
        adam_noise, adam_signal = estimate(self._by_expert((mean * weight).square()), self.adam_square, batches)
        return Scatter(noise=noise, signal=signal, adam_noise=adam_noise, adam_signal=adam_signal)

    def _by_expert(self, value: Tensor) -> Tensor:
        """[E] sums over all entries of an expert; [1] over everything."""
        if self.axis is None:
            return value.sum().view(1).double()
        return value.movedim(self.axis, 0).flatten(1).sum(1).double()
