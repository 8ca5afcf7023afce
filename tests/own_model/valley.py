"""A model that costs nothing and whose best learning rate is known: a step writes the rate into the weights."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

BASE, BEST, START = 32, 2.0**-3.4, 5.0


class Bowl(nn.Module):
    """Its loss is a parabola in log2 of the rate at which it was trained, and lower where it is wider."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, noise: Tensor) -> Tensor:
        rate = float(self.weight.mean())
        if rate == 0:
            return self.weight.sum() + START
        return 2 - 0.1 * math.log2(self.width / BASE) + 0.1 * (math.log2(rate / BEST) - noise) ** 2


class Valley:
    """The optimum is near BEST at the base, and goes with (width / base) to the power of ``exponent``."""

    def __init__(self, exponent: float = 0.0) -> None:
        self.exponent = exponent

    def model(self, width: int) -> nn.Module:
        return Bowl(width)

    def optimizer(self, model: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr * (BASE / model.width) ** self.exponent)

    def step(self, model: Any, optimizer: torch.optim.Optimizer, batch: Tensor) -> None:
        with torch.no_grad():
            model.weight.fill_(optimizer.param_groups[0]["lr"])

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        loss: Tensor = model(batch)
        return loss

    def batches(self, seed: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        offset = 0.1 * torch.randn((), generator=generator)
        while True:
            yield offset + 0.02 * torch.randn((), generator=generator)


right, drifts = Valley(), Valley(exponent=1.0)
