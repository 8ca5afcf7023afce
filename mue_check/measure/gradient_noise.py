"""Gradient noise of each expert and each matrix, at chosen steps of a training."""

from collections import defaultdict

from mue_check.data import Corpus
from mue_check.measure.stacking import stack_of
from mue_check.models.parameters import stable_seed
from mue_check.records import Cell, Columns
from mue_check.training import Stack
from mue_check.training.load_scaling import EXPERT_AXIS
from mue_check.training.noise import CLONES, gradient_noise

TOKENS = 2**16
"""Per run and step, however large the batch: |G|^2 of a rare expert is then known well enough (docs/choices.md)."""
SHARED = -1
"""In place of an expert, or of a layer, for what has none."""


def measure_gradient_noise(cell: Cell, corpus: Corpus) -> Columns:
    """Columns seed, value, step, load, layer, kind, expert, tokens, numbers, noise, signal, adam_noise, adam_signal.

    One row per parameter, or per expert of it; ``kind`` is its role. ``tokens`` is the mean number of tokens that it
    saw in a batch, ``numbers`` how many entries it has. Sums over rows give the noise of the whole model.
    """
    stack, values, seeds = stack_of(cell, corpus)
    out: defaultdict[str, list[float | int | str]] = defaultdict(list)
    done = 0
    for step in cell.steps or (cell.train.steps,):
        stack.advance(step - done)
        done = step
        for run, (seed, value) in enumerate(zip(seeds, values, strict=True)):
            for load in cell.loads or ("",):
                for row in _rows(stack, run, stable_seed(seed, step), load):
                    for name, item in {"seed": seed, "value": value, "step": step, "load": load, **row}.items():
                        out[name].append(item)
    return out


def _rows(stack: Stack, run: int, seed: int, load: str) -> list[dict[str, float | int | str]]:
    tokens = stack.train.tokens_per_step
    batches = max(2, TOKENS // (tokens * CLONES)) * CLONES
    measured = gradient_noise(stack, run, batches, seed=seed, load=load)
    rows: list[dict[str, float | int | str]] = []
    for p in stack.state.declared:
        scatter = measured.scatter[p.name]
        block, dot, _ = p.name.partition(".")
        layer = int(block.removeprefix("block")) if dot and block.startswith("block") else SHARED
        experts = len(scatter.noise)
        met_E = measured.tokens_LE[layer] if measured.tokens_LE is not None and p.role in EXPERT_AXIS else None
        for expert in range(experts):
            row: dict[str, float | int | str] = {"layer": layer, "kind": str(p.role)}
            row["expert"] = SHARED if met_E is None else expert
            row["tokens"] = float(tokens if met_E is None else met_E[expert])
            row["numbers"] = stack.state.parameters[p.name][run].numel() // experts
            for name in ("noise", "signal", "adam_noise", "adam_signal"):
                row[name] = float(getattr(scatter, name)[expert])
            rows.append(row)
    return rows
