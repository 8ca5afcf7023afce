"""The ways in which a case is timed, and the check that they do the same work."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from mue_check.bench.cases import BenchCase
from mue_check.bench.setup import BenchSetup
from mue_check.bench.timing import Way
from mue_check.bench.torch_ways import PlainLoop, Vmapped
from mue_check.precision import Precision
from mue_check.spec import Experts
from mue_check.training import training_step
from mue_check.training.compiling import VARIABLE

COMPARED = 6
"""Steps after which losses are compared. By then the learning rate has risen, and a wrong one shows."""
SEQUENTIAL_RUNS = 2
"""One run after another costs the same for each run, so two of them stand for all R."""
TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 5e-2}
"""Of losses in nats per token, absolute and relative."""
BACKEND = "inductor"


class Disagreement(Exception):
    """Two ways do not do the same work, so that comparing their times would be meaningless."""


class Stacks:
    """Our own stacks, one after another: all runs in one, or one run in each.

    ``captured`` replays the step's CUDA graph; ``backend`` compiles loss and optimizer first.
    """

    def __init__(self, setup: BenchSetup, seeds: Sequence[Sequence[int]], *, captured: bool, backend: str = "") -> None:
        self.runs, self.captured, self._done = sum(map(len, seeds)), captured, 0
        with _compiling(backend):
            self.stacks = [setup.stack(group) for group in seeds]

    def advance(self, steps: int) -> None:
        """Train."""
        self._done += steps
        for stack in self.stacks:
            if self.captured:
                stack.advance(steps)
            else:
                for _ in range(steps):
                    training_step(stack)

    def losses(self) -> Tensor:
        """The stacks' logs, side by side."""
        return torch.cat([stack.log[: self._done] for stack in self.stacks], dim=1)


@contextmanager
def _compiling(backend: str) -> Iterator[None]:
    """Stacks made inside compile with this backend; without one, as the environment says."""
    before = os.environ.get(VARIABLE)
    if backend:
        torch.compiler.reset()  # torch stops compiling a function after a few shapes
        os.environ[VARIABLE] = backend
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        os.environ.update({} if before is None else {VARIABLE: before})


def builders(setup: BenchSetup) -> dict[str, Callable[[], Way]]:
    """Functions that build each way that the device and the model have."""
    runs = range(setup.case.runs)
    few = min(setup.case.runs, SEQUENTIAL_RUNS)
    ways: dict[str, Callable[[], Way]] = {}
    if setup.device.type == "cuda":
        ways["captured"] = partial(Stacks, setup, [runs], captured=True)
        ways["compiled"] = partial(Stacks, setup, [runs], captured=True, backend=BACKEND)
    ways["eager"] = partial(Stacks, setup, [runs], captured=False)
    ways["alone"] = partial(Stacks, setup, [[run] for run in range(few)], captured=False)
    ways["plain"] = partial(PlainLoop, setup, few, batched=False)
    if isinstance(setup.case.spec.feed_forward, Experts):
        ways["plain batched"] = partial(PlainLoop, setup, few, batched=True)
    ways["vmap"] = partial(Vmapped, setup)
    return ways


def require_agreement(name: str, losses: Tensor, expected: Tensor, case: BenchCase) -> None:
    """Disagreement unless [COMPARED, runs] losses are those expected of the first runs, [COMPARED, R]."""
    expected, tolerance = expected[:, : losses.shape[1]], TOLERANCE[case.precision]
    if not losses.isfinite().all():
        raise Disagreement(f"{name} gives losses that are not finite")
    if not torch.allclose(losses, expected, rtol=tolerance, atol=tolerance):
        worst = (losses - expected).abs().max().item()
        raise Disagreement(
            f"{name} does not train like the fused runs: losses of the first {COMPARED} steps "
            f"differ by up to {worst:.3g} nats per token (tolerance {tolerance:g})"
        )
