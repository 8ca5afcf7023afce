"""Least squares of one tensor on others: by which numbers they were multiplied before they were added."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

AGREEMENT = 0.01
"""Numbers are known to a third of this, and blocks of one model must show the same number to this."""


@dataclass(frozen=True)
class Fit:
    """One number per part, and what is left over, as a share of the whole.

    ``gated`` is the part, if any, that was multiplied by another number for each token; ``gates`` are the least and
    the largest, and its number here is 1.
    """

    numbers: tuple[float, ...]
    left: float
    gated: int | None = None
    gates: tuple[float, float] = (1.0, 1.0)


def fit(goal: Tensor, parts: Sequence[Tensor], *, rounding: float | None = None) -> Fit | None:
    """The numbers of the parts in ``goal``; None when they do not make it up, or rounding hides the numbers.

    ``rounding``: how far an entry of the goal is off by its type, where it is a difference of larger ones.
    """
    flat, columns = goal.double().reshape(-1), []
    for part in parts:
        value = part.double()
        if value.numel() != goal.numel():
            try:
                value = value.broadcast_to(goal.shape)  # position embeddings have no batch axis
            except RuntimeError:
                return None
        columns.append(value.reshape(-1))
    if not columns:
        return None
    matrix = torch.stack(columns, dim=1)
    moments = matrix.T @ matrix
    if not bool(moments.isfinite().all()) or int(torch.linalg.matrix_rank(moments)) < len(columns):
        return None
    solved = torch.linalg.solve(moments, matrix.T @ flat)
    misfit, size = float((matrix @ solved - flat).norm()), float(flat.norm())
    spread = misfit / flat.numel() ** 0.5
    bound = 1e-3 * size / flat.numel() ** 0.5 + 4 * (rounding_of(goal) if rounding is None else rounding)
    errors = spread * torch.linalg.inv(moments).diagonal().clamp_min(0).sqrt()
    known = bool((errors <= AGREEMENT / 3 * solved.abs()).all())
    return Fit(tuple(solved.tolist()), misfit / max(size, 1e-300)) if spread <= bound and known else None


def fit_gated(goal: Tensor, parts: Sequence[Tensor], *, rounding: float) -> Fit | None:
    """As ``fit``; where that fails, one of several parts [..., D] may have a number of its own for each token.

    What lies along that part is then taken out of everything, token by token, and the rest must fit.
    """
    found = fit(goal, parts, rounding=rounding)
    if found is not None or len(parts) < 2 or any(p.shape != parts[0].shape for p in parts):
        return found
    goal = goal.double().reshape(parts[0].shape)
    for i, part in enumerate(parts):
        own = part.double()
        unit = own / own.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        rest = [p.double() for k, p in enumerate(parts) if k != i]
        goal_across, *rest_across = (v - unit * (v * unit).sum(-1, keepdim=True) for v in (goal, *rest))
        found = fit(goal_across, rest_across, rounding=rounding)
        if found is not None:
            left = goal - torch.stack([n * p for n, p in zip(found.numbers, rest, strict=True)]).sum(0)
            gates = (left * own).sum(-1) / own.square().sum(-1).clamp_min(1e-300)
            numbers = (*found.numbers[:i], 1.0, *found.numbers[i:])
            return replace(found, numbers=numbers, gated=i, gates=(float(gates.min()), float(gates.max())))
    return None


def rounding_of(value: Tensor) -> float:
    """How far an entry is off by its type."""
    return float(torch.finfo(value.dtype).eps) * float(value.double().square().mean().sqrt())
