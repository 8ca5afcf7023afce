"""Is a block's gradient correct: independent of the split into micro-batches, and equal to finite differences?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.conformance.block import ProbedBlock
from mue_check.conformance.check import BLOCKS, Check, CheckOutcome, failed, passed, unknown
from mue_check.conformance.checks.blockwise import TOLERANCE, blockwise, random_target

_STEPS = {torch.float64: (1e-3, 1e-4, 1e-5), torch.float32: (1e-2, 3e-3, 1e-3)}
_NOISE = {torch.float64: 1e-7, torch.float32: 1e-6}
"""Relative to the loss of a token: a gate may compute in float32."""
_TOLERATED = 0.02


@blockwise
def gradient_split(block: ProbedBlock) -> CheckOutcome:
    """Gradients of two micro-batches add up to those of the whole batch, and equal finite differences.

    The loss is a sum over tokens. Finite differences are taken along one direction in each group of parameters.
    """
    case, own = block.built.case, block.load()
    x = case.tokens().to(block.built.dtype)
    trained = {n: p for n, p in own.items() if p.requires_grad}
    target = random_target(block, len(x))
    measured = []
    if case.claim.independent and len(x) > 1:
        error, worst = _split_error(block, x, target, trained)
        if not error <= TOLERANCE:
            return failed(
                f"gradients of two halves differ from the whole batch's by {error:.2g}", worst=worst, causes=(16, 21)
            )
        measured.append(f"halves add up to {error:.1g}")
    groups = {group: {n: trained[n] for n in names if n in trained} for group, names in block.groups.items()}
    for name, tensors in {**groups, "input": {"tokens": x.requires_grad_()}}.items():
        if not tensors:
            continue
        slopes = _Direction(block=block, x=x, target=target, tensors=tensors, name=name).slopes()
        if slopes is None:
            moved = "tokens" if name == "input" else f"{name} weights"
            return unknown(f"the selection changes even with the smallest step in the {moved}")
        if not slopes.agree:
            return failed(
                f"the gradients of tokens, each along a direction, differ from finite differences by {slopes.error:.2g}"
                if len(slopes.gradient) > 1
                else f"the gradient of the {name} along a direction is {slopes.ratio:.4g} times the finite difference",
                worst=name,
                causes=(21, 22) if name == "experts" else (),
            )
        measured.append(f"{name} {slopes.ratio:.4g} times finite differences")
    return passed("; ".join(measured))


def _split_error(block: ProbedBlock, x: Tensor, target: Tensor, trained: Mapping[str, Tensor]) -> tuple[float, str]:
    """(largest relative error of the sum of both halves' gradients, its parameter)."""
    half = len(x) // 2
    whole = _gradients(block, x, target, trained)
    first, second = (_gradients(block, x[s], target[s], trained) for s in (slice(0, half), slice(half, None)))
    total = float(torch.stack([g.norm() for g in whole.values()]).norm())
    errors = {
        n: float((first[n] + second[n] - g).norm()) / max(float(g.norm()), 1e-4 * total, 1e-30)
        for n, g in whole.items()
    }
    worst = max(errors, key=lambda n: errors[n])
    return errors[worst], worst


@dataclass(frozen=True, kw_only=True)
class _Slopes:
    """Slopes along one direction by gradient and by finite differences: [1], or [T] where each token has its own.

    ``noise`` is the size of rounding errors in the differences.
    """

    gradient: Tensor
    difference: Tensor
    noise: float

    @property
    def ratio(self) -> float:
        size = float(self.difference.square().sum())
        if not size:
            return float("inf") if bool(self.gradient.any()) else 1.0
        return round(float((self.gradient * self.difference).sum()) / size, 6) + 0.0  # no -0

    @property
    def error(self) -> float:
        size = max(float(self.gradient.norm()), float(self.difference.norm()))
        return max(float((self.gradient - self.difference).norm()) - self.noise, 0.0) / max(size, 1e-300)

    @property
    def agree(self) -> bool:
        return self.error <= _TOLERATED


@dataclass(frozen=True, kw_only=True)
class _Direction:
    """One direction in a named group of tensors, in which the loss (output * target) is differentiated."""

    block: ProbedBlock
    x: Tensor
    target: Tensor
    tensors: Mapping[str, Tensor]
    name: str

    def slopes(self) -> _Slopes | None:
        """Both slopes over the tokens whose selection stays the same; None if every step changes all selections.

        The first step at which both agree counts, else the first that keeps some selections.
        """
        dtype, independent = self.block.built.dtype, self.block.built.case.claim.independent
        by_token = self.name == "input" and independent
        direction, mask = self._draw(), self._selection()
        first: _Slopes | None = None
        for step in _STEPS.get(dtype, (1e-2,)):
            (up, mask_up), (down, mask_down) = (self._moved(direction, sign * step) for sign in (1.0, -1.0))
            steady = (mask_up == mask).all(1) & (mask_down == mask).all(1)
            if not independent:
                steady = steady & steady.all()
            if not bool(steady.any()):
                continue
            at = _gradients(self.block, self.x, self.target * steady.unsqueeze(1), self.tensors)
            slope = [(at[n] * direction[n]).double() for n in self.tensors]
            difference = (up - down)[steady].double() / (2 * step)
            found = _Slopes(
                gradient=slope[0].sum(1)[steady] if by_token else torch.stack([s.sum() for s in slope]).sum(0, True),
                difference=difference if by_token else difference.sum(0, keepdim=True),
                # smaller steps are noisier: agreement within their noise would mean nothing
                noise=0.0 if first else _NOISE.get(dtype, 1e-2) * float(up.norm() + 1e-3 * self.target.norm()) / step,
            )
            if found.agree:
                return found
            first = first or found
        return first

    def _draw(self) -> dict[str, Tensor]:
        """Half along the gradient, so that the slope is large; half random, in case the gradient is wrong."""
        generator = torch.Generator().manual_seed(97 + self.block.built.case.seed)
        noise = {n: torch.randn(p.shape, generator=generator).to(p) for n, p in self.tensors.items()}
        gradient = _unit(_gradients(self.block, self.x, self.target, self.tensors))
        anywhere = _unit(noise)
        size = float(torch.stack([p.detach().norm() for p in self.tensors.values()]).norm()) or 1.0
        return {n: size * (gradient[n] + anywhere[n]) / 2**0.5 for n in self.tensors}

    def _selection(self) -> Tensor:
        """[T, E] bool, or constant for groups that the selection does not depend on."""
        if self.name in ("router", "input"):
            return self.block.routing(self.x).mask
        return torch.ones(len(self.x), 1, dtype=torch.bool, device=self.x.device)

    @torch.no_grad()
    def _moved(self, direction: Mapping[str, Tensor], step: float) -> tuple[Tensor, Tensor]:
        """([T] loss, [T, E] selection) after a step."""
        before = {n: p.clone() for n, p in self.tensors.items()}
        try:
            for n, p in self.tensors.items():
                p.add_(step * direction[n])
            return (self.block.built.output(self.x) * self.target).sum(1), self._selection()
        finally:
            for n, p in self.tensors.items():
                p.copy_(before[n])


def _gradients(block: ProbedBlock, x: Tensor, target: Tensor, of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    y = block.built.output(x)
    if not y.requires_grad:
        return {n: torch.zeros_like(p) for n, p in of.items()}
    found: Sequence[Tensor | None] = torch.autograd.grad((y * target).sum(), list(of.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(of.items(), found, strict=True)}


def _unit(of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    size = float(torch.stack([t.norm() for t in of.values()]).norm())
    return {n: t / size if size > 0 else t for n, t in of.items()}


CHECKS = (Check(run=gradient_split, source="databricks/megablocks PR#20", candidates=BLOCKS),)
