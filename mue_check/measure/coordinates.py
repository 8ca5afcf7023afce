"""Activation scales on a fixed probe batch: RMS, and RMS of the change since initialization.

The sharp and cheap check: it sees a missing multiplier at step 0 and a wrong learning-rate exponent
after a few steps. It is blind to weight decay, eps and betas.
"""

from collections import defaultdict

import torch
from torch import Tensor

from mue_check.data import Corpus
from mue_check.measure.stacking import stack_of
from mue_check.records import Cell, Columns

PROBE_SEQUENCES = 16


def measure_coordinates(cell: Cell, corpus: Corpus) -> Columns:
    """Columns seed, lr, step, coordinate, rms, change at each of ``cell.steps`` (ascending; 0 is initialization).

    ``coordinate`` is the tap's name in the model (embedding, block0.ffn_branch, ..., logits).
    """
    stack, lrs, seeds = stack_of(cell, corpus)
    tokens = torch.from_numpy(corpus.heldout_windows(cell.train.context)[:PROBE_SEQUENCES, :-1]).to(stack.device)
    first: dict[str, Tensor] = {}
    out: defaultdict[str, list[float | int | str]] = defaultdict(list)

    def look(step: int) -> None:
        def tap(name: str, value: Tensor) -> None:
            began = first.setdefault(name, value.clone())
            rows = zip(seeds, lrs, _rms(value), _rms(value - began), strict=True)
            for seed, lr, rms, change in rows:
                row: dict[str, float | int | str] = {"seed": seed, "lr": lr, "step": step, "coordinate": name}
                row |= {"rms": rms, "change": change}
                for key, item in row.items():
                    out[key].append(item)

        stack.probe(tokens, tap)

    look(0)
    done = 0
    for step in cell.steps:
        if step > done:
            stack.advance(step - done)
            done = step
            look(step)
    return out


def _rms(value: Tensor) -> list[float]:
    """Root mean square of each run of [R, ...]."""
    values: list[float] = value.double().flatten(1).square().mean(1).sqrt().tolist()
    return values
