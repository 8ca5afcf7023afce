"""Repeat a step: replay CUDA graphs on a GPU, or call the function on a CPU."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from mue_check.training.out_of_memory import is_out_of_memory

WARMUP_STEPS = 3
"""Steps on a side stream before the capture, so that no lazy initialization happens inside it (torch.cuda.graphs)."""
STEPS_PER_GRAPH = 8
"""Steps in the larger of two graphs: the host's cost of a replay does not depend on the graph."""


class Stepper:
    """Repeats a step by calling it: on a CPU, or if it cannot be captured."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = step

    def advance(self, steps: int) -> None:
        """Do that many steps."""
        for _ in range(steps):
            self.step()


class Captured(Stepper):
    """Repeats a step by two CUDA graphs, of one step and of several, in one memory pool.

    ``state`` must hold every tensor that the step changes in place: it is restored after the warm-up. The capture
    itself runs nothing. The graph of several steps is captured when it is first needed.
    """

    def __init__(self, step: Callable[[], None], state: Sequence[Tensor], device: torch.device) -> None:
        super().__init__(step)
        self.device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._warm_up(state)
        self._one = self._graph(1)

    def advance(self, steps: int) -> None:
        """Replay graphs for that many steps."""
        many, rest = divmod(steps, STEPS_PER_GRAPH)
        for _ in range(many):
            self.graph_of_many.replay()
        for _ in range(rest):
            self._one.replay()

    @cached_property
    def graph_of_many(self) -> torch.cuda.CUDAGraph:
        """STEPS_PER_GRAPH steps in one graph."""
        return self._graph(STEPS_PER_GRAPH)

    def _warm_up(self, state: Sequence[Tensor]) -> None:
        saved = [tensor.clone() for tensor in state]
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARMUP_STEPS):
                self.step()
                restore(state, saved)  # after each: a short schedule has no fourth step
        torch.cuda.current_stream(self.device).wait_stream(side)

    def _graph(self, steps: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with _no_collection(), _recovery(self.device), torch.cuda.graph(graph, pool=self._pool):
            for _ in range(steps):
                self.step()
        return graph


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage now and not inside: freeing a tensor or a graph may break a capture."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _recovery(device: torch.device) -> Iterator[None]:
    """Leave the device usable after a capture that failed.

    torch then keeps the capture's stream, and its random generator still counts as capturing: every later draw would
    raise. A capture that succeeds resets the generator.
    """
    stream = torch.cuda.current_stream(device)
    try:
        yield
    except BaseException:
        torch.cuda.set_stream(stream)
        torch.cuda.synchronize(device)
        scratch = torch.zeros(1, device=device)
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            scratch.zero_()
        raise


@torch.no_grad()
def restore(state: Sequence[Tensor], saved: Sequence[Tensor]) -> None:
    """Copy saved values back."""
    for tensor, value in zip(state, saved, strict=True):
        tensor.copy_(value)


def capture(step: Callable[[], None], state: Sequence[Tensor], device: torch.device) -> Stepper:
    """The step captured on CUDA, or called elsewhere."""
    return Captured(step, state, device) if device.type == "cuda" else Stepper(step)


def capture_if_possible(
    step: Callable[[], None], state: Sequence[Tensor], device: torch.device, say: Callable[[BaseException], None]
) -> Stepper:
    """``capture``, or a plain loop where user code makes the capture fail; ``say`` then gets the error."""
    saved = [tensor.clone() for tensor in state]
    try:
        return capture(step, state, device)
    except Exception as error:  # user code may raise anything
        if is_out_of_memory(error):
            raise
        restore(state, saved)
        say(error)
        return Stepper(step)
