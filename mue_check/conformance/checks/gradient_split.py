"""Is the gradient the right one: whatever the split into micro-batches, and by finite differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.conformance.block import Block
from mue_check.conformance.checks.blockwise import BLOCKS, TOLERANCE, blockwise, target_of
from mue_check.conformance.registry import Finding, check, failed, passed, unknown

_STEPS = {torch.float64: (1e-3, 1e-4, 1e-5), torch.float32: (1e-2, 3e-3, 1e-3)}
_NOISE = {torch.float64: 1e-7, torch.float32: 1e-6}
"""Of the loss of a token, relative: a gate may compute in float32."""
_CLOSE = 0.02
_CHOOSING = ("router", "input")
"""What the choice of experts depends on."""
_HELD = {"experts": "weights", "router": "weights", "others": "weights", "input": "tokens"}


@check(
    "gradient-split",
    law="gradients of two micro-batches add up to the whole's, and equal finite differences",
    source="databricks/megablocks PR#20",
    candidates=BLOCKS,
)
@blockwise
def gradient_split(block: Block) -> Finding:
    """A loss that is a sum over tokens: of all, of each half, and along one direction of each group of parameters."""
    case, own = block.built.case, block.load()
    x = case.tokens().to(block.built.dtype)
    trained = {n: p for n, p in own.items() if p.requires_grad}
    target = target_of(block, len(x))
    whole = _gradients(block, x, target, trained)
    words = []
    if case.claim.independent and len(x) > 1:
        half = len(x) // 2
        first, second = (_gradients(block, x[s], target[s], trained) for s in (slice(0, half), slice(half, None)))
        total = float(torch.stack([g.norm() for g in whole.values()]).norm())
        apart = {
            n: float((first[n] + second[n] - g).norm()) / max(float(g.norm()), 1e-4 * total, 1e-30)
            for n, g in whole.items()
        }
        worst = max(apart, key=lambda n: apart[n])
        if not apart[worst] <= TOLERANCE:
            said = f"gradients of two halves add up to the whole's but for {apart[worst]:.2g} of it"
            return failed(said, worst=worst, causes=(16, 21))
        words.append(f"halves add up to {apart[worst]:.1g}")
    groups = {group: {n: trained[n] for n in names if n in trained} for group, names in block.groups.items()}
    for group, chosen in {**groups, "input": {"tokens": x.requires_grad_()}}.items():
        if not chosen:
            continue
        found = _along(block, x, target, chosen, group)
        if found is None:
            return unknown(f"the choice of experts moves with the smallest step in the {group}'s {_HELD[group]}")
        if not found.agrees:
            said = f"the gradient of the {group} along a direction is {found.ratio:.4g} times the finite difference"
            if len(found.gradient) > 1:
                said = (
                    f"the gradients of tokens, each along a direction, are off by {found.off:.2g} of finite differences"
                )
            return failed(said, worst=group, causes=(21, 22) if group == "experts" else ())
        words.append(f"{group} {found.ratio:.4g} times finite differences")
    return passed("; ".join(words))


@dataclass(frozen=True, kw_only=True)
class _Slope:
    """Two slopes [1] along one direction, or [T] where each token has its own; ``noise`` is that of rounding."""

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
    def off(self) -> float:
        size = max(float(self.gradient.norm()), float(self.difference.norm()))
        return max(float((self.gradient - self.difference).norm()) - self.noise, 0.0) / max(size, 1e-300)

    @property
    def agrees(self) -> bool:
        return self.off <= _CLOSE


def _along(block: Block, x: Tensor, target: Tensor, group: Mapping[str, Tensor], name: str) -> _Slope | None:
    """Both slopes, over tokens whose experts stay the same; None where those of every token move at every step."""
    dtype = block.built.dtype
    generator = torch.Generator().manual_seed(97 + block.built.case.seed)
    gradient = _gradients(block, x, target, group)
    size = float(torch.stack([p.detach().norm() for p in group.values()]).norm()) or 1.0
    noise = {n: torch.randn(p.shape, generator=generator).to(p) for n, p in group.items()}
    # half along the gradient, so that the slope is no accident; half anywhere, in case the gradient is wrong
    along, anywhere = _unit(gradient), _unit(noise)
    way = {n: size * (along[n] + anywhere[n]) / 2**0.5 for n in group}
    mask = block.routing(x).mask if name in _CHOOSING else torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
    first: _Slope | None = None
    for step in _STEPS.get(dtype, (1e-2,)):
        ends = [_moved(block, x, target, group, way, sign * step, name) for sign in (1.0, -1.0)]
        steady = torch.stack([(m == mask).all(1) for _, m in ends]).all(0)
        if not block.built.case.claim.independent:
            steady = steady & steady.all()
        if not bool(steady.any()):
            continue
        at = _gradients(block, x, target * steady.unsqueeze(1), group)
        slope, moved = (
            [(at[n] * way[n]).double() for n in group],
            (ends[0][0] - ends[1][0])[steady].double() / (2 * step),
        )
        by_token = name == "input" and block.built.case.claim.independent
        found = _Slope(
            gradient=slope[0].sum(1)[steady]
            if by_token
            else torch.stack([s.sum() for s in slope]).sum(0, keepdim=True),
            difference=moved if by_token else moved.sum(0, keepdim=True),
            # smaller steps are noisier: agreement within their noise would say nothing
            noise=0.0 if first else _NOISE.get(dtype, 1e-2) * float(ends[0][0].norm() + 1e-3 * target.norm()) / step,
        )
        if found.agrees:
            return found
        first = first or found
    return first


@torch.no_grad()
def _moved(
    block: Block,
    x: Tensor,
    target: Tensor,
    group: Mapping[str, Tensor],
    way: Mapping[str, Tensor],
    step: float,
    name: str,
) -> tuple[Tensor, Tensor]:
    """([T] loss, [T, E] mask) with a group of parameters moved."""
    before = {n: p.clone() for n, p in group.items()}
    try:
        for n, p in group.items():
            p.add_(step * way[n])
        losses = (block.built.output(x) * target).sum(1)
        fixed = torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
        return losses, block.routing(x).mask if name in _CHOOSING else fixed
    finally:
        for n, p in group.items():
            p.copy_(before[n])


def _gradients(block: Block, x: Tensor, target: Tensor, of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    y = block.built.output(x)
    if not y.requires_grad:
        return {n: torch.zeros_like(p) for n, p in of.items()}
    found: Sequence[Tensor | None] = torch.autograd.grad((y * target).sum(), list(of.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(of.items(), found, strict=True)}


def _unit(of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    size = float(torch.stack([t.norm() for t in of.values()]).norm())
    return {n: t / size if size > 0 else t for n, t in of.items()}
