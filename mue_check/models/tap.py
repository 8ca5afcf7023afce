"""Taps: how a forward pass shows its activations."""

from collections.abc import Callable

from torch import Tensor

Tap = Callable[[str, Tensor], None]
"""Called with the name of an activation and its value [R, M, ...]."""


def no_tap(name: str, value: Tensor) -> None:
    """The tap of a plain forward pass."""
