"""Which training examples the batches of each run take."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mue_check.models.parameters import stable_seed
from mue_check.spec import TrainSpec


def batch_order(available: int, train: TrainSpec, seed: int) -> Tensor:
    """[steps, B] int64 below ``available``: the training examples of this seed, the same for every model."""
    generator = torch.Generator().manual_seed(stable_seed(seed, "batches"))
    return torch.randint(0, available, (train.steps, train.batch), generator=generator)


def set_order(order: Tensor, available: int, train: TrainSpec, seeds: Sequence[int]) -> None:
    """Order the examples of each run by its seed: [steps, R, B], in place."""
    drawn = {seed: batch_order(available, train, seed) for seed in set(seeds)}
    order.copy_(torch.stack([drawn[seed] for seed in seeds], dim=1))
