"""Graphs and what is left of a capture that failed, against a stand-in for torch's CUDA runtime."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from mue_check.training.capture import capture, capture_if_possible

CUDA = torch.device("cuda")


class Runtime:
    """What torch.cuda keeps of captures: the current stream, and whether the generator counts as capturing.

    As torch does, a failed capture leaves both as they were inside, and a capture that ends well resets the generator.
    """

    def __init__(self) -> None:
        self.stream, self.drawing = "main", "free"
        self.inside = False
        self.collections: list[bool] = []

    @contextmanager
    def graph(self, graph: object, pool: object = None) -> Iterator[None]:
        before, self.stream, self.drawing, self.inside = self.stream, "capturing", "capturing", True
        self.collections.append(gc.isenabled())
        try:
            yield
        finally:
            self.inside = False
        self.stream, self.drawing = before, "free"

    def set_stream(self, stream: str) -> None:
        self.stream = stream

    @contextmanager
    def on_stream(self, stream: str) -> Iterator[None]:
        yield


class Side:
    def __init__(self, device: torch.device) -> None: ...

    def wait_stream(self, other: object) -> None: ...


class Main(str):
    def wait_stream(self, other: object) -> None: ...


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    runtime, zeros = Runtime(), torch.zeros
    for name, value in {
        "graph": runtime.graph,
        "CUDAGraph": object,
        "graph_pool_handle": lambda: (0, 1),
        "Stream": Side,
        "stream": runtime.on_stream,
        "set_stream": runtime.set_stream,
        "current_stream": lambda device: Main(runtime.stream),
        "synchronize": lambda device: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: zeros(*shape))
    return runtime


class Step:
    """Counts itself, and raises inside every capture from the ``first`` on."""

    def __init__(self, runtime: Runtime, first: int) -> None:
        self.runtime, self.first, self.captures = runtime, first, 0
        self.counter = torch.zeros(1, device=torch.device("cpu"))

    def __call__(self) -> None:
        self.counter.add_(1)
        if self.runtime.inside:
            self.captures += 1
            if self.captures >= self.first:
                raise RuntimeError("operation not permitted when stream is capturing")

    @property
    def state(self) -> list[Tensor]:
        return [self.counter]


def test_a_failed_capture_leaves_the_device_usable(runtime: Runtime) -> None:
    step = Step(runtime, first=1)
    with pytest.raises(RuntimeError, match="not permitted"):
        capture(step, step.state, CUDA)
    assert (runtime.stream, runtime.drawing) == ("main", "free")
    assert gc.isenabled()


def test_where_user_code_cannot_be_captured_its_steps_are_called(runtime: Runtime) -> None:
    step, said = Step(runtime, first=1), []
    stepper = capture_if_possible(step, step.state, CUDA, said.append)
    assert (runtime.stream, runtime.drawing) == ("main", "free")
    assert len(said) == 1
    assert step.counter.item() == 0
    stepper.advance(3)
    assert step.counter.item() == 3


def test_nothing_is_collected_inside_a_capture(runtime: Runtime) -> None:
    class Node:
        def __init__(self) -> None:
            self.me = self

    dropped: list[bool] = []
    node = Node()
    node.__class__.__del__ = lambda self: dropped.append(runtime.inside)  # type: ignore[attr-defined]
    del node
    step = Step(runtime, first=10)
    capture(step, step.state, CUDA)
    assert runtime.collections == [False]
    assert dropped == [False]
    assert gc.isenabled()
