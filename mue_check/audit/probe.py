"""What a forward pass shows of a model's multipliers: each module's output against what arrives where it is used.

Residual branches: the inputs of two successive norms differ by what was added between them, and least squares gives
the numbers by which the branches' outputs were multiplied. Routed experts are made alike for it, so that whatever a
mixture does with their outputs comes out as one number (``mixtures``). Logits: what the model returns against the
unembedding's output, and its input against the final norm's. A multiplier inside a module shows against its matrix.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mue_check.audit.assign import Assignment
from mue_check.audit.fitting import AGREEMENT, fit, fit_gated, rounding_of
from mue_check.audit.forward_hooks import Seen, Segment, watching
from mue_check.audit.mixtures import Form, Forms, expert_outputs, find_mixtures, posed
from mue_check.rules import Role

_NOTHING = 1e-3
"""Within rounding of 1 there is no multiplier."""
_ROWS = 64
"""Outputs of a matrix that stands in for an unembedding."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a forward pass showed.

    ``values`` by role; on the router what a token's weights sum to, on a bias what that of the unembedding is
    multiplied by. ``routed``: what routed experts' outputs are multiplied by in all, weights included. ``inside`` are
    roles whose number may be inside a module that was not looked into. ``normed`` roles end in a norm of their own,
    ``gated`` ones are multiplied by another number for each token. ``tied``: the embedding's matrix gives the logits
    without a name of its own.
    """

    values: Mapping[Role, float] = field(default_factory=dict)
    routed: float | None = None
    inside: frozenset[Role] = frozenset()
    normed: frozenset[Role] = frozenset()
    tied: bool = False
    notes: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Found:
    """Numbers so far, one per block (NaN where a mixture's was not found); for gates the least and the largest."""

    numbers: dict[Role, list[float]] = field(default_factory=dict)
    routed: list[float] = field(default_factory=list)
    gates: dict[Role, list[float]] = field(default_factory=dict)
    forms: Forms = field(default_factory=Forms)


def probe_multipliers(
    model: nn.Module, assignments: Mapping[str, Assignment], forward: Callable[[], object], experts: int | None = None
) -> Probed:
    """The multipliers that one call of ``forward`` shows; ``experts`` is N, for experts in flat matrices."""
    mixtures, found = find_mixtures(model, assignments, experts), _Found()
    with torch.no_grad(), posed(model, assignments, mixtures):
        with watching(model, assignments, mixtures) as seen:
            logits = logits_of(forward())
        starts = [None, *seen.inputs]
        for before, after, segment in zip(starts, seen.inputs, seen.segments, strict=False):
            if before is None or before.shape == after.shape:
                _look_at(model, segment, before, after, found)
        tied = _look_at_logits(model, seen, logits, assignments, found)
    return _summary(found, seen, assignments, tied=tied)


def logits_of(output: object) -> Tensor | None:
    """The logits in what a model returned: ``logits``, or the first tensor of a tuple; None without any."""
    value: Any = getattr(output, "logits", output)
    if isinstance(value, Mapping):
        value = value.get("logits")
    if isinstance(value, tuple | list):
        value = next((v for v in value if isinstance(v, Tensor)), None)
    return value if isinstance(value, Tensor) and value.ndim >= 2 else None


def _look_at(model: nn.Module, segment: Segment, before: Tensor | None, after: Tensor, found: _Found) -> None:
    """What was added between two norms, as its parts; before the first norm there was nothing."""
    goal = after.double() - (0 if before is None else before.double())
    fitted = fit_gated(goal, [p.value for p in segment.parts], rounding=rounding_of(after))
    for i, part in enumerate(segment.parts if fitted else ()):
        assert fitted is not None
        found.numbers.setdefault(part.role, []).append(fitted.numbers[i])
        if i == fitted.gated:
            found.gates.setdefault(part.role, []).extend(fitted.gates)
    if len(segment.mixtures) == 1 and segment.normed is not None and segment.normed.numel() == goal.numel():
        found.routed.append(_routed(model, segment, segment.normed, goal, rounding_of(after), found.forms))


def _routed(model: nn.Module, segment: Segment, normed: Tensor, goal: Tensor, rounding: float, forms: Forms) -> float:
    """What one expert's f(y) is multiplied by in what a layer of experts alike adds; NaN where no form fits."""
    y_TD = normed.reshape(-1, normed.shape[-1])
    others = [p.value.reshape(y_TD.shape) for p in segment.parts if p.role is not Role.EXPERT_DOWN]
    best: tuple[float, float, Form | None] | None = None
    try:
        for form, made in expert_outputs(model, segment.mixtures[0], y_TD, forms):
            rows = len(made)
            parts = [made, *(other[:rows] for other in others)]
            fitted = fit_gated(goal.reshape(y_TD.shape)[:rows], parts, rounding=rounding)
            # weights that do not sum to a constant make the experts' own number another one for each token
            if fitted is not None and fitted.gated != 0 and (best is None or fitted.left < best[0]):
                best = fitted.left, fitted.numbers[0], form
            if best is not None and forms.knows(form):
                break
    except Exception:  # an expert's module is the user's own, and may want more than tokens
        best = None
    if best is None:
        return math.nan
    forms.learn(best[2])
    return best[1]


def _look_at_logits(
    model: nn.Module, seen: Seen, logits: Tensor | None, assignments: Mapping[str, Assignment], found: _Found
) -> bool:
    """What the logits are multiplied by, before, in and after the unembedding. True where the embedding is that."""
    normed = seen.segments[-1].normed
    if normed is None or logits is None:
        return False
    if seen.readout is None:
        return _look_at_embedding(model, normed, logits, assignments, found)
    given, made = seen.readout.given, seen.readout.made
    if made.numel() != logits.numel():
        return False
    if given.shape != normed.shape:
        # the last position alone goes on to the logits
        if given.ndim != 3 or normed.ndim != 3 or given.shape[1] != 1:
            return False
        normed = normed[:, -1:]
    before, after = fit(given, [normed]), fit(logits, [made])
    if before is not None and after is not None:
        found.numbers[Role.UNEMBEDDING] = [before.numbers[0] * seen.readout.inside * after.numbers[0]]
        if seen.readout.bias is not None:
            found.numbers[Role.BIAS] = [seen.readout.bias * after.numbers[0]]
    return False


def _look_at_embedding(
    model: nn.Module, normed: Tensor, logits: Tensor, assignments: Mapping[str, Assignment], found: _Found
) -> bool:
    """Logits that the embedding's own matrix gives, without a module or a name for it."""
    table = next((a for a in assignments.values() if a.role is Role.TOKEN_EMBEDDING), None)
    if table is None or Role.UNEMBEDDING in {r for a in assignments.values() for r in (a.role, *a.also)}:
        return False
    weight = model.get_parameter(table.name).detach()
    if logits.shape[-1] != len(weight) or normed.shape[-1] != weight.shape[1]:
        return False
    if logits.shape[:-1] != normed.shape[:-1] and normed.ndim == 3:
        normed = normed[:, -1:]
    if logits.shape[:-1].numel() != normed.shape[:-1].numel():
        return False
    again = normed.double() @ weight[:_ROWS].double().T
    fitted = fit(logits[..., :_ROWS].reshape(again.shape), [again])
    if fitted is None:
        return False
    found.numbers[Role.UNEMBEDDING] = [fitted.numbers[0]]
    return True


def _summary(found: _Found, seen: Seen, assignments: Mapping[str, Assignment], *, tied: bool) -> Probed:
    notes, unjudged = [], []
    rows = torch.cat(seen.sums) if seen.sums else None
    if rows is not None:
        spread, mean = float(rows.std()), float(rows.mean())
        if spread <= AGREEMENT * mean:
            found.numbers[Role.ROUTER] = [mean]
        else:
            notes.append(
                f"the weights of a token's active experts sum to {float(rows.min()):.3g} to {float(rows.max()):.3g}: "
                "the rule's R assumes a constant sum; `mue_check router` judges routers"
            )
    for gated, gates in found.gates.items():
        notes.append(
            f"{gated} is multiplied by another number for each token, {min(gates):.3g} to {max(gates):.3g}: the rule "
            "knows of no such gate"
        )
    values: dict[Role | None, float] = {}
    every: list[tuple[Role | None, list[float]]] = [*found.numbers.items(), (None, found.routed)]
    for role, numbers in every:
        if not numbers or max(map(abs, numbers)) < _NOTHING**2 or any(map(math.isnan, numbers)):
            continue  # its output is part of another's, or is nothing
        what = "routed experts" if role is None else str(role)
        if max(numbers) - min(numbers) <= AGREEMENT * abs(numbers[0]) and min(numbers) > 0:
            mean = sum(numbers) / len(numbers)
            values[role] = 1.0 if abs(mean - 1) < _NOTHING else float(f"{mean:.5g}")
        else:
            unjudged.append(
                f"{what}: blocks show different multipliers, {min(numbers):.4g} to {max(numbers):.4g}, and the rule "
                "has one for all"
            )
    stacked = {a.role for a in assignments.values() if a.experts and a.role is not None}
    return Probed(
        values={role: value for role, value in values.items() if role is not None},
        routed=values.get(None),
        inside=frozenset(stacked | {Role.ROUTER}),
        normed=frozenset(seen.normed),
        tied=tied,
        notes=tuple(notes),
        unjudged=tuple(unjudged),
    )
