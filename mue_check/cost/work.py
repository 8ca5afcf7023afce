"""Work: what a device has to do for a batch of cells, in numbers that a calibration gives a price each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
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
"""Which experts are multiplied with a token: all, with weights of 0, its own, or its own in blocks of one size."""

FORWARD = 1 / 3
"""Of a training step, what a forward pass takes."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is done, summed over all steps of all stacks.

    ``stacks`` made and ``drawn`` numbers of their seeds; ``steps``, those times layers, times layers of experts, and
    times layers that sort tokens by expert (each launches kernels, whatever their size); ``flop`` of matrix products;
    ``moved`` numbers of activations; ``updated`` numbers of parameters; ``scored`` experts x tokens that a router
    orders; ``groups`` of the product by expert. ``run_steps`` are steps times runs: for people, and without a price.
    """

    stacks: float = 0.0
    drawn: float = 0.0
    steps: float = 0.0
    layers: float = 0.0
    mixtures: float = 0.0
    sorted: float = 0.0
    flop: float = 0.0
    moved: float = 0.0
    updated: float = 0.0
    scored: float = 0.0
    groups: float = 0.0
    run_steps: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)})

    def __mul__(self, factor: float) -> "Work":
        return Work(**{f.name: getattr(self, f.name) * factor for f in fields(Work)})

    @property
    def priced(self) -> tuple[float, ...]:
        """The numbers in the order of PRICED."""
        return astuple(self)[:-1]


PRICED = tuple(f.name for f in fields(Work))[:-1]


@cache
def product_of(model: ModelSpec, tokens: int, device: str) -> Product:
    """Which product the experts of a model get there, with so many tokens a run (``models.experts``)."""
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
    """Routed experts that a token is multiplied with, the empty rows of blocks counted; 0 in a dense model."""
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
    rounds = 1 + (ROUNDS + 1 if isinstance(ffn, Experts) and ffn.load and ffn.router != "content_blind" else 0)
    ordered = model.depth if experts and product != "all" else 0
    return Work(
        steps=1,
        layers=model.depth,
        mixtures=model.depth if experts else 0,
        sorted=ordered,
        flop=tokens * training_flop(model, context=train.context, vocab=vocab, met=met),
        moved=tokens * activation_numbers(model, context=train.context, vocab=vocab, met=met),
        updated=runs * parameter_numbers(model, context=train.context, vocab=vocab),
        scored=tokens * model.depth * experts * rounds,
        groups=runs * ordered * experts if product == "active" else 0,
        run_steps=runs,
    )


def making_work(step: Work, *, seeds: int) -> Work:
    """Making the stack whose step is given: every seed draws its numbers once, whatever its runs differ in."""
    return Work(stacks=1, drawn=step.updated * seeds / step.run_steps)


def batch_work(cells: Sequence[Cell]) -> Work:
    """All that measuring a batch of cells takes (``execute.batches``: alike but for their seeds)."""
    cell = cells[0]
    runs = sum(c.runs for c in cells)
    corpus = load_corpus(cell.corpus)
    product = product_of(cell.model, cell.train.tokens_per_step, cell.device)
    step = step_work(cell.model, cell.train, vocab=corpus.vocab, runs=runs, product=product)
    return making_work(step, seeds=sum(len(c.seeds) for c in cells)) + _MEASURED[cell.measurement](cell, step, corpus)


def _forward(step: Work, train: TrainSpec, windows: int) -> Work:
    """A forward pass over that many sequences: no gradient, no update, and no step of anybody's training."""
    return replace(step * (FORWARD * windows / train.batch), updated=0.0, run_steps=0.0)


def _loss_grid(cell: Cell, step: Work, corpus: Corpus) -> Work:
    return step * cell.train.steps + _forward(step, cell.train, _windows(corpus, cell))


def _early_curve(cell: Cell, step: Work, corpus: Corpus) -> Work:
    return step * cell.steps[-1]


def _learning_curve(cell: Cell, step: Work, corpus: Corpus) -> Work:
    return step * cell.steps[-1] + _forward(step, cell.train, _windows(corpus, cell)) * len(cell.steps)


def _coordinates(cell: Cell, step: Work, corpus: Corpus) -> Work:
    looked = replace(step * 0, updated=step.updated)  # every weight is read for its scale
    return step * cell.steps[-1] + (_forward(step, cell.train, PROBE_SEQUENCES) + looked) * len(cell.steps)


def _optimizer(cell: Cell, step: Work, corpus: Corpus) -> Work:
    return Work(updated=3 * step.updated)


def _gradient_noise(cell: Cell, step: Work, corpus: Corpus) -> Work:
    """Batches at frozen weights, CLONES of them side by side, for each run, look and load."""
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
