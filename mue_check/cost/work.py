"""Work: what a device has to do for a batch of cells, in numbers that a calibration gives a price each."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import cache
from typing import Literal

import torch

from mue_check.data import Data, load_data
from mue_check.measure import MEASUREMENTS
from mue_check.measure.coordinates import PROBE_EXAMPLES
from mue_check.models.blocked_experts import blocked_experts, size_of_blocks
from mue_check.models.experts import all_experts, choose_product
from mue_check.models.families import family_of
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


def step_work(model: ModelSpec, train: TrainSpec, data: Data, *, runs: int, product: Product) -> Work:
    """One training step of a stack of ``runs``."""
    tokens, ffn = runs * train.tokens_per_step, model.feed_forward
    met = met_experts(model, product, tokens=train.tokens_per_step, runs=runs)
    experts = ffn.total if isinstance(ffn, Experts) else 0
    rounds = 1 + (ROUNDS + 1 if isinstance(ffn, Experts) and ffn.load and ffn.router != "content_blind" else 0)
    ordered = model.depth if experts and product != "all" else 0
    amounts = family_of(model).amounts(model, train, data, met)
    return Work(
        steps=1,
        layers=model.depth,
        mixtures=model.depth if experts else 0,
        sorted=ordered,
        flop=tokens * amounts.flop,
        moved=tokens * amounts.activations,
        updated=runs * amounts.parameters,
        scored=tokens * model.depth * experts * rounds,
        groups=runs * ordered * experts if product == "active" else 0,
        run_steps=runs,
    )


def making_work(step: Work, *, seeds: int) -> Work:
    """Making the stack whose step is given: every seed draws its numbers once, whatever its runs differ in."""
    return Work(stacks=1, drawn=step.updated * seeds / step.run_steps)


def batch_work(cells: Sequence[Cell]) -> Work:
    """The work of measuring a batch: cells that differ only in their seeds (``execute.batches``)."""
    cell, runs = cells[0], sum(c.runs for c in cells)
    model, train, data = cell.model, cell.train, load_data(cell.corpus)
    product = product_of(model, train.tokens_per_step, cell.device)
    step = step_work(model, train, data, runs=runs, product=product)
    passes = MEASUREMENTS[cell.measurement].passes(cell)
    examples = passes.evaluations * family_of(model).heldout(train, data) + passes.probes * PROBE_EXAMPLES
    forward = step * (FORWARD * examples / train.batch)
    noise = step_work(model, train, data, runs=CLONES, product=product) * (passes.noise * runs)
    return (
        making_work(step, seeds=sum(len(c.seeds) for c in cells))
        + step * passes.steps
        + replace(forward, updated=0.0, run_steps=0.0)
        + Work(updated=passes.updates * step.updated)
        + replace(noise, run_steps=0.0)
    )
