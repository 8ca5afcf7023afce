"""Gradient noise of each expert and each matrix, at chosen steps of a training."""

from collections.abc import Iterator

from mue_check.data import Data
from mue_check.measure.measurement import Measurement, Passes, Row, by_columns
from mue_check.measure.stacks import stack_of
from mue_check.models.parameters import stable_seed
from mue_check.records import Cell, Columns
from mue_check.spec import TrainSpec
from mue_check.training import Stack
from mue_check.training.load_scaling import EXPERT_AXIS
from mue_check.training.noise import CLONES, gradient_noise

TOKENS = 2**16
"""Per run and step, however large the batch: |G|^2 of a rare expert is then known well enough (docs/choices.md)."""
SHARED = -1
"""In place of an expert, or of a layer, for what has none."""


def measure_gradient_noise(cell: Cell, data: Data) -> Columns:
    """Columns seed, value, step, load, layer, kind, expert, tokens, numbers, noise, signal, adam_noise, adam_signal.

    One row per parameter, or per expert of it; ``kind`` is its role. ``tokens`` is the mean number of tokens that it
    saw in a batch, ``numbers`` how many entries it has. Sums over rows give the noise of the whole model.
    """
    return by_columns(_rows(cell, data))


def _rows(cell: Cell, data: Data) -> Iterator[Row]:
    stack, values, seeds = stack_of(cell, data)
    done = 0
    for step in _steps(cell):
        stack.advance(step - done)
        done = step
        for run, (seed, value) in enumerate(zip(seeds, values, strict=True)):
            for load in _loads(cell):
                for row in _rows_of_run(stack, run, stable_seed(seed, step), load):
                    yield {"seed": seed, "value": value, "step": step, "load": load, **row}


def _rows_of_run(stack: Stack, run: int, seed: int, load: str) -> Iterator[Row]:
    measured = gradient_noise(stack, run, _repeats(stack.train) * CLONES, seed=seed, load=load)
    tokens = stack.train.tokens_per_step
    for p in stack.state.declared:
        scatter = measured.scatter[p.name]
        block, dot, _ = p.name.partition(".")
        layer = int(block.removeprefix("block")) if dot and block.startswith("block") else SHARED
        experts = len(scatter.noise)
        load_E = measured.tokens_LE[layer] if measured.tokens_LE is not None and p.role in EXPERT_AXIS else None
        for expert in range(experts):
            row: dict[str, float | int | str] = {"layer": layer, "kind": str(p.role)}
            row["expert"] = SHARED if load_E is None else expert
            row["tokens"] = float(tokens if load_E is None else load_E[expert])
            row["numbers"] = stack.state.parameters[p.name][run].numel() // experts
            for name in ("noise", "signal", "adam_noise", "adam_signal"):
                row[name] = float(getattr(scatter, name)[expert])
            yield row


def _steps(cell: Cell) -> tuple[int, ...]:
    return cell.steps or (cell.train.steps,)


def _loads(cell: Cell) -> tuple[str, ...]:
    return cell.loads or ("",)


def _repeats(train: TrainSpec) -> int:
    """How many times CLONES batches."""
    return max(2, TOKENS // (train.tokens_per_step * CLONES))


def _passes(cell: Cell) -> Passes:
    steps = _steps(cell)
    return Passes(steps=steps[-1], noise=_repeats(cell.train) * len(steps) * len(_loads(cell)))


GRADIENT_NOISE = Measurement(measure=measure_gradient_noise, passes=_passes)
