"""A world whose sigma_0 is known: gradient noise by a power of the tokens, and an optimum that follows it."""

import math
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mue_check.axes import Ladder
from mue_check.data import Corpus
from mue_check.loads import parse_load
from mue_check.measure import MEASUREMENTS
from mue_check.records import Cell, Columns
from mue_check.sigma0.ladders import LAB, LABORATORIES, SIGMA0, Laboratory, sigma0_ladders
from mue_check.spec import Experts
from mue_check.study.folder import Study
from mue_check.tiers import Tier
from tests import studies

KAPPA = -0.7
GAMMA = {"content_blind": 0.5}
LEARNED = 0.1
"""Gamma of every router that is not in GAMMA."""
KINDS = ("up", "down")
SHARED = {"attention_qkv": 2.0, "router": 1.0, "token_embedding": 4.0, "unembedding": 1.0}
COLUMNS = (
    *("seed", "value", "step", "load", "layer", "kind", "expert", "tokens", "numbers"),
    *("noise", "signal", "adam_noise", "adam_signal"),
)


SMALL = replace(
    LABORATORIES["lab"],
    loads=("zipf:0.5", "zipf:1", "zipf:1.5"),
    blind_loads=("zipf:1",),
    probed_loads=("zipf:1",),
    heldout_loads=("zipf:0.75", "zipf:1.25"),
    noise_loads=("zipf:1",),
    noise_mixtures=("16e2a,h=16", "8e2a,h=16", "16e2a,h=16,router=content_blind"),
    activated=(4,),
    noise_seeds=4,
    max_noise_seeds=4,
    drift_seeds=4,
)
"""The laboratory's ladders with few rungs, and few seeds."""


def tier_of(patch: pytest.MonkeyPatch, lab: Laboratory) -> Tier:
    """A tier of its own for that laboratory, on one corpus."""
    patch.setitem(LABORATORIES, "small", lab)
    return replace(LAB, name="small", corpora=("markov",), axes={SIGMA0: partial(sigma0_ladders, lab)})


def share(experts: Experts, load: str) -> np.ndarray:
    return np.array(parse_load(load, experts=experts.total, groups=experts.groups))


def level(cell: Cell) -> float:
    """log2 sigma_0 up to a constant: gamma of log2 of its tokens, each expert counted once."""
    experts = cell.model.feed_forward
    tokens = cell.train.tokens_per_step
    if not isinstance(experts, Experts):
        return -LEARNED * math.log2(tokens)
    p = share(experts, experts.load or "uniform")
    gamma = GAMMA.get(experts.router, LEARNED)
    return float(-gamma * np.log2(p * experts.activated * tokens).mean())


def gradient_noise(cell: Cell, corpus: Corpus) -> Columns:
    """Signal 1 and noise by the power of the tokens, each seed a little off; sigma of the other parts is in SHARED."""
    experts, batch = cell.model.feed_forward, float(cell.train.tokens_per_step)
    rows: list[tuple[int | float | str, ...]] = []
    for seed in cell.seeds:
        rng = np.random.default_rng([seed, len(str(experts))])
        for step, load in product(cell.steps, cell.loads or ("",)):
            if isinstance(experts, Experts):
                tokens = share(experts, load or experts.load) * experts.activated * batch
                gamma, name = GAMMA.get(experts.router, LEARNED), "expert"
            else:
                tokens, gamma, name = np.array([batch]), LEARNED, "ffn"
            where = (seed, cell.values[0], step, load)
            for kind, (expert, n) in product(KINDS, enumerate(tokens)):
                noise = 16 * n ** (-2 * gamma) * 2 ** (0.02 * rng.normal())
                rows.append((*where, 0, f"{name}_{kind}", expert, n, 512, noise, 1.0, noise, 1.0))
            for kind, sigma in SHARED.items():
                rows.append((*where, 0, kind, -1, batch, 512, sigma**2, 1.0, sigma**2, 1.0))
    return {name: list(column) for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)}


ASTRAY = "zipf:0.75"
"""A held-out load whose optimum does not follow; nor does that of the causal probe."""


def loss_grid(cell: Cell, corpus: Corpus) -> Columns:
    """A parabola whose optimum follows sigma_0, but three octaves away where it is astray."""
    columns: dict[str, list[float | int | str]] = {"seed": [], "value": [], "initial": [], "loss": []}
    astray = 3.0 if cell.load_scaling or ASTRAY in str(cell.model) else 0.0
    optimum = -6.5 + KAPPA * (level(cell) - level_of_even()) + astray
    for seed in cell.seeds:
        spread = 0.03 * np.random.default_rng([seed, len(str(cell.model))]).normal()
        for lr in cell.values:
            loss = 2 + 0.03 * (math.log2(lr) - optimum - spread) ** 2
            for column, value in zip(columns.values(), (seed, lr, 1e6, loss), strict=True):
                column.append(value)
    return columns


def level_of_even() -> float:
    """Of the laboratory's usual mixture under an even load at the task's own batch: only a constant."""
    return -LEARNED * math.log2(2 / 16 * 256)


def fill(patch: pytest.MonkeyPatch) -> None:
    """Measure this world in place of trainings."""
    patch.setitem(MEASUREMENTS, "gradient_noise", replace(MEASUREMENTS["gradient_noise"], measure=gradient_noise))
    patch.setitem(MEASUREMENTS, "loss_grid", replace(MEASUREMENTS["loss_grid"], measure=loss_grid))


def study_at(root: Path, tier: Tier) -> Study:
    """A study folder, ready to be asked."""
    return studies.study_at(root, tier=tier, tolerance=tier.tolerance, command="pytest x::y")


def ladder_of(study: Study, name: str) -> Ladder:
    """The laboratory's ladder of that name, or the one of that router."""
    uses = ("drift", "noise")
    ladders = [ladder for use in uses for ladder in study.tier.ladders("sigma0", use)]
    return next(x for x in ladders if name in (x.name, x.uses == {"noise"} and x.steered_router))
