"""What a forward pass shows of a model's multipliers: each module's output against what arrives where it is used.

Residual branches: the inputs of two successive norms differ by what was added between them, and least squares gives
the numbers by which the branches' outputs were multiplied. Logits: what the model returns against the unembedding's
output, and its input against the final norm's output. Routed sums: what the rows of the weights sum to.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mue_check.audit.assign import Assignment
from mue_check.audit.multipliers import Probed
from mue_check.rules import Role
from mue_check.rules.roles import DOWN, EMBEDDINGS

_AGREEMENT = 0.01
"""Blocks of one model must show the same number to this, and row sums must be constant to it."""
_NOTHING = 1e-3
"""Within rounding of 1 there is no multiplier."""
_ENDS = DOWN | {Role.ATTENTION_OUT}


@dataclass(kw_only=True)
class _Seen:
    """Events of one forward pass, in order; ``between`` holds branch outputs since the last norm."""

    inputs: list[Tensor] = field(default_factory=list)
    between: list[list[tuple[Role, Tensor]]] = field(default_factory=lambda: [[]])
    normed: Tensor | None = None
    readout: tuple[Tensor, Tensor] | None = None
    sums: list[Tensor] = field(default_factory=list)


def probe_multipliers(model: nn.Module, assignments: Mapping[str, Assignment], forward: Callable[[], object]) -> Probed:
    """The multipliers that one call of ``forward`` shows; roles that it does not show are left out."""
    seen = _Seen()
    with _watching(model, assignments, seen), torch.no_grad():
        output = forward()
    found: dict[Role, list[float]] = {}
    notes = []
    start = [(role, value) for role, value in seen.between[0] if role in EMBEDDINGS]
    if seen.inputs and start:
        _add(found, start, _coefficients(seen.inputs[0], start))
    for before, after, parts in zip(seen.inputs, seen.inputs[1:], seen.between[1:], strict=False):
        if before.shape == after.shape and parts:
            delta = after.double() - before.double()
            _add(found, parts, _coefficients(delta, parts, rounding=_rounding(after)))
    factor = _readout(seen, logits_of(output))
    if factor is not None:
        found[Role.UNEMBEDDING] = [factor]
    rows = torch.cat(seen.sums) if seen.sums else None
    if rows is not None:
        spread, mean = float(rows.std()), float(rows.mean())
        if spread <= _AGREEMENT * mean:
            found[Role.ROUTER] = [mean]
        else:
            notes.append(
                f"the weights of a token's active experts sum to {float(rows.min()):.3g} to {float(rows.max()):.3g}: "
                "the rule's R assumes a constant sum; `mue_check router` judges routers"
            )
    values = {}
    for role, numbers in found.items():
        if max(map(abs, numbers)) < _NOTHING**2:
            continue  # its output is part of another's, or is nothing
        if max(numbers) - min(numbers) <= _AGREEMENT * abs(numbers[0]) and min(numbers) > 0:
            mean = sum(numbers) / len(numbers)
            values[role] = 1.0 if abs(mean - 1) < _NOTHING else mean
        else:
            notes.append(f"{role}: blocks show different multipliers, {min(numbers):.4g} to {max(numbers):.4g}")
    stacked = {a.role for a in assignments.values() if a.experts and a.role is not None}
    return Probed(values=values, hidden=frozenset(stacked | {Role.ROUTER}), notes=tuple(notes))


def logits_of(output: object) -> Tensor | None:
    """The logits in what a model returned: ``logits``, or the first tensor of a tuple; None without any."""
    value: Any = getattr(output, "logits", output)
    if isinstance(value, Mapping):
        value = value.get("logits")
    if isinstance(value, tuple | list):
        value = next((v for v in value if isinstance(v, Tensor)), None)
    return value if isinstance(value, Tensor) and value.ndim >= 2 else None


@contextmanager
def _watching(model: nn.Module, assignments: Mapping[str, Assignment], seen: _Seen) -> Iterator[None]:
    owners: dict[str, Assignment] = {a.name.rpartition(".")[0]: a for a in assignments.values() if a.role in _ENDS}
    attention = {
        _up(a.name.removesuffix(".weight")) + "." for a in assignments.values() if a.role is Role.ATTENTION_QKV
    }
    width = next((a.shape[-1] for a in assignments.values() if a.role is Role.TOKEN_EMBEDDING), None)
    handles = []

    def on_norm(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
        given = _first(args, kwargs)
        made = _tensor(output)
        if given is not None and made is not None:
            seen.inputs.append(given.detach())
            seen.between.append([])
            seen.normed = made.detach()

    def on_end(role: Role) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            made = _tensor(output)
            if made is not None:
                seen.between[-1].append((role, made.detach()))

        return hook

    def on_experts(total: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            for value in (*args, *kwargs.values()):
                if isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 2:
                    rows = value.detach().double()
                    if rows.shape[1] <= total and bool((rows >= 0).all()):
                        seen.sums.append(rows.sum(1))

        return hook

    def on_readout(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
        given, made = _first(args, kwargs), _tensor(output)
        if given is not None and made is not None:
            seen.readout = given.detach(), made.detach()

    try:
        for a in assignments.values():
            path = _up(a.name)
            owner = model.get_submodule(path)
            if a.role is Role.NORM_GAIN and a.shape == (width,) and not any(path.startswith(p) for p in attention):
                handles.append(owner.register_forward_hook(on_norm, with_kwargs=True))
            elif a.role in EMBEDDINGS:
                handles.append(owner.register_forward_hook(on_end(a.role)))
            elif path in owners and owners[path] is a and a.role is not None:
                if a.role is not Role.EXPERT_DOWN or a.experts:
                    handles.append(owner.register_forward_hook(on_end(a.role)))
                if a.role is Role.EXPERT_DOWN and a.experts:
                    handles.append(owner.register_forward_pre_hook(on_experts(a.experts), with_kwargs=True))
            if Role.UNEMBEDDING in (a.role, *a.also):
                readout = _readout_module(model, a)
                if readout is not None:
                    handles.append(readout.register_forward_hook(on_readout, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _readout_module(model: nn.Module, a: Assignment) -> nn.Module | None:
    """The module that holds the unembedding, by whichever of its names is not the lookup's."""
    weight = model.get_parameter(a.name)
    for module in model.modules():
        if not isinstance(module, nn.Embedding) and getattr(module, "weight", None) is weight:
            return module
    return None


def _readout(seen: _Seen, logits: Tensor | None) -> float | None:
    """What the logits are multiplied by, before and after the unembedding; None when either cannot be seen."""
    if seen.readout is None or seen.normed is None or logits is None:
        return None
    given, made = seen.readout
    if made.numel() != logits.numel():
        return None
    normed = seen.normed
    if given.shape != normed.shape:
        # the last position alone goes on to the logits
        if given.ndim != 3 or normed.ndim != 3 or given.shape[1] != 1:
            return None
        normed = normed[:, -1:]
    before = _coefficients(given, [(Role.UNEMBEDDING, normed)])
    after = _coefficients(logits, [(Role.UNEMBEDDING, made)])
    return None if before is None or after is None else before[0] * after[0]


def _coefficients(
    target: Tensor, parts: list[tuple[Role, Tensor]], rounding: float | None = None
) -> list[float] | None:
    """Least squares of ``target`` on the parts; None when they do not make it up, or rounding hides the numbers."""
    goal = target.double()
    columns = []
    for _, part in parts:
        value = part.double()
        if value.numel() != goal.numel():
            try:
                value = value.broadcast_to(goal.shape)  # position embeddings have no batch axis
            except RuntimeError:
                return None
        columns.append(value.reshape(-1))
    matrix, flat = torch.stack(columns, dim=1), goal.reshape(-1)
    moments = matrix.T @ matrix
    if not bool(moments.isfinite().all()) or int(torch.linalg.matrix_rank(moments)) < len(parts):
        return None
    solved = torch.linalg.solve(moments, matrix.T @ flat)
    misfit = float((matrix @ solved - flat).norm())
    bound = 1e-3 * float(flat.norm()) + 4 * (_rounding(target) if rounding is None else rounding) * flat.numel() ** 0.5
    errors = misfit / flat.numel() ** 0.5 * torch.linalg.inv(moments).diagonal().sqrt()
    known = bool((errors <= _AGREEMENT / 3 * solved.abs()).all())
    return [float(c) for c in solved] if misfit <= bound and known else None


def _rounding(value: Tensor) -> float:
    """How far an entry is off by its type."""
    return float(torch.finfo(value.dtype).eps) * float(value.double().square().mean().sqrt())


def _add(found: dict[Role, list[float]], parts: list[tuple[Role, Tensor]], numbers: list[float] | None) -> None:
    for (role, _), number in zip(parts, numbers or [], strict=False):
        found.setdefault(role, []).append(number)


def _first(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Tensor | None:
    return next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point()), None)


def _tensor(output: object) -> Tensor | None:
    value = output[0] if isinstance(output, tuple | list) and output else output
    return value if isinstance(value, Tensor) else None


def _up(path: str) -> str:
    return path.rpartition(".")[0]
