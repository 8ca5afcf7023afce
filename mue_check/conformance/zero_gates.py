"""Blocks whose gate starts at zero, as in a published diffusion transformer: their experts show nothing, and get no
gradient, until the gate has moved. Such a gate is set to 1 before the block is probed."""

import torch
from torch import Tensor, nn

from mue_check.conformance.case import BuiltCandidate


@torch.enable_grad()
def open_gates(built: BuiltCandidate) -> tuple[str, ...]:
    """Set to 1 each entry of a zero vector that multiplies the block's branch; the names of the vectors changed.

    Behind a closed gate no other parameter has a gradient, and the gate's own shows which entries it has: those of a
    shift or scale beside it have none. Whatever does not let a gradient through when it is 1 is no gate, and stays 0.
    """
    trained = {name: p for name, p in built.module.named_parameters() if p.requires_grad}
    vectors = {name: p for name, p in trained.items() if p.dim() <= 1 and not p.any()}
    if not vectors:
        return ()
    before = _gradients(built, trained)
    if before is None or any(before[name] is not None and trained[name].any() for name in trained):
        return ()
    masks = {name: mask for name in vectors if (mask := before[name]) is not None}
    _fill(trained, masks, 1.0)
    after = _gradients(built, trained)
    if after is not None and any(after[name] is not None and trained[name].any() for name in trained.keys() - masks):
        return tuple(masks)
    _fill(trained, masks, 0.0)
    return ()


@torch.no_grad()
def _fill(trained: dict[str, nn.Parameter], masks: dict[str, Tensor], value: float) -> None:
    for name, mask in masks.items():
        trained[name][mask] = value


def _gradients(built: BuiltCandidate, trained: dict[str, nn.Parameter]) -> dict[str, Tensor | None] | None:
    """By name, which entries have a gradient of a random loss, or None if none has; None if the output has no graph."""
    y = built.output(built.case.tokens())
    if not y.requires_grad:
        return None
    loss = torch.randn(y.shape, generator=torch.Generator().manual_seed(23)).to(y)
    found = torch.autograd.grad(y, list(trained.values()), loss, allow_unused=True)
    return {name: None if g is None or not bool(g.any()) else g != 0 for name, g in zip(trained, found, strict=True)}
