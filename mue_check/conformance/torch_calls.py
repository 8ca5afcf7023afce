"""Inside a forward pass: the logits that the gate's function is given, others in their place, and all of it in float64.

What a router returns says little of how it came about. Its own calls of torch do: the first softmax, sigmoid or choice
is given the logits, whatever made them (a norm before the gate, two layers, a temperature) and whether or not they are
returned.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CHOICES = ("topk", "sort", "argsort", "argmax", "max", "kthvalue")
_FUNCTIONS = ("softmax", "log_softmax", "gumbel_softmax", "sigmoid", "sigmoid_", "special_expit", "logsigmoid")
_GATES = frozenset((*_CHOICES, *_FUNCTIONS, "softplus", "exp", "exp_"))
"""What logits are first given to: a gate's function, or the choice itself."""
_CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)
_SHORT = frozenset({torch.float32, torch.float16, torch.bfloat16})
Meet = Callable[[int, Tensor], None]
"""Is given the number of a call of a gate's function and its first argument."""
Made = Callable[[int, Any], Any]
"""Is given the number of a call of torch, of any, and its result, and gives the result that the code shall see."""


class _Calls(TorchFunctionMode):
    """Numbers the calls of torch, and those of a gate's function, while ``open``: the latter depend on no size."""

    def __init__(self, meet: Meet, made: Made) -> None:
        super().__init__()
        self.meet, self.made, self.open, self.gates, self.calls = meet, made, False, 0, 0

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self.open:
            return func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _GATES and args and isinstance(args[0], Tensor):
            self.meet(self.gates, args[0])
            self.gates += 1
        self.calls += 1
        return self.made(self.calls, func(*args, **(kwargs or {})))


class _Float64(TorchFunctionMode):
    """Reads every shorter floating type that is written into the code as float64."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        func = torch.Tensor.double if func in _CASTS else func
        return func(*map(_widened, args), **{key: _widened(value) for key, value in (kwargs or {}).items()})


def _widened(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _SHORT else value


@contextlib.contextmanager
def exactly(dtype: torch.dtype) -> Iterator[None]:
    """In a float64 module everything is float64: casts by hand would else meet weights of another type.

    What is compiled runs as it is written: each check makes a module of its own, and each would be compiled.
    """
    before = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if dtype == torch.float64:
            torch.set_default_dtype(torch.float64)
            stack.callback(torch.set_default_dtype, before)
            stack.enter_context(_Float64())
        yield


@contextlib.contextmanager
def calls_of(module: nn.Module, *, meet: Meet | None = None, made: Made | None = None) -> Iterator[None]:
    """Meet each call of a gate's function, and what each call of torch made, in every forward pass of ``module``.

    Inside a TorchScript module there is nothing to meet.
    """
    if isinstance(module, torch.jit.ScriptModule):
        yield
        return
    mode = _Calls(meet or (lambda number, given: None), made or (lambda number, result: result))

    def opened(*_: object) -> None:
        mode.open, mode.gates, mode.calls = True, 0, 0

    def closed(*_: object) -> None:
        mode.open = False

    handles = [module.register_forward_pre_hook(opened), module.register_forward_hook(closed)]
    try:
        with mode:
            yield
    finally:
        for handle in handles:
            handle.remove()
