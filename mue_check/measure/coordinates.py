"""Scales of activations on a fixed probe batch and of weights by role: RMS, and RMS of the change since the start.

The sharp and cheap check: it sees a missing multiplier at step 0 and a wrong learning-rate exponent
after a few steps. It is blind to weight decay, eps and betas.
"""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from mue_check.data import Corpus
from mue_check.measure.stacking import stack_of
from mue_check.records import Cell, Columns
from mue_check.training import Stack

PROBE_SEQUENCES = 16
WEIGHT = "weight."
"""What the coordinate of a role's weights begins with: ``weight.expert_up``."""


def measure_coordinates(cell: Cell, corpus: Corpus) -> Columns:
    """Columns seed, value, step, coordinate, rms, change at each of ``cell.steps`` (ascending; 0 is initialization).

    ``coordinate`` is the tap's name in the model (embedding, block0.ffn_branch, ..., logits), or a role's
    weights over all layers.
    """
    stack, values, seeds = stack_of(cell, corpus)
    tokens = torch.from_numpy(corpus.heldout_windows(cell.train.context)[:PROBE_SEQUENCES, :-1]).to(stack.device)
    first: dict[str, Tensor] = {}
    out: defaultdict[str, list[float | int | str]] = defaultdict(list)

    def look(step: int) -> None:
        def tap(name: str, value_RX: Tensor) -> None:
            began = first.setdefault(name, value_RX.clone())
            rows = zip(seeds, values, _rms(value_RX), _rms(value_RX - began), strict=True)
            for seed, value, rms, change in rows:
                row: dict[str, float | int | str] = {"seed": seed, "value": value, "step": step, "coordinate": name}
                row |= {"rms": rms, "change": change}
                for key, item in row.items():
                    out[key].append(item)

        stack.probe(tokens, tap)
        for name, weights_RX in _weights(stack):
            tap(name, weights_RX)

    look(0)
    done = 0
    for step in cell.steps:
        if step > done:
            stack.advance(step - done)
            done = step
            look(step)
    return out


def _weights(stack: Stack) -> Iterator[tuple[str, Tensor]]:
    """Each role with all its weights side by side, [R, X]."""
    by_role: defaultdict[str, list[Tensor]] = defaultdict(list)
    for p in stack.state.declared:
        by_role[p.role].append(stack.state.parameters[p.name].detach().reshape(stack.runs, -1))
    for role, parts in by_role.items():
        yield WEIGHT + role, torch.cat(parts, dim=1)


def _rms(value: Tensor) -> list[float]:
    """Root mean square of each run of [R, ...]."""
    values: list[float] = value.double().flatten(1).square().mean(1).sqrt().tolist()
    return values
