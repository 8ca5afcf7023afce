"""Look into a forward pass: what its parts return, and its torch calls, whose results can be replaced.

What a router returns says little about how it was computed, but its calls of torch do: the first softmax, sigmoid or
top-k receives the logits, whether they come from a norm, two layers or a temperature, and whether or not they are
returned.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mue_check.errors import ClaimError
from mue_check.plain import plain

_CHOICES = ("topk", "sort", "argsort", "argmax", "max", "kthvalue")
_FUNCTIONS = ("softmax", "log_softmax", "gumbel_softmax", "sigmoid", "sigmoid_", "special_expit", "logsigmoid")
_GATES = frozenset((*_CHOICES, *_FUNCTIONS, "softplus", "exp", "exp_"))
"""The functions that receive logits first: a gate function, or the choice itself."""
_CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)
_SHORT = frozenset({torch.float32, torch.float16, torch.bfloat16})
OnGate = Callable[[int, Tensor], None]
"""Receives the number of a call of a gate function and the call's first argument."""
OnResult = Callable[[int, Any], Any]
"""Receives the number of a torch call and its result; returns the result that the code will see."""


class _InForward(TorchFunctionMode):
    """A mode that is active in the forward passes of a module alone."""

    active = False

    @contextmanager
    def within(self, module: nn.Module) -> Iterator[None]:
        """Watch the forward passes of ``module``; nothing shows inside TorchScript."""
        if isinstance(module, torch.jit.ScriptModule):
            yield
            return
        handles = [module.register_forward_pre_hook(self.start), module.register_forward_hook(self.stop)]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def start(self, *_: object) -> None:
        self.active = True

    def stop(self, *_: object) -> None:
        self.active = False


class _Interceptor(_InForward):
    """Numbers all torch calls while ``active``, and separately those of gate functions, whose count fits any size."""

    def __init__(self, on_gate: OnGate, on_result: OnResult) -> None:
        super().__init__()
        self.on_gate, self.on_result, self.gates, self.calls = on_gate, on_result, 0, 0

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self.active:
            return func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _GATES and args and isinstance(args[0], Tensor):
            with torch._C.DisableTorchFunction():  # what looks at a call is no call of the code
                self.on_gate(self.gates, args[0])
            self.gates += 1
        self.calls += 1
        number, result = self.calls, func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            return self.on_result(number, result)

    def start(self, *_: object) -> None:
        self.active, self.gates, self.calls = True, 0, 0


class _Float64(TorchFunctionMode):
    """Replaces every shorter floating dtype in the code by float64."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        func = torch.Tensor.double if func in _CASTS else func
        return func(*map(_widened, args), **{key: _widened(value) for key, value in (kwargs or {}).items()})


class _Noiseless(_InForward):
    """Replaces random numbers by their mean, and dropout by nothing."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "") if self.active else ""
        if name == "dropout":
            return args[0] if args else kwargs["input"]
        if name == "gumbel_softmax" and not kwargs.get("hard"):
            return torch.softmax(args[0] / kwargs.get("tau", 1.0), kwargs.get("dim", -1))
        drawn = func(*args, **kwargs)
        if name in ("randn", "randn_like"):
            return torch.zeros_like(drawn)
        if name == "normal":
            return torch.zeros_like(drawn) + kwargs.get("mean", args[0] if args else 0.0)
        if name == "normal_":
            return drawn.fill_(kwargs.get("mean", args[1] if len(args) > 1 else 0.0))
        if name in ("rand", "rand_like"):
            return torch.full_like(drawn, 0.5)
        if name == "uniform_":
            low = kwargs.get("from", args[1] if len(args) > 1 else 0.0)
            high = kwargs.get("to", args[2] if len(args) > 2 else 1.0)
            return drawn.fill_((low + high) / 2)
        return drawn.fill_(1.0) if name == "exponential_" else drawn


def without_noise(module: nn.Module) -> AbstractContextManager[None]:
    """A context in which random functions that the module calls return their mean: its noise is off."""
    return _Noiseless().within(module)


def _widened(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _SHORT else value


@contextmanager
def computing_in(dtype: torch.dtype) -> Iterator[None]:
    """In a float64 module, do everything in float64: explicit casts would mix with weights of another dtype.

    Compiled code runs eagerly: each check builds its own module, and each would be compiled.
    """
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if dtype == torch.float64:
            torch.set_default_dtype(torch.float64)
            stack.callback(torch.set_default_dtype, before)
            stack.enter_context(_Float64())
        yield


@contextmanager
def intercept_calls(
    module: nn.Module, *, on_gate: OnGate | None = None, on_result: OnResult | None = None
) -> Iterator[None]:
    """Call ``on_gate`` and ``on_result`` in every forward pass of ``module``."""
    mode = _Interceptor(on_gate or (lambda number, given: None), on_result or (lambda number, result: result))
    with mode.within(module):
        yield


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
