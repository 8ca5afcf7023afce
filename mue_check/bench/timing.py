"""Times of several calls in one process: interleaved rounds, so that whatever slows the machine slows all of them."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from mue_check.bench.way import Way

MOST_STEPS = 50
"""Of one round: a schedule has to last (``setup.STEPS``)."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, lowest and highest of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of numbers, one a round."""
        return cls(median=statistics.median(values), low=min(values), high=max(values))


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Round by round."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(call: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, all of its work done.

    On a CPU those of the process, which has one thread: what its neighbours take does not count.
    """
    now = time.perf_counter if device.type == "cuda" else time.process_time
    wait(device)
    start = now()
    call()
    wait(device)
    return now() - start


def time_calls(calls: Mapping[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, every other round backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls)[:: 1 if i % 2 == 0 else -1]:
            seconds[name].append(clock(calls[name], device))
    return seconds


def time_ways(ways: Mapping[str, Way], device: torch.device, rounds: int, aim: float) -> dict[str, list[float]]:
    """Seconds per run and step of each way in each round; each takes as many steps as last about ``aim`` seconds."""
    steps = {}
    for name, way in ways.items():
        once = min(clock(lambda way=way: way.advance(1), device) for _ in range(2))  # type: ignore[misc]
        steps[name] = min(MOST_STEPS, max(1, math.ceil(aim / once)))
    calls = {name: _advance(way, steps[name]) for name, way in ways.items()}
    seconds = time_calls(calls, device, rounds)
    return {name: [s / (steps[name] * ways[name].runs) for s in taken] for name, taken in seconds.items()}


def _advance(way: Way, steps: int) -> Callable[[], None]:
    return lambda: way.advance(steps)
