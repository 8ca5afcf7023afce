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


def capture_if_possible(
    step: Callable[[], None], state: Sequence[Tensor], device: torch.device, say: Callable[[BaseException], None]
) -> Callable[[], None]:
    """``capture``, or the ``step`` itself where code that is not ours breaks it; ``say`` then gets the error."""
    saved = [tensor.clone() for tensor in state]
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
    try:
        return capture(step, state, device)
    except Exception as error:  # a capture that broke off raises whatever the code under it does
        if stream is not None:
            torch.cuda.set_stream(stream)  # the broken capture has left its own
            torch.cuda.synchronize(device)
        with torch.no_grad():
            for tensor, value in zip(state, saved, strict=True):
                tensor.copy_(value)
        say(error)
        return step
