"""Least squares: the multipliers with which known tensors were added to make another tensor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

AGREEMENT = 0.01
"""Blocks of one model must show the same multiplier within this; each is known to a third of it."""


@dataclass(frozen=True)
class Fit:
    """One multiplier per term, and the relative residual.

    ``gated`` is the index of a term that has a different multiplier for each token, if there is one. Its entry in
    ``multipliers`` is 1, and ``gates`` are its smallest and largest multiplier.
    """

    multipliers: tuple[float, ...]
    residual: float
    gated: int | None = None
    gates: tuple[float, float] = (1.0, 1.0)


def fit(total: Tensor, terms: Sequence[Tensor], *, rounding: float | None = None) -> Fit | None:
    """Fit ``total`` as a weighted sum of ``terms``; None if it is not one, or if rounding hides the weights.

    ``rounding``: the error of an entry of ``total`` where that is the difference of larger numbers.
    """
    y, columns = total.double().reshape(-1), []
    for term in terms:
        value = term.double()
        if value.numel() != total.numel():
            try:
                value = value.broadcast_to(total.shape)  # position embeddings have no batch axis
            except RuntimeError:
                return None
        columns.append(value.reshape(-1))
    if not columns:
        return None
    x = torch.stack(columns, dim=1)
    moments = x.T @ x
    if not bool(moments.isfinite().all()) or int(torch.linalg.matrix_rank(moments)) < len(columns):
        return None
    weights = torch.linalg.solve(moments, x.T @ y)
    misfit, size = float((x @ weights - y).norm()), float(y.norm())
    spread = misfit / y.numel() ** 0.5
    bound = 1e-3 * size / y.numel() ** 0.5 + 4 * (rounding_error(total) if rounding is None else rounding)
    errors = spread * torch.linalg.inv(moments).diagonal().clamp_min(0).sqrt()
    precise = bool((errors <= AGREEMENT / 3 * weights.abs()).all())
    return Fit(tuple(weights.tolist()), misfit / max(size, 1e-300)) if spread <= bound and precise else None


def fit_gated(total: Tensor, terms: Sequence[Tensor], *, rounding: float) -> Fit | None:
    """Like ``fit``, but if that fails, one of the terms [..., D] may have a different multiplier for each token.

    The direction of that term is projected out token by token, and the rest must fit.
    """
    found = fit(total, terms, rounding=rounding)
    if found is not None or len(terms) < 2 or any(t.shape != terms[0].shape for t in terms):
        return found
    total = total.double().reshape(terms[0].shape)
    for i, term in enumerate(terms):
        gated = term.double()
        unit = gated / gated.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        rest = [t.double() for k, t in enumerate(terms) if k != i]
        projected_total, *projected = (v - unit * (v * unit).sum(-1, keepdim=True) for v in (total, *rest))
        found = fit(projected_total, projected, rounding=rounding)
        if found is not None:
            left = total - torch.stack([m * t for m, t in zip(found.multipliers, rest, strict=True)]).sum(0)
            gates = (left * gated).sum(-1) / gated.square().sum(-1).clamp_min(1e-300)
            multipliers = (*found.multipliers[:i], 1.0, *found.multipliers[i:])
            return replace(found, multipliers=multipliers, gated=i, gates=(float(gates.min()), float(gates.max())))
    return None


def rounding_error(value: Tensor) -> float:
    """The rounding error of a typical entry in its dtype."""
    return float(torch.finfo(value.dtype).eps) * float(value.double().square().mean().sqrt())
