"""Scales of activations on a fixed probe batch and of weights by role: RMS, and RMS of the change since the start.

The sharp and cheap check: it shows a missing multiplier at step 0 and a wrong learning-rate exponent
after a few steps. It does not see weight decay, eps and betas.
"""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from mue_check.data import Data
from mue_check.measure.measurement import Measurement, Passes, Row, by_columns
from mue_check.measure.stacks import stack_of
from mue_check.records import Cell, Columns
from mue_check.training import Stack

PROBE_EXAMPLES = 16
WEIGHT = "weight."
"""Prefix of the coordinate of a role's weights: ``weight.expert_up``."""


def measure_coordinates(cell: Cell, data: Data) -> Columns:
    """Columns seed, value, step, coordinate, rms, change at each of ``cell.steps`` (ascending; 0 is initialization).

    ``coordinate`` is the tap's name in the model (embedding, block0.ffn_branch, ..., logits), or a role's
    weights over all layers.
    """
    stack, values, seeds = stack_of(cell, data)
    inputs = stack.examples.observed(PROBE_EXAMPLES)
    first: dict[str, Tensor] = {}
    rows: list[Row] = []

    def look(step: int) -> None:
        def tap(name: str, value_RX: Tensor) -> None:
            start_RX = first.setdefault(name, value_RX.clone())
            runs = zip(seeds, values, _rms(value_RX), _rms(value_RX - start_RX), strict=True)
            for seed, value, rms, change in runs:
                row: Row = {"seed": seed, "value": value, "step": step, "coordinate": name}
                rows.append({**row, "rms": rms, "change": change})

        stack.probe(tap, inputs)
        for name, weights_RX in _weights(stack):
            tap(name, weights_RX)

    look(0)
    done = 0
    for step in cell.steps:
        if step > done:
            stack.advance(step - done)
            done = step
            look(step)
    return by_columns(rows)


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


def _passes(cell: Cell) -> Passes:
    return Passes(steps=cell.steps[-1], probes=len(cell.steps), updates=len(cell.steps))


COORDINATES = Measurement(measure=measure_coordinates, passes=_passes)
