"""The work of a batch of cells, as a few amounts. A calibration gives each a price in seconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Literal

import torch

from mue_check.data import Corpus, load_corpus
from mue_check.data.corpus import HELDOUT_WINDOWS
from mue_check.flops import activation_numbers, parameter_numbers, training_flop
from mue_check.measure.coordinates import PROBE_SEQUENCES
from mue_check.measure.gradient_noise import TOKENS
from mue_check.models.blocked_experts import blocked_experts, size_of_blocks
from mue_check.models.experts import all_experts, choose_product
from mue_check.models.load_steering import ROUNDS
from mue_check.records import Cell
from mue_check.routing.choice import TokenChoice
from mue_check.spec import Dense, Experts, ModelSpec, TrainSpec
from mue_check.training.noise import CLONES

Product = Literal["all", "active", "blocks"]
"""The experts that a token is multiplied with: all (most with weight 0), its active ones, or those in padded blocks."""

FORWARD = 1 / 3
"""Share of a training step that its forward pass takes."""
SORT_CALLS = 4
"""Calls of a layer that sorts its tokens by expert, relative to those of a plain layer (reports/bench/plan.md)."""
WEIGHT = 4
"""Cost of updating a parameter, or of ranking a router's score, relative to moving an activation (likewise)."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a device has to do, summed over all steps of all stacks.

    ``calls`` count layers and steps, each of which launches kernels of any size. ``flop`` are those of matrix products.
    ``activations`` and ``parameters`` are numbers that the device moves: activations written, and parameters updated.
    ``run_steps`` are steps times runs; they are displayed and have no price.
    """

    calls: float = 0.0
    flop: float = 0.0
    activations: float = 0.0
    parameters: float = 0.0
    run_steps: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)})

    def __mul__(self, factor: float) -> "Work":
        return Work(**{f.name: getattr(self, f.name) * factor for f in fields(Work)})

    @property
    def priced(self) -> tuple[float, ...]:
        """The amounts that have a price, in the order of PRICED."""
        return self.calls, self.flop, self.activations + WEIGHT * self.parameters


PRICED = ("calls", "flop", "numbers")


@cache
def product_of(model: ModelSpec, tokens: int, device: str) -> Product:
    """The expert product that ``models.experts`` chooses for a model on a device, with ``tokens`` per run."""
    ffn = model.feed_forward
    if isinstance(ffn, Dense):
        return "active"
    if ffn.router == "expert_choice":
        return "active"
    if device == "cuda" and not torch.cuda.is_available():
        return "all" if ffn.total < 2 * ffn.activated else "blocks"
    x, up = torch.empty(1, 1, model.width, device=device), torch.empty(1, 1, ffn.total, ffn.hidden, device=device)
    chosen = torch.empty(1, tokens, ffn.activated, device=device)
    product = choose_product(x, up, TokenChoice(chosen, chosen.long()))
    return "all" if product is all_experts else "blocks" if product is blocked_experts else "active"


def met_experts(model: ModelSpec, product: Product, *, tokens: int, runs: int) -> float:
    """Routed experts that a token is multiplied with, including the padding of blocks. 0 in a dense model."""
    ffn = model.feed_forward
    if isinstance(ffn, Dense):
        return 0
    if product != "blocks":
        return ffn.total if product == "all" else ffn.activated
    size = size_of_blocks(tokens, ffn.activated, ffn.total)
    return (runs * ffn.total + runs * tokens * ffn.activated // size) * size / (runs * tokens)


def step_work(model: ModelSpec, train: TrainSpec, *, vocab: int, runs: int, product: Product) -> Work:
    """One training step of a stack of ``runs``."""
    tokens, ffn = runs * train.tokens_per_step, model.feed_forward
    met = met_experts(model, product, tokens=train.tokens_per_step, runs=runs)
    experts = ffn.total if isinstance(ffn, Experts) else 0
    # a steered load takes more rounds of ranking
    rounds = 1 + (ROUNDS + 1 if isinstance(ffn, Experts) and ffn.load and ffn.router != "content_blind" else 0)
    sorting = model.depth if experts and product != "all" else 0
    ranked = model.depth * experts * rounds
    return Work(
        calls=1 + model.depth + SORT_CALLS * sorting,
        flop=tokens * training_flop(model, context=train.context, vocab=vocab, met=met),
        activations=tokens * (activation_numbers(model, context=train.context, vocab=vocab, met=met) + WEIGHT * ranked),
        parameters=runs * parameter_numbers(model, context=train.context, vocab=vocab),
        run_steps=runs,
    )


def batch_work(cells: Sequence[Cell]) -> Work:
    """The work of measuring a batch: cells that differ only in their seeds (``execute.batches``)."""
    cell = cells[0]
    runs = sum(c.runs for c in cells)
    corpus = load_corpus(cell.corpus)
    product = product_of(cell.model, cell.train.tokens_per_step, cell.device)
    step = step_work(cell.model, cell.train, vocab=corpus.vocab, runs=runs, product=product)
    return _MEASURED[cell.measurement](cell, step, corpus)


def _forward(step: Work, train: TrainSpec, windows: int) -> Work:
    """A forward pass over ``windows`` sequences, which updates nothing."""
    return replace(step * (FORWARD * windows / train.batch), parameters=0.0, run_steps=0.0)


def _loss_grid(cell: Cell, step: Work, corpus: Corpus) -> Work:
    return step * cell.train.steps + _forward(step, cell.train, _windows(corpus, cell))


def _early_curve(cell: Cell, step: Work, corpus: Corpus) -> Work:
    return step * cell.steps[-1]


def _learning_curve(cell: Cell, step: Work, corpus: Corpus) -> Work:
    return step * cell.steps[-1] + _forward(step, cell.train, _windows(corpus, cell)) * len(cell.steps)


def _coordinates(cell: Cell, step: Work, corpus: Corpus) -> Work:
    looked = Work(parameters=step.parameters)  # every weight is read to measure its scale
    return step * cell.steps[-1] + (_forward(step, cell.train, PROBE_SEQUENCES) + looked) * len(cell.steps)


def _optimizer(cell: Cell, step: Work, corpus: Corpus) -> Work:
    return Work(parameters=3 * step.parameters)


def _gradient_noise(cell: Cell, step: Work, corpus: Corpus) -> Work:
    """Gradients of many batches at frozen weights, CLONES at a time, for each run, step and load."""
    runs, steps = step.run_steps, cell.steps or (cell.train.steps,)
    passes = max(2, TOKENS // (cell.train.tokens_per_step * CLONES)) * len(steps) * max(1, len(cell.loads)) * runs
    product = product_of(cell.model, cell.train.tokens_per_step, cell.device)
    side_by_side = step_work(cell.model, cell.train, vocab=corpus.vocab, runs=CLONES, product=product)
    return step * steps[-1] + replace(side_by_side * passes, run_steps=0.0)


def _windows(corpus: Corpus, cell: Cell) -> int:
    return min(HELDOUT_WINDOWS, len(corpus.heldout) // (cell.train.context + 1))


_MEASURED: Mapping[str, Callable[[Cell, Work, Corpus], Work]] = {
    "loss_grid": _loss_grid,
    "coordinates": _coordinates,
    "early_curve": _early_curve,
    "learning_curve": _learning_curve,
    "routing": _loss_grid,
    "optimizer": _optimizer,
    "gradient_noise": _gradient_noise,
}
