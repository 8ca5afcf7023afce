"""Forward hooks: what the parts of a module receive and return, and the one output tensor of a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

from torch import Tensor, nn

from mue_check.errors import ClaimError
from mue_check.plain import plain


class ModuleCall(NamedTuple):
    """One call of a submodule."""

    name: str
    inputs: tuple[Any, ...]
    output: Any


@contextmanager
def record_calls(module: nn.Module, wanted: Callable[[nn.Module], bool]) -> Iterator[list[ModuleCall]]:
    """Collect the calls of the wanted submodules, in the order in which they end."""
    calls: list[ModuleCall] = []

    def record(name: str) -> Callable[..., None]:
        return lambda _, inputs, output: calls.append(ModuleCall(name, inputs, output))

    handles = [m.register_forward_hook(record(name)) for name, m in module.named_modules() if wanted(m)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def block_output(returned: object, shape: tuple[int, ...]) -> Tensor:
    """The one tensor with the input's shape in what a block returns."""
    parts = list(returned.values()) if isinstance(returned, dict) else returned
    leaves = parts if isinstance(parts, tuple | list) else [parts]
    floats = [t for t in (plain(t) for t in leaves if isinstance(t, Tensor)) if t.is_floating_point()]
    outputs = [t for t in floats if tuple(t.shape) == shape]
    if not outputs:  # Llama 4's block returns [batch * time, d] and leaves the reshape to its layer
        outputs = [t.reshape(shape) for t in floats if tuple(t.shape) == (prod(shape[:-1]), shape[-1])]
    if len(outputs) != 1:
        got = ", ".join(f"{list(t.shape)}" if isinstance(t, Tensor) else type(t).__name__ for t in leaves)
        raise ClaimError(f"the block returns ({got}); exactly one tensor of the input's shape {list(shape)} is needed")
    return outputs[0]
