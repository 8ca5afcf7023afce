"""The work of a batch of cells, as a few amounts. A calibration gives each a price in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Literal

import torch

from mue_check.data import Data, load_data
from mue_check.measure import MEASUREMENTS
from mue_check.measure.coordinates import PROBE_EXAMPLES
from mue_check.models.blocked_experts import blocked_experts, size_of_blocks
from mue_check.models.cards import CARDS
from mue_check.models.experts import all_experts, choose_product, kernels_pay
from mue_check.models.families import family_of
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
    """The expert product that ``models.experts`` chooses for a model on a device, with ``tokens`` in each run.

    For CUDA on a machine without a GPU, that of a card with Triton kernels.
    """
    ffn = model.feed_forward
    if isinstance(ffn, Dense):
        return "active"
    if ffn.router == "expert_choice":
        return "active"
    if device == "cuda" and not torch.cuda.is_available():
        return "active" if kernels_pay(CARDS["H100"], ffn.total, ffn.activated, ffn.hidden) else "all"
    x, up = torch.empty(1, 1, model.width, device=device), torch.empty(1, 1, ffn.total, ffn.hidden, device=device)
    chosen = torch.empty(1, 1, ffn.activated, device=device).expand(1, tokens, -1)
    product = choose_product(x, up, TokenChoice(chosen, chosen))
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


def step_work(model: ModelSpec, train: TrainSpec, data: Data, *, runs: int, product: Product) -> Work:
    """One training step of a stack of ``runs``."""
    tokens, ffn = runs * train.tokens_per_step, model.feed_forward
    met = met_experts(model, product, tokens=train.tokens_per_step, runs=runs)
    experts = ffn.total if isinstance(ffn, Experts) else 0
    # a steered load takes more rounds of ranking
    rounds = 1 + (ROUNDS + 1 if isinstance(ffn, Experts) and ffn.load and ffn.router != "content_blind" else 0)
    sorting = model.depth if experts and product != "all" else 0
    amounts = family_of(model).amounts(model, train, data, met)
    return Work(
        calls=1 + model.depth + SORT_CALLS * sorting,
        flop=tokens * amounts.flop,
        activations=tokens * (amounts.activations + WEIGHT * model.depth * experts * rounds),
        parameters=runs * amounts.parameters,
        run_steps=runs,
    )


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
        step * passes.steps
        + replace(forward, parameters=0.0, run_steps=0.0)
        + Work(parameters=passes.updates * step.parameters)
        + replace(noise, run_steps=0.0)
    )
