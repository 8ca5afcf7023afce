"""Tensors that compute as torch does: a subclass may answer any question about its numbers as it likes."""

import torch
from torch import Tensor, nn

from mue_check.errors import UnreadableError, with_article

_TORCHS = ("torch.nn.parameter", "torch._subclasses")
"""Where torch defines parameters, lazy ones, and the fake tensors of its own tracing."""
_HARMLESS = {"__doc__", "__dict__", "__module__", "__new__", "__init__", "__init_subclass__", "__repr__", "__weakref__"}
"""What a subclass may define without changing what torch computes."""


def plain(tensor: Tensor) -> Tensor:
    """The same numbers, with their gradient, as a torch.Tensor. UnreadableError for one with a dispatch of its own."""
    kind = type(tensor)
    if kind in (Tensor, nn.Parameter) or kind.__module__.startswith(_TORCHS):
        return tensor
    if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        raise UnreadableError(f"{with_article(kind)} computes in its own way: only tensors of torch.Tensor can be read")
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.as_subclass(tensor, Tensor)


def require_plain(module: nn.Module) -> None:
    """UnreadableError if a parameter or buffer has a class that overrides what torch.Tensor does."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        kind = type(tensor)
        for base in kind.__mro__:
            if base in (nn.Parameter, nn.Buffer, Tensor) or base.__module__.startswith(_TORCHS):
                break
            changed = [n for n in vars(base) if hasattr(Tensor, n) and n not in _HARMLESS]
            if changed:
                raise UnreadableError(
                    f"{name} is {with_article(kind)} with its own {changed[0]}: only what torch.Tensor does can be read"
                )


def unregistered(module: nn.Module, *results: Tensor) -> list[Tensor]:
    """The trained tensors on which the results depend and that are no parameters of the module.

    None of a module that is sharded: its forward pass works on tensors that it makes for that.
    """
    known, found = set(map(id, module.parameters())), list[Tensor]()
    if any(hasattr(p, "full_tensor") for p in module.parameters()):
        return found
    pending, seen = [r.grad_fn for r in results], set[object]()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor) and id(leaf) not in known:
            found.append(leaf)
        pending += [following for following, _ in node.next_functions]
    return found
