"""The best that the device can do, in a large matrix product and a copy, and how much of it a training step needs."""

import math
from collections.abc import Sequence
from functools import partial

import torch

from mue_check.bench.cases import BenchCase
from mue_check.bench.results import Ceilings
from mue_check.bench.timing import clock
from mue_check.data.markov import VOCAB
from mue_check.flops import language_ends, training_flop
from mue_check.models.parameters import Parameter
from mue_check.precision import Precision
from mue_check.spec import Experts
from mue_check.training.products import set_products

REPEATS = 8
_STATE_PASSES = 8
"""Weights, gradient and both moments, each read and written once: the least memory traffic of an AdamW step."""


def measure_ceilings(device: torch.device, precisions: Sequence[Precision], size: int, copy_mib: int) -> Ceilings:
    """Best of REPEATS: the product of two square matrices in each precision, and a copy of ``copy_mib`` MiB."""
    matmul: dict[str, float] = {}
    for precision in precisions:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        set_products(precision, device)
        matmul[precision] = 2 * size**3 / _best(partial(torch.mm, a, b), device)
    source = torch.zeros(copy_mib * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() / _best(partial(target.copy_, source), device)
    return Ceilings(flops_per_second=matmul, bytes_per_second=copied)


def _best(call: "partial[torch.Tensor]", device: torch.device) -> float:
    for _ in range(2):
        call()
    return min(clock(call, device) for _ in range(REPEATS))


def needed_flops(case: BenchCase) -> float:
    """FLOP of one step of one run: products forward and twice backward, experts only on their routed tokens."""
    ffn = case.spec.feed_forward
    met = ffn.activated if isinstance(ffn, Experts) else 0
    ends = language_ends(case.spec, context=case.context, vocab=VOCAB)
    return case.tokens * training_flop(case.spec, ends, context=case.context, met=met)


def needed_bytes(parameters: Sequence[Parameter]) -> float:
    """The least memory traffic of one step of one run: its float32 state. Activations are not counted."""
    return 4.0 * _STATE_PASSES * sum(math.prod(p.shape) for p in parameters)
