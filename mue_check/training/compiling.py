"""torch.compile inside the step, where it is asked for: ``MUE_CHECK_COMPILE=inductor`` (or another of its backends).

It fuses what is pointwise, the optimizer's pass too, and takes up to a minute for each shape: worth it for long runs.
"""

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
VARIABLE = "MUE_CHECK_COMPILE"


def compiled_if_asked(function: Callable[P, T]) -> Callable[P, T]:
    """The function compiled for one shape, or itself."""
    backend = os.environ.get(VARIABLE, "")
    return torch.compile(function, backend=backend, dynamic=False) if backend else function
