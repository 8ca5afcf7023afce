"""Repeat a step: replay a CUDA graph on a GPU, or call the function on a CPU."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from mue_check.training.out_of_memory import is_out_of_memory


class Stepper:
    """Repeats a step by calling it: on a CPU, or if it cannot be captured."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = step

    def advance(self, steps: int) -> None:
        """Do that many steps."""
        for _ in range(steps):
            self.step()


class Captured(Stepper):
    """Repeats a step by a CUDA graph of it.

    ``state`` must hold every tensor that the step changes in place: it is restored after the warm-up. The capture
    itself runs nothing.
    """

    def __init__(self, step: Callable[[], None], state: Sequence[Tensor], device: torch.device) -> None:
        super().__init__(step)
        self.device = device
        self._warm_up(state)
        self._graph = torch.cuda.CUDAGraph()
        with _no_collection(), _recovery(device), torch.cuda.graph(self._graph):
            step()

    def advance(self, steps: int) -> None:
        """Replay the graph for that many steps."""
        for _ in range(steps):
            self._graph.replay()

    def _warm_up(self, state: Sequence[Tensor]) -> None:
        """One step on a side stream, so that no lazy initialization happens inside the capture (torch.cuda.graphs)."""
        saved = [tensor.clone() for tensor in state]
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            self.step()
            restore(state, saved)
        torch.cuda.current_stream(self.device).wait_stream(side)


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
