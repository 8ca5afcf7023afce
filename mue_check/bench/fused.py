"""The stack's own ways: all runs as one, captured or eager, and the same code with one run, run after run."""

import torch
from torch import Tensor

from mue_check.bench.setup import Setup
from mue_check.training import Stack, training_step


class Fused:
    """All runs in one stack. ``captured`` replays the step's CUDA graph; on a CPU both are one function."""

    def __init__(self, setup: Setup, *, captured: bool) -> None:
        self.runs, self.captured, self._done = setup.case.runs, captured, 0
        self.stack = setup.stack(range(self.runs))

    def advance(self, steps: int) -> None:
        """Train."""
        self._done += steps
        if self.captured:
            self.stack.advance(steps)
        else:
            for _ in range(steps):
                training_step(self.stack)

    def losses(self) -> Tensor:
        """The stack's log."""
        return self.stack.log[: self._done]


class Alone:
    """One stack per run, eager, run after run."""

    def __init__(self, setup: Setup, runs: int) -> None:
        self.runs, self._done = runs, 0
        self.stacks: list[Stack] = [setup.stack([run]) for run in range(runs)]

    def advance(self, steps: int) -> None:
        """Train."""
        self._done += steps
        for stack in self.stacks:
            for _ in range(steps):
                training_step(stack)

    def losses(self) -> Tensor:
        """The stacks' logs, side by side."""
        return torch.cat([stack.log[: self._done] for stack in self.stacks], dim=1)
