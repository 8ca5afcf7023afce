"""torch.compile inside the step, if ``MUE_CHECK_COMPILE=inductor`` (or another backend) is set.

It fuses pointwise operations, also those of the optimizer, and takes up to a minute for each shape: worth it for long
runs.
"""

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
VARIABLE = "MUE_CHECK_COMPILE"


def compiled_if_asked(function: Callable[P, T]) -> Callable[P, T]:
    """The function, compiled for one shape if the variable is set."""
    backend = os.environ.get(VARIABLE, "")
    return torch.compile(function, backend=backend, dynamic=False) if backend else function
