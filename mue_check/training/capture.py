"""Run a step many times: one replayed CUDA graph on a GPU, the same function called plainly on a CPU."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARMUP_STEPS = 3
"""Steps on a side stream before capture, so that lazy initialization stays out of the graph (torch.cuda.graphs)."""


def capture(step: Callable[[], None], state: Sequence[Tensor], device: torch.device) -> Callable[[], None]:
    """A callable that does one ``step``. On CUDA warms up, captures and restores every tensor in ``state``.

    ``state`` must hold every tensor that the step changes in place.
    """
    if device.type != "cuda":
        return step
    saved = [tensor.clone() for tensor in state]

    @torch.no_grad()
    def restore() -> None:
        for tensor, value in zip(state, saved, strict=True):
            tensor.copy_(value)

    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARMUP_STEPS):
            step()
            restore()  # every time: a short schedule has no fourth step
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    restore()
    return graph.replay
