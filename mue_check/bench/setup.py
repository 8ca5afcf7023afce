"""Everything that the ways of one case share: prescription, data, and the values of each role."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mue_check.bench.cases import BenchCase
from mue_check.data import load_corpus
from mue_check.models.batch_order import batch_order
from mue_check.rules import HyperParameters, Prescription, Role, Row, get_rule
from mue_check.spec import Scenario, TrainSpec
from mue_check.spec_text import parse_scenario
from mue_check.training import Stack

CORPUS, RULE, REFERENCE = "markov", "complete_mue", "d=32,L=2,H=32"
BASE = HyperParameters(lr=2.0**-7, init_std=0.1, weight_decay=0.1)
STEPS, WARMUP, FINAL = 400, 5, 0.1
"""Length of the schedule. No bench trains that long."""


@dataclass(frozen=True)
class BenchSetup:
    """One case on one device. Runs have seeds 0, 1, ... and one learning rate."""

    case: BenchCase
    device: torch.device
    rule: str = RULE
    base: HyperParameters = BASE
    constant: bool = False
    """The same learning rate in all steps."""

    @cached_property
    def train(self) -> TrainSpec:
        """The schedule."""
        warmup, final = (0, 1.0) if self.constant else (WARMUP, FINAL)
        return TrainSpec(steps=STEPS, batch=self.case.batch, context=self.case.context, warmup=warmup, final_lr=final)

    @cached_property
    def prescription(self) -> Prescription:
        """From the smallest dense model to the case's model."""
        reference = Scenario.of(parse_scenario(REFERENCE).model, self.train)
        return get_rule(self.rule).prescribe(reference, Scenario.of(self.case.spec, self.train))

    @cached_property
    def rows(self) -> dict[Role, Row]:
        """The values of each role."""
        return {Role(row.role): row for row in self.prescription.values(self.base)}

    def stack(self, seeds: Sequence[int]) -> Stack:
        """The runs of these seeds as one stack."""
        corpus = load_corpus(CORPUS)
        return Stack(
            self.case.spec,
            self.prescription,
            self.base,
            self.train,
            corpus,
            lrs=[self.base.lr] * len(seeds),
            seeds=seeds,
            device=self.device,
            precision=self.case.precision,
        )

    def batches(self, seeds: Sequence[int]) -> "Batches":
        """The same data for ways that have no stack."""
        return Batches(self, seeds)


class Batches:
    """The tokens of each step."""

    def __init__(self, setup: BenchSetup, seeds: Sequence[int]) -> None:
        corpus = load_corpus(CORPUS)
        self.tokens = torch.from_numpy(corpus.train.astype("int64")).to(setup.device)
        starts = [batch_order(len(corpus.train) - setup.train.context, setup.train, seed) for seed in seeds]
        self.starts = torch.stack(starts, dim=1).to(setup.device)
        self.offsets = torch.arange(setup.case.context + 1, device=setup.device)

    def of(self, step: int) -> Tensor:
        """[R, B, T+1] of one step, counted from 0."""
        return self.tokens[self.starts[step].unsqueeze(-1) + self.offsets]

    def of_run(self, step: int, run: int) -> Tensor:
        """[B, T+1] of one run."""
        return self.tokens[self.starts[step, run].unsqueeze(-1) + self.offsets]
