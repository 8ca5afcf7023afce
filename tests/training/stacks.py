"""Small stacks for tests of training, and all that one of their runs is."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mue_check import Dense, HyperParameters, ModelSpec, Scenario, TrainSpec, get_rule, parse_scenario
from mue_check.data import Corpus, Data
from mue_check.spec import DiffusionSpec
from mue_check.training import Stack
from tests.images import made_up_images

LRS, SEEDS = (2.0**-7, 2.0**-5), (0, 1)
BASE = HyperParameters(lr=1.0, init_std=0.1, weight_decay=0.1)

STEERED = [
    "16e2a,h=8,load=zipf:1",
    "16e4a2g1s,h=8,router=softmax_norm,load=zipf:0.5",
    "16e1a,h=8,router=switch,load=zipf:0.5",
    "12e2a1s,h=8,router=deepseek_v3,load=zipf:1",
]
BLIND = "16e2a,h=8,router=content_blind,load=zipf:1"


def make_stack(
    corpus: Corpus,
    text: str,
    train: TrainSpec,
    *,
    width: int = 32,
    depth: int = 2,
    lrs: Sequence[float] = LRS,
    seeds: Sequence[int] = SEEDS,
    base: HyperParameters = BASE,
    rule: str = "complete_mue",
    **options: Any,
) -> Stack:
    """The model of ``text``, by default dense of that width and depth. A diffusion model gets made-up images."""
    reference = Scenario.of(ModelSpec(width=width, depth=depth, feed_forward=Dense(hidden=width)), train)
    target = parse_scenario(text, default=reference)
    data: Data = made_up_images() if isinstance(target.model, DiffusionSpec) else corpus
    prescription = get_rule(rule).prescribe(reference, target)
    device = torch.device("cpu")
    return Stack(target.model, prescription, base, train, data, lrs=lrs, seeds=seeds, device=device, **options)


def of_run(stack: Stack, run: int) -> list[Tensor]:
    """Losses, parameters, and what balances or steers the routers of one run."""
    routers = stack.routers
    balance = () if routers is None else (routers.bias_LRE, *(routers.steering.buffers() if routers.steering else ()))
    parameters = [value[run] for value in stack.state.parameters.values()]
    return [stack.log[:, run], stack.evaluate()[run], *parameters, *(b[:, run] for b in balance if b is not None)]
