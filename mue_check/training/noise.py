"""Gradients of many independent batches at the weights of one run: their mean, and how far they scatter around it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.models.balancing import LayerRouting
from mue_check.models.parameters import Parameter, stable_seed
from mue_check.training.load_scaling import EXPERT_AXIS
from mue_check.training.run import Stack

CLONES = 16
"""Batches side by side on the run axis, each with its own copy of the weights and so its own gradient."""


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
    """The noise at the present weights of one run, from ``batches`` batches as large as those it trains on.

    Drawn with replacement from the training part by ``seed`` alone. The stack stays as it is. ``batches`` is a multiple
    of CLONES. ``load`` steers the routing of these batches elsewhere than that of training.
    """
    if batches < 2 or batches % CLONES:
        raise ValueError(f"{batches} batches: must be a multiple of {CLONES}")
    model, train = stack.model.with_load(load) if load else stack.model, stack.train
    # in float32 whatever the training computes in: rounding is no noise of the data
    clones = {name: _clones(value, run) for name, value in {**stack.held, **stack.state.parameters}.items()}
    clones |= model.tables(stack.device)
    leaves = {p.name: clones[p.name].requires_grad_(True) for p in stack.state.declared}
    bias = None if stack.selection_bias is None else stack.selection_bias[:, run : run + 1].repeat(1, CLONES, 1)
    steering = model.steering(CLONES, stack.device)
    if steering is not None:
        bias = None
        if stack.steering is not None:
            steering.begin_at(stack.steering, run)
    generator = torch.Generator().manual_seed(stable_seed(seed, "noise"))
    weights = _preconditioner(stack, run)
    sums = {p.name: _Sums.zeros(p, stack.device) for p in stack.state.declared}
    met: list[Tensor] = []
    for _ in range(batches // CLONES):
        starts = torch.randint(0, len(stack.tokens) - train.context, (CLONES, train.batch), generator=generator)
        tokens_RBT = stack.tokens[starts.to(stack.device).unsqueeze(-1) + stack.offsets]
        layers: list[LayerRouting] = []
        losses_R = model.losses(
            clones, tokens_RBT, bias_LRE=bias, steering=steering, layers=layers if model.experts else None
        )
        gradients = torch.autograd.grad(losses_R.sum(), list(leaves.values()), allow_unused=True)
        for p, gradient in zip(stack.state.declared, gradients, strict=True):
            if gradient is not None:
                sums[p.name].add(gradient, weights[p.name])
        if layers:
            met.append(torch.stack([layer.assignments().sum(1).mean(0) for layer in layers]))
    return GradientNoise(
        scatter={name: value.scatter(weights[name], batches) for name, value in sums.items()},
        tokens_LE=torch.stack(met).mean(0) if met else None,
    )


def _clones(value: Tensor, run: int) -> Tensor:
    return value.detach()[run : run + 1].repeat(CLONES, *[1] * (value.dim() - 1))


def _preconditioner(stack: Stack, run: int) -> dict[str, Tensor]:
    """1 / (sqrt(v) + eps) of each entry, as Adam's next step would divide; ones before the first step."""
    done = int(stack.counter)
    if not done:
        return {p.name: torch.ones(p.shape, device=stack.device) for p in stack.state.declared}
    bias2 = stack.optimizer.table[done - 1, 2]
    flat = (stack.state.second.sqrt() * bias2 + stack.optimizer.eps).reciprocal()
    return {name: view[run] for name, view in stack.state.named(flat).items()}


@dataclass(kw_only=True)
class _Sums:
    """Of one parameter: the summed gradient, and the summed squares by expert, plain and preconditioned."""

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
