"""Time several calls in one process, in interleaved rounds, so that other load on the machine slows all of them."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

MOST_STEPS = 50
"""Steps of one round: the schedule has to last for all rounds (``setup.STEPS``)."""


class Way(Protocol):
    """A way to train ``runs`` runs, of seeds 0, 1, ..."""

    @property
    def runs(self) -> int:
        """How many runs."""
        ...

    def advance(self, steps: int) -> None:
        """Train each of them for that many more steps."""
        ...

    def losses(self) -> Tensor:
        """[steps so far, runs]: training loss, nats per token."""
        ...


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, lowest and highest over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """From one number per round."""
        return cls(median=statistics.median(values), low=min(values), high=max(values))


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Round by round."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def wait(device: torch.device) -> None:
    """Until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(call: Callable[[], object], device: torch.device) -> float:
    """Seconds until all work of a call is done.

    On a CPU these are CPU seconds of this process, which has one thread: other processes do not count.
    """
    now = time.perf_counter if device.type == "cuda" else time.process_time
    wait(device)
    start = now()
    call()
    wait(device)
    return now() - start


def time_calls(calls: Mapping[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round; every other round runs in reverse order."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls)[:: 1 if i % 2 == 0 else -1]:
            seconds[name].append(clock(calls[name], device))
    return seconds


def time_ways(ways: Mapping[str, Way], device: torch.device, rounds: int, aim: float) -> dict[str, list[float]]:
    """Seconds per run and step of each way in each round; each does as many steps as last about ``aim`` seconds."""
    steps: dict[str, int] = {}
    for name, way in ways.items():
        once = min(clock(partial(way.advance, 1), device) for _ in range(2))
        steps[name] = min(MOST_STEPS, max(1, math.ceil(aim / once)))
    seconds = time_calls({name: partial(way.advance, steps[name]) for name, way in ways.items()}, device, rounds)
    return {name: [s / (steps[name] * ways[name].runs) for s in taken] for name, taken in seconds.items()}
