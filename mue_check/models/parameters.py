"""Declared parameters (name, role, shape) and their seeded init, which is the same for every learning rate."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from mue_check.rules import Role

CPU = torch.device("cpu")
WORTH_THREADS = 2**19
"""Numbers whose drawing takes longer than the start of a few threads."""
Parameters = Mapping[str, Tensor]
"""Name -> [R, *shape]."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One tensor of a model, without its run axis. ``constant`` is the initial value of a tensor that is not drawn:
    gains, and the vectors of a user's router."""

    name: str
    role: Role
    shape: tuple[int, ...]
    constant: float | tuple[float, ...] | None = None


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from the text of the parts: the same on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def initial_value(parameter: Parameter, std: float, seeds: Sequence[int], device: torch.device = CPU) -> Tensor:
    """[R, *shape] float32: normal with ``std``, run r drawn from seeds[r] and the parameter's name alone.

    The CPU draws each seed once, on any device the same numbers; the device copies them to the runs.
    """
    if parameter.constant is not None:
        value = torch.tensor(parameter.constant, device=device)
        value = value.view(parameter.shape) if value.dim() else value
        return value.expand(len(seeds), *parameter.shape)

    def draw(seed: int) -> Tensor:
        return torch.randn(parameter.shape, generator=torch.Generator().manual_seed(stable_seed(seed, parameter.name)))

    distinct = list(dict.fromkeys(seeds))
    # on a CPU, other processes keep the other cores busy
    if device.type == "cpu" or math.prod(parameter.shape) < WORTH_THREADS:
        drawn_S = [draw(seed) for seed in distinct]
    else:
        with ThreadPoolExecutor() as threads:
            drawn_S = list(threads.map(draw, distinct))
    run_R = torch.tensor([distinct.index(seed) for seed in seeds], device=device)
    return (torch.stack(drawn_S).to(device) * std).index_select(0, run_R)
